//! A log beside the list of all that it accepted, and the assertions that hold after every crash.

use tidegate_segment::{Bound, Error, Log, Options, Recovery};
use tidegate_testkit::{Rng, SimDisk};

/// How often an open that meets a failing disk is tried before the disk is made to work.
const OPEN_TRIES_MAX: u32 = 5;

pub struct Model {
    pub disk: SimDisk,
    pub options: Options,
    pub log: Log<SimDisk>,
    /// Every payload accepted, by index.
    pub accepted: Vec<Vec<u8>>,
    /// What was reported durable, at the most.
    pub durable: u64,
    /// What was written while no fault was about.
    pub written: u64,
    /// Frames below may be gone.
    pub removed: u64,
}

pub fn payload(rng: &mut Rng, index: usize) -> Vec<u8> {
    let mut payload = index.to_le_bytes().to_vec();
    let len = if rng.chance(50) { rng.below(2000) } else { rng.below(300) };
    payload.extend(rng.bytes(usize::try_from(len).unwrap()));
    payload
}

/// Opens, again and again if the disk fails; then with a disk that works.
fn open(disk: &SimDisk, options: Options, chance: u64) -> (Log<SimDisk>, Recovery) {
    for attempt in 0.. {
        if attempt >= OPEN_TRIES_MAX {
            disk.set_chance(0);
        }
        match Log::open(disk.clone(), options) {
            Ok(opened) => {
                disk.set_chance(chance);
                return opened;
            }
            Err(error @ (Error::Damaged(_) | Error::Full { .. })) => panic!("{error}"),
            Err(error) if attempt > OPEN_TRIES_MAX => panic!("{error}"),
            Err(_) if disk.is_cut() => disk.restart(),
            Err(_) => disk.kill(),
        }
    }
    unreachable!()
}

impl Model {
    pub fn new(disk: SimDisk, options: Options) -> Self {
        let (log, recovery) = open(&disk, options, 0);
        assert_eq!(recovery.next_index, 0);
        let (accepted, durable, written, removed) = (Vec::new(), 0, 0, 0);
        Self { disk, options, log, accepted, durable, written, removed }
    }

    pub fn append(&mut self, payload: Vec<u8>, reserved: bool) -> Result<(), Error> {
        let kind = u8::try_from(self.accepted.len() % 255).unwrap() + 1;
        let appended = if reserved {
            self.log.append_reserved(kind, &payload)
        } else {
            self.log.append(kind, &payload)
        };
        // An append that moved everything to a new segment also made it durable.
        self.durable = self.log.durable_index();
        assert_eq!(appended?, self.accepted.len() as u64);
        self.accepted.push(payload);
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), Error> {
        let synced = self.log.sync();
        self.durable = self.log.durable_index();
        if synced? == self.accepted.len() as u64 { Ok(()) } else { panic!("a sync left frames") }
    }

    pub fn write(&mut self) -> Result<(), Error> {
        self.log.write()?;
        self.written = self.log.written_index();
        Ok(())
    }

    pub fn remove_before(&mut self, index: u64) {
        self.removed = self.removed.max(index);
        let _ = self.log.remove_before(index);
    }

    /// The process died or the power went; opens again and checks what came back. `least`: as much must be there.
    pub fn reopen(&mut self, least: u64, chance: u64) -> Recovery {
        let mut options = self.options;
        options.durable_floor = self.durable;
        let (log, recovery) = open(&self.disk, options, chance);
        self.log = log;
        let (next, all) = (recovery.next_index, self.accepted.len() as u64);
        assert!(next >= least, "{least} frames had to be there, {next} are");
        assert!(next <= all, "{all} frames were accepted, {next} are there");
        assert!(recovery.oldest_index <= self.removed, "frames were removed that had to be kept");
        assert!(self.log.durable_index() >= self.durable, "durable frames are no longer so");
        self.accepted.truncate(usize::try_from(next).unwrap());
        self.durable = self.log.durable_index();
        self.written = 0;
        self.check_content();
        recovery
    }

    pub fn check_content(&self) {
        let mut reader = self.log.read_from(self.removed, Bound::Durable);
        for index in self.removed..self.log.durable_index() {
            // A reader meets the disk's faults too; they are about writing here.
            let frame = reader.next().unwrap().unwrap();
            assert_eq!(frame.index, index);
            let at = usize::try_from(index).unwrap();
            assert_eq!(usize::from(frame.kind), at % 255 + 1);
            assert!(frame.payload == self.accepted[at], "frame {index} has changed");
        }
        assert_eq!(reader.next().unwrap(), None);
        assert_eq!(self.disk.syncs_after_failure(), 0, "a failed sync was asked for again");
    }

    /// With a disk that works, all that was accepted becomes durable and is there after a power cut.
    pub fn finish(mut self) {
        self.disk.set_chance(0);
        self.disk.set_capacity(u64::MAX);
        if self.log.is_poisoned() {
            self.disk.kill();
            self.reopen(self.durable, 0);
        }
        self.sync().unwrap();
        self.check_content();
        self.disk.restart();
        let all = self.accepted.len() as u64;
        assert_eq!(self.reopen(all, 0).next_index, all);
        self.log.close().unwrap();
        self.disk.restart();
        let recovery = self.reopen(all, 0);
        assert_eq!((recovery.lost_bytes, recovery.torn), (0, None));
    }
}
