//! Protected columns of a MariaDB, end to end: real clients, a real server, the real agent.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::mariadb::{APP_PASSWORD, CATALOGUE};
use xtask::lab::{AgentOptions, Answer, Lab, MariadbOptions, Options, Who, policies};

/// What is protected.
const PROTECT: &str = r#"
[[protect]]
target = "lab-mariadb"
columns = ["App.`Customers`.SSN"]
class = "ssn"
mask = "redact"
"#;

const TABLES: &str = "CREATE TABLE app.customers (id int PRIMARY KEY, name varchar(40), ssn varchar(11)); \
    INSERT INTO app.customers VALUES (1, 'one', '123-45-6789'), (2, 'two', '987-65-4321'); \
    CREATE VIEW app.people AS SELECT id, ssn AS number FROM app.customers; \
    CREATE FUNCTION app.number_of(who int) RETURNS varchar(11) READS SQL DATA \
        RETURN (SELECT ssn FROM app.customers WHERE id = who)";

/// What the catalogue's account needs, as `docs/OPERATING.md` says.
const GRANTS: &str = "SHOW VIEW, REFERENCES, SELECT";

/// A laboratory whose catalogue's account has that authentication and those grants. In shadow mode, since
/// the policies are not what is tried here.
fn lab(plugin: &str, grants: &str, tls: bool) -> Lab {
    let agent = AgentOptions {
        policy: policies::PERMIT_ALL.to_owned(),
        mode: "shadow",
        mariadb_toml: format!("{CATALOGUE}{PROTECT}"),
        mariadb_server_tls: if tls { "verify-full" } else { "off" },
        ..AgentOptions::default()
    };
    let mariadb = Some(MariadbOptions { tls, ..MariadbOptions::default() });
    let mut lab = Lab::prepare(Options { agent, mariadb, ..Options::default() }).unwrap();
    let server = lab.mariadb().unwrap();
    server.admin(TABLES).unwrap();
    server.add_catalogue_account(plugin, grants, &lab.path("agent")).unwrap();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    lab
}

/// MariaDB's own client in batch mode, going on after errors.
fn cli(lab: &Lab, script: &str) -> Answer {
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/mariadb")).unwrap();
    let port = lab.mariadb().unwrap().port();
    command.args(["--no-defaults", "-h127.0.0.1", "--protocol=tcp", "-uapp", "-NBf"]);
    command.args([&format!("-P{port}"), &format!("-p{APP_PASSWORD}"), "app"]);
    run(&mut command, script.as_bytes()).unwrap()
}

/// The agent's lines on its catalogue.
fn said(lab: &Lab) -> Vec<String> {
    let log = std::fs::read_to_string(lab.path("agent/agent.log")).unwrap();
    let about = |line: &&str| line.contains("catalogue") && line.contains("lab-mariadb");
    log.lines().filter(about).map(str::to_owned).collect()
}

#[track_caller]
fn check(lab: &Lab, expected: &[&str]) {
    let said = said(lab);
    let all = said.len() == expected.len()
        && said.iter().zip(expected).all(|(line, part)| line.contains(part));
    assert!(all, "{said:#?}\nis not\n{expected:#?}");
}

#[test]
fn the_catalogue_is_read_at_the_login_and_again_after_ddl() {
    for (plugin, tls) in [("mysql_native_password", false), ("ed25519", true)] {
        let lab = lab(plugin, GRANTS, tls);
        assert_eq!(cli(&lab, "SELECT name FROM customers WHERE id = 1").stdout, "one\n");
        check(&lab, &["relations=2"]);
        let view = "CREATE VIEW names AS SELECT name FROM customers;\n";
        // The session waits for the reading before its next statement.
        let answer = cli(&lab, &format!("{view}SELECT name FROM names WHERE name = 'two';\n"));
        assert_eq!(answer.stdout, "two\n", "{answer}");
        check(&lab, &["relations=2", "relations=3"]);
        // In a transaction DDL ends it, in MySQL; it is read anew all the same.
        let script = "BEGIN;\nSELECT count(*) FROM customers;\nDROP VIEW names;\nSELECT 'on';\n";
        assert_eq!(cli(&lab, script).stdout, "2\non\n");
        check(&lab, &["relations=2", "relations=3", "relations=2"]);
        lab.finish().unwrap();
    }
}

#[test]
fn what_the_account_may_not_read_is_said() {
    let lab = lab("mysql_native_password", "SHOW VIEW, REFERENCES", false);
    assert_eq!(cli(&lab, "SELECT 'on'").stdout, "on\n");
    check(&lab, &["relations=2", "may not read the definitions of some views"]);
    lab.mariadb().unwrap().admin("DROP USER tidegate@'%'").unwrap();
    let script = "CREATE VIEW names AS SELECT name FROM customers;\nSELECT 'on';\n";
    assert_eq!(cli(&lab, script).stdout, "on\n");
    let lines = said(&lab);
    let last = lines.last().unwrap();
    assert!(last.contains("a catalogue cannot be read") && last.contains("error 1045"), "{last}");
    lab.finish().unwrap();
}

#[test]
fn the_words_of_the_configuration_are_those_of_check() {
    let lab = lab("mysql_native_password", GRANTS, false);
    let said = lab.agent().unwrap().ask("check", &[]).unwrap();
    for expected in [
        "Protected as ssn: app.customers.ssn; a fixed text stands in their place.",
        "user tidegate reads the server's catalogue, anew every 3600 seconds and after DDL.",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    lab.finish().unwrap();
}
