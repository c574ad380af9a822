//! More unmodified clients on Debian's MariaDB through the gate: each with statements, prepared statements, a refusal
//! that its session outlives, and a server's log that agrees with the records. Sqlx has a file of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::evidence::Evidence;
use xtask::lab::mariadb::clients::{log_and_records_agree, python};
use xtask::lab::{AgentOptions, Answer, Lab, MariadbOptions, Options, Who};

/// Debian's driver (`libmariadb-java`) and the JNA that it looks for.
const DRIVER: &str = "/usr/share/java/mariadb-java-client.jar";

const TABLES: &str = "CREATE TABLE app.notes (id int PRIMARY KEY, note text) CHARACTER SET utf8mb4; \
    INSERT INTO app.notes VALUES (1, 'note 1'), (2, 'note 2'), (3, 'note 3'); \
    CREATE TABLE app.blobs (id int PRIMARY KEY, data longblob)";

fn lab(client_tls: &'static str) -> Lab {
    let agent = AgentOptions { mariadb_client_tls: client_tls, ..AgentOptions::default() };
    let mariadb = Some(MariadbOptions::default());
    let lab = Lab::start(Options { agent, mariadb, ..Options::default() }).unwrap();
    lab.mariadb().unwrap().admin(TABLES).unwrap();
    lab
}

/// The client ended well, what it was refused never ran, and log and records agree.
fn check(lab: Lab, answer: &Answer) -> Evidence {
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    log_and_records_agree(&lab).unwrap();
    let evidence = lab.evidence().unwrap();
    evidence.is_in_order().unwrap();
    assert!(evidence.statements("DELETE FROM notes").count() > 0);
    assert!(evidence.statements("DELETE FROM notes").all(|event| event.verdict() == "deny"));
    lab.finish().unwrap();
    evidence
}

fn node(lab: &Lab, script: &str, args: &[&str]) -> Answer {
    let mut node = lab.node(Who::Service).unwrap();
    node.arg(lab.mariadb().unwrap().port().to_string()).args(args);
    run(&mut node, script.as_bytes()).unwrap()
}

#[test]
fn mysqlclient_plain_and_compressed() {
    for how in ["plain", "compressed"] {
        let lab = lab("offer");
        let answer = python(&lab, include_str!("clients/mysqlclient_story.py"), &[how]).unwrap();
        check(lab, &answer);
    }
}

#[test]
fn mariadbs_connector_for_python_with_bulk_execution_and_cursors() {
    let lab = lab("offer");
    let answer = python(&lab, include_str!("clients/mariadb_connector.py"), &[]).unwrap();
    let evidence = check(lab, &answer);
    let insert = "INSERT INTO notes (id, note) VALUES (?, ?)";
    let bulk: Vec<_> =
        evidence.statements(insert).filter(|event| event.via() == "execute").collect();
    assert_eq!(bulk.len(), 1, "{bulk:?}");
    assert!(evidence.operations().any(|event| event.via() == "fetch"));
}

#[test]
fn mysql2_plain_and_compressed() {
    for how in ["plain", "compressed"] {
        let lab = lab("offer");
        let answer = node(&lab, include_str!("clients/mysql2_story.js"), &[how]);
        check(lab, &answer);
    }
}

#[test]
fn mariadbs_connector_for_node_sends_ahead() {
    let lab = lab("offer");
    let answer = node(&lab, include_str!("clients/mariadb_story.js"), &[]);
    check(lab, &answer);
}

#[test]
fn mariadbs_jdbc_driver_in_text_in_binary_and_compressed() {
    for options in ["", "&useServerPrepStmts=true&useCompression=true"] {
        let lab = lab("offer");
        let source = lab.path("MariadbStory.java");
        std::fs::write(&source, include_str!("clients/MariadbStory.java")).unwrap();
        let mut java = lab.command(Who::Service, Path::new("/usr/bin/java")).unwrap();
        java.args(["-cp", DRIVER]).arg(&source).arg(lab.mariadb().unwrap().port().to_string());
        let answer = run(java.arg(options), b"").unwrap();
        check(lab, &answer);
    }
}
