//! `psql`, unmodified, through the gate: what is let through, what is refused, what is recorded.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::evidence::Event;
use xtask::lab::{AgentOptions, Kind, Lab, Options, Who};

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, note text); \
    INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 3) n; \
    GRANT ALL ON notes TO PUBLIC";

fn lab() -> Lab {
    lab_with(AgentOptions::default())
}

fn lab_with(agent: AgentOptions) -> Lab {
    let lab = Lab::start(Options { agent, ..Options::default() }).unwrap();
    lab.postgres.app(NOTES).unwrap();
    lab
}

#[test]
fn an_allowed_select_brings_its_rows_and_is_recorded_with_its_outcome() {
    let lab = lab();
    let select = "SELECT note FROM notes ORDER BY id";
    let answer = lab.sql(Who::Service, &[select]).unwrap();
    assert_eq!(answer.stdout, "note 1\nnote 2\nnote 3\n", "{answer}");
    let evidence = lab.evidence().unwrap();
    evidence.is_in_order().unwrap();
    let statement = evidence.statements(select).next().unwrap();
    assert_eq!((statement.verdict(), statement.via()), ("allow", "query"));
    assert_eq!(statement.text_of("who"), "batch");
    assert_eq!(statement.text_of("target"), "lab-db");
    assert_eq!((statement.status(), statement.number_of("rows")), ("ok", Some(3)));
    assert_eq!(evidence.statements(select).count(), 1);
    lab.finish().unwrap();
}

#[test]
fn the_session_is_known_by_who_opened_it_and_where_it_wanted_to_go() {
    let lab = lab();
    let marked = "SELECT 'whose'";
    assert!(lab.sql(Who::Service, &[marked]).unwrap().ok());
    let evidence = lab.evidence().unwrap();
    let statement = evidence.statements(marked).next().unwrap();
    assert_eq!(statement.number_of("uid"), Some(u64::from(lab.service_uid)));
    assert!(statement.text_of("executable").ends_with("/psql"), "{}", statement.json);
    let session = statement.session().to_owned();
    let open = evidence.of(Kind::SessionOpen).find(|event| event.session() == session).unwrap();
    let wanted = format!("to 127.0.0.1:{}", lab.postgres.port());
    assert!(open.text().contains(&wanted), "{}", open.json);
    assert!(evidence.of(Kind::SessionClose).any(|event| event.session() == session));
    lab.finish().unwrap();
}

#[test]
fn the_client_still_sees_the_address_that_it_asked_for() {
    let lab = lab();
    let answer = lab.psql(Who::Service, &["-At"], "\\conninfo\n").unwrap();
    assert!(answer.stdout.contains(&format!("\"{}\"", lab.postgres.port())), "{answer}");
    for host in ["::1", "::ffff:127.0.0.1"] {
        let dsn = format!("host={host} port={} user=app dbname=app", lab.postgres.port());
        let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "SELECT 1").unwrap();
        // The server listens on 127.0.0.1, which a v4-mapped socket reaches too.
        assert_eq!(answer.stdout, "1\n", "{host}: {answer}");
    }
    lab.finish().unwrap();
}

#[test]
fn a_refused_delete_says_why_and_the_session_lives_on() {
    let lab = lab();
    let refused = "DELETE FROM notes";
    let answer = lab.sql(Who::Service, &[refused, "SELECT count(*) FROM notes"]).unwrap();
    assert!(answer.stderr.contains("ERROR:  42501: "), "{answer}");
    assert_eq!(answer.stdout, "3\n", "{answer}");
    let evidence = lab.evidence().unwrap();
    let statement = evidence.statements(refused).next().unwrap();
    assert_eq!(statement.verdict(), "deny");
    let reason = statement.text_of("reason");
    assert!(!reason.is_empty() && answer.stderr.contains(reason), "{reason:?}: {answer}");
    assert_eq!(lab.postgres.app("SELECT count(*) FROM notes").unwrap(), "3");
    lab.finish().unwrap();
}

#[test]
fn a_refusal_fails_a_transaction_block_as_an_error_of_the_server_does() {
    let lab = lab();
    let answer = lab
        .sql(
            Who::Service,
            &[
                "BEGIN",
                "INSERT INTO notes VALUES (4, 'four')",
                "DELETE FROM notes",
                "SELECT 'not reached'",
                "ROLLBACK",
                "SELECT count(*) FROM notes",
            ],
        )
        .unwrap();
    assert!(answer.stderr.contains("42501"), "{answer}");
    assert!(answer.stderr.contains("25P02"), "the block is not aborted: {answer}");
    assert_eq!(answer.stdout, "3\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn a_savepoint_survives_a_refusal() {
    let lab = lab();
    let answer = lab
        .sql(
            Who::Service,
            &[
                "BEGIN",
                "INSERT INTO notes VALUES (5, 'five')",
                "SAVEPOINT before",
                "DELETE FROM notes",
                "ROLLBACK TO before",
                "COMMIT",
                "SELECT count(*) FROM notes",
            ],
        )
        .unwrap();
    assert_eq!(answer.stdout, "4\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn one_refused_statement_in_a_string_of_several_refuses_the_whole_string() {
    let lab = lab();
    let several = "INSERT INTO notes VALUES (6, 'six'); DELETE FROM notes; SELECT 1";
    let answer = lab.sql(Who::Service, &[several, "SELECT count(*) FROM notes"]).unwrap();
    assert!(answer.stderr.contains("42501"), "{answer}");
    assert_eq!(answer.stdout, "3\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn what_cannot_be_understood_is_refused_by_default() {
    let lab = lab();
    let answer = lab.sql(Who::Service, &["SELEKT 1", "SELECT 1"]).unwrap();
    assert!(answer.stderr.contains("42501"), "{answer}");
    assert_eq!(answer.stdout, "1\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn prepared_and_described_statements_are_known_by_their_text() {
    let lab = lab();
    let script = "PREPARE one (int) AS SELECT note FROM notes WHERE id = $1;\n\
        EXECUTE one (2);\n\
        SELECT id, note FROM notes \\gdesc\n\
        PREPARE gone AS DELETE FROM notes;\n";
    let answer = lab.psql(Who::Service, &["-Atq", "-v", "VERBOSITY=verbose"], script).unwrap();
    assert_eq!(answer.stdout, "note 2\nid|integer\nnote|text\n", "{answer}");
    assert!(answer.stderr.contains("42501"), "{answer}");
    let evidence = lab.evidence().unwrap();
    let described = evidence.operations().filter(|event| event.via() == "parse").count();
    assert!(described >= 1, "no parse is recorded");
    lab.finish().unwrap();
}

#[test]
fn copy_streams_both_ways_and_is_counted() {
    let lab = lab();
    let mut psql = lab.command(Who::Service, Path::new("/usr/bin/psql")).unwrap();
    let copy_in = "COPY notes FROM STDIN (FORMAT csv)";
    psql.args(["-X", "-d", &lab.dsn(), "-c", copy_in]);
    let answer = run(&mut psql, b"7,seven\n8,eight\n").unwrap();
    assert_eq!(answer.stdout, "COPY 2\n", "{answer}");
    let copy_out = "COPY (SELECT id FROM notes ORDER BY id) TO STDOUT";
    let answer = lab.sql(Who::Service, &[copy_out]).unwrap();
    assert_eq!(answer.stdout, "1\n2\n3\n7\n8\n", "{answer}");
    let answer = lab.sql(Who::Service, &["COPY notes TO PROGRAM 'cat'"]).unwrap();
    assert!(answer.stderr.contains("42501"), "{answer}");
    let evidence = lab.evidence().unwrap();
    let copied_in = evidence.finished(copy_in).unwrap();
    assert_eq!(copied_in.number_of("copied_in"), Some(16), "{}", copied_in.json);
    let copied_out = evidence.finished(copy_out).unwrap();
    assert_eq!(copied_out.number_of("copied_out"), Some(10), "{}", copied_out.json);
    lab.finish().unwrap();
}

#[test]
fn another_account_is_not_touched() {
    let lab = lab();
    let marked = "SELECT 'unseen'";
    let answer = lab.sql(Who::Other, &[marked, "DELETE FROM notes"]).unwrap();
    assert!(answer.ok(), "{answer}");
    assert_eq!(lab.postgres.app("SELECT count(*) FROM notes").unwrap(), "0");
    assert_eq!(lab.evidence().unwrap().statements(marked).count(), 0);
    lab.finish().unwrap();
}

#[test]
fn shadow_mode_changes_nothing_and_records_what_it_would_have_done() {
    let lab = lab_with(AgentOptions { mode: "shadow", ..AgentOptions::default() });
    let statement = "DELETE FROM notes";
    let answer = lab.sql(Who::Service, &[statement, "SELECT count(*) FROM notes"]).unwrap();
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("0\n", ""));
    let evidence = lab.evidence().unwrap();
    let verdicts = evidence.statements(statement).map(Event::verdict).collect::<Vec<_>>();
    assert_eq!(verdicts, ["would_deny"]);
    lab.finish().unwrap();
}

#[test]
fn a_connection_to_the_gate_without_capture_is_refused_and_recorded() {
    let lab = lab();
    let port = lab.agent().unwrap().gate_port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Whether this write still succeeds depends on how fast the gate closes.
    let _ = stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty() || bytes.first() == Some(&b'E'), "{bytes:?}");
    let evidence = lab.evidence().unwrap();
    let refused = evidence.of(Kind::SessionRefused).count();
    assert_eq!(refused, 1);
    lab.finish().unwrap();
}
