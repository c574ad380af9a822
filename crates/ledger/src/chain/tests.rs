//! Chains link, and nothing else does.

use proptest::prelude::*;

use super::*;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// A record by hand: header, then `body` as it is.
fn record(id: &ChainId, seq: u64, prev: &Hash, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x08, 1, 0x12, 32];
    out.extend(id.0);
    if seq != 0 {
        out.push(0x18);
        varint(seq, &mut out);
    }
    out.extend([0x22, 32]);
    out.extend(prev);
    out.extend(body);
    out
}

fn genesis() -> (ChainId, Vec<u8>) {
    let id = chain_id("host-a", &[1; 16], &[2; 32], &[3; 16]);
    let mut body = vec![0x0a, 6];
    body.extend(b"host-a");
    body.extend([0x12, 16]);
    body.extend([1; 16]);
    body.extend([0x1a, 16]);
    body.extend([3; 16]);
    body.extend([0x22, 32]);
    body.extend([2; 32]);
    let mut field = vec![0xa2, 0x01];
    varint(body.len() as u64, &mut field);
    field.extend(body);
    (id, record(&id, 0, &ZERO, &field))
}

#[test]
fn a_record_links_in_its_place_only() {
    let (id, first) = genesis();
    let mut chain = Chain::begin(id);
    let second = |prev: &Hash| record(&id, 1, prev, &[]);
    let early = chain.link(&second(&ZERO));
    assert_eq!(early, Err(LinkError::NotContiguous { expected: Seq(0), got: Seq(1) }));
    assert_eq!(chain.link(&record(&id, 0, &ZERO, &[])), Err(LinkError::NoGenesis));
    assert_eq!(chain.link(&record(&id, 0, &[1; 32], &[])), Err(LinkError::Broken { seq: Seq(0) }));
    let other = record(&ChainId([0; 32]), 0, &ZERO, &[]);
    assert!(matches!(chain.link(&other), Err(LinkError::OtherChain { .. })));
    assert_eq!(chain.records(), 0);

    assert_eq!(chain.link(&first).unwrap().seq, Seq(0));
    assert_eq!(chain.link(&second(&ZERO)), Err(LinkError::Broken { seq: Seq(1) }));
    assert_eq!(chain.head(), chain_value(&first));
    chain.link(&second(&chain_value(&first))).unwrap();
    let mut again = Chain::resume(id, Seq(0), ZERO);
    again.link(&first).unwrap();
    assert_eq!((again.next_seq(), chain.next_seq()), (Seq(1), Seq(2)));
}

#[test]
fn a_genesis_names_the_chain_that_its_fields_make() {
    let (id, first) = genesis();
    let read = Genesis::read(&first).unwrap().unwrap();
    assert_eq!((read.chain_id, read.agent_id.as_str(), read.previous), (id, "host-a", None));
    let at = first.len() - 1;
    let mut changed = first.clone();
    changed[at] ^= 1;
    assert!(matches!(Genesis::read(&changed), Err(FormatError::ChainId { .. })));
    assert_eq!(Genesis::read(&record(&id, 1, &ZERO, &[])), Ok(None));
}

#[test]
fn doubled_and_wrong_header_fields_are_refused() {
    let (id, first) = genesis();
    for tail in [&[0x18, 5, 0x18, 5][..], &[0x08, 1], &[0x22, 0], &[0x12, 1], &[0x0b], &[0x00]] {
        assert!(Header::read(&record(&id, 0, &ZERO, tail)).is_err(), "{tail:?}");
    }
    assert_eq!(Header::read(&[]), Err(FormatError::Version(0)));
    assert_eq!(Header::read(&[0x08, 2]), Err(FormatError::Version(2)));
    assert!(Header::read(&first[..first.len() - 1]).is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::read(&bytes);
        let _ = Genesis::read(&bytes);
        let _ = crate::seal::read(&bytes);
    }
}
