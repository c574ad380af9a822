//! MariaDB through the gate: its own CLI and dump, PyMySQL and MySQL's connector, unmodified; what is let
//! through, what is refused, and that the server's general log and the records agree.

#![expect(clippy::unwrap_used, reason = "tests")]

use xtask::lab::client::run;
use xtask::lab::evidence::Event;
use xtask::lab::mariadb::clients::{self, log_and_records_agree, ours, program};
use xtask::lab::{AgentOptions, Answer, Lab, MariadbOptions, Options, Who, policies};

const TABLES: &str = "CREATE TABLE app.notes (id int PRIMARY KEY, note text) CHARACTER SET utf8mb4; \
    INSERT INTO app.notes VALUES (1, 'note 1'), (2, 'note 2'), (3, 'note 3'); \
    CREATE TABLE app.blobs (id int PRIMARY KEY, data longblob)";

fn lab_with(agent: AgentOptions, mariadb: MariadbOptions) -> Lab {
    let lab = Lab::start(Options { agent, mariadb: Some(mariadb), ..Options::default() }).unwrap();
    lab.mariadb().unwrap().admin(TABLES).unwrap();
    lab
}

fn lab() -> Lab {
    lab_with(AgentOptions::default(), MariadbOptions::default())
}

fn permissive(mariadb: MariadbOptions) -> Lab {
    let policy = policies::PERMIT_ALL.to_owned();
    lab_with(AgentOptions { policy, ..AgentOptions::default() }, mariadb)
}

/// The CLI in batch mode, going on after errors.
fn cli(lab: &Lab, script: &str) -> Answer {
    cli_with(lab, "app", &[], script)
}

fn cli_with(lab: &Lab, user: &str, args: &[&str], script: &str) -> Answer {
    clients::cli(lab, user, args, script).unwrap()
}

fn python(lab: &Lab, script: &str, args: &[&str]) -> Answer {
    clients::python(lab, script, args).unwrap()
}

#[test]
fn the_cli_works_and_is_recorded() {
    let lab = lab();
    let select = "SELECT note FROM notes ORDER BY id";
    let script = format!(
        "{select};\nDELETE FROM notes;\nSELECT 'alive';\nuse app\nSHOW TABLES;\n\
         UPDATE notes SET note = 'new' WHERE id = 3;\nSELECT note FROM notes WHERE id = 3;\n"
    );
    let answer = cli(&lab, &script);
    let expected = "note 1\nnote 2\nnote 3\nalive\nblobs\nnotes\nnew\n";
    assert_eq!(answer.stdout, expected, "{answer}");
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{answer}");
    assert!(answer.stderr.contains("refused by tidegate"), "{answer}");
    let evidence = lab.evidence().unwrap();
    evidence.is_in_order().unwrap();
    let statement = evidence.statements(select).next().unwrap();
    assert_eq!((statement.verdict(), statement.via()), ("allow", "query"));
    assert_eq!((statement.status(), statement.number_of("rows")), ("ok", Some(3)));
    assert_eq!(evidence.statements(select).count(), 1);
    let refused = evidence.statements("DELETE FROM notes").next().unwrap();
    assert_eq!(refused.verdict(), "deny");
    let unknown = ours(&evidence).find(|event| !event.text_of("unknown").is_empty());
    assert!(unknown.is_none(), "{unknown:?}");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn pymysql_works_and_what_it_may_not_is_refused() {
    let lab = lab();
    let answer = python(&lab, include_str!("clients/pymysql_story.py"), &[]);
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn mysqls_connector_works_with_prepared_statements_and_its_parameters_are_recorded() {
    let lab = lab();
    let answer = python(&lab, include_str!("clients/connector_story.py"), &["plain"]);
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    let evidence = lab.evidence().unwrap();
    let insert = "INSERT INTO notes (id, note) VALUES (?, ?)";
    let executed: Vec<_> =
        evidence.statements(insert).filter(|event| event.via() == "execute").collect();
    assert_eq!(executed.len(), 20);
    for (n, event) in (100..).zip(executed) {
        let parameters = format!("{:?}", event.parameters());
        assert!(parameters.contains(&format!("\"{n}\"")), "{parameters}");
        assert!(parameters.contains(&format!("\"note {n}\"")), "{parameters}");
    }
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}

#[test]
fn tls_on_either_leg_and_on_both() {
    for (client, server) in [("offer", "off"), ("refuse", "verify-full"), ("offer", "verify-full")]
    {
        let agent = AgentOptions {
            mariadb_client_tls: client,
            mariadb_server_tls: server,
            ..AgentOptions::default()
        };
        let mariadb = MariadbOptions { tls: true, ..MariadbOptions::default() };
        let lab = lab_with(agent, mariadb);
        let tls = if client == "offer" { "tls" } else { "plain" };
        let answer = python(&lab, include_str!("clients/connector_story.py"), &[tls]);
        assert!(answer.ok() && answer.stdout == "ok\n", "{client} {server}: {answer}");
        let ssl = if client == "offer" { "--ssl" } else { "--skip-ssl" };
        let status = cli_with(&lab, "app_ed25519", &[ssl], "SHOW STATUS LIKE 'Ssl_cipher'");
        assert_eq!(status.stdout.trim() == "Ssl_cipher", server == "off", "{status}");
        let evidence = lab.evidence().unwrap();
        assert!(ours(&evidence).any(|event| event.via() == "login" && event.verdict() == "allow"));
        lab.finish().unwrap();
    }
}

#[test]
fn logins_are_judged_by_the_server_and_by_the_policy() {
    let lab = lab();
    let answer = cli_with(&lab, "app_ed25519", &[], "SELECT current_user()");
    assert_eq!(answer.stdout, "app_ed25519@%\n", "{answer}");
    let answer = cli_with(&lab, "nobody", &[], "SELECT 1");
    assert!(answer.stderr.contains("ERROR 1045 (28000)"), "{answer}");
    let evidence = lab.evidence().unwrap();
    let failed = ours(&evidence).find(|event| event.status() == "failed").unwrap();
    assert_eq!((failed.via(), failed.text_of("code")), ("login", "28000"));
    lab.finish().unwrap();

    let only = "@id(\"app\") permit (principal, action, resource) unless \
        { action == Action::\"login\" && context.database == \"app\" };";
    let policy = AgentOptions { policy: only.to_owned(), ..AgentOptions::default() };
    let lab = lab_with(policy, MariadbOptions::default());
    let answer = cli(&lab, "SELECT 1");
    assert!(answer.stderr.contains("ERROR 1045 (28000)"), "{answer}");
    assert!(answer.stderr.contains("refused by tidegate"), "{answer}");
    lab.discard().unwrap();
}

#[test]
fn a_dump_is_made_and_loaded_again() {
    let lab = permissive(MariadbOptions::default());
    let server = lab.mariadb().unwrap();
    server
        .admin(
            "INSERT INTO app.notes SELECT seq + 100, repeat('x\\'\\\\ö', 50) FROM app.seq_1_to_20000",
        )
        .unwrap();
    server.admin("CREATE VIEW app.few AS SELECT * FROM app.notes WHERE id < 3").unwrap();
    let mut dump = program(&lab, Who::Service, "mariadb-dump", "app").unwrap();
    let dumped = run(dump.args(["--hex-blob", "app"]), b"").unwrap();
    assert!(dumped.ok(), "{}", dumped.stderr);
    let before = server.admin("CHECKSUM TABLE app.notes").unwrap();
    server.admin("DROP VIEW app.few; DROP TABLE app.notes, app.blobs").unwrap();
    let loaded = cli(&lab, &dumped.stdout);
    assert!(loaded.ok() && loaded.stderr.is_empty(), "{loaded}");
    assert_eq!(server.admin("CHECKSUM TABLE app.notes").unwrap(), before);
    let evidence = lab.evidence().unwrap();
    let unknown: Vec<_> =
        ours(&evidence).filter(|event| !event.text_of("unknown").is_empty()).collect();
    assert!(unknown.is_empty(), "{:?}", unknown[0].json);
    lab.finish().unwrap();
}

#[test]
fn a_running_statement_is_killed_by_the_number_that_the_client_was_shown() {
    let lab = permissive(MariadbOptions::default());
    let answer = python(&lab, include_str!("clients/pymysql_kill.py"), &[]);
    assert!(answer.ok() && answer.stdout == "ok\n", "{answer}");
    let evidence = lab.evidence().unwrap();
    let ended = evidence.finished("SELECT SLEEP(60)").unwrap();
    assert_eq!((ended.status(), ended.text_of("code")), ("failed", "70100"));
    // Of the query, then of the connection.
    let killed = |event: &&Event| event.text().starts_with("KILL ");
    assert_eq!(ours(&evidence).filter(killed).count(), 2);
    lab.finish().unwrap();
}

#[test]
fn local_files_are_operations_of_their_own() {
    let lab = permissive(MariadbOptions::default());
    let file = lab.path("home").join("rows.csv");
    std::fs::write(&file, "50\tfifty\n51\tfifty-one\n").unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE notes", file.display());
    let answer = cli_with(&lab, "app", &["--local-infile=1"], &format!("{load};\n"));
    assert!(answer.ok(), "{answer}");
    assert_eq!(lab.mariadb().unwrap().admin("SELECT count(*) FROM app.notes").unwrap(), "5");
    let evidence = lab.evidence().unwrap();
    assert_eq!(evidence.finished(&load).unwrap().number_of("rows"), Some(2));
    let asked = format!("LOCAL INFILE {}", file.display());
    assert_eq!(evidence.finished(&asked).unwrap().via(), "command");
    lab.finish().unwrap();

    let deny = "@id(\"all\") permit (principal, action, resource); \
        @id(\"files\") forbid (principal, action == Action::\"copy_from\", resource) \
        when { context.via == \"command\" };";
    let policy = AgentOptions { policy: deny.to_owned(), ..AgentOptions::default() };
    let lab = lab_with(policy, MariadbOptions::default());
    let file = lab.path("home").join("rows.csv");
    std::fs::write(&file, "50\tfifty\n").unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE notes", file.display());
    let script = format!("{load};\nSELECT count(*) FROM notes;\n");
    let answer = cli_with(&lab, "app", &["--local-infile=1"], &script);
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{answer}");
    assert_eq!(answer.stdout, "3\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn packets_of_over_sixteen_mebibytes_pass() {
    let arguments = vec!["--max-allowed-packet=67108864".to_owned()];
    let lab = permissive(MariadbOptions { arguments, ..MariadbOptions::default() });
    for bytes in [16_777_215_usize, 16_777_215 - 34, 20_000_000] {
        let script = format!("INSERT INTO blobs VALUES ({bytes}, '{}');\n", "x".repeat(bytes));
        let args = ["--max-allowed-packet=67108864"];
        let answer = cli_with(&lab, "app", &args, &script);
        assert!(answer.ok(), "{bytes}: {}", answer.stderr);
        let select = format!("SELECT data FROM blobs WHERE id = {bytes}");
        let answer = cli_with(&lab, "app", &args, &select);
        assert_eq!(answer.stdout.len(), bytes + 1, "{}", answer.stderr);
    }
    lab.finish().unwrap();
}
