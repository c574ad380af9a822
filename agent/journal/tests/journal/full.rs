//! The ladder of a filling spool, and `on_failure = "open"`.

use prost::Message as _;
use tidegate_event::*;
use tidegate_journal::*;
use tidegate_proto::audit::v1::{AuditRecord, audit_record::Body, bypass::Phase};

use crate::support::*;

fn big() -> Operation {
    statement(Action::Select, &"x".repeat(12 * 1024))
}

#[test]
fn a_filling_spool_refuses_sessions_then_statements_and_keeps_room_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let small = tidegate_spool::Options { bytes_max: 1 << 20, ..spool_options() };
    let (journal, _) = Journal::open(dir.path(), small, options(1), clock()).unwrap();
    let session = open_session(&journal, OnFailure::Closed).unwrap();
    assert!(journal.pass_open(&target()).is_none(), "it can record");
    let mut no_sessions_at = None;
    let refused = loop {
        let level = journal.fill().level;
        if level >= Level::NoNewSessions80 && no_sessions_at.is_none() {
            no_sessions_at = Some(level);
            let refused = open_session(&journal, OnFailure::Closed).err();
            assert!(matches!(refused, Some(JournalError::NoNewSessions { .. })), "{refused:?}");
            assert!(open_session(&journal, OnFailure::Open).is_ok());
        }
        match session.operation(&big(), permit(&big(), Durability::Process)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(refused.is_full(), "{refused:?}");
    assert_eq!(no_sessions_at, Some(Level::NoNewSessions80));
    assert!(journal.fill().level >= Level::NoNewStatements95);

    // What passes open is bracketed; what the agent says of itself finds room.
    for _ in 0..3 {
        assert!(journal.pass_open(&target()).unwrap().is_open());
    }
    journal.passed_open(&target(), 100, 2, 1);
    journal.heartbeat(&HeartbeatCounts::default()).unwrap();
    session.close(&Ending::Client, SessionCounts::default()).unwrap();

    // The collector takes everything: records are taken again, and the bypass ends.
    let (batches, entries) = collect(&journal);
    let report = verdict(&entries);
    assert_eq!(report.exit_code(), 10, "{:#?}", report.findings);
    let mut source = journal.uplink();
    runtime().block_on(async {
        for _ in &batches {
            let batch = source.next().await.unwrap();
            source.acknowledge(batch.chain_id, batch.last).unwrap();
        }
    });
    journal.shutdown().unwrap();
    let mut ends = Vec::new();
    runtime().block_on(async {
        while let Ok(batch) = source.next().await {
            for record in batch.records {
                if let Some(Body::Bypass(bypass)) = AuditRecord::decode(record).unwrap().body {
                    ends.push(bypass);
                }
            }
        }
    });
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].phase(), Phase::End);
    assert_eq!((ends[0].operations, ends[0].connections, ends[0].bytes), (5, 1, 100));
}
