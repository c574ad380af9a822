//! The compressed protocol through the gate, against Debian's MariaDB, with unmodified clients: MariaDB's CLI
//! and MySQL's connector for Python, in Python.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use xtask::lab::mariadb::APP_PASSWORD;
use xtask::lab::mariadb::clients::{cli, log_and_records_agree, ours, python};
use xtask::lab::{AgentOptions, Lab, MariadbOptions, Options, policies};

const TABLES: &str = "CREATE TABLE app.notes (id int PRIMARY KEY, note text) CHARACTER SET utf8mb4; \
    INSERT INTO app.notes VALUES (1, 'note 1'), (2, 'note 2'), (3, 'note 3'); \
    CREATE TABLE app.blobs (id int PRIMARY KEY, data longblob)";
/// No deletion, in a policy that else permits everything.
const KEEP: &str = "@id(\"keep\") forbid (principal, action == Action::\"delete\", resource);";

fn lab(tls: bool) -> Lab {
    let (client, server) = if tls { ("offer", "verify-full") } else { ("offer", "off") };
    let agent = AgentOptions {
        policy: format!("{}{KEEP}", policies::PERMIT_ALL),
        mariadb_client_tls: client,
        mariadb_server_tls: server,
        ..AgentOptions::default()
    };
    let arguments = vec!["--max-allowed-packet=67108864".to_owned()];
    let mariadb = MariadbOptions { tls, arguments, ..MariadbOptions::default() };
    let lab = Lab::start(Options { agent, mariadb: Some(mariadb), ..Options::default() }).unwrap();
    lab.mariadb().unwrap().admin(TABLES).unwrap();
    lab
}

/// Fifty thousand lines for LOCAL INFILE.
fn rows(lab: &Lab) -> String {
    let file = lab.path("home").join("rows.tsv");
    let text = (100..50_100).fold(String::new(), |mut text, id| {
        writeln!(text, "{id}\ta note with the number {id}").unwrap();
        text
    });
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn the_cli_is_compressed_and_what_is_asked_and_refused_is_the_same() {
    let lab = lab(false);
    let script = "SHOW STATUS LIKE 'Compression';\nSELECT note FROM notes ORDER BY id;\n\
        DELETE FROM notes;\nSELECT repeat('x', 1000000);\nSELECT 'alive';\n";
    let answer = cli(&lab, "app", &["--compress"], script).unwrap();
    let long = "x".repeat(1_000_000);
    let expected = format!("Compression\tON\nnote 1\nnote 2\nnote 3\n{long}\nalive\n");
    assert!(answer.stdout == expected, "{} {}", answer.stdout.len(), answer.stderr);
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{}", answer.stderr);
    let evidence = lab.evidence().unwrap();
    let statement = evidence.finished("SELECT repeat('x', 1000000)").unwrap();
    assert_eq!((statement.status(), statement.number_of("rows")), ("ok", Some(1)));
    let refused = evidence.statements("DELETE FROM notes").next().unwrap();
    assert_eq!(refused.verdict(), "deny");
    let plain = cli(&lab, "app", &[], "SHOW STATUS LIKE 'Compression'").unwrap();
    assert_eq!(plain.stdout, "Compression\tOFF\n");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn mysqls_connector_is_compressed_with_large_values_files_and_refusals() {
    for (implementation, tls) in [("pure", false), ("pure", true)] {
        let lab = lab(tls);
        let file = rows(&lab);
        let args = [file.as_str(), APP_PASSWORD, implementation, "-"];
        let answer = python(&lab, include_str!("clients/connector_compressed.py"), &args).unwrap();
        assert!(answer.ok() && answer.stdout == "ok\n", "{implementation} {tls}: {answer}");
        let evidence = lab.evidence().unwrap();
        let asked = format!("LOCAL INFILE {file}");
        assert_eq!(evidence.finished(&asked).unwrap().status(), "ok");
        let load = ours(&evidence).find(|event| event.text().starts_with("LOAD DATA")).unwrap();
        assert_eq!(load.number_of("rows"), Some(50_000));
        log_and_records_agree(&lab).unwrap();
        lab.finish().unwrap();
    }
}
