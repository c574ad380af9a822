//! Damage is named where it is; a torn tail is cut and reported; neither is taken for the other.

use tidegate_segment::{Damage, Error, FRAME_HEAD_BYTES, Frame, Log, MARK_BYTES, Options, scan};
use tidegate_testkit::{Rng, SimDisk};

const OPTIONS: Options = Options {
    owner: [3; 32],
    segment_bytes: 4096,
    backlog_bytes_max: 48 << 10,
    reserve_bytes: 0,
    durable_floor: 0,
};
const FIRST: &str = "00000000000000000000.seg";

/// A log of frames of 100 bytes, each synced by itself.
fn log_of(frames: usize) -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), OPTIONS).unwrap();
    for frame in 0..frames {
        log.append(1, &[u8::try_from(frame % 250).unwrap() + 1; 100]).unwrap();
        log.sync().unwrap();
    }
    disk.kill();
    disk
}

/// Where frame `index` of such a log begins, in the first segment: a mark stands before each but the first.
fn offset_of(index: usize) -> usize {
    80 + index * (FRAME_HEAD_BYTES + 100 + MARK_BYTES)
}

fn flip(disk: &SimDisk, file: &str, at: usize) {
    let mut content = disk.content(file).unwrap();
    content[at] ^= 0x10;
    disk.tamper(file, content);
}

fn opened(disk: &SimDisk) -> Result<(Log<SimDisk>, tidegate_segment::Recovery), Error> {
    Log::open(disk.clone(), OPTIONS)
}

fn scanned(disk: &SimDisk) -> (Vec<Frame>, Vec<Damage>, tidegate_segment::ScanEnd) {
    let mut scan = scan(disk.clone()).unwrap();
    let (mut frames, mut damages) = (Vec::new(), Vec::new());
    for item in scan.by_ref() {
        match item {
            Ok(frame) => frames.push(frame),
            Err(Error::Damaged(damage)) => damages.push(damage),
            Err(error) => panic!("{error}"),
        }
    }
    (frames, damages, scan.end().unwrap().clone())
}

#[test]
fn a_whole_log_scans_whole() {
    let disk = log_of(100);
    let (frames, damages, end) = scanned(&disk);
    assert_eq!((frames.len(), damages.len(), end.next_index), (100, 0, 100));
    assert!(frames.iter().enumerate().all(|(at, frame)| frame.index == at as u64));
    assert_eq!(frames[3].offset, (offset_of(3)) as u64);
    assert_eq!(end.torn, None);
}

#[test]
fn a_flipped_bit_in_the_middle_is_damage_and_the_rest_is_still_read() {
    let disk = log_of(100);
    flip(&disk, FIRST, offset_of(5) + MARK_BYTES + 50);
    let (frames, damages, end) = scanned(&disk);
    assert_eq!((frames.len(), damages.len(), end.next_index), (99, 1, 100));
    assert_eq!((damages[0].index, &*damages[0].file), (5, FIRST));
    assert!(damages[0].offset <= (offset_of(5) + MARK_BYTES) as u64);
}

#[test]
fn a_flipped_bit_in_the_newest_segment_is_damage_if_a_later_mark_says_so() {
    let disk = log_of(8);
    flip(&disk, FIRST, offset_of(3) + 40);
    let Err(Error::Damaged(damage)) = opened(&disk) else { panic!("not seen") };
    assert_eq!((damage.index, damage.offset), (3, (offset_of(3)) as u64));
    assert!(damage.to_string().contains("frame 3"), "{damage}");
}

#[test]
fn bytes_never_proven_durable_are_a_torn_tail() {
    let disk = log_of(8);
    flip(&disk, FIRST, offset_of(7) + 40);
    let (_, recovery) = opened(&disk).unwrap();
    assert_eq!((recovery.next_index, recovery.proven_index), (7, 7));
    assert_eq!(recovery.torn.as_ref().unwrap().offset, (offset_of(7)) as u64);
    assert_eq!(recovery.lost_bytes, 109);
    assert!(!recovery.clean);
}

#[test]
fn the_callers_floor_makes_it_damage() {
    let disk = log_of(8);
    flip(&disk, FIRST, offset_of(7) + 40);
    let options = Options { durable_floor: 8, ..OPTIONS };
    assert!(matches!(Log::open(disk, options), Err(Error::Damaged(Damage { index: 7, .. }))));
    let empty = Log::open(SimDisk::new(1), options);
    assert!(matches!(empty, Err(Error::Damaged(_))));
}

#[test]
fn a_bad_header_a_missing_segment_and_a_foreign_one_are_damage() {
    let disk = log_of(100);
    flip(&disk, FIRST, 20);
    assert!(matches!(opened(&disk), Err(Error::Damaged(Damage { offset: 0, .. }))));
    assert!(matches!(scan(disk), Err(Error::Damaged(_))));

    let disk = log_of(100);
    tidegate_segment::Files::remove(&disk, "00000000000000000001.seg").unwrap();
    let (_, damages, _) = scanned(&disk);
    assert_eq!(damages.len(), 1);
    assert_eq!(&*damages[0].file, FIRST);

    let disk = log_of(100);
    let second = disk.content("00000000000000000001.seg").unwrap();
    disk.tamper("00000000000000000002.seg", second);
    assert!(matches!(opened(&disk), Err(Error::Damaged(_))));
}

#[test]
fn a_mark_of_another_owner_proves_nothing() {
    let disk = log_of(2);
    let (mut log, _) = opened(&disk).unwrap();
    // What looks like a mark, of another owner, inside a payload, behind a frame that gets lost.
    let mut fake = vec![25, 0, 0, 0];
    let body = [&[0][..], &9000u64.to_le_bytes(), &[4; 16]].concat();
    fake.extend(crc32c(&body).to_le_bytes());
    fake.extend(body);
    let file = log.read_from(0, tidegate_segment::Bound::Durable).next().unwrap().unwrap().file;
    log.append(1, b"lost").unwrap();
    log.append(1, &fake).unwrap();
    log.write().unwrap();
    disk.kill();
    let content = disk.content(&file).unwrap();
    let newest = if content.windows(4).any(|four| four == b"lost") {
        file.to_string()
    } else {
        "00000000000000000001.seg".into()
    };
    let content = disk.content(&newest).unwrap();
    let at = content.windows(4).position(|four| four == b"lost").unwrap();
    flip(&disk, &newest, at);
    let (_, recovery) = opened(&disk).unwrap();
    assert_eq!(recovery.next_index, 2);
}

#[test]
fn whatever_is_scribbled_over_the_files_no_frame_is_invented() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let disk = log_of(60);
        for _ in 0..=rng.below(4) {
            let file = format!("{:020}.seg", rng.below(3));
            let mut content = disk.content(&file).unwrap();
            let at = usize::try_from(80 + rng.below(content.len() as u64 - 80)).unwrap();
            let len = usize::try_from(rng.below(200)).unwrap();
            let scribble = rng.bytes(len);
            for (to, from) in content[at..].iter_mut().zip(scribble) {
                *to = from;
            }
            disk.tamper(&file, content);
        }
        let (frames, damages, _) = scanned(&disk);
        assert!(frames.len() <= 60 && damages.len() <= 60);
        for frame in frames {
            assert_eq!(frame.payload[0], u8::try_from(frame.index).unwrap() + 1, "seed {seed}");
        }
        if let Ok((log, recovery)) = opened(&disk) {
            assert!(recovery.next_index <= 60);
            assert_eq!(log.durable_index(), recovery.next_index);
        }
    }
}

/// The polynomial's definition, bit by bit, so that the format does not hang on one crate.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}
