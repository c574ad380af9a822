//! The format as it is on disk, against `docs/formats/golden/segment-v1.bin`, and on real files.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, with real files")]

use std::fs;
use std::path::Path;

use tidegate_segment::os::OsFiles;
use tidegate_segment::{Bound, Log, Options, scan};

const FIRST: &str = "00000000000000000000.seg";

fn options() -> Options {
    let mut owner = [0; 32];
    for (byte, value) in owner.iter_mut().zip(1..) {
        *byte = value;
    }
    Options { owner, segment_bytes: 4096, ..Options::default() }
}

/// Two frames, a sync, one more frame behind the mark, and the mark of an orderly end.
fn write_sample(dir: &Path) {
    let (mut log, _) = Log::open(OsFiles::open(dir).unwrap(), options()).unwrap();
    log.append(1, b"first").unwrap();
    log.append(2, b"").unwrap();
    log.sync().unwrap();
    log.append(255, b"\x00\xff third").unwrap();
    log.close().unwrap();
}

#[test]
fn a_segment_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path());
    let written = fs::read(dir.path().join(FIRST)).unwrap();
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/golden/segment-v1.bin");
    let actual = Path::new(env!("CARGO_TARGET_TMPDIR")).join("segment-v1.bin");
    fs::write(&actual, &written).unwrap();
    assert!(
        fs::read(&golden).is_ok_and(|golden| golden == written),
        "the format differs from {}; what is written now is in {}",
        golden.display(),
        actual.display(),
    );
}

#[test]
fn real_files_are_locked_read_beside_the_writer_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path());
    let (mut log, recovery) = Log::open(OsFiles::open(dir.path()).unwrap(), options()).unwrap();
    assert!(recovery.clean, "{recovery:?}");
    let second = OsFiles::open(dir.path()).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    for _ in 0..100 {
        log.append(1, &[1; 200]).unwrap();
    }
    log.sync().unwrap();
    let frames = scan(OsFiles::read_only(dir.path()).unwrap()).unwrap().map(Result::unwrap);
    assert_eq!(frames.count(), 103);
    let frame = log.read_from(2, Bound::Durable).next().unwrap().unwrap();
    assert_eq!(frame.payload, b"\x00\xff third");
    log.remove_before(103).unwrap();
    assert!(!dir.path().join(FIRST).exists());
}
