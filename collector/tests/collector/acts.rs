//! What is done to the collector is in its log.

use tidegate_collector::acts::Act;
use tidegate_collector::index;
use tidegate_collector::query::{Filter, ask, write_replay};
use tidegate_proto::audit::v1::decision::Verdict;

use crate::agent::{FakeAgent, SESSION};
use crate::home::{Home, indexed, within};

fn admin(home: &Home) -> Vec<String> {
    let db = index::open_for_reading(&home.config.paths().index()).unwrap();
    let filter = Filter { admin: true, limit: 1000, ..Filter::default() };
    let answers = ask(&db, &filter).unwrap();
    assert!(answers.iter().all(|answer| answer.agent == "@collector"));
    answers.into_iter().map(|answer| answer.text).collect()
}

#[tokio::test]
async fn each_act_is_in_the_log_once_over_restarts_and_a_lost_state() {
    let home = Home::new();
    home.state().act(&Act::new("asked", "before the first start")).unwrap();
    let running = home.serve().await;
    let agent = FakeAgent::new("a", 1);
    home.enrol(&running, "a", &agent.key).await;
    running.stop().await.unwrap();
    home.state().act(&Act::new("asked", "between")).unwrap();

    // The acts that are in the log already, as if a crash had kept them from being forgotten.
    let db = rusqlite::Connection::open(home.config.paths().state()).unwrap();
    db.execute(
        "INSERT INTO acts (id, wall_ns, who, act, detail, digest)
         VALUES (1, 1, 'uid 0', 'asked', 'before the first start', x'')",
        [],
    )
    .unwrap();
    drop(db);
    let running = home.serve().await;
    running.stop().await.unwrap();
    // An older state, whose numbers begin anew.
    let state = home.config.paths().state();
    for end in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{end}", state.display())).ok();
    }
    let running = home.serve().await;
    home.state().act(&Act::new("exported", "after the loss")).unwrap();
    running.stop().await.unwrap();
    let running = home.serve().await;
    // The act of this start is written with the first tick.
    let mut news = running.indexed.clone();
    let started = || admin(&home).iter().filter(|act| act.starts_with("started")).count();
    within(async {
        while started() < 4 {
            news.changed().await.unwrap();
        }
    })
    .await;
    running.stop().await.unwrap();

    let acts = admin(&home);
    for (text, times) in [
        ("asked before the first start", 1),
        ("agent_enrolled agent a,", 1),
        ("asked between", 1),
        ("exported after the loss", 1),
        ("started version", 4),
        ("stopping", 3),
    ] {
        let found = acts.iter().filter(|act| act.starts_with(text)).count();
        assert_eq!(found, times, "{text}: {acts:#?}");
    }
    // The agent's key went with the state, and it has no chain here.
    assert_eq!(home.verify().exit_code(), 0, "{:?}", home.verify());
}

#[tokio::test]
async fn a_replay_shows_a_session_and_steers_no_terminal() {
    let home = Home::new();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.session();
    agent.statement("select 1 -- \x1b]0;owned\x07", "select", "accounts", Verdict::Allow);
    agent.statement("delete from accounts", "delete", "accounts", Verdict::Deny);
    wire.deliver(agent.batch()).await;
    indexed(&running).await;
    running.stop().await.unwrap();

    let db = index::open_for_reading(&home.config.paths().index()).unwrap();
    let session = Some(hex::encode(SESSION));
    let filter = Filter { session, limit: 1000, ..Filter::default() };
    let mut shown = Vec::new();
    write_replay(&mut shown, &ask(&db, &filter).unwrap(), 10).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    assert!(!shown.chars().any(|c| c < ' ' && c != '\n'), "{shown:?}");
    for part in [
        "of batch to ledger",
        "ALLOW  SELECT  ok  3 rows",
        "DENY  (by policy)  DELETE",
        "␛]0;owned␇",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("session_open"), "{shown}");
}
