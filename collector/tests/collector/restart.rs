//! Restarts: nothing lost, nothing twice, nothing served that is not the log that was signed.

use bytes::Bytes;
use tidegate_collector::query::{Filter, ask, write_json, write_table};
use tidegate_collector::{index, log, serve};
use tidegate_event::Seq;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::entry;
use tidegate_proto::uplink::v1::{Batch, refused::Why};
use tidegate_segment::os::OsFiles;
use tidegate_segment::{Log, Options};

use crate::agent::FakeAgent;
use crate::home::{Home, indexed, of_agents, within};

#[tokio::test]
async fn a_stop_between_sync_and_receipt_loses_nothing_and_keeps_nothing_twice() {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (wire, _) = home.greeted(&running, &pass, None).await;
    let batches: Vec<Batch> = (0..6).map(|_| agent.heartbeats(4)).collect();
    for batch in &batches[..4] {
        wire.send(batch.clone()).await;
    }
    // Four batches of four heartbeats and the Genesis; no receipt was read.
    let mut durable = running.durable.clone();
    while of_agents(&home.verify()) < 17 {
        within(durable.changed()).await.unwrap();
    }
    running.stop().await.unwrap();

    let running = home.serve().await;
    let (mut wire, ack) = home.greeted(&running, &pass, Some((agent.chain.id(), 0))).await;
    assert_eq!((ack.known, ack.durable_seq), (true, 16));
    for (batch, last) in batches.iter().zip([4, 8, 12, 16, 20, 24]) {
        assert_eq!(wire.deliver(batch.clone()).await, Seq(last));
    }
    running.stop().await.unwrap();
    let report = home.verify();
    assert_eq!((report.exit_code(), of_agents(&report)), (0, 25));
}

/// Leaves records without their seal at the log's end, as a crash in the middle of a write does.
fn tear(home: &Home, agent: &FakeAgent, records: &[Bytes]) {
    let files = OsFiles::open(&home.log().join(log::SEGMENTS)).unwrap();
    let (mut log, _) = Log::open(files, Options::default()).unwrap();
    for record in records {
        let entry = entry::encode(Kind::Record, &agent.chain.id(), 1, record);
        log.append(log::FRAME_RECORD, &entry).unwrap();
    }
    log.sync().unwrap();
}

#[tokio::test]
async fn a_batch_that_a_crash_cut_is_completed_by_the_agent() {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    wire.deliver(agent.heartbeats(2)).await;
    running.stop().await.unwrap();

    let mut other = agent.clone();
    other.session();
    let batch = agent.heartbeats(5);
    tear(&home, &agent, &batch.records[..3]);
    assert_eq!(home.verify().exit_code(), 30, "unsealed records are told");

    let running = home.serve().await;
    let (mut wire, ack) = home.greeted(&running, &pass, Some((agent.chain.id(), 0))).await;
    assert_eq!(ack.durable_seq, 2, "only what is sealed counts as held");
    wire.send(other.heartbeats(1)).await;
    assert_eq!(wire.refused().await.why(), Why::Fork, "another history than the torn one");
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    assert_eq!(wire.deliver(batch).await, Seq(7));
    running.stop().await.unwrap();
    let report = home.verify();
    // The other history is a fork, which the log tells; the clock is that of `tear`.
    let said: Vec<_> = report.findings.iter().map(|found| found.class.name()).collect();
    assert_eq!((said, of_agents(&report)), (vec!["tampering", "notice"], 8), "{report:?}");
    assert!(report.findings[0].what.contains("FORK"));
}

async fn two_batches(home: &Home) -> (FakeAgent, std::path::PathBuf) {
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    wire.deliver(agent.heartbeats(2)).await;
    running.stop().await.unwrap();
    let older = home.dir.path().join("older");
    copy(&home.log().join(log::SEGMENTS), &older);
    let running = home.serve().await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    wire.deliver(agent.heartbeats(2)).await;
    running.stop().await.unwrap();
    (agent, older)
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

async fn refusal(home: &Home) -> String {
    format!("{:#}", serve::start(&home.config).await.err().unwrap())
}

#[tokio::test]
async fn a_log_that_was_set_back_is_not_served() {
    let home = Home::new();
    let (_, older) = two_batches(&home).await;
    let segments = home.log().join(log::SEGMENTS);
    std::fs::remove_dir_all(&segments).unwrap();
    copy(&older, &segments);
    let error = refusal(&home).await;
    assert!(error.contains("not served"), "{error}");
    assert_eq!(home.verify().exit_code(), 20);
}

#[tokio::test]
async fn another_log_of_the_same_length_is_not_served() {
    let home = Home::new();
    let (agent, _) = two_batches(&home).await;
    let length = usize::try_from(home.verify().entries).unwrap();
    let segments = home.log().join(log::SEGMENTS);
    std::fs::remove_dir_all(&segments).unwrap();
    let mut liar = FakeAgent::new("a", 1);
    liar.session();
    let batch = liar.heartbeats(length);
    let mut records = batch.records.clone();
    records.truncate(length);
    tear(&home, &agent, &records);
    let error = refusal(&home).await;
    assert!(error.contains("not those of its signed checkpoint"), "{error}");
}

fn questions() -> Vec<Filter> {
    let all = Filter { limit: 1000, ..Filter::default() };
    let some = |text: &str| Some(text.to_owned());
    vec![
        all.clone(),
        Filter { limit: 2, ..all.clone() },
        Filter { table: some("accounts"), ..all.clone() },
        Filter { table: some("public.accounts"), ..all.clone() },
        Filter { table: some("other.accounts"), ..all.clone() },
        Filter { verdict: some("deny"), ..all.clone() },
        Filter { who: some("batch"), target: some("ledger"), ..all.clone() },
        Filter { who: some("nobody"), ..all.clone() },
        Filter { kind: some("heartbeat"), ..all.clone() },
        Filter { kind: some("delete"), ..all.clone() },
        Filter { text: some("FROM ACC"), ..all.clone() },
        Filter { since_ns: Some(1_700_000_004_000_000_000), ..all.clone() },
        Filter { until_ns: Some(1_700_000_004_000_000_000), ..all.clone() },
        Filter { agent: some("a"), session: some(&hex::encode(crate::agent::SESSION)), ..all },
    ]
}

fn answers(home: &Home) -> (Vec<usize>, Vec<u8>) {
    let db = index::open_for_reading(&home.config.paths().index()).unwrap();
    let (mut counts, mut bytes) = (Vec::new(), Vec::new());
    for question in questions() {
        let answers = ask(&db, &question).unwrap();
        counts.push(answers.len());
        write_json(&mut bytes, &answers).unwrap();
        write_table(&mut bytes, &answers).unwrap();
    }
    (counts, bytes)
}

#[tokio::test]
async fn a_rebuilt_index_gives_the_same_bytes() {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.heartbeat();
    agent.session();
    wire.deliver(agent.batch()).await;
    agent.statement("select * from accounts\n", "select", "public.accounts", Verdict::Allow);
    agent.statement("delete from accounts", "delete", "accounts", Verdict::Deny);
    agent.statement("select 1 from branches", "select", "branches", Verdict::Allow);
    wire.deliver(agent.batch()).await;
    indexed(&running).await;
    let live = answers(&home);
    // Beside a serving collector nobody rebuilds.
    let paths = home.config.paths();
    assert!(index::rebuild(&paths.log(), &paths.index()).is_err());
    running.stop().await.unwrap();

    assert_eq!(live.0, [3, 2, 2, 2, 1, 1, 3, 0, 1, 1, 2, 2, 1, 4]);
    let entries = index::rebuild(&paths.log(), &paths.index()).unwrap();
    assert_eq!(entries, home.verify().entries);
    assert!(answers(&home) == live, "the rebuilt index answers otherwise");

    std::fs::remove_file(paths.index()).unwrap();
    let running = home.serve().await;
    indexed(&running).await;
    assert!(answers(&home) == live, "the index made by following answers otherwise");
    running.stop().await.unwrap();
}
