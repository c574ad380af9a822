//! psycopg (its own libpq, newer than Debian's): pipelines, cursors, prepared statements, cancel.

#![expect(clippy::unwrap_used, reason = "tests")]

use xtask::lab::client::run;
use xtask::lab::{Lab, Options, Who};

const SCRIPT: &str = include_str!("clients/psycopg_story.py");

/// Runs one function of the script as the service account; it prints "ok" when all was as it must.
fn story(name: &str) -> Lab {
    let lab = Lab::start(Options::default()).unwrap();
    lab.postgres
        .app("CREATE TABLE numbers (n int); INSERT INTO numbers SELECT generate_series(1, 1000)")
        .unwrap();
    let mut python = lab.python(Who::Service).unwrap();
    let answer = run(python.arg(name).arg(lab.dsn()), SCRIPT.as_bytes()).unwrap();
    assert!(answer.ok() && answer.stdout == "ok\n", "{name}: {answer}");
    lab
}

#[test]
fn a_refusal_in_the_middle_of_a_pipeline_fails_it_as_an_error_of_the_server_does() {
    let lab = story("pipeline");
    assert_eq!(lab.postgres.app("SELECT count(*) FROM numbers WHERE n < 0").unwrap(), "1");
    let evidence = lab.evidence().unwrap();
    let refused = evidence.statements("DELETE FROM numbers");
    assert!(refused.into_iter().all(|event| event.verdict() == "deny"));
    lab.finish().unwrap();
}

#[test]
fn server_side_cursors_fetch_in_pieces() {
    story("cursor").finish().unwrap();
}

#[test]
fn prepared_statements_are_recorded_with_their_parameters() {
    let lab = story("prepared");
    let evidence = lab.evidence().unwrap();
    let text = "SELECT n FROM numbers WHERE n = $1";
    let executed = evidence.statements(text).filter(|event| event.via() == "execute");
    let parameters = executed.map(|event| format!("{:?}", event.parameters())).collect::<Vec<_>>();
    for n in 1..=20 {
        let quoted = format!("String(\"{n}\")");
        assert!(parameters.iter().any(|list| list.contains(&quoted)), "{n} in {parameters:?}");
    }
    lab.finish().unwrap();
}

#[test]
fn a_running_statement_is_cancelled() {
    let lab = story("cancel");
    let evidence = lab.evidence().unwrap();
    assert!(evidence.operations().any(|event| event.via() == "cancel"));
    lab.finish().unwrap();
}

#[test]
fn rows_may_be_large_and_binary() {
    story("large_rows").finish().unwrap();
}

#[test]
fn copy_through_the_driver_works_both_ways() {
    let lab = story("copy");
    assert_eq!(lab.postgres.app("SELECT count(*) FROM numbers WHERE n > 5000").unwrap(), "1000");
    lab.finish().unwrap();
}
