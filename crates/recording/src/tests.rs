//! The recorder by itself: cuts, limits, keys; and the reader over any bytes.

use proptest::prelude::*;

use super::*;

fn record(how: How, parts: &[&[u8]]) -> (Vec<Chunk>, Recorded) {
    let mut taking = Recorder::new(how);
    let mut chunks = Vec::new();
    for part in parts {
        taking.take(part, |chunk| chunks.push(chunk));
    }
    let (last, recorded) = taking.finish();
    chunks.extend(last);
    (chunks, recorded)
}

fn joined(chunks: &[Chunk]) -> Vec<u8> {
    let mut joined = Joined::default();
    for chunk in chunks {
        joined.push(chunk.offset, &chunk.data).unwrap();
    }
    joined.bytes().to_vec()
}

const KEEP: How = How { keep: true, secret: false, key: None };

proptest! {
    #[test]
    fn however_it_is_cut_the_digest_and_the_bytes_are_the_same(
        result in proptest::collection::vec(any::<u8>(), 0..4000),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(result.len() + 1)).collect();
        cuts.extend([0, result.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &result[cut[0]..cut[1]]).collect();
        let (chunks, recorded) = record(KEEP, &parts);
        prop_assert_eq!(joined(&chunks), &*result);
        prop_assert_eq!(recorded.digest, Some(digest(&result)));
        prop_assert_eq!(recorded.bytes, as_u64(result.len()));
        prop_assert_eq!((recorded.kept, recorded.not_kept), (recorded.bytes, None));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = messages(&bytes);
    }
}

#[test]
fn what_is_beyond_the_limit_is_in_the_digest_and_said() {
    let most = usize::try_from(KEPT_BYTES_MAX).unwrap();
    let result: Vec<u8> =
        (0..most + 3 * CHUNK_BYTES).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let parts: Vec<&[u8]> = result.chunks(10_007).collect();
    let (chunks, recorded) = record(KEEP, &parts);
    assert!(chunks.iter().all(|chunk| chunk.data.len() <= CHUNK_BYTES));
    assert_eq!(joined(&chunks), result[..most]);
    assert_eq!(recorded.digest, Some(digest(&result)));
    assert_eq!((recorded.kept, recorded.bytes), (KEPT_BYTES_MAX, as_u64(result.len())));
    assert_eq!(recorded.not_kept, Some(NotKept::Limit));
}

#[test]
fn a_result_that_shows_what_is_protected_is_not_kept_and_its_digest_is_keyed() {
    let how = How { keep: true, secret: true, key: Some([7; 32]) };
    let (chunks, recorded) = record(how, &[b"078-05-1120"]);
    assert!(chunks.is_empty());
    assert_eq!(recorded.not_kept, Some(NotKept::Protected));
    assert!(recorded.keyed && recorded.digest.is_some_and(|keyed| keyed != digest(b"078-05-1120")));
    let (_, again) = record(how, &[b"078-05", b"-1120"]);
    assert_eq!(again.digest, recorded.digest, "who holds the key can compare");
    let (_, keyless) = record(How { key: None, ..how }, &[b"078-05-1120"]);
    assert_eq!((keyless.digest, keyless.kept), (None, 0));
}

#[test]
fn the_first_results_columns_are_recorded_and_all_are_counted() {
    let column = |name: &str| vec![Column { name: name.to_owned(), type_oid: 25, binary: false }];
    let mut taking = Recorder::new(How::default());
    taking.described(|| column("one"));
    taking.described(|| column("two"));
    let (_, recorded) = taking.finish();
    assert_eq!((recorded.results, recorded.columns), (2, column("one")));
}

#[test]
fn messages_are_told_apart_and_a_cut_one_is_left_out() {
    let described =
        b"T\0\0\0\x1c\0\x01who\0\0\0\x40\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01";
    let row = b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff";
    let copied = b"d\0\0\0\x06x\n";
    let all = [&described[..], row, copied].concat();
    let expected = vec![
        Message::Columns(vec![(b"who", 25, true)]),
        Message::Row(vec![Some(b"a"), None]),
        Message::Copy(b"x\n"),
    ];
    assert_eq!(messages(&all), Ok((expected.clone(), true)));
    let cut = messages(&all[..all.len() - 1]);
    assert_eq!(cut, Ok((expected[..2].to_vec(), false)));
    assert_eq!(messages(b"Z\0\0\0\x05I").unwrap_err().at, 0);
    assert_eq!(messages(b"D\0\0\0\x07\0\x01\0").unwrap_err().what, "a 'D' does not read");
}

#[test]
fn a_hole_between_chunks_is_refused() {
    let mut joined = Joined::default();
    joined.push(0, b"ab").unwrap();
    assert_eq!(joined.push(3, b"d").unwrap_err().at, 2);
}
