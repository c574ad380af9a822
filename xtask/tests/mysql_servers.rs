//! MySQL 9 through the gate, with its own unmodified clients: `cargo xtask conformance mysql-servers` runs these.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use xtask::lab::evidence::Evidence;
use xtask::lab::mariadb::APP_PASSWORD;
use xtask::lab::mariadb::clients::{cli, log_and_records_agree, ours, own_cli, own_python, python};
use xtask::lab::{AgentOptions, Lab, MariadbOptions, Options, Server, policies};

const TABLES: &str = "CREATE TABLE app.notes (id int PRIMARY KEY, note text); \
    INSERT INTO app.notes VALUES (1, 'note 1'), (2, 'note 2'), (3, 'note 3'); \
    CREATE TABLE app.blobs (id int PRIMARY KEY, data longblob)";

fn lab(agent: AgentOptions) -> Lab {
    let tls = agent.mariadb_server_tls == "verify-full";
    let arguments = vec!["--max-allowed-packet=67108864".to_owned()];
    let mariadb = MariadbOptions { server: Server::Mysql, tls, arguments };
    let lab = Lab::start(Options { agent, mariadb: Some(mariadb), ..Options::default() }).unwrap();
    lab.mariadb().unwrap().admin(TABLES).unwrap();
    lab
}

fn legs(client: &'static str, server: &'static str) -> AgentOptions {
    AgentOptions {
        mariadb_client_tls: client,
        mariadb_server_tls: server,
        ..AgentOptions::default()
    }
}

fn has_no_password(evidence: &Evidence) {
    assert!(evidence.events.iter().all(|event| !event.json.to_string().contains(APP_PASSWORD)));
}

/// What a session of MySQL's own CLI does under [`xtask::lab::policies::CAREFUL`].
fn story(lab: &Lab, args: &[&str]) {
    let script = "SELECT note FROM notes ORDER BY id;\nDELETE FROM notes;\nSELECT 'alive';\n";
    let answer = own_cli(lab, "app", args, script).unwrap();
    assert_eq!(answer.stdout, "note 1\nnote 2\nnote 3\nalive\n", "{args:?} {answer}");
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{answer}");
    assert!(answer.stderr.contains("refused by tidegate"), "{answer}");
}

#[test]
fn caching_sha2_password_logs_in_fully_and_fast_with_tls_and_in_clear() {
    for (client, server) in [("refuse", "off"), ("offer", "verify-full")] {
        let lab = lab(legs(client, server));
        let args: &[&str] = match client {
            "offer" => &["--ssl-mode=REQUIRED"],
            _ => &["--ssl-mode=DISABLED", "--get-server-public-key"],
        };
        // The server forgets what it knew of passwords: it needs the password itself.
        lab.mariadb().unwrap().admin("FLUSH PRIVILEGES").unwrap();
        story(&lab, args);
        story(&lab, args);
        let wrong = [args, &["-pwrong"]].concat();
        let wrong = own_cli(&lab, "app", &wrong, "SELECT 1").unwrap();
        assert!(wrong.stderr.contains("ERROR 1045 (28000)"), "{client} {server}: {wrong}");
        let evidence = lab.evidence().unwrap();
        let logins: Vec<_> = ours(&evidence).filter(|event| event.via() == "login").collect();
        let statuses: Vec<_> = logins.iter().map(|event| event.status()).collect();
        assert_eq!(statuses, ["ok", "ok", "failed"], "{client} {server}");
        has_no_password(&evidence);
        lab.finish().unwrap();
    }
}

#[test]
fn with_tls_to_the_client_alone_the_fast_login_works_and_the_full_one_says_why_not() {
    let lab = lab(legs("offer", "off"));
    let full = own_cli(&lab, "app", &["--ssl-mode=REQUIRED"], "SELECT 1").unwrap();
    assert!(full.stderr.contains("ERROR 1235 (42000)"), "{full}");
    assert!(full.stderr.contains("Set tls.client and tls.server"), "{full}");
    // Past the gate the server learns the password, and needs only its proof from then on.
    assert_eq!(lab.mariadb().unwrap().knows(APP_PASSWORD).unwrap(), "app@%");
    story(&lab, &["--ssl-mode=REQUIRED"]);
    has_no_password(&lab.evidence().unwrap());
    lab.finish().unwrap();
}

/// TLS to the server alone is what an agent does by itself. A client that asks for no key can't log in fully, as
/// without the gate; one of MariaDB's sends its password as it is, since it is on loopback.
#[test]
fn with_tls_to_the_server_alone_a_client_seals_its_password_for_the_gate() {
    let lab = lab(legs("refuse", "verify-full"));
    let asks = ["--ssl-mode=DISABLED", "--get-server-public-key"];
    let wrong = own_cli(&lab, "app", &[&asks[..], &["-pwrong"]].concat(), "SELECT 1").unwrap();
    assert!(wrong.stderr.contains("ERROR 1045 (28000)"), "{wrong}");
    story(&lab, &asks);
    story(&lab, &["--ssl-mode=DISABLED"]);
    // The server forgets what it knew of passwords.
    lab.mariadb().unwrap().admin("FLUSH PRIVILEGES").unwrap();
    let no_key = own_cli(&lab, "app", &["--ssl-mode=DISABLED"], "SELECT 1").unwrap();
    assert!(no_key.stderr.contains("ERROR 2061 (HY000)"), "{no_key}");
    let mariadbs = cli(&lab, "app", &["--skip-ssl"], "SELECT 'as it is'").unwrap();
    assert_eq!(mariadbs.stdout, "as it is\n", "{mariadbs}");
    let changes =
        own_python(&lab, include_str!("clients/mysql9_story.py"), &[APP_PASSWORD, "c", "off"]);
    let changes = changes.unwrap();
    assert!(changes.ok() && changes.stdout == "ok\n", "{changes}");
    has_no_password(&lab.evidence().unwrap());
    lab.finish().unwrap();
}

#[test]
fn both_compressions_are_as_the_client_expects() {
    let lab = lab(legs("offer", "verify-full"));
    for (args, algorithm, level) in [
        (&["--compression-algorithms=zlib"][..], "zlib", "6"),
        (&["--compression-algorithms=zstd"], "zstd", "3"),
        (&["--compression-algorithms=zstd", "--zstd-compression-level=19"], "zstd", "19"),
        (&["--compression-algorithms=zlib,zstd"], "zlib", "6"),
    ] {
        let script =
            "SHOW STATUS LIKE 'Compression%';\nDELETE FROM notes;\nSELECT repeat('x', 100000);\n";
        let answer = own_cli(&lab, "app", args, script).unwrap();
        let long = "x".repeat(100_000);
        let expected = format!(
            "Compression\tON\nCompression_algorithm\t{algorithm}\nCompression_level\t{level}\n{long}\n"
        );
        assert!(answer.stdout == expected, "{args:?}: {} {}", answer.stdout.len(), answer.stderr);
        assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{args:?}: {}", answer.stderr);
    }
    let plain = own_cli(&lab, "app", &[], "SHOW STATUS LIKE 'Compression'").unwrap();
    assert_eq!(plain.stdout, "Compression\tOFF\n");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn mysqls_connector_in_python_and_in_c_with_attributes_prepared_statements_and_changes_of_user() {
    for implementation in ["pure", "c"] {
        let lab = lab(legs("offer", "verify-full"));
        let args = [APP_PASSWORD, implementation, "on"];
        let answer = own_python(&lab, include_str!("clients/mysql9_story.py"), &args).unwrap();
        assert!(answer.ok() && answer.stdout == "ok\n", "{implementation}: {answer}");
        let evidence = lab.evidence().unwrap();
        let insert = "INSERT INTO notes (id, note) VALUES (?, ?)";
        let executed = evidence.statements(insert).filter(|event| event.via() == "execute");
        assert_eq!(executed.count(), 20, "{implementation}");
        let select = "SELECT note FROM notes WHERE id = 2";
        let attributes = evidence.statements(select).next().unwrap().parameters();
        assert!(format!("{attributes:?}").contains("4711"), "{implementation}: {attributes:?}");
        has_no_password(&evidence);
        log_and_records_agree(&lab).unwrap();
        lab.finish().unwrap();
    }
}

#[test]
fn mysqls_connector_in_python_is_compressed_with_large_values_files_and_refusals() {
    let keep = "@id(\"keep\") forbid (principal, action == Action::\"delete\", resource);";
    let policy = format!("{}{keep}", policies::PERMIT_ALL);
    for (implementation, algorithm) in [("pure", "zlib"), ("c", "zlib")] {
        let lab = lab(AgentOptions { policy: policy.clone(), ..legs("offer", "verify-full") });
        let file = lab.path("home").join("rows.tsv");
        let rows = (100..50_100).map(|id| format!("{id}\ta note with the number {id}\n"));
        std::fs::write(&file, rows.collect::<String>()).unwrap();
        let file = file.display().to_string();
        let args = [file.as_str(), APP_PASSWORD, implementation, algorithm];
        let script = include_str!("clients/connector_compressed.py");
        let answer = own_python(&lab, script, &args).unwrap();
        assert!(answer.ok() && answer.stdout == "ok\n", "{implementation}: {answer}");
        log_and_records_agree(&lab).unwrap();
        lab.finish().unwrap();
    }
}

#[test]
fn zstd_carries_large_values_and_local_files() {
    let policy = policies::PERMIT_ALL.to_owned();
    let lab = lab(AgentOptions { policy, ..legs("offer", "verify-full") });
    let file = lab.path("home").join("rows.tsv");
    let rows = (100..50_100).map(|id| format!("{id}\ta note with the number {id}\n"));
    std::fs::write(&file, rows.collect::<String>()).unwrap();
    let bytes = 20_000_000_usize;
    let mut value = String::with_capacity(bytes);
    let mut state = 1_u64;
    while value.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(value, "{state:016x}{:016}", 0).unwrap();
    }
    value.truncate(bytes);
    let script = format!(
        "INSERT INTO blobs VALUES (1, '{value}');\nSELECT data FROM blobs WHERE id = 1;\n\
         LOAD DATA LOCAL INFILE '{}' INTO TABLE notes;\nSELECT count(*) FROM notes;\n\
         SHOW STATUS LIKE 'Compression_algorithm';\n",
        file.display()
    );
    let args =
        ["--compression-algorithms=zstd", "--max-allowed-packet=67108864", "--local-infile=1"];
    let answer = own_cli(&lab, "app", &args, &script).unwrap();
    let expected = format!("{value}\n50003\nCompression_algorithm\tzstd\n");
    assert!(answer.stdout == expected, "{} {}", answer.stdout.len(), answer.stderr);
    let evidence = lab.evidence().unwrap();
    let asked = format!("LOCAL INFILE {}", file.display());
    assert_eq!(evidence.finished(&asked).unwrap().status(), "ok");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn server_side_cursors_by_mariadbs_connector_with_tls_to_the_server_alone() {
    let lab = lab(legs("refuse", "verify-full"));
    let answer = python(&lab, include_str!("clients/mariadb_cursor.py"), &[]).unwrap();
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    let evidence = lab.evidence().unwrap();
    assert!(evidence.operations().filter(|event| event.via() == "fetch").count() >= 3);
    has_no_password(&evidence);
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}
