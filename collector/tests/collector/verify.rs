//! `verify` finds and locates every flipped bit, from a copy of the log and public keys only.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidegate_collector::keys::Keys;
use tidegate_collector::log::{self, SEGMENTS};
use tidegate_collector::verify::{Against, verify, verify_against};
use tidegate_ledger::checkpoint::{self, Checkpoint};
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_segment::os::OsFiles;
use tidegate_segment::scan;

use crate::agent::FakeAgent;
use crate::home::Home;

/// A frame's place on the disk.
#[derive(Debug, Clone)]
struct Spot {
    file: PathBuf,
    name: String,
    from: u64,
    to: u64,
}

struct Sample {
    home: Home,
    keys: Keys,
    spots: Vec<Spot>,
}

/// Bytes of a frame before its payload: length, checksum, kind.
const FRAME_HEAD_BYTES: usize = 9;

/// A small log, well closed.
fn sample() -> Sample {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    runtime.block_on(async {
        let running = home.serve().await;
        let mut agent = FakeAgent::new("a", 1);
        let pass = home.enrol(&running, "a", &agent.key).await;
        let (mut wire, _) = home.greeted(&running, &pass, None).await;
        agent.session();
        for _ in 0..4 {
            agent.statement("select 1", "select", "public.accounts", Verdict::Allow);
            wire.deliver(agent.batch()).await;
        }
        running.stop().await.unwrap();
    });
    let segments = home.log().join(SEGMENTS);
    let mut spots = Vec::new();
    for frame in scan(OsFiles::read_only(&segments).unwrap()).unwrap() {
        let frame = frame.unwrap();
        let bytes = u64::try_from(frame.payload.len() + FRAME_HEAD_BYTES).unwrap();
        spots.push(Spot {
            file: segments.join(&*frame.file),
            name: frame.file.to_string(),
            from: frame.offset,
            to: frame.offset + bytes,
        });
    }
    assert!(spots.len() >= 14);
    let keys = home.keys();
    Sample { home, keys, spots }
}

fn flip(file: &Path, at: u64, bit: u8) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1 << bit;
    std::fs::write(file, bytes).unwrap();
}

/// Flips, verifies, flips back.
fn check_flip(sample: &Sample, frame: usize, at: u64, bit: u8) -> Result<(), TestCaseError> {
    let spot = &sample.spots[frame];
    flip(&spot.file, at, bit);
    let report = verify(&sample.home.log(), &sample.keys).unwrap();
    flip(&spot.file, at, bit);
    prop_assert_eq!(report.exit_code(), 20, "byte {} bit {}: {:?}", at, bit, &report.findings);
    let first = &report.findings[0];
    prop_assert_eq!(first.file.as_deref(), Some(spot.name.as_str()));
    prop_assert_eq!(first.offset, Some(spot.from), "byte {} bit {}: {}", at, bit, first);
    prop_assert_eq!(first.index, Some(u64::try_from(frame).unwrap()));
    Ok(())
}

#[test]
fn every_flipped_bit_in_a_frame_is_found_and_located() {
    let sample = sample();
    assert_eq!(verify(&sample.home.log(), &sample.keys).unwrap().exit_code(), 0);
    // Each part of the first, a middle and the last frame; then anywhere.
    for frame in [0, 6, sample.spots.len() - 1] {
        for at in [0, 3, 4, 7, 8, 9, 30] {
            check_flip(&sample, frame, sample.spots[frame].from + at, 0).unwrap();
        }
    }
    let frames = sample.spots.len();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) };
    proptest!(config, |(frame in 0..frames, place in any::<prop::sample::Index>(), bit in 0..8_u8)| {
        let spot = &sample.spots[frame];
        let bytes = usize::try_from(spot.to - spot.from).unwrap();
        let at = spot.from + u64::try_from(place.index(bytes)).unwrap();
        check_flip(&sample, frame, at, bit)?;
    });
    assert_eq!(verify(&sample.home.log(), &sample.keys).unwrap().exit_code(), 0);
}

#[test]
fn a_range_is_judged_by_what_lies_in_it_or_may_lie_in_it() {
    let sample = sample();
    let size = u64::try_from(sample.spots.len()).unwrap();
    let keys = &sample.keys;
    let exit = |checkpoints: Vec<(String, String)>, range| {
        let against = Against { checkpoints, range: Some(range), ..Against::default() };
        verify_against(&sample.home.log(), keys, &against).unwrap().exit_code()
    };
    assert_eq!(exit(Vec::new(), (0, 3)), 0);
    // A checkpoint of the same log key over another tree of two entries; no older one is there.
    let key = tidegate_collector::keys::load(&sample.home.config.paths().log_key()).unwrap();
    let origin = "test.example/log".to_owned();
    let other = checkpoint::sign(&key, &Checkpoint { origin, size: 2, root: [1; 32] }).unwrap();
    let other = vec![("other".to_owned(), other)];
    for (range, expected) in [((0, 3), 20), ((1, 1), 20), ((2, size - 1), 0), ((0, size - 1), 20)] {
        assert_eq!(exit(other.clone(), range), expected, "{range:?}");
    }
}

#[test]
fn what_is_not_a_frame_is_told_too() {
    let sample = sample();
    let log = sample.home.log();
    let exit = || verify(&log, &sample.keys).unwrap().exit_code();
    let spot = sample.spots.last().unwrap();
    let size = sample.spots.len();
    for at in [0, 8, 20] {
        flip(&spot.file, at, 0);
        assert_eq!(exit(), 20, "byte {at} of the segment's header");
        flip(&spot.file, at, 0);
    }

    // The end cut at a frame: only the checkpoint knows.
    let whole = std::fs::read(&spot.file).unwrap();
    let mut cut = whole.clone();
    cut[usize::try_from(spot.from).unwrap()..].fill(0);
    std::fs::write(&spot.file, cut).unwrap();
    assert_eq!(exit(), 20, "the end is cut");
    std::fs::write(&spot.file, whole).unwrap();

    let newest = log.join(log::notes::NEWEST);
    let note = std::fs::read_to_string(&newest).unwrap();
    std::fs::write(&newest, note.replace(&format!("\n{size}\n"), &format!("\n{}\n", size + 1)))
        .unwrap();
    assert_eq!(exit(), 20, "a checkpoint that was changed");

    for name in [log::notes::NEWEST, log::notes::HISTORY] {
        std::fs::remove_file(log.join(name)).unwrap();
    }
    assert_eq!(exit(), 30, "without a checkpoint a rewritten log cannot be told");

    let mut strangers = sample.keys.clone();
    strangers.agents.clear();
    assert!([20, 30].contains(&verify(&log, &strangers).unwrap().exit_code()), "without keys");
}
