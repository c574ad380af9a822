//! What a stream of compressed packets is read as, in whatever parts it comes.

use bytes::BytesMut;
use proptest::prelude::*;

use super::decoder::Read;
use super::{Algorithm, Broken, Decoder, Encoder, FULL_BYTES, HEADER_BYTES, Packing};

/// What a packet of these tests holds at most.
const CONTENT_BYTES_MAX: usize = 100_000;

const BOTH: [Algorithm; 2] = [Algorithm::Zlib, Algorithm::Zstd];

/// Everything that `wire` holds, and the numbers of its packets; at most `most` bytes a step.
fn read_all(
    decoder: &mut Decoder,
    wire: &mut BytesMut,
    most: usize,
    plain: &mut BytesMut,
) -> Result<Vec<u8>, Broken> {
    let mut seqs = Vec::new();
    loop {
        let before = plain.len();
        match decoder.read(wire, plain, most)? {
            Read::Packet(seq) => seqs.push(seq),
            Read::Bytes(bytes) => {
                assert!(bytes > 0 && bytes <= most, "{bytes} of at most {most}");
                assert_eq!(plain.len(), before + bytes);
            }
            Read::Short => return Ok(seqs),
        }
    }
}

fn packed(algorithm: Algorithm, content: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    Encoder::new(Packing { algorithm, level: 3 }, FULL_BYTES).write(0, content, &mut wire);
    wire
}

#[test]
fn what_is_packed_is_read_and_only_what_gets_shorter_is_packed() {
    let noise: Vec<u8> =
        (0..4000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for algorithm in BOTH {
        for (content, packs) in [
            (vec![b'x'; 49], false),
            (vec![b'x'; 50], true),
            (vec![b'x'; CONTENT_BYTES_MAX * 2 + 1], true),
            (noise.clone(), false),
            (b"SELECT 1".to_vec(), false),
        ] {
            let mut wire = BytesMut::new();
            let mut encoder = Encoder::new(Packing { algorithm, level: 6 }, CONTENT_BYTES_MAX);
            let packets = u8::try_from(content.len().div_ceil(CONTENT_BYTES_MAX)).unwrap();
            assert_eq!(encoder.write(254, &content, &mut wire), 254_u8.wrapping_add(packets));
            assert_eq!(
                wire[4..HEADER_BYTES] != [0, 0, 0],
                packs,
                "{algorithm:?} {}",
                content.len()
            );
            let mut plain = BytesMut::new();
            let mut decoder = Decoder::new(algorithm);
            let seqs = read_all(&mut decoder, &mut wire, 1000, &mut plain).unwrap();
            assert_eq!(seqs, [254, 255, 0][..usize::from(packets)]);
            assert!(plain == content && wire.is_empty() && !decoder.is_within_packet());
        }
    }
}

#[test]
fn a_packet_that_is_not_what_it_claims_is_broken() {
    let content = "long enough to be packed, and it repeats; ".repeat(5).into_bytes();
    for algorithm in BOTH {
        let good = packed(algorithm, &content);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut wire = good.to_vec();
            change(&mut wire);
            let mut decoder = Decoder::new(algorithm);
            read_all(&mut decoder, &mut wire[..].into(), 16, &mut BytesMut::new())
        };
        assert_eq!(with(&|_| ()), Ok(vec![0]));
        let claims = |by: i8| move |wire: &mut Vec<u8>| wire[4] = wire[4].wrapping_add_signed(by);
        assert_eq!(with(&claims(1)), Err(Broken::Short), "{algorithm:?}");
        assert_eq!(with(&claims(-1)), Err(Broken::Long), "{algorithm:?}");
        let behind = |wire: &mut Vec<u8>| {
            wire[0] += 1;
            wire.push(0);
        };
        assert_eq!(with(&behind), Err(Broken::Long), "{algorithm:?}");
        let cut = |wire: &mut Vec<u8>| {
            wire[0] -= 1;
            wire.pop();
        };
        let cut = with(&cut).unwrap_err();
        assert!(matches!(cut, Broken::Short | Broken::Content), "{algorithm:?}");
        assert_eq!(with(&|wire| wire[HEADER_BYTES] ^= 0xff), Err(Broken::Content), "{algorithm:?}");
        assert_eq!(with(&|wire| wire[..3].fill(0)), Err(Broken::Empty));
    }
    // zlib's own checksum.
    let mut wire = packed(Algorithm::Zlib, &content);
    *wire.last_mut().unwrap() ^= 1;
    let mut decoder = Decoder::new(Algorithm::Zlib);
    assert_eq!(read_all(&mut decoder, &mut wire, 16, &mut BytesMut::new()), Err(Broken::Content));
}

#[test]
fn a_little_that_becomes_much_comes_in_steps() {
    for algorithm in BOTH {
        let most = FULL_BYTES;
        let mut wire = BytesMut::new();
        let content = vec![0; most];
        let bytes = match algorithm {
            Algorithm::Zlib => {
                let mut packed = Vec::with_capacity(most);
                flate2::Compress::new(flate2::Compression::best(), true)
                    .compress_vec(&content, &mut packed, flate2::FlushCompress::Finish)
                    .unwrap();
                packed
            }
            Algorithm::Zstd => zstd::bulk::compress(&content, 19).unwrap(),
        };
        let [a, b, c, _] = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        wire.extend_from_slice(&[a, b, c, 0, 0xff, 0xff, 0xff]);
        wire.extend_from_slice(&bytes);
        let (mut decoder, mut plain, mut total) = (Decoder::new(algorithm), BytesMut::new(), 0);
        loop {
            match decoder.read(&mut wire, &mut plain, 4096).unwrap() {
                Read::Packet(_) => {}
                Read::Bytes(bytes) => total += bytes,
                Read::Short => break,
            }
            assert!(plain.len() <= 4096);
            plain.clear();
        }
        assert_eq!(total, most);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_cut_of_the_stream_gives_the_same(
        parts in proptest::collection::vec(
            (0_usize..4, proptest::collection::vec(any::<u8>(), 1..200)), 1..8),
        cuts in proptest::collection::vec(1_usize..60, 1..20),
        most in 1_usize..300,
        zstd: bool,
    ) {
        let algorithm = if zstd { Algorithm::Zstd } else { Algorithm::Zlib };
        let mut encoder = Encoder::new(Packing { algorithm, level: 1 }, 150);
        let (mut wire, mut plain, mut seq) = (BytesMut::new(), Vec::new(), 0);
        for (times, part) in parts {
            let part = part.repeat(times + 1);
            seq = encoder.write(seq, &part, &mut wire);
            plain.extend_from_slice(&part);
        }
        let (mut decoder, mut read, mut buffer) = (Decoder::new(algorithm), BytesMut::new(), BytesMut::new());
        let mut seqs = Vec::new();
        for cut in cuts.into_iter().cycle() {
            buffer.extend_from_slice(&wire.split_to(cut.min(wire.len())));
            seqs.extend(read_all(&mut decoder, &mut buffer, most, &mut read).unwrap());
            if wire.is_empty() {
                break;
            }
        }
        prop_assert!(!decoder.is_within_packet() && buffer.is_empty());
        prop_assert_eq!(seqs, (0..seq).collect::<Vec<_>>());
        prop_assert_eq!(&read[..], &plain[..]);
    }

    #[test]
    fn noise_is_read_or_broken(noise in proptest::collection::vec(any::<u8>(), 0..400), zstd: bool) {
        let algorithm = if zstd { Algorithm::Zstd } else { Algorithm::Zlib };
        let mut wire = BytesMut::from(&noise[..]);
        let _ = read_all(&mut Decoder::new(algorithm), &mut wire, 100, &mut BytesMut::new());
    }
}
