//! A thousand protected values, and every way to read them: none of them is anywhere afterwards.

use std::path::Path;

use xtask::lab::client::run;
use xtask::lab::{Lab, Who};

use super::nowhere::{MARK, is_nowhere, otlp};
use super::setup::{self, ROWS, Search, dsn, lab};
use super::tokio;

/// Debian's driver (`libpostgresql-jdbc-java`).
const DRIVER: &str = "/usr/share/java/postgresql.jar";

const PSYCOPG: &str = include_str!("../clients/psycopg_masking.py");

/// What psql asks for: every format of COPY, cursors, expressions, its own commands.
const PSQL: &str = r"
SELECT * FROM customers;
SELECT ssn, card, email, iban, account FROM customers \gx
SELECT ssn, name FROM customers \crosstabview
\copy customers TO STDOUT
\copy (SELECT ssn, iban FROM customers) TO STDOUT CSV HEADER
COPY customers TO STDOUT;
COPY customers TO STDOUT (FORMAT csv, FORCE_QUOTE *);
\set FETCH_COUNT 17
SELECT ssn, card FROM customers;
\unset FETCH_COUNT
BEGIN;
DECLARE a CURSOR FOR SELECT ssn FROM customers;
FETCH 5 FROM a; MOVE 3 IN a; FETCH ALL FROM a;
DECLARE b SCROLL CURSOR WITH HOLD FOR SELECT * FROM customers;
COMMIT;
FETCH BACKWARD 3 FROM b; FETCH ALL FROM b;
PREPARE p AS SELECT ssn, account FROM customers;
EXECUTE p;
SELECT ssn FROM customers \gdesc
SELECT 1; SELECT ssn FROM customers; SELECT 2;
SELECT 1 \; SELECT ssn FROM customers \; SELECT card FROM customers \; SELECT 2;
INSERT INTO customers (id, ssn) SELECT 9000 + id, ssn FROM customers RETURNING ssn;
CREATE TABLE taken AS SELECT ssn FROM customers;
SELECT ssn INTO TEMP taken_too FROM customers;
CREATE VIEW seen AS SELECT ssn AS s FROM customers;
CREATE TEMP VIEW seen_too AS SELECT card AS c FROM customers;
SELECT * FROM taken; SELECT * FROM taken_too; SELECT * FROM seen; SELECT * FROM seen_too;
UPDATE orders SET words = ssn FROM customers WHERE customers.id = orders.id;
SELECT * FROM orders;
DO $$ DECLARE r record; BEGIN FOR r IN SELECT ssn FROM customers LOOP RAISE NOTICE '%', r.ssn; END LOOP; END $$;
CREATE FUNCTION leak() RETURNS SETOF text LANGUAGE sql AS 'SELECT ssn FROM customers';
SELECT leak();
SELECT ssn::int FROM customers;
SELECT id / (account - account) FROM customers;
SELECT cast(card AS date) FROM customers;
INSERT INTO customers SELECT * FROM customers;
ALTER TABLE customers ALTER ssn TYPE int USING ssn::int;
ALTER TABLE customers ADD CHECK (ssn = 'x');
CREATE INDEX ON customers ((1 / length(ssn) - 11));
LISTEN told; SELECT pg_notify('told', ssn) FROM customers;
SELECT set_config('application_name', ssn, false) FROM customers;
SHOW application_name;
EXPLAIN (ANALYZE, VERBOSE) SELECT ssn FROM customers;
SELECT * FROM pg_stats WHERE tablename = 'customers';
SELECT query FROM pg_stat_activity;
SELECT lo_from_bytea(0, ssn::bytea) FROM customers;
SELECT * FROM parted; SELECT * FROM parted_1; SELECT p FROM parted p;
SELECT (c).ssn, (c).* FROM (SELECT c FROM customers c) x;
SELECT x.* FROM customers c, LATERAL (SELECT c.ssn, c.card) x;
SELECT json_object_agg(id, ssn), jsonb_agg(c) FROM customers c;
SELECT ssn, count(*) OVER () FROM customers;
SELECT unnest(array[ssn, card]) FROM customers;
VALUES ((SELECT ssn FROM customers LIMIT 1));
TABLE customers;
";

fn psql(lab: &Lab, user: &str) -> Vec<u8> {
    let args = ["-Ate", "-v", "VERBOSITY=verbose"];
    let answer = lab.psql_at(Who::Service, &dsn(lab, user), &args, PSQL).unwrap();
    format!("{}\n{}", answer.stdout, answer.stderr).into_bytes()
}

fn psycopg(lab: &Lab, user: &str, typed: &[String]) -> Vec<u8> {
    let mut python = lab.python(Who::Service).unwrap();
    let answer = run(python.arg(dsn(lab, user)).args(typed), PSYCOPG.as_bytes()).unwrap();
    assert!(answer.ok() && answer.stdout.ends_with("done\n"), "{user}: {}", answer.stderr);
    format!("{}\n{}", answer.stdout, answer.stderr).into_bytes()
}

/// The driver's own ways to ask: simple and extended, text and binary, with a fetch size, COPY, keys.
fn jdbc(lab: &Lab, user: &str, typed: &[String]) -> Vec<u8> {
    let source = lab.path("Masking.java");
    std::fs::write(&source, include_str!("../clients/Masking.java")).unwrap();
    let mut java = lab.command(Who::Service, Path::new("/usr/bin/java")).unwrap();
    java.args(["-cp", DRIVER]).arg(&source).arg(lab.postgres.port().to_string()).arg(user);
    let answer = run(java.args(typed), b"").unwrap();
    assert!(answer.ok() && answer.stdout.ends_with("done\n"), "{user}: {}", answer.stderr);
    let seen = answer.stdout.rsplit_once("rows seen: ").unwrap().1;
    let seen: usize = seen.lines().next().unwrap().parse().unwrap();
    assert!(seen > ROWS, "{user}: only {seen} rows were seen: {}", answer.stdout);
    format!("{}\n{}", answer.stdout, answer.stderr).into_bytes()
}

#[test]
fn a_thousand_protected_values_are_nowhere_afterwards() {
    if let Ok(dsn) = std::env::var(tokio::CHILD) {
        return tokio::as_the_service_account(&dsn);
    }
    let name = "canary::a_thousand_protected_values_are_nowhere_afterwards";
    let dir = tempfile::tempdir().unwrap();
    let otlp = otlp(dir.path());
    let (lab, values) = lab(&super::with_catalogue(), &otlp.toml);
    assert_eq!(values.all_stored().count(), 1000);
    let stored = Search::new(values.all_stored());
    for user in ["app", "analyst"] {
        stored.finds_none(&format!("psql of {user}"), &psql(&lab, user));
        let typed = if user == "app" { &values.typed[..25] } else { &values.typed[25..] };
        stored.finds_none(&format!("psycopg of {user}"), &psycopg(&lab, user, typed));
        stored.finds_none(&format!("JDBC of {user}"), &jdbc(&lab, user, typed));
        let received = tokio::received(&lab, &dsn(&lab, user), name);
        stored.finds_none(&format!("tokio-postgres of {user}"), &received);
    }
    // Who may see them gets them all, so the search would have found them; the record has them no more
    // than the others'.
    let all = "SELECT ssn, card, email, iban, account FROM customers";
    let auditor = setup::sql(&lab, "auditor", &[all, "COPY customers TO STDOUT"]);
    assert_eq!(stored.count(auditor.stdout.as_bytes()), 5 * ROWS, "{}", auditor.stderr);
    assert!(setup::sql(&lab, "app", &[MARK]).ok());
    is_nowhere(&lab, &values, &otlp);
    // The policy keeps rows: masked ones are there, so what was searched does hold results.
    let query = lab.collector().unwrap().query(&[]).unwrap();
    let kept = query.operations().filter(|one| one.json["result"]["kept"].as_u64() > Some(0));
    assert!(kept.count() > 50, "few results are kept");
    // Whether a log verifies is shown elsewhere; this one is long.
    lab.discard().unwrap();
}
