//! A reader that follows the log, and the limits of the log.

use tidegate_segment::{Bound, Error, Log, Options};
use tidegate_testkit::SimDisk;

const OPTIONS: Options = Options {
    owner: [5; 32],
    segment_bytes: 4096,
    backlog_bytes_max: 8 << 10,
    reserve_bytes: 4096,
    durable_floor: 0,
};

fn fresh(disk: &SimDisk) -> Log<SimDisk> {
    Log::open(disk.clone(), OPTIONS).unwrap().0
}

#[test]
fn it_reads_on_over_segments_and_never_past_its_bound() {
    let mut log = fresh(&SimDisk::new(1));
    let mut durable = log.read_from(0, Bound::Durable);
    let mut written = log.read_from(0, Bound::Written);
    for index in 0..200u64 {
        assert_eq!(log.append(7, &index.to_le_bytes().repeat(20)).unwrap(), index);
        log.write().unwrap();
        let frame = written.next().unwrap().unwrap();
        assert_eq!((frame.index, &frame.payload[..8]), (index, &index.to_le_bytes()[..]));
        assert_eq!(written.next().unwrap(), None);
        if index % 10 == 9 {
            assert_eq!(durable.next().unwrap(), None);
            log.sync().unwrap();
            for index in index - 9..=index {
                assert_eq!(durable.next().unwrap().unwrap().index, index);
            }
        }
    }
    assert_eq!(log.read_from(150, Bound::Durable).next().unwrap().unwrap().index, 150);
}

#[test]
fn what_was_removed_is_said_to_be_gone() {
    let mut log = fresh(&SimDisk::new(1));
    for _ in 0..200 {
        log.append(1, &[1; 100]).unwrap();
        log.sync().unwrap();
    }
    let before = log.bytes_used();
    log.remove_before(100).unwrap();
    let oldest = log.oldest_index();
    assert!(oldest > 50 && oldest <= 100, "{oldest}");
    assert!(log.bytes_used() < before);
    let gone = log.read_from(0, Bound::Durable).next();
    assert!(matches!(gone, Err(Error::Removed { index: 0, .. })));
    log.remove_before(u64::MAX).unwrap();
    assert!(log.oldest_index() <= 200);
    assert_eq!(log.next_index(), 200);
    assert_eq!(log.bytes_from(200), 0);
}

#[test]
fn limits_are_kept() {
    let mut log = fresh(&SimDisk::new(1));
    assert!(matches!(log.append(0, b""), Err(Error::Kind)));
    assert!(matches!(log.append(1, &[0; 4096]), Err(Error::TooLarge { .. })));
    log.append(1, &vec![1; log.payload_bytes_max()]).unwrap();
    let refused = (0..).find_map(|_| log.append(1, &[0; 1000]).err()).unwrap();
    assert!(matches!(refused, Error::Backlog { .. }), "{refused}");
    let ticket = log.begin_sync().unwrap();
    assert!(matches!(log.begin_sync(), Err(Error::SyncInFlight)));
    log.finish_sync(ticket.run()).unwrap();
    log.append(1, &[0; 1000]).unwrap();
}

#[test]
fn on_a_full_disk_only_the_reserve_takes_frames_and_nothing_is_lost() {
    let disk = SimDisk::new(1);
    let mut log = fresh(&disk);
    disk.set_capacity(3 * 4096);
    let mut accepted = 0;
    let refused = loop {
        match log.append(1, &[1; 200]) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        log.sync().unwrap();
    };
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    for _ in 0..10 {
        log.append_reserved(1, &[2; 200]).unwrap();
        accepted += 1;
    }
    assert!(!log.reserve_ready());
    assert!(matches!(log.append(1, &[1; 200]), Err(Error::Full { .. })));
    log.sync().unwrap();
    disk.set_capacity(u64::MAX);
    log.append(1, &[1; 200]).unwrap();
    accepted += 1;
    assert!(log.reserve_ready(), "made again when there is room");
    log.sync().unwrap();
    disk.restart();
    let (_, recovery) = Log::open(disk, OPTIONS).unwrap();
    assert_eq!(recovery.next_index, accepted);
}

#[test]
fn a_closed_log_goes_on_in_place() {
    let disk = SimDisk::new(1);
    let mut log = fresh(&disk);
    log.append(1, b"one").unwrap();
    log.close().unwrap();
    drop(log);
    disk.kill();
    let (mut log, recovery) =
        Log::open(disk.clone(), Options { owner: [6; 32], ..OPTIONS }).unwrap();
    assert!(recovery.clean && !recovery.created);
    assert_eq!(log.owner(), OPTIONS.owner, "the first owner stays");
    assert_eq!(log.append(1, b"two").unwrap(), 1);
    log.sync().unwrap();
    let frame = log.read_from(1, Bound::Durable).next().unwrap().unwrap();
    assert_eq!(&*frame.file, "00000000000000000000.seg");
}
