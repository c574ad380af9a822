//! Whole runs over real files: levels, links, restarts, the uplink.

use std::future::Future as _;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use tidegate_event::*;
use tidegate_journal::*;
use tidegate_ledger::SigningKey;
use tidegate_proto::audit::v1::{AuditRecord, audit_record::Body};

use crate::support::*;

fn open(dir: &Path) -> (Journal, Recovered) {
    Journal::open(dir, spool_options(), options(1), clock()).unwrap()
}

fn bodies(batches: &[SealedBatch]) -> Vec<AuditRecord> {
    let records = batches.iter().flat_map(|batch| &batch.records);
    records.map(|record| AuditRecord::decode(record.clone()).unwrap()).collect()
}

#[test]
fn each_level_is_redeemed_when_it_is_reached_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, recovered) = open(dir.path());
    assert!(recovered.clean && recovered.previous.is_none());
    let session = open_session(&journal, OnFailure::Closed).unwrap();
    let runtime = runtime();

    let process = session.operation(&read(), permit(&read(), Durability::Process)).unwrap();
    assert_eq!(process.level(), Durability::Process);
    assert!(journal.hand_over(&process).unwrap().unwrap().covers(&process));

    let host = session.operation(&change(), permit(&change(), Durability::Process)).unwrap();
    assert_eq!(host.level(), Durability::Host);
    assert!(journal.hand_over(&host).unwrap().is_none(), "a write is not enough for it");
    let receipt = runtime.block_on(journal.redeem(&host)).unwrap();
    assert!(receipt.covers(&host) && receipt.covers(&process) && !receipt.is_open());
    assert!(journal.health().durable_seq >= Some(host.seq()));

    let far = session.operation(&read(), permit(&read(), Durability::Collector)).unwrap();
    assert!(!receipt.covers(&far));
    journal.seal_and_sync().unwrap();
    assert!(journal.try_redeem(&far).is_none());
    assert_eq!(host.and(&far), far);
    let mut source = journal.uplink();
    runtime.block_on(async {
        loop {
            let batch = source.next().await.unwrap();
            source.acknowledge(batch.chain_id, batch.last).unwrap();
            if batch.last >= far.seq() {
                break;
            }
        }
        assert!(journal.redeem(&far).await.unwrap().covers(&host));
    });
    session.outcome(far.seq(), &ok()).unwrap();
    let refused = session.refusal(&change(), &denial(&change())).unwrap();
    session.close(&Ending::Client, SessionCounts { operations: 3, ..Default::default() }).unwrap();
    assert!(runtime.block_on(journal.redeem(&refused)).unwrap().covers(&refused));
    journal.shutdown().unwrap();
    assert_eq!(session.outcome(far.seq(), &ok()), Err(JournalError::Closed));
}

#[test]
fn runs_follow_each_other_and_the_whole_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let mut records = 0;
    for run in 0..4 {
        let (journal, recovered) = open(dir.path());
        assert_eq!(recovered.clean, run != 2, "run {run}: {recovered:?}");
        assert_eq!(recovered.previous.map_or(0, |chain| chain.records), records);
        let session = open_session(&journal, OnFailure::Closed).unwrap();
        for _ in 0..300 {
            let pledge = session.operation(&read(), permit_read()).unwrap();
            session.outcome(pledge.seq(), &ok()).unwrap();
        }
        journal.lifecycle(Lifecycle::ConfigLoaded, "test", Some(&Digest([4; 32]))).unwrap();
        journal.heartbeat(&HeartbeatCounts { captured: 3, ..Default::default() }).unwrap();
        journal
            .refused_session(&SessionRefusal {
                reason: "no principal",
                client: client(),
                original: None,
                process: None,
            })
            .unwrap();
        records = journal.health().next_seq.0;
        if run == 1 {
            journal.seal_and_sync().unwrap();
            records = journal.health().next_seq.0;
            drop(journal);
        } else {
            records += 1;
            journal.shutdown().unwrap();
        }
    }
    let (journal, _) = open(dir.path());
    let (batches, entries) = collect(&journal);
    let report = verdict(&entries);
    assert_eq!(report.findings, []);
    assert_eq!(report.chains.len(), 5);
    assert!(batches.iter().all(|batch| batch.records.len() as u64 <= SEAL_RECORDS_MAX));
    let all = bodies(&batches);
    let recovered: Vec<_> =
        all.iter().filter(|record| matches!(record.body, Some(Body::Recovered(_)))).collect();
    assert_eq!(recovered.len(), 1);
    assert!(all.iter().filter(|one| matches!(one.body, Some(Body::Outcome(_)))).all(|outcome| {
        all.iter().any(|one| {
            Some(one.seq) == outcome.cause_seq
                && one.chain_id == outcome.chain_id
                && matches!(one.body, Some(Body::Operation(_)))
        })
    }));
}

fn permit_read() -> tidegate_policy::Permit {
    permit(&read(), Durability::Process)
}

#[test]
fn many_threads_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let journal = journal.clone();
            scope.spawn(move || {
                let session = open_session(&journal, OnFailure::Closed).unwrap();
                let runtime = runtime();
                for round in 0..60 {
                    let operation = if (round + thread) % 5 == 0 { change() } else { read() };
                    let permit = permit(&operation, Durability::Process);
                    let pledge = session.operation(&operation, permit).unwrap();
                    let receipt = runtime.block_on(journal.redeem(&pledge)).unwrap();
                    assert!(receipt.covers(&pledge));
                    session.outcome(pledge.seq(), &ok()).unwrap();
                }
            });
        }
    });
    let (batches, entries) = collect(&journal);
    assert_eq!(verdict(&entries).findings, []);
    let operations = bodies(&batches)
        .iter()
        .filter(|record| matches!(record.body, Some(Body::Operation(_))))
        .count();
    assert_eq!(operations, 16 * 60);
}

#[test]
fn the_uplink_goes_on_where_the_collector_is() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let chain = journal.health().chain_id;
    for _ in 0..5 {
        journal.lifecycle(Lifecycle::Warning, "test", None).unwrap();
        journal.seal_and_sync().unwrap();
    }
    let (batches, _) = collect(&journal);
    let runtime = runtime();
    let mut source = journal.uplink();
    runtime.block_on(async {
        assert_eq!(source.oldest().await.unwrap(), Some((chain, Seq(0))));
        assert_eq!(source.next().await.unwrap(), batches[0]);
        let third = &batches[2];
        source.seek(chain, third.first).await.unwrap();
        assert_eq!(source.next().await.unwrap(), *third);
        source.acknowledge(chain, Seq(third.first.0 - 1)).unwrap();
        assert_eq!(journal.health().acknowledged_seq, Some(Seq(third.first.0 - 1)));
        // Receipts that come again, or late, change nothing.
        source.acknowledge(chain, Seq(0)).unwrap();
        assert_eq!(journal.health().acknowledged_seq, Some(Seq(third.first.0 - 1)));
        source.acknowledge(chain, third.last).unwrap();
        assert_eq!(source.oldest().await.unwrap(), Some((chain, third.first)));
    });
    // The next run still knows the end of this one, and offers the last batch again.
    source.acknowledge(chain, Seq(0)).unwrap();
    journal.shutdown().unwrap();
    runtime.block_on(async {
        let mut last = Seq(0);
        loop {
            match source.next().await {
                Ok(batch) => last = batch.last,
                Err(error) => break assert_eq!(error, JournalError::Closed),
            }
        }
        source.acknowledge(chain, last).unwrap();
        assert_eq!(last.next(), journal.health().next_seq);
    });
    let records = journal.health().next_seq.0;
    drop((journal, source));
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered.previous, Some(PreviousChain { chain_id: chain, records }));
    let (batches, _) = collect(&journal);
    assert_eq!(batches[0].chain_id, chain);
    assert_eq!(batches[0].last.0 + 1, records);
}

#[test]
fn another_audit_key_does_not_take_over_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let chain_id = journal.health().chain_id;
    journal.shutdown().unwrap();
    drop(journal);
    let other = Options { audit_key: SigningKey::from_bytes(&[9; 32]), ..options(1) };
    let refused = Journal::open(dir.path(), spool_options(), other, clock()).err();
    assert_eq!(refused, Some(JournalError::OtherKey { chain_id }));
}

/// The next batch, if it is offered without any wait.
async fn offered(source: &mut UplinkSource) -> Option<SealedBatch> {
    let mut next = pin!(source.next());
    let polled = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
    match polled {
        Poll::Ready(batch) => Some(batch.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn what_nobody_waits_for_is_offered_together_and_what_somebody_waits_for_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let session = open_session(&journal, OnFailure::Closed).unwrap();
    let record = |level| {
        let pledge = session.operation(&read(), permit(&read(), level)).unwrap();
        journal.seal_and_sync().unwrap();
        pledge.seq()
    };
    let mut clock = tokio::runtime::Builder::new_current_thread();
    clock.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut source = journal.uplink();
        while offered(&mut source).await.is_some() {}
        let first = record(Durability::Process);
        record(Durability::Process);
        let last = record(Durability::Process);
        assert!(offered(&mut source).await.is_none(), "offered before its time");
        tokio::time::advance(Duration::from_millis(OFFER_MS)).await;
        let mut batches = Vec::new();
        while let Some(batch) = offered(&mut source).await {
            batches.push(batch);
        }
        assert!(batches.len() >= 3, "one batch for each sync: {}", batches.len());
        assert!(batches.first().is_some_and(|batch| batch.first <= first));
        assert!(batches.last().is_some_and(|batch| batch.last >= last));
        let far = record(Durability::Collector);
        let batch = offered(&mut source).await.unwrap();
        assert!(batch.last >= far);
    });
}
