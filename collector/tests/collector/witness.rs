//! Witnesses, and a data directory that was set back: whoever holds more than the log knows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_collector::config;
use tidegate_collector::log::notes;
use tidegate_collector::serve::{self, Running};
use tidegate_collector::verify::{Against, verify_against};
use tidegate_collector::witness::server;
use tidegate_ledger::checkpoint;
use tidegate_ledger::verify::Report;
use tidegate_proto::uplink::v1::Hello;

use crate::agent::FakeAgent;
use crate::home::{Home, Pass, within};

/// A witness of this home's log, and its directory.
pub async fn witness(home: &mut Home, name: &str) -> (server::Running, PathBuf) {
    let dir = home.dir.path().join(name);
    let logs = vec![home.keys().log_key];
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = server::Config { name: format!("{name}.example"), listen, logs };
    let key = server::init(&dir, &config).unwrap();
    let running = server::start(&dir).await.unwrap();
    // The address stays over restarts of the witness.
    let config = server::Config { listen: running.address, ..config };
    std::fs::write(dir.join(server::CONFIG), toml::to_string(&config).unwrap()).unwrap();
    home.config.witnesses.push(config::Witness {
        name: name.to_owned(),
        url: format!("http://{}", running.address),
        vkey: key.to_string(),
        ca_file: None,
    });
    (running, dir)
}

pub fn copy_dir(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

pub fn against(home: &Home, checkpoints: &[PathBuf]) -> Against {
    let policy = home.config.policy(home.keys().verifier().unwrap()).unwrap();
    let notes = checkpoints.iter().flat_map(|file| notes::read_some(file).unwrap());
    Against { policy: Some(policy), checkpoints: notes.collect(), range: None }
}

fn verdict(home: &Home, checkpoints: &[PathBuf]) -> Report {
    verify_against(&home.log(), &home.keys(), &against(home, checkpoints)).unwrap()
}

/// Waits until the witnesses have signed for this many entries.
async fn cosigned(home: &Home, size: u64) {
    within(async {
        loop {
            let newest = notes::newest_cosigned(&home.log()).pop();
            let head = newest.map(|note| checkpoint::read_unsigned(&note).unwrap());
            if head.is_some_and(|head| head.size >= size) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn some_records(home: &Home, running: &Running, agent: &mut FakeAgent, pass: &Pass) {
    let (mut wire, _) = home.greeted(running, pass, None).await;
    for _ in 0..3 {
        wire.deliver(agent.heartbeats(4)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_sign_what_grows_and_a_restored_snapshot_is_not_served() {
    let mut home = Home::new();
    let (first, first_dir) = witness(&mut home, "w1").await;
    let (second, _) = witness(&mut home, "w2").await;
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    some_records(&home, &running, &mut agent, &pass).await;
    running.stop().await.unwrap();
    let report = verdict(&home, &[]);
    assert_eq!((report.exit_code(), report.witnessed_size), (0, report.entries), "{report:?}");

    let data = home.config.paths().dir;
    let snapshot = home.dir.path().join("snapshot");
    copy_dir(&data, &snapshot);
    let running = home.serve().await;
    some_records(&home, &running, &mut agent, &pass).await;
    running.stop().await.unwrap();

    // The whole directory is set back. It agrees with itself, and the witness's note convicts it.
    let newer = home.dir.path().join("newer");
    std::fs::rename(&data, &newer).unwrap();
    copy_dir(&snapshot, &data);
    assert_eq!(verdict(&home, &[]).exit_code(), 0, "by itself it is whole");
    let origin = tidegate_collector::witness::origin_hash("test.example/log");
    let held = first_dir.join("logs").join(origin).join(notes::HISTORY);
    let report = verdict(&home, &[held]);
    assert_eq!(report.exit_code(), 20);
    assert!(report.findings[0].what.contains("its end is cut"), "{report:?}");
    let error = format!("{:#}", serve::start(&home.config).await.err().unwrap());
    assert!(error.contains("witness w1 holds a checkpoint"), "{error}");

    // Not even without the witnesses, from then on.
    let mut alone = home.config.clone();
    alone.witnesses.clear();
    let error = format!("{:#}", serve::start(&alone).await.err().unwrap());
    assert!(error.contains("what others hold of it"), "{error}");
    std::fs::copy(data.join("seen.jsonl"), newer.join("seen.jsonl")).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&newer, &data).unwrap();
    home.serve().await.stop().await.unwrap();
    first.stop();
    second.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_signed_before_a_quorum_of_witnesses_was_asked() {
    let mut home = Home::new();
    let (witness, dir) = witness(&mut home, "w").await;
    witness.stop();
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    some_records(&home, &running, &mut agent, &pass).await;
    assert!(!home.log().join(notes::NEWEST).exists(), "signed without a witness");
    let again = server::start(&dir).await.unwrap();
    cosigned(&home, 15).await;
    running.stop().await.unwrap();
    assert_eq!(verdict(&home, &[]).exit_code(), 0);
    again.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_collector_with_the_same_keys_gets_no_signature_and_stops() {
    let mut home = Home::new();
    let (witness, _) = witness(&mut home, "w").await;
    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    some_records(&home, &running, &mut agent, &pass).await;
    running.stop().await.unwrap();

    let other = home.dir.path().join("other");
    copy_dir(&home.config.paths().dir, &other);
    let mut second = home.config.clone();
    second.collector.data_dir = other;
    let mut fork = serve::start(&second).await.unwrap();
    // Both write their start into the log; the witness signs the one that asks first.
    let error = match serve::start(&home.config).await {
        Err(error) => error,
        Ok(mut running) => {
            within(async {
                tokio::select! {
                    error = fork.failed() => error,
                    error = running.failed() => error,
                }
            })
            .await
        }
    };
    let error = format!("{error:#}");
    assert!(error.contains("another collector writes under its name"), "{error}");
    witness.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_holds_more_stops_a_log_that_was_set_back() {
    for with_receipt in [true, false] {
        let home = Home::new();
        let running = home.serve().await;
        let mut agent = FakeAgent::new("a", 1);
        let pass = home.enrol(&running, "a", &agent.key).await;
        some_records(&home, &running, &mut agent, &pass).await;
        running.stop().await.unwrap();
        let data = home.config.paths().dir;
        let snapshot = home.dir.path().join("snapshot");
        copy_dir(&data, &snapshot);

        let running = home.serve().await;
        let hello = Hello { agent_id: "a".to_owned(), takes_checkpoints: true, ..Hello::default() };
        let mut wire = home.hello(&running, &pass, hello.clone()).await;
        wire.ack().await;
        wire.send(agent.heartbeats(3)).await;
        let receipt = wire.raw_receipt().await;
        let facts = tidegate_ledger::receipt::verify(
            &receipt.body,
            &receipt.signature,
            home.keys().verifier().unwrap().key(),
        );
        let size = facts.unwrap().last_index + 1;
        let mut shown = wire.checkpoint().await;
        while checkpoint::read_unsigned(&shown).unwrap().size < size {
            shown = wire.checkpoint().await;
        }
        running.stop().await.unwrap();
        std::fs::remove_dir_all(&data).unwrap();
        copy_dir(&snapshot, &data);

        let mut running = home.serve().await;
        let mut held = hello;
        let mut forged = receipt.clone();
        forged.signature = vec![1; 64].into();
        // What our key did not sign counts for nothing.
        let liar = Hello { receipt: Some(forged), ..held.clone() };
        home.hello(&running, &pass, liar).await.ack().await;
        if with_receipt {
            held.receipt = Some(receipt);
        } else {
            held.checkpoint = shown;
        }
        // Held open: who hangs up at once may not have been heard.
        let wire = home.hello(&running, &pass, held).await;
        let error = format!("{:#}", within(running.failed()).await);
        drop(wire);
        assert!(error.contains("agent a holds"), "{error}");
        assert!(running.stop().await.is_ok());
        let error = format!("{:#}", serve::start(&home.config).await.err().unwrap());
        assert!(error.contains("what others hold of it"), "{error}");
    }
}
