//! Arbitrary bytes on both sides, through the fuzzers' own entry.

use proptest::prelude::*;
use tidegate_wire_postgres::exercise::{Start, run};

use super::script::{bind, execute, frame, parse, startup};

/// A chunk of an input: who speaks, and what.
fn chunk(control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len().min(255)).unwrap();
    [&[control, length][..], &bytes[..usize::from(length)]].concat()
}

fn client_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "(SELECT|FAIL|PREPARE|COPY|SET|x)[a-z \\\\;]{0,90}"
            .prop_map(|text| frame(b'Q', (text + "\0").as_bytes())),
        ("[ab]?", "(SELECT|DEALLOCATE a|DECLARE a)[a-z ]{0,60}").prop_map(|(n, t)| parse(&n, &t)),
        ("[ab]?", "[ab]?", "[a-z]{0,80}").prop_map(|(p, s, v)| bind(&p, &s, &[&v])),
        "[ab]?".prop_map(|portal| execute(&portal)),
        prop::sample::select(vec![b'S', b'H', b'c', b'X']).prop_map(|kind| frame(kind, b"")),
        ("[SP]", "[ab]?").prop_map(|(k, n)| frame(b'D', format!("{k}{n}\0").as_bytes())),
        ("[SP]", "[ab]?").prop_map(|(k, n)| frame(b'C', format!("{k}{n}\0").as_bytes())),
        "[a-z]{0,40}".prop_map(|data| frame(b'd', data.as_bytes())),
        Just(startup("user=u")),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn server_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(b"123nIsGHWc".to_vec()).prop_map(|kind| frame(kind, b"\0\0\0")),
        prop::sample::select(b"ITE".to_vec()).prop_map(|status| frame(b'Z', &[status])),
        Just(frame(b'C', b"SELECT 1\0")),
        Just(frame(b'E', b"SERROR\0VERROR\0C22012\0Mno\0\0")),
        Just(frame(b'E', b"VFATAL\0C57P01\0Mend\0\0")),
        Just(frame(b't', b"\0\x01\0\0\0\x17")),
        Just(frame(b'S', b"standard_conforming_strings\0off\0")),
        Just(frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0")),
        "[a-z]{0,40}".prop_map(|data| frame(b'D', data.as_bytes())),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![
        8 => (0_u8..6, any::<bool>(), proptest::collection::vec(client_message(), 1..4))
            .prop_map(|(side, refuse, all)| chunk(side | u8::from(refuse) << 4, &all.concat())),
        8 => (6_u8..12, proptest::collection::vec(server_message(), 1..4))
            .prop_map(|(side, all)| chunk(side, &all.concat())),
        1 => (12_u8..16).prop_map(|event| chunk(event, &[])),
    ];
    proptest::collection::vec(chunk, 0..60).prop_map(|chunks| chunks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn noise_ends_with_a_reason_and_in_bounds(
        data in proptest::collection::vec(any::<u8>(), 0..600), session: bool,
    ) {
        let start = if session { Start::Session } else { Start::Startup };
        prop_assert_eq!(run(start, &data), Ok(()));
    }

    #[test]
    fn messages_out_of_turn_end_with_a_reason_and_in_bounds(data in input(), session: bool) {
        let start = if session { Start::Session } else { Start::Startup };
        prop_assert_eq!(run(start, &data), Ok(()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the corpus is files")]
fn the_fuzzers_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    for (target, start) in
        [("postgres_startup", Start::Startup), ("postgres_session", Start::Session)]
    {
        let mut count = 0;
        for entry in std::fs::read_dir(format!("{corpus}/{target}")).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            count += 1;
            assert_eq!(run(start, &data), Ok(()), "{}", path.display());
        }
        assert!(count > 0, "no corpus for {target}");
    }
}
