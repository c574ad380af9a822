//! tokio-postgres through the gate: the extended protocol, pipelined by concurrent futures.
//!
//! The test runs its own program a second time, as the service account: [`CHILD`] tells that run
//! what it is.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use xtask::lab::client::run;
use xtask::lab::evidence::Event;
use xtask::lab::{Lab, Options, Who};

/// Connection string for the run as the service account.
const CHILD: &str = "TIDEGATE_LAB_DSN";
const NAME: &str = "pipelined_statements_keep_their_order_and_survive_a_refusal";

#[test]
fn pipelined_statements_keep_their_order_and_survive_a_refusal() {
    if let Ok(dsn) = std::env::var(CHILD) {
        return as_the_service_account(&dsn);
    }
    let lab = Lab::start(Options::default()).unwrap();
    lab.postgres.app("CREATE TABLE seen (n int)").unwrap();
    let program = lab.path("tokio_postgres_test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = lab.command(Who::Service, &program).unwrap();
    child.args(["--exact", NAME, "--nocapture"]).env(CHILD, lab.dsn());
    let answer = run(&mut child, b"").unwrap();
    assert!(answer.ok(), "{answer}");
    assert_eq!(lab.postgres.app("SELECT count(*), sum(n) FROM seen").unwrap(), "100|4950");
    let evidence = lab.evidence().unwrap();
    let text = "INSERT INTO seen VALUES ($1)";
    let executed = evidence.statements(text).filter(|event| event.via() == "execute");
    let outcomes = executed.map(Event::status);
    assert_eq!(outcomes.filter(|status| *status == "ok").count(), 100);
    lab.finish().unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn as_the_service_account(dsn: &str) {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    story(&client).await;
    drop(client);
    connection.await.unwrap().unwrap();
}

async fn story(client: &Client) {
    let insert = client.prepare("INSERT INTO seen VALUES ($1)").await.unwrap();
    let select = client.prepare("SELECT $1::int4 * 2").await.unwrap();
    let mut inserts = Vec::new();
    let mut answers = Vec::new();
    for n in 0..100_i32 {
        let (insert, select) = (insert.clone(), select.clone());
        // Both are written before either answer is read: a pipeline.
        inserts.push(async move { client.execute(&insert, &[&n]).await });
        answers.push(async move { client.query_one(&select, &[&n]).await });
    }
    let (inserts, answers) = tokio::join!(all(inserts), all(answers));
    assert!(inserts.into_iter().all(|rows| rows.unwrap() == 1));
    for (n, row) in answers.into_iter().enumerate() {
        assert_eq!(usize::try_from(row.unwrap().get::<_, i32>(0)).unwrap(), 2 * n);
    }
    let before = client.query_one(&select, &[&1_i32]);
    let refused = client.execute("DELETE FROM seen", &[]);
    let after = client.query_one(&select, &[&2_i32]);
    let (before, refused, after) = tokio::join!(before, refused, after);
    assert_eq!(before.unwrap().get::<_, i32>(0), 2);
    assert_eq!(refused.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert_eq!(after.unwrap().get::<_, i32>(0), 4);
}

/// Drives futures together, in order, without another dependency.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut pinned = futures.into_iter().map(Box::pin).collect::<Vec<_>>();
    let mut done = pinned.iter().map(|_| None).collect::<Vec<_>>();
    std::future::poll_fn(|context| {
        for (future, slot) in pinned.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    done.into_iter().flatten().collect()
}
