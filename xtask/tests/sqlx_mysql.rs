//! sqlx's MySQL driver through the gate, unmodified: its pool, prepared statements, transactions, and TLS with the
//! gate's own authority.
//!
//! The test runs its own program a second time, as the service account: [`CHILD`] tells that run what it is.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlSslMode};
use sqlx::{MySqlPool, Row as _};
use xtask::lab::client::run;
use xtask::lab::evidence::Event;
use xtask::lab::mariadb::APP_PASSWORD;
use xtask::lab::mariadb::clients::log_and_records_agree;
use xtask::lab::{AgentOptions, Lab, MariadbOptions, Options, Who};

/// The port for the run as the service account, and the authority's file, empty for no TLS.
const CHILD: &str = "TIDEGATE_LAB_SQLX";
const NAME: &str = "a_pool_works_and_outlives_refusals";

#[test]
fn a_pool_works_and_outlives_refusals() {
    if let Ok(child) = std::env::var(CHILD) {
        let (port, authority) = child.split_once(' ').unwrap();
        return as_the_service_account(port.parse().unwrap(), authority);
    }
    for (client, server) in [("refuse", "off"), ("offer", "verify-full")] {
        let agent = AgentOptions {
            mariadb_client_tls: client,
            mariadb_server_tls: server,
            ..AgentOptions::default()
        };
        let mariadb = MariadbOptions { tls: server != "off", ..MariadbOptions::default() };
        let options = Options { agent, mariadb: Some(mariadb), ..Options::default() };
        let lab = Lab::start(options).unwrap();
        lab.mariadb()
            .unwrap()
            .admin("CREATE TABLE app.notes (id int PRIMARY KEY, note text)")
            .unwrap();
        let program = lab.path("sqlx_test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let authority = lab.path("home").join("host-ca.crt");
        std::fs::copy(lab.agent().unwrap().host_ca(), &authority).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::set_permissions(&authority, std::fs::Permissions::from_mode(0o644)).unwrap();
        let authority =
            if client == "offer" { authority.display().to_string() } else { String::new() };
        let mut child = lab.command(Who::Service, &program).unwrap();
        let told = format!("{} {authority}", lab.mariadb().unwrap().port());
        child.args(["--exact", NAME, "--nocapture"]).env(CHILD, told);
        let answer = run(&mut child, b"").unwrap();
        assert!(answer.ok(), "{client} {server}: {answer}");
        let evidence = lab.evidence().unwrap();
        let executed = evidence.statements("INSERT INTO notes VALUES (?, ?)");
        let statuses = executed.filter(|event| event.via() == "execute").map(Event::status);
        assert_eq!(statuses.filter(|status| *status == "ok").count(), 110);
        log_and_records_agree(&lab).unwrap();
        lab.finish().unwrap();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn as_the_service_account(port: u16, authority: &str) {
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("app")
        .password(APP_PASSWORD)
        .database("app");
    let options = if authority.is_empty() {
        options.ssl_mode(MySqlSslMode::Disabled)
    } else {
        options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(authority)
    };
    let pool = MySqlPoolOptions::new().max_connections(3).connect_with(options).await.unwrap();
    story(&pool).await;
    pool.close().await;
}

async fn story(pool: &MySqlPool) {
    for id in 0..100_i32 {
        insert(id).execute(pool).await.unwrap();
    }
    let rows = sqlx::query("SELECT id, note FROM notes WHERE id >= ? ORDER BY id").bind(50_i32);
    let rows = rows.fetch_all(pool).await.unwrap();
    assert_eq!(rows.len(), 50);
    assert_eq!(rows.first().unwrap().get::<String, _>("note"), "note 50");
    let refused = sqlx::query("DELETE FROM notes").execute(pool).await.unwrap_err();
    let refused = refused.into_database_error().unwrap();
    assert!(refused.message().starts_with("refused by tidegate"), "{refused}");
    assert_eq!(refused.code().as_deref(), Some("42000"));
    // A refusal within a transaction leaves it open, as any error of the server's does.
    let mut transaction = pool.begin().await.unwrap();
    for id in 100..110_i32 {
        insert(id).execute(&mut *transaction).await.unwrap();
    }
    assert!(sqlx::query("DELETE FROM notes").execute(&mut *transaction).await.is_err());
    transaction.commit().await.unwrap();
    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notes");
    assert_eq!(count.fetch_one(pool).await.unwrap(), 110);
}

fn insert(id: i32) -> sqlx::query::Query<'static, sqlx::MySql, sqlx::mysql::MySqlArguments> {
    sqlx::query("INSERT INTO notes VALUES (?, ?)").bind(id).bind(format!("note {id}"))
}
