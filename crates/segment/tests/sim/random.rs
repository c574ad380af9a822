//! Random schedules. `TIDEGATE_SCHEDULES` says how many (see docs/TESTING.md); a failing one prints its seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidegate_segment::{Bound, Options};
use tidegate_testkit::{Rng, SCHEDULES_VARIABLE, SimDisk, schedules};

use crate::harness::{Model, payload};

const SCHEDULES: u64 = 1000;
const STEPS: u64 = 120;

#[test]
#[expect(clippy::disallowed_methods, reason = "the soak says how many schedules by a variable")]
fn no_schedule_loses_what_was_durable() {
    let count = schedules(std::env::var(SCHEDULES_VARIABLE).ok().as_deref(), SCHEDULES);
    for seed in 0..count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| schedule(seed))) {
            eprintln!("schedule {seed} failed");
            resume_unwind(panic);
        }
    }
}

fn schedule(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(rng.next_u64());
    let options = Options {
        owner: [7; 32],
        segment_bytes: 4096 << rng.below(3),
        backlog_bytes_max: 48 << 10,
        reserve_bytes: rng.below(2) * 4096,
        durable_floor: 0,
    };
    let chance = [0, 0, 3, 20, 100][usize::try_from(rng.below(5)).unwrap()];
    let small_disk = rng.chance(300);
    let mut model = Model::new(disk.clone(), options);
    disk.set_chance(chance);
    let mut reader = model.log.read_from(0, Bound::Durable);
    for _ in 0..STEPS {
        match rng.below(100) {
            0..60 => {
                let payload = payload(&mut rng, model.accepted.len());
                let _ = model.append(payload, rng.chance(100));
            }
            60..70 => {
                let _ = model.write();
            }
            70..80 => {
                let _ = model.sync();
            }
            80..88 => overlapped_sync(&mut model, &mut rng),
            88..90 => {
                let index = rng.below(model.durable + 1);
                model.remove_before(index);
            }
            90..92 if small_disk => disk.set_capacity(disk_bytes(&mut rng)),
            92..94 => {
                let _ = model.log.close();
                model.durable = model.log.durable_index();
            }
            94..97 => {
                let faultless = chance == 0 && !small_disk;
                let least =
                    if faultless { model.written.max(model.durable) } else { model.durable };
                disk.kill();
                model.reopen(least, chance);
                reader = model.log.read_from(model.removed, Bound::Durable);
            }
            97..100 => {
                disk.restart();
                model.reopen(model.durable, chance);
                reader = model.log.read_from(model.removed, Bound::Durable);
            }
            _ => follow(&mut reader, &model),
        }
    }
    follow(&mut reader, &model);
    model.finish();
}

fn disk_bytes(rng: &mut Rng) -> u64 {
    if rng.chance(500) { u64::MAX } else { (16 << 10) + rng.below(64 << 10) }
}

/// Appends and writes go on while the disk works.
fn overlapped_sync(model: &mut Model, rng: &mut Rng) {
    let Ok(ticket) = model.log.begin_sync() else {
        model.durable = model.log.durable_index();
        return;
    };
    for _ in 0..rng.below(6) {
        let payload = payload(rng, model.accepted.len());
        let _ = model.append(payload, false);
        if rng.chance(300) {
            let _ = model.write();
        }
    }
    if rng.chance(50) {
        return;
    }
    let done = ticket.run();
    let _ = model.log.finish_sync(done);
    model.durable = model.log.durable_index();
}

fn follow(reader: &mut tidegate_segment::Reader<SimDisk>, model: &Model) {
    if reader.index() < model.removed {
        *reader = model.log.read_from(model.removed, Bound::Durable);
    }
    while let Some(frame) = reader.next().unwrap() {
        assert!(frame.index < model.log.durable_index());
        assert!(frame.payload == model.accepted[usize::try_from(frame.index).unwrap()]);
    }
    assert_eq!(reader.index(), model.log.durable_index());
}

/// Seeds of schedules that once lost something, and what it was.
#[test]
fn no_schedule_loses_again_what_it_lost_once() {
    // An older segment was unlinked while the name of the newer one was not durable yet.
    schedule(6368);
}
