//! What goes into the log, and what doesn't.

use tidegate_event::Seq;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::uplink::v1::Batch;
use tidegate_proto::uplink::v1::refused::Why;

use crate::agent::FakeAgent;
use crate::home::{Home, Pass, Wire, of_agents};
use tidegate_collector::serve::Running;

async fn ready(home: &Home) -> (Running, FakeAgent, Pass, Wire) {
    let running = home.serve().await;
    let agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (wire, _) = home.greeted(&running, &pass, Some((agent.chain.id(), 0))).await;
    (running, agent, pass, wire)
}

#[tokio::test]
async fn a_receipt_says_what_is_durable_and_a_duplicate_changes_nothing() {
    let home = Home::new();
    let (running, mut agent, _, mut wire) = ready(&home).await;
    let batches: Vec<Batch> = (0..3).map(|_| agent.heartbeats(5)).collect();
    wire.send(batches[0].clone()).await;
    let facts = wire.receipt().await;
    // Genesis and five heartbeats, then their seal.
    assert_eq!((facts.durable, facts.last_index - facts.first_index), (Seq(5), 6));
    assert_eq!(wire.deliver(batches[1].clone()).await, Seq(10));
    for (batch, last) in [(0, 5), (1, 10), (0, 5)] {
        assert_eq!(wire.deliver(batches[batch].clone()).await, Seq(last));
    }
    assert_eq!(wire.deliver(batches[2].clone()).await, Seq(15));
    running.stop().await.unwrap();

    let report = home.verify();
    assert_eq!((report.exit_code(), of_agents(&report)), (0, 16), "{report:?}");
    assert_eq!(report.bound_size, report.entries, "the stop signed all of it");
}

/// Sends the batch on a fresh stream and gives the refusal.
async fn refusal(home: &Home, running: &Running, pass: &Pass, batch: Batch) -> (Why, u64) {
    let (mut wire, _) = home.greeted(running, pass, None).await;
    wire.send(batch).await;
    let refused = wire.refused().await;
    (refused.why(), refused.expected_seq)
}

#[tokio::test]
async fn what_does_not_continue_the_chain_is_refused_by_its_name() {
    let home = Home::new();
    let (running, mut agent, pass, mut wire) = ready(&home).await;
    wire.deliver(agent.heartbeats(5)).await;
    let good = agent.clone();

    let mut holed = good.clone();
    holed.heartbeats(2);
    assert_eq!(refusal(&home, &running, &pass, holed.heartbeats(1)).await, (Why::NotContiguous, 6));

    let mut wrong_key = good.clone();
    wrong_key.key = FakeAgent::new("a", 9).key;
    assert_eq!(refusal(&home, &running, &pass, wrong_key.heartbeats(1)).await.0, Why::BadSeal);

    let mut swapped = good.clone();
    let mut batch = swapped.heartbeats(2);
    batch.seal = good.clone().heartbeats(3).seal;
    assert_eq!(refusal(&home, &running, &pass, batch).await.0, Why::BadSeal);

    let mut reordered = good.clone().heartbeats(3);
    reordered.records.swap(1, 2);
    assert_eq!(refusal(&home, &running, &pass, reordered).await.0, Why::Malformed);
    assert_eq!(refusal(&home, &running, &pass, Batch::default()).await.0, Why::Malformed);

    let mut unlinked = FakeAgent::new("a", 1);
    unlinked.begin(None);
    unlinked.loose.remove(0);
    assert_eq!(refusal(&home, &running, &pass, unlinked.batch()).await.0, Why::Fork);

    let stranger = FakeAgent::new("a", 9).batch();
    assert_eq!(refusal(&home, &running, &pass, stranger).await.0, Why::BadSeal);

    // After all that the agent's own history still goes on.
    let (mut wire, ack) = home.greeted(&running, &pass, Some((agent.chain.id(), 6))).await;
    assert_eq!((ack.known, ack.durable_seq), (true, 5));
    assert_eq!(wire.deliver(agent.heartbeats(1)).await, Seq(6));
    running.stop().await.unwrap();
    let findings = home.verify().findings;
    let said: Vec<_> = findings.iter().map(|found| (found.class.name(), &found.what)).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().any(|(class, what)| *class == "tampering" && what.contains("FORK")));
    assert!(said.iter().any(|(class, what)| *class == "gap" && what.contains("records 6 to 7")));
}

#[tokio::test]
async fn a_second_history_is_a_fork_and_is_kept_as_evidence() {
    let home = Home::new();
    let (running, mut agent, pass, mut wire) = ready(&home).await;
    wire.deliver(agent.heartbeats(2)).await;
    let mut other = agent.clone();
    wire.deliver(agent.heartbeats(2)).await;
    // The same sequence numbers, other records, a good seal.
    other.session();
    other.session();
    let forked = other.batch();
    assert_eq!(refusal(&home, &running, &pass, forked.clone()).await.0, Why::Fork);
    assert_eq!(refusal(&home, &running, &pass, forked).await.0, Why::Fork);
    // And what goes on from it.
    assert_eq!(refusal(&home, &running, &pass, other.heartbeats(3)).await.0, Why::Fork);
    assert_eq!(home.state().forks().unwrap(), [("a".to_owned(), 2)]);
    running.stop().await.unwrap();
    let report = home.verify();
    assert_eq!((report.exit_code(), of_agents(&report)), (20, 5));
    assert_eq!(report.findings.len(), 2, "{report:?}");
    for found in &report.findings {
        assert!(found.what.contains("FORK: agent \"a\""), "{found}");
        assert!(found.index.is_some() && found.offset.is_some(), "{found}");
    }
}

#[tokio::test]
async fn a_new_chain_must_link_to_the_end_of_the_last_one() {
    let home = Home::new();
    let (running, mut agent, pass, mut wire) = ready(&home).await;
    wire.deliver(agent.heartbeats(2)).await;
    let unsent = {
        let mut agent = agent.clone();
        agent.heartbeats(3);
        agent.next_chain();
        agent.batch()
    };
    assert_eq!(refusal(&home, &running, &pass, unsent).await, (Why::NotContiguous, 3));
    let older = {
        let mut agent = agent.clone();
        let before = (agent.chain.id(), [3; 32], 3);
        agent.begin(Some(before));
        agent.batch()
    };
    assert_eq!(refusal(&home, &running, &pass, older).await.0, Why::Fork);

    agent.next_chain();
    let (mut wire, ack) = home.greeted(&running, &pass, Some((agent.chain.id(), 0))).await;
    assert!(!ack.known);
    assert_eq!(wire.deliver(agent.heartbeats(1)).await, Seq(1));

    // A host that lost its spool begins afresh, but only after a new enrolment.
    let mut reborn = agent.clone();
    reborn.begin(None);
    let fresh = reborn.batch();
    assert_eq!(refusal(&home, &running, &pass, fresh.clone()).await.0, Why::Fork);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    assert_eq!(wire.deliver(fresh).await, Seq(0));
    running.stop().await.unwrap();
    let findings = home.verify().findings;
    let said: Vec<_> = findings.iter().map(|found| found.class.name()).collect();
    assert_eq!(said, ["tampering", "gap"], "one fork, and the break is a gap: {findings:?}");
}

#[tokio::test]
async fn many_agents_share_the_log_and_a_second_stream_ends_the_first() {
    let home = Home::new();
    let running = home.serve().await;
    let mut tasks = Vec::new();
    for seed in 1..=4 {
        let mut agent = FakeAgent::new(&format!("agent-{seed}"), seed);
        let pass = home.enrol(&running, &agent.id, &agent.key).await;
        let (mut first, _) = home.greeted(&running, &pass, None).await;
        let (mut wire, _) = home.greeted(&running, &pass, None).await;
        assert!(first.input.message().await.is_err(), "the first stream lives on");
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                wire.send(agent.heartbeats(3)).await;
            }
            // Batches that are synced together get one receipt, of which the last covers all.
            let mut receipts = 1;
            let last = Seq(agent.chain.records() - 1);
            while wire.receipt().await.durable != last {
                receipts += 1;
            }
            assert!(receipts <= 10, "{receipts}");
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    running.stop().await.unwrap();
    let report = home.verify();
    assert_eq!((report.exit_code(), report.chains.len()), (0, 5), "{report:?}");
    assert_eq!(of_agents(&report), 4 * 31);
}

#[tokio::test]
async fn verify_works_beside_a_collector_that_serves() {
    let home = Home::new();
    let (running, mut agent, _, mut wire) = ready(&home).await;
    for _ in 0..10 {
        agent.session();
        agent.statement("select 1", "select", "public.accounts", Verdict::Allow);
        wire.deliver(agent.batch()).await;
        assert!([0, 30].contains(&home.verify().exit_code()), "{:?}", home.verify().findings);
    }
    running.stop().await.unwrap();
    assert_eq!(home.verify().exit_code(), 0);
}
