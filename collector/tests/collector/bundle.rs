//! Bundles prove themselves, and no byte of them may change.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate_collector::bundle;
use tidegate_ledger::verify::{Report, verify_bundle};
use tidegate_proto::audit::v1::decision::Verdict;

use crate::agent::FakeAgent;
use crate::home::Home;
use crate::witness::{against, witness};

fn judge(home: &Home, dir: &Path) -> Report {
    let (parts, _, _) = bundle::read(dir).unwrap();
    verify_bundle(against(home, &[]).trust(&home.keys()).unwrap(), &parts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_proves_what_was_asked_for_and_any_change_is_found() {
    let mut home = Home::new();
    let (witness, _) = witness(&mut home, "w").await;
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.session();
    let mut first = 0;
    for round in 0..4 {
        agent.statement("select 1", "select", "public.accounts", Verdict::Allow);
        wire.send(agent.batch()).await;
        let facts = wire.receipt().await;
        if round == 1 {
            first = facts.first_index;
        }
    }
    running.stop().await.unwrap();

    let policy = home.config.policy(home.keys().verifier().unwrap()).unwrap();
    let dir = home.dir.path().join("bundle");
    let wanted = BTreeSet::from([first]);
    let parts = bundle::make(&home.log(), &home.keys(), &policy, &wanted).unwrap();
    bundle::write(&dir, &parts, &home.keys(), &policy, "which?").unwrap();
    // The statement, its outcome, their seal, and the chain's Genesis.
    assert_eq!(parts.entries.len(), 4);
    let report = judge(&home, &dir);
    assert_eq!(report.exit_code(), 0, "{report:?}");
    assert_eq!((report.records, report.seals), (3, 1));
    assert!(report.witnessed_size > 0);
    assert!(bundle::write(&dir, &parts, &home.keys(), &policy, "").is_err(), "overwritten");

    for file in ["checkpoint".into(), format!("entries/{first}"), format!("entries/{}", first + 1)]
    {
        let path = dir.join(file);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            if path.ends_with("checkpoint") && String::from_utf8(changed).is_err() {
                continue;
            }
            assert_eq!(judge(&home, &dir).exit_code(), 20, "{} byte {at}", path.display());
        }
        std::fs::write(&path, &whole).unwrap();
    }
    for missing in [first, first + 1, first + 2] {
        let path = dir.join(format!("entries/{missing}"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_ne!(judge(&home, &dir).exit_code(), 0, "entry {missing} is gone");
        std::fs::write(&path, &whole).unwrap();
    }
    let proof = |index: u64| dir.join(format!("proofs/{index}.tlog-proof"));
    std::fs::copy(proof(first + 1), proof(first)).unwrap();
    assert_eq!(judge(&home, &dir).exit_code(), 20, "another entry's proof");
    witness.stop();
}
