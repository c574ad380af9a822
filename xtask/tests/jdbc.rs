//! JDBC (Debian's driver) through the gate: its binary protocol, batches, fetch sizes, COPY.

use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::{Lab, Options, Who};

/// Debian's driver (`libpostgresql-jdbc-java`).
const DRIVER: &str = "/usr/share/java/postgresql.jar";

#[test]
fn jdbc_reads_writes_batches_and_takes_a_refusal() {
    let lab = Lab::start(Options::default()).unwrap();
    lab.postgres.app("CREATE TABLE items (id int PRIMARY KEY, name text)").unwrap();
    let source = lab.path("Story.java");
    std::fs::write(&source, include_str!("clients/Story.java")).unwrap();
    let mut java = lab.command(Who::Service, Path::new("/usr/bin/java")).unwrap();
    java.args(["-cp", DRIVER]).arg(&source).arg(lab.postgres.port().to_string());
    let answer = run(&mut java, b"").unwrap();
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    assert_eq!(lab.postgres.app("SELECT count(*) FROM items").unwrap(), "500");
    let evidence = lab.evidence().unwrap();
    let inserts = evidence
        .operations()
        .filter(|event| event.via() == "execute" && event.text().starts_with("INSERT INTO items"));
    assert_eq!(inserts.count(), 500);
    assert!(evidence.statements("DELETE FROM items").all(|event| event.verdict() == "deny"));
    lab.finish().unwrap();
}
