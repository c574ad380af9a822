//! Crashes at random points on a simulated disk. The schedule of threads is the machine's, so a
//! seed finds its neighbourhood again, not the very instruction.

use tidegate_event::*;
use tidegate_journal::*;
use tidegate_testkit::{Fault, Rng, SimDisk};

use crate::support::*;

/// Schedules in an ordinary run; TIDEGATE_SCHEDULES says another number.
const SCHEDULES: u64 = 16;
const RUNS_MAX: u64 = 4;

fn open(disk: &SimDisk, boot: u8) -> Result<(Journal<SimDisk>, Recovered), JournalError> {
    Journal::with_files(disk.clone(), spool_options(), options(boot), clock())
}

/// What the agent was told, and may have acted on.
#[derive(Default)]
struct Told {
    written: Vec<(ChainId, Seq)>,
    synced: Vec<(ChainId, Seq)>,
}

/// Works until the disk fails or the round is over.
fn work(journal: &Journal<SimDisk>, rng: &mut Rng, told: &mut Told) {
    let chain = journal.health().chain_id;
    let runtime = runtime();
    let Ok(session) = open_session(journal, OnFailure::Closed) else {
        return;
    };
    for _ in 0..rng.below(60) {
        let operation = if rng.chance(300) { change() } else { read() };
        let Ok(pledge) = session.operation(&operation, permit(&operation, Durability::Process))
        else {
            return;
        };
        if runtime.block_on(journal.redeem(&pledge)).is_err() {
            return;
        }
        told.written.push((chain, pledge.seq()));
        if pledge.level() == Durability::Host {
            told.synced.push((chain, pledge.seq()));
        }
        if rng.chance(800) && session.outcome(pledge.seq(), &ok()).is_err() {
            return;
        }
    }
}

fn check_all_there(told: &[(ChainId, Seq)], batches: &[SealedBatch], what: &str) {
    for (chain, seq) in told {
        let found = batches
            .iter()
            .any(|batch| batch.chain_id == *chain && batch.first <= *seq && *seq <= batch.last);
        assert!(found, "{what}: record {seq} of chain {chain} is gone");
    }
}

fn schedule(seed: u64) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let mut told = Told::default();
    let mut boot = 1;
    let mut ends = 0;
    for _ in 0..=rng.below(RUNS_MAX) {
        if rng.chance(500) {
            disk.fail_call(disk.calls() + rng.below(80), Fault::PowerCut);
        }
        let journal = open(&disk, boot);
        if let Ok((journal, _)) = &journal {
            work(journal, &mut rng, &mut told);
        }
        if !disk.is_cut()
            && rng.chance(200)
            && let Ok((journal, _)) = &journal
        {
            let _ = journal.shutdown();
        }
        if disk.is_cut() || rng.chance(400) {
            disk.cut();
            drop(journal);
            disk.restart();
            boot += 1;
            ends += 1;
            told.written.clone_from(&told.synced);
        } else {
            disk.kill();
            drop(journal);
        }
    }
    // A planned fault may still lie ahead; it may hit this start, and then the next one counts.
    let what = format!("seed {seed}");
    let mut tries = 0..3;
    let journal = loop {
        match open(&disk, boot) {
            Ok((journal, _)) if !disk.is_cut() => break journal,
            failed => {
                let error = failed.err();
                assert!(disk.is_cut() && tries.next().is_some(), "{what}: {error:?}");
                disk.restart();
                boot += 1;
                ends += 1;
                told.written.clone_from(&told.synced);
            }
        }
    };
    // What follows looks at what is there.
    disk.forget_plan();
    let what = format!("seed {seed}, {ends} power cuts");
    journal.seal_and_sync().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (batches, entries) = collect(&journal);
    check_all_there(&told.synced, &batches, &what);
    check_all_there(&told.written, &batches, &what);
    let report = verdict(&entries);
    let expected = if ends == 0 { &[0][..] } else { &[0, 10] };
    assert!(expected.contains(&report.exit_code()), "{what}: {:#?}", report.findings);
}

#[test]
fn what_was_redeemed_is_there_after_any_crash() {
    let wanted = std::env::var(tidegate_testkit::SCHEDULES_VARIABLE).ok();
    for seed in 0..tidegate_testkit::schedules(wanted.as_deref(), SCHEDULES) {
        schedule(seed);
    }
}

#[test]
fn a_failed_sync_is_told_to_who_waits_and_the_next_one_may_succeed() {
    let disk = SimDisk::new(1);
    let (journal, _) = open(&disk, 1).unwrap();
    let session = open_session(&journal, OnFailure::Closed).unwrap();
    let runtime = runtime();
    disk.set_chance(1000);
    let refused = session
        .operation(&change(), permit(&change(), Durability::Process))
        .and_then(|pledge| runtime.block_on(journal.redeem(&pledge)).map(|_| ()));
    assert!(refused.is_err());
    disk.set_chance(0);
    assert!(journal.pass_open(&target()).is_some());
    assert_eq!(journal.health().passing_open, ["ledger"]);
}
