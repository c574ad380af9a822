//! One workload that touches everything: power cut, EIO, ENOSPC and a short write at every one of its calls.

use tidegate_segment::Options;
use tidegate_testkit::{Fault, Rng, SimDisk};

use crate::harness::{Model, payload};

const OPTIONS: Options = Options {
    owner: [9; 32],
    segment_bytes: 4096,
    backlog_bytes_max: 48 << 10,
    reserve_bytes: 4096,
    durable_floor: 0,
};

/// Seeds per call: what a cut keeps is a matter of chance.
const SEEDS: u64 = 2;

fn work(model: &mut Model, seed: u64) {
    let mut rng = Rng::new(seed);
    for round in 0..24u64 {
        for _ in 0..=round % 4 {
            let payload = payload(&mut rng, model.accepted.len());
            let _ = model.append(payload, round % 7 == 0);
        }
        match round % 4 {
            0 => drop(model.write()),
            3 if round > 10 => model.remove_before(model.durable / 2),
            _ => drop(model.sync()),
        }
        if model.disk.is_cut() {
            return;
        }
    }
    let _ = model.log.close();
    model.durable = model.log.durable_index();
}

fn start(seed: u64) -> Model {
    Model::new(SimDisk::new(seed), OPTIONS)
}

fn at_every_call(fault: Fault, after: impl Fn(Model)) {
    for seed in 0..SEEDS {
        let mut whole = start(seed);
        let from = whole.disk.calls();
        work(&mut whole, seed);
        for call in from..whole.disk.calls() {
            let mut model = start(seed);
            model.disk.fail_call(call, fault);
            work(&mut model, seed);
            after(model);
        }
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_durable() {
    at_every_call(Fault::PowerCut, |mut model| {
        model.disk.restart();
        model.reopen(model.durable, 0);
        model.finish();
    });
}

#[test]
fn one_io_error_at_any_call_loses_nothing_accepted() {
    at_every_call(Fault::Eio, |model| {
        assert!(!model.log.is_poisoned(), "one failure is survived");
        model.finish();
    });
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_accepted() {
    at_every_call(Fault::Enospc, |model| {
        assert!(!model.log.is_poisoned());
        model.finish();
    });
}

#[test]
fn a_short_write_at_any_call_is_completed() {
    at_every_call(Fault::Short, Model::finish);
}

#[test]
fn a_power_cut_at_any_call_of_a_recovery_loses_nothing_durable() {
    for seed in 0..SEEDS * 2 {
        for cut in 0.. {
            let mut model = start(seed);
            work(&mut model, seed);
            let payload = payload(&mut Rng::new(seed), model.accepted.len());
            model.append(payload, false).unwrap();
            model.write().unwrap();
            model.disk.restart();
            model.disk.fail_call(model.disk.calls() + cut, Fault::PowerCut);
            let opened = tidegate_segment::Log::open(model.disk.clone(), OPTIONS);
            let was_cut = model.disk.is_cut();
            model.disk.restart();
            drop(opened);
            model.reopen(model.durable, 0);
            model.finish();
            if !was_cut {
                break;
            }
        }
    }
}

#[test]
fn two_failures_in_a_row_poison_for_good() {
    let mut model = start(1);
    model.append(b"durable".to_vec(), false).unwrap();
    model.sync().unwrap();
    model.append(b"never durable".to_vec(), false).unwrap();
    model.disk.set_chance(1000);
    while !model.log.is_poisoned() {
        assert!(model.sync().is_err());
    }
    model.disk.set_chance(0);
    assert!(model.append(Vec::new(), true).is_err());
    assert!(model.sync().is_err() && model.write().is_err());
    assert_eq!(model.log.durable_index(), 1);
    model.check_content();
    model.finish();
}
