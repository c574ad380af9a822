//! The spool on a disk that loses, tears and refuses: acknowledgements, the ladder, the reserve, small states.
//! `TIDEGATE_SCHEDULES` says how many random schedules run (see docs/TESTING.md).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate_spool::{Kind, Level, Options, Recovery, Spool, SpoolError};
use tidegate_testkit::{Fault, Rng, SCHEDULES_VARIABLE, SimDisk, schedules};

const SCHEDULES: u64 = 600;
const STEPS: u64 = 100;
const OPTIONS: Options = Options {
    owner: [1; 32],
    bytes_max: 64 << 10,
    segment_bytes: 8 << 10,
    reserve_bytes: 8 << 10,
    backlog_bytes_max: 1 << 20,
};

fn open(disk: &SimDisk) -> (Spool<SimDisk>, Recovery) {
    Spool::with_files(disk.clone(), OPTIONS).unwrap()
}

struct Model {
    disk: SimDisk,
    spool: Spool<SimDisk>,
    accepted: Vec<Vec<u8>>,
    durable: u64,
    acknowledged: u64,
    /// The states that may be there after a crash, the last one for certain unless a store failed since.
    states: Vec<Vec<u8>>,
}

impl Model {
    fn reopen(&mut self, chance: u64) {
        self.disk.set_chance(0);
        let (spool, recovery) = open(&self.disk);
        self.disk.set_chance(chance);
        self.spool = spool;
        assert!(recovery.next_index >= self.durable && !recovery.cursor_lost);
        assert!(recovery.next_index <= self.accepted.len() as u64);
        assert!(recovery.acknowledged >= self.acknowledged, "an acknowledgement was forgotten");
        self.accepted.truncate(usize::try_from(recovery.next_index).unwrap());
        self.acknowledged = recovery.acknowledged;
        self.durable = self.spool.durable_index();
        let mut reader = self.spool.reader_from(self.acknowledged);
        for index in self.acknowledged..self.durable {
            let frame = reader.next().unwrap().unwrap();
            assert!(frame.payload == self.accepted[usize::try_from(index).unwrap()]);
        }
        let state = self.spool.get_state("chain").unwrap().unwrap_or_default();
        assert!(self.states.contains(&state));
        self.states = vec![state];
    }

    fn append(&mut self, rng: &mut Rng, reserved: bool) {
        let len = usize::try_from(rng.below(600)).unwrap();
        let payload = [&self.accepted.len().to_le_bytes()[..], &rng.bytes(len)].concat();
        let kind = if rng.chance(100) { Kind::Seal } else { Kind::Record };
        let appended = if reserved {
            self.spool.append_reserved(kind, &payload)
        } else {
            self.spool.append(kind, &payload)
        };
        self.durable = self.spool.durable_index();
        if let Ok(index) = appended {
            assert_eq!(index, self.accepted.len() as u64);
            self.accepted.push(payload);
        }
    }

    fn acknowledge(&mut self, rng: &mut Rng) {
        let index = self.acknowledged + rng.below(self.durable - self.acknowledged + 1);
        if self.spool.acknowledge(index).is_ok() {
            self.acknowledged = self.acknowledged.max(index);
        } else {
            // The cursor may or may not have got there.
            self.acknowledged = self.acknowledged.max(self.spool.acknowledged().min(index));
        }
    }
}

fn schedule(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(rng.next_u64());
    let (spool, recovery) = open(&disk);
    assert!(recovery.created);
    let chance = [0, 5, 50][usize::try_from(rng.below(3)).unwrap()];
    disk.set_chance(chance);
    let states = vec![Vec::new()];
    let mut model =
        Model { disk, spool, accepted: Vec::new(), durable: 0, acknowledged: 0, states };
    for _ in 0..STEPS {
        match rng.below(100) {
            0..55 => model.append(&mut rng, false),
            55..62 => model.append(&mut rng, true),
            62..75 => {
                let _ = model.spool.sync();
                model.durable = model.spool.durable_index();
            }
            75..85 => model.acknowledge(&mut rng),
            85..90 => {
                let state = rng.bytes(40);
                if model.spool.put_state("chain", &state).is_ok() {
                    model.states.clear();
                }
                model.states.push(state);
            }
            90..95 => {
                model.disk.kill();
                model.reopen(chance);
            }
            _ => {
                model.disk.restart();
                model.reopen(chance);
            }
        }
        let fill = model.spool.fill();
        assert!(fill.used <= OPTIONS.bytes_max + OPTIONS.reserve_bytes + OPTIONS.segment_bytes);
        assert_eq!(model.disk.syncs_after_failure(), 0);
    }
}

#[test]
fn no_schedule_loses_what_was_not_acknowledged() {
    let count = schedules(std::env::var(SCHEDULES_VARIABLE).ok().as_deref(), SCHEDULES);
    for seed in 0..count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| schedule(seed))) {
            eprintln!("schedule {seed} failed");
            resume_unwind(panic);
        }
    }
}

#[test]
fn a_power_cut_at_any_call_of_an_acknowledgement_lets_nothing_go_too_early() {
    for cut in 0.. {
        let disk = SimDisk::new(cut);
        let (spool, _) = open(&disk);
        for _ in 0..60 {
            spool.append(Kind::Record, &[1; 500]).unwrap();
        }
        spool.sync().unwrap();
        spool.acknowledge(20).unwrap();
        disk.fail_call(disk.calls() + cut, Fault::PowerCut);
        let acknowledged = spool.acknowledge(50).is_ok();
        let was_cut = disk.is_cut();
        disk.restart();
        let (spool, recovery) = open(&disk);
        assert!(recovery.acknowledged == 50 || !acknowledged && recovery.acknowledged == 20);
        let first = spool.reader_from(recovery.acknowledged).next().unwrap().unwrap();
        assert_eq!(first.index, recovery.acknowledged);
        if !was_cut {
            break;
        }
    }
}

#[test]
fn the_ladder_rises_and_the_reserve_still_takes_records() {
    let (spool, _) = open(&SimDisk::new(1));
    let mut seen = vec![spool.fill().level];
    let refused = loop {
        match spool.append(Kind::Record, &[1; 300]) {
            Ok(_) => {}
            Err(error) => break error,
        }
        spool.sync().unwrap();
        if seen.last() != Some(&spool.fill().level) {
            seen.push(spool.fill().level);
        }
    };
    assert!(matches!(refused, SpoolError::Full { .. }), "{refused}");
    let all = [Level::Normal, Level::Warn50, Level::NoNewSessions80, Level::NoNewStatements95];
    assert_eq!(seen, all);
    while spool.append_reserved(Kind::Record, &[2; 300]).is_ok() {}
    assert_eq!(spool.fill().level, Level::Full);
    let durable = spool.sync().unwrap();
    spool.acknowledge(durable).unwrap();
    assert_eq!(spool.fill().level, Level::Normal);
    assert_eq!(spool.fill().used, 0);
    assert_eq!(spool.append(Kind::Record, &[3; 300]).unwrap(), durable);
}

#[test]
fn a_full_disk_is_full_until_there_is_room() {
    let disk = SimDisk::new(1);
    let (spool, _) = open(&disk);
    disk.set_capacity(20 << 10);
    let refused = (0..).find_map(|_| spool.append(Kind::Record, &[1; 300]).err()).unwrap();
    assert!(matches!(refused, SpoolError::DiskFull { .. }), "{refused}");
    assert_eq!(spool.fill().level, Level::Full);
    spool.append_reserved(Kind::Record, b"a gap").unwrap();
    spool.sync().unwrap();
    disk.set_capacity(u64::MAX);
    assert_eq!(spool.fill().level, Level::Normal);
    spool.append(Kind::Record, &[1; 300]).unwrap();
}

#[test]
fn what_is_not_durable_cannot_be_acknowledged() {
    let (spool, _) = open(&SimDisk::new(1));
    spool.append(Kind::Record, b"one").unwrap();
    assert!(matches!(spool.acknowledge(1), Err(SpoolError::NotDurable { index: 1, durable: 0 })));
    spool.sync().unwrap();
    spool.acknowledge(1).unwrap();
    spool.acknowledge(0).unwrap();
    assert_eq!(spool.acknowledged(), 1);
}

#[test]
fn a_lost_cursor_gives_everything_again_and_a_bad_state_is_an_error() {
    let disk = SimDisk::new(1);
    let (spool, _) = open(&disk);
    spool.append(Kind::Record, b"one").unwrap();
    spool.sync().unwrap();
    spool.acknowledge(1).unwrap();
    spool.put_state("chain", b"head").unwrap();
    assert_eq!(spool.get_state("chain").unwrap().unwrap(), b"head");
    assert_eq!(spool.get_state("other").unwrap(), None);
    assert!(spool.put_state("No", b"").is_err() && spool.put_state("no", &[0; 5000]).is_err());
    drop(spool);
    disk.kill();
    disk.tamper("cursor", vec![0; 1024]);
    disk.tamper("state-chain", b"nonsense".to_vec());
    let (spool, recovery) = open(&disk);
    assert!(recovery.cursor_lost);
    assert_eq!(spool.reader_from(recovery.acknowledged).next().unwrap().unwrap().index, 0);
    assert!(matches!(spool.get_state("chain"), Err(SpoolError::Damaged { .. })));
}

#[test]
fn real_files_work_and_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let (spool, recovery) = Spool::open(&path, OPTIONS).unwrap();
    assert!(recovery.created);
    let again = Spool::open(&path, OPTIONS).map(|_| ()).unwrap_err();
    assert!(matches!(again, SpoolError::InUse { .. }), "{again}");
    for _ in 0..3 {
        spool.append(Kind::Record, b"record").unwrap();
    }
    spool.sync().unwrap();
    spool.acknowledge(2).unwrap();
    spool.acknowledge(3).unwrap();
    spool.put_state("chain", b"head of the chain").unwrap();
    spool.close().unwrap();
    drop(spool);
    for (file, golden) in [("cursor", "cursor-v1.bin"), ("state-chain", "state-v1.bin")] {
        let written = std::fs::read(path.join(file)).unwrap();
        let golden = format!("{}/../../docs/formats/golden/{golden}", env!("CARGO_MANIFEST_DIR"));
        let actual = format!("{}/{file}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(&actual, &written).unwrap();
        let same = std::fs::read(&golden).is_ok_and(|golden| golden == written);
        assert!(same, "the format differs from {golden}; what is written now is in {actual}");
    }
    let (spool, recovery) = Spool::open(&path, OPTIONS).unwrap();
    assert!(recovery.clean && recovery.acknowledged == 3 && recovery.next_index == 3);
    assert_eq!(spool.reader_from(3).next().unwrap(), None);
}
