//! Protected columns, end to end: real clients, a real server, the real agent and collector.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::indexing_slicing, reason = "tests")]

#[path = "masking/canary.rs"]
mod canary;
#[path = "masking/nowhere.rs"]
mod nowhere;
#[path = "masking/setup.rs"]
mod setup;
#[path = "masking/tokio.rs"]
mod tokio;

use setup::{CATALOGUE, PROTECT, Search, dsn, lab, lab_with, sql};
use xtask::lab::evidence::Event;
use xtask::lab::{AgentOptions, Auth, Options, PostgresOptions, Tls, Who};

/// With a catalogue connection.
fn with_catalogue() -> String {
    format!("{CATALOGUE}{PROTECT}")
}

#[test]
fn values_leave_masked_unless_a_policy_permits_to_unmask() {
    let (lab, values) = lab(&with_catalogue(), "");
    let select = "SELECT ssn, card, email, iban, account, name FROM customers WHERE id = 7";
    let answer = sql(&lab, "app", &[select]);
    let [ssn, card, email, iban, account] = &values.stored[7];
    let shown: Vec<&str> = answer.stdout.trim_end().split('|').collect();
    assert_eq!(shown.len(), 6, "{answer}");
    assert_eq!(shown[0], "****");
    assert_eq!(shown[1], format!("************{}", card.get(12..).unwrap()));
    assert_eq!(shown[2].len(), 32, "a hash in hexadecimal digits: {answer}");
    assert!(
        shown[3] != iban
            && shown[3].len() == iban.len()
            && shown[3].as_bytes()[0].is_ascii_uppercase()
    );
    assert_eq!((shown[4], shown[5]), ("", "name 7"), "{answer}");
    assert_eq!(sql(&lab, "app", &[select]).stdout, answer.stdout, "hashes and tokens stay");
    let clear = format!("{ssn}|{card}|{email}|{iban}|{account}|name 7\n");
    assert_eq!(sql(&lab, "auditor", &[select]).stdout, clear);
    let evidence = lab.evidence().unwrap();
    let unmasked: Vec<String> =
        evidence.statements(select).map(|one| one.json["unmasked"].to_string()).collect();
    assert_eq!(unmasked[..2], ["[]", "[]"]);
    assert!(unmasked[2].contains("public.customers.ssn (class ssn)"), "{unmasked:?}");
    lab.finish().unwrap();
}

#[test]
fn whether_a_computed_value_is_null_tells_nothing() {
    let (lab, values) = lab(&with_catalogue(), "");
    let [ssn, ..] = &values.stored[7];
    let select = |guess: &str| {
        format!(
            "SELECT nullif(ssn, '{guess}'), CASE ssn WHEN '{guess}' THEN 'x' END FROM customers \
             ORDER BY id LIMIT 20"
        )
    };
    let forms: [fn(&str) -> String; 4] = [
        str::to_owned,
        |select| format!("COPY ({select}) TO STDOUT"),
        |select| format!("COPY ({select}) TO STDOUT (FORMAT csv, NULL 'none')"),
        |select| format!("COPY ({select}) TO STDOUT (FORMAT binary)"),
    ];
    for form in forms {
        let [right, wrong] = [ssn.as_str(), "000-00-0000"].map(|guess| form(&select(guess)));
        let (right, wrong) = (sql(&lab, "app", &[&right]), sql(&lab, "app", &[&wrong]));
        assert!(right.ok() && right.stdout.len() > 40, "{}: {right}", form("..."));
        assert_eq!(right.stdout, wrong.stdout, "{}", form("..."));
    }
    lab.finish().unwrap();
}

#[test]
fn a_large_result_passes_with_bounded_memory() {
    let (lab, _) = lab(&with_catalogue(), "");
    let rows = "SELECT c.ssn, c.card, g.n, repeat('x', 1000) FROM customers c, generate_series(1, 1500) g(n)";
    let before = lab.agent().unwrap().memory_bytes_max().unwrap();
    let mut psql = lab.command(Who::Service, std::path::Path::new("/usr/bin/psql")).unwrap();
    psql.args([
        "-XAt",
        "-d",
        &dsn(&lab, "app"),
        "-v",
        "FETCH_COUNT=0",
        "-o",
        "/dev/null",
        "-c",
        rows,
    ]);
    let answer = xtask::lab::client::run(&mut psql, b"").unwrap();
    assert!(answer.ok(), "{answer}");
    let after = lab.agent().unwrap().memory_bytes_max().unwrap();
    assert!(after < before + (48 << 20), "{before} became {after} bytes");
    lab.finish().unwrap();
}

#[test]
fn the_search_finds_what_is_there() {
    let values = ["123-45-6789", "7000123412341234"];
    let search = Search::new(values.into_iter());
    let binary = 7_000_123_412_341_234_i64.to_be_bytes();
    for (bytes, found) in [
        (b"xx 123-45-6789 yy".as_slice(), 1),
        (b"xx 123-45-6788 yy", 0),
        (b"7000123412341234123-45-6789", 2),
        (&binary, 1),
    ] {
        assert_eq!(search.count(bytes), found, "{bytes:?}");
    }
}

#[test]
fn filters_are_refused_unless_a_policy_permits_them_and_their_values_are_not_recorded() {
    let (lab, values) = lab(&with_catalogue(), "");
    let typed = &values.stored[9][0];
    let select = format!("SELECT name FROM customers WHERE ssn = '{typed}'");
    let answer = sql(&lab, "app", &[&select, "SELECT name FROM customers WHERE id = 3"]);
    assert!(answer.stderr.contains("42501") && answer.stderr.contains("filter"), "{answer}");
    assert_eq!(answer.stdout, "name 3\n", "{answer}");
    assert_eq!(sql(&lab, "analyst", &[&select]).stdout, "name 9\n");
    let recorded = "SELECT name FROM customers WHERE ssn = '****'";
    let evidence = lab.evidence().unwrap();
    let verdicts: Vec<&str> = evidence.statements(recorded).map(Event::verdict).collect();
    assert_eq!(verdicts, ["deny", "allow"]);
    assert_eq!(evidence.statements(&select).count(), 0);
    lab.finish().unwrap();
}

#[test]
fn views_functions_and_partitions_are_seen_through_the_catalogue() {
    let (lab, values) = lab(&with_catalogue(), "");
    let [ssn, ..] = &values.stored[4];
    for (text, user, expected) in [
        ("SELECT number, name FROM people WHERE id = 4", "app", "****|name 4\n"),
        ("SELECT * FROM named WHERE id = 4", "app", "4|name 4\n"),
        ("SELECT ssn FROM parted_1 WHERE id = 4", "app", "****\n"),
        ("SELECT * FROM parted WHERE id = 4", "app", "4|****\n"),
        ("SELECT words FROM orders WHERE id = 4", "app", "order 4\n"),
        ("SELECT number FROM people WHERE id = 4", "auditor", &format!("{ssn}\n")),
        ("SELECT ssn FROM parted_1 WHERE id = 4", "auditor", &format!("{ssn}\n")),
    ] {
        let answer = sql(&lab, user, &[text]);
        assert_eq!(answer.stdout, expected, "{text}: {answer}");
    }
    // A COPY leaves out what is generated, so it has fewer columns than its table.
    let answer = sql(&lab, "app", &["COPY orders TO STDOUT"]);
    assert_eq!(answer.stdout.lines().nth(3), Some("4\t4\torder 4"), "{answer}");
    let answer = sql(&lab, "app", &["SELECT ssn FROM everybody()"]);
    assert!(
        answer.stdout.is_empty() || answer.stdout.lines().all(|line| line == "****"),
        "{answer}"
    );
    lab.finish().unwrap();
}

#[test]
fn without_a_catalogue_only_what_the_configuration_names_is_known() {
    let (lab, _) = lab(PROTECT, "");
    let known = "SELECT name, ssn FROM customers WHERE id = 4";
    assert_eq!(sql(&lab, "app", &[known]).stdout, "name 4|****\n");
    for unknown in
        ["SELECT number FROM people", "SELECT name FROM named", "SELECT words FROM orders"]
    {
        let answer = sql(&lab, "app", &[unknown, "SELECT 'goes on'"]);
        assert_eq!(answer.stdout, "goes on\n", "{unknown}: {answer}");
        assert!(answer.stderr.contains("42501") && answer.stderr.contains("withheld"), "{answer}");
    }
    assert_eq!(
        sql(&lab, "auditor", &["SELECT words FROM orders WHERE id = 4"]).stdout,
        "order 4\n"
    );
    lab.finish().unwrap();
}

#[test]
fn the_catalogue_is_read_with_a_password_and_under_tls() {
    let toml = format!("{CATALOGUE}password_file = \"catalogue.password\"\n{PROTECT}");
    let agent = AgentOptions { toml, server_tls: "verify-full", ..AgentOptions::default() };
    let postgres =
        PostgresOptions { auth: Auth::Scram, tls: Tls::Required, ..PostgresOptions::default() };
    let (lab, _) = lab_with(Options { agent, postgres, ..Options::default() });
    let dsn = format!("{} sslmode=disable", lab.dsn());
    let look = "SELECT number FROM people WHERE id = 4";
    let answer = lab.psql_at(Who::Service, &dsn, &["-Atqc", look], "").unwrap();
    assert_eq!(answer.stdout, "****\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn a_catalogue_that_cannot_be_read_is_said_and_what_is_named_is_masked() {
    let toml = format!("[targets.catalogue]\nuser = \"nobody here\"\n{PROTECT}");
    let (lab, _) = lab(&toml, "");
    let known = "SELECT name, ssn FROM customers WHERE id = 4";
    assert_eq!(sql(&lab, "app", &[known]).stdout, "name 4|****\n");
    let answer = sql(&lab, "app", &["SELECT number FROM people"]);
    assert!(answer.stderr.contains("withheld"), "{answer}");
    let log = std::fs::read_to_string(lab.path("agent/agent.log")).unwrap();
    assert!(log.contains("a catalogue cannot be read") && log.contains("nobody here"), "{log}");
    lab.finish().unwrap();
}

#[test]
fn what_cannot_be_told_passes_where_the_owner_says_so() {
    let toml = format!("[targets.masking]\nunresolved = \"clear\"\n{PROTECT}");
    let (lab, _) = lab(&toml, "");
    assert_eq!(sql(&lab, "app", &["SELECT words FROM orders WHERE id = 4"]).stdout, "order 4\n");
    let known = "SELECT name, ssn FROM customers WHERE id = 4";
    assert_eq!(sql(&lab, "app", &[known]).stdout, "name 4|****\n");
    lab.finish().unwrap();
}

#[test]
fn what_a_session_defines_is_known_to_it_at_once() {
    let (lab, values) = lab(&with_catalogue(), "");
    let answer = sql(
        &lab,
        "app",
        &[
            "CREATE TABLE fresh (id int, words text)",
            "INSERT INTO fresh VALUES (1, 'new') RETURNING words",
            "CREATE VIEW shown AS SELECT name FROM customers",
            "SELECT * FROM shown LIMIT 1",
            "DROP VIEW shown",
        ],
    );
    assert_eq!(answer.stdout, "new\nname 0\n", "{answer}");
    // The same name for something else: what was known of it before does not count.
    let auditor = ["CREATE VIEW turned AS SELECT name AS x FROM customers", "SELECT 1"];
    assert!(sql(&lab, "app", &auditor).ok());
    let turned = "CREATE OR REPLACE VIEW turned AS SELECT ssn AS x FROM customers";
    lab.postgres.app(turned).unwrap();
    lab.postgres.app("GRANT SELECT ON turned TO PUBLIC").unwrap();
    let look = "SELECT x FROM turned LIMIT 1";
    xtask::lab::process::wait_for(
        "the catalogue is read anew",
        std::time::Duration::from_secs(20),
        || {
            let answer = sql(&lab, "app", &[look]);
            Ok((answer.stdout == "****\n").then_some(()))
        },
    )
    .unwrap();
    assert_eq!(sql(&lab, "auditor", &[look]).stdout, format!("{}\n", values.stored[0][0]));
    lab.finish().unwrap();
}

#[test]
fn results_are_cut_by_statement_and_by_the_hour() {
    let (lab, _) = lab(&with_catalogue(), "");
    let all = "SELECT id FROM orders";
    let answer = sql(&lab, "bounded", &[all, "SELECT 'goes on'"]);
    assert!(answer.stderr.contains("53400") && answer.stderr.contains("150 rows"), "{answer}");
    assert!(answer.stdout.ends_with("goes on\n"), "{answer}");
    for (rows, errors) in [(200, false), (200, false), (100, true), (0, true)] {
        let answer = sql(&lab, "metered", &[all]);
        assert_eq!(answer.stderr.contains("53400"), errors, "{rows}: {answer}");
        // psql shows no row of a result that ends in an error.
        assert_eq!(answer.stdout.lines().count(), if errors { 0 } else { rows }, "{answer}");
    }
    let evidence = lab.evidence().unwrap();
    let outcomes: Vec<&str> = evidence.statements(all).map(|one| one.text_of("code")).collect();
    assert_eq!(outcomes, ["53400", "", "", "53400", "53400"]);
    lab.finish().unwrap();
}

#[test]
fn a_honeytoken_raises_an_alert() {
    let (lab, _) = lab(&with_catalogue(), "");
    assert_eq!(sql(&lab, "app", &["SELECT words FROM honey"]).stdout, "sweet\n");
    let evidence = lab.evidence().unwrap();
    let read = evidence.statements("SELECT words FROM honey").next().unwrap();
    assert_eq!(read.text_of("alert"), "somebody reads the honeytoken", "{}", read.json);
    let log = std::fs::read_to_string(lab.path("agent/agent.log")).unwrap();
    let alert = log.lines().find(|line| line.contains("somebody reads the honeytoken"));
    assert!(alert.is_some_and(|line| line.contains("batch") && line.contains("lab-db")), "{log}");
    lab.finish().unwrap();
}

#[test]
fn the_words_of_the_configuration_are_those_of_check() {
    let (lab, _) = lab(&with_catalogue(), "");
    let said = lab.agent().unwrap().ask("check", &[]).unwrap();
    for expected in [
        "Protected as ssn: public.customers.ssn, parted.ssn; a fixed text stands in their place.",
        "user tidegate reads each database's catalogue, anew every 5 seconds and after DDL.",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let key = lab.agent().unwrap().state().join("mask.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    lab.finish().unwrap();
}

/// One session runs what it has prepared while another turns the view behind it into something else.
const TURNED: &str = r#"
import sys, time, psycopg
app = psycopg.connect(sys.argv[1], autocommit=True)
auditor = psycopg.connect(sys.argv[2], autocommit=True)
query = "SELECT x FROM turned LIMIT 1"
print(app.execute(query, prepare=True).fetchall())
print(app.execute(query, prepare=True).fetchall())
auditor.execute("CREATE OR REPLACE VIEW turned AS SELECT ssn AS x FROM customers")
until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        rows = app.execute(query, prepare=True).fetchall()
    except psycopg.Error as error:
        rows = str(error)
    print(rows)
    if rows == [("****",)]:
        break
"#;

#[test]
fn what_was_prepared_before_a_view_changed_is_seen_through_the_new_one() {
    let (lab, values) = lab(&with_catalogue(), "");
    lab.postgres.app("GRANT CREATE ON SCHEMA public TO auditor").unwrap();
    let view = "CREATE VIEW turned AS SELECT name AS x FROM customers; \
                GRANT SELECT ON turned TO PUBLIC";
    lab.postgres.sql("auditor", "app", view).unwrap();
    // The catalogue may have been read before; the first session of its own reads it anew.
    let mut python = lab.python(Who::Service).unwrap();
    python.arg(dsn(&lab, "app")).arg(dsn(&lab, "auditor"));
    let answer = xtask::lab::client::run(&mut python, TURNED.as_bytes()).unwrap();
    let shown: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(shown.first(), Some(&"[('name 0',)]"), "{answer}");
    assert_eq!(shown.last(), Some(&"[('****',)]"), "{answer}");
    Search::new(values.all_stored()).finds_none("the session", answer.stdout.as_bytes());
    lab.finish().unwrap();
}
