//! A thousand protected values in MariaDB, and many ways to read them: none of them is anywhere afterwards.
//!
//! Limits: what PostgreSQL's canary has too (`masking/canary.rs`): seeds of each run's own, one server.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "masking/nowhere.rs"]
mod nowhere;
#[path = "masking/setup.rs"]
#[expect(dead_code, reason = "shared with PostgreSQL's tests, which use all of it")]
mod setup;

use nowhere::{MARK, is_nowhere, otlp};
use setup::{ROWS, Search, Values};
use xtask::lab::client::run;
use xtask::lab::mariadb::clients::{program, python};
use xtask::lab::mariadb::{APP_PASSWORD, masked_lab};
use xtask::lab::{Lab, Who};

const TABLES: &str = "CREATE TABLE app.customers (id int PRIMARY KEY, name text, ssn varchar(11), card varchar(16), \
        email varchar(60), iban varchar(40), account bigint); \
    CREATE TABLE app.orders (id int PRIMARY KEY, customer int, words text); \
    INSERT INTO app.orders SELECT seq, seq, concat('order ', seq) FROM app.seq_1_to_200; \
    CREATE TABLE app.parted (id int, ssn varchar(11)); \
    CREATE TABLE app.kept (id int AUTO_INCREMENT PRIMARY KEY, words text); \
    CREATE VIEW app.people AS SELECT id, name, ssn AS number FROM app.customers; \
    CREATE VIEW app.numbers AS SELECT number FROM app.people; \
    CREATE FUNCTION app.number_of(who int) RETURNS varchar(11) READS SQL DATA \
        RETURN (SELECT ssn FROM app.customers WHERE id = who); \
    CREATE PROCEDURE app.everybody() SELECT * FROM app.customers; \
    CREATE PROCEDURE app.kept_aside() SELECT group_concat(ssn) INTO @aside FROM app.customers; \
    CREATE USER auditor@'%' IDENTIFIED BY 'app-lab-password', analyst@'%' IDENTIFIED BY 'app-lab-password'; \
    GRANT ALL ON app.* TO auditor@'%', analyst@'%'";

/// What MariaDB's own client asks for.
const CLI: &str = r#"
SELECT * FROM customers;
SELECT ssn, card, email, iban, account FROM customers\G
TABLE customers;
SELECT c.ssn AS a, c.card AS b FROM customers AS c;
SELECT upper(email), concat(ssn, ''), substr(card, 1, 12), account + 0 FROM customers;
SELECT json_object('n', ssn, 'a', account), json_array(card) FROM customers;
SELECT group_concat(ssn), json_arrayagg(card), json_objectagg(id, email) FROM customers;
SELECT x.s FROM (SELECT ssn AS s FROM customers) x;
WITH w AS (SELECT iban, account FROM customers) SELECT * FROM w;
SELECT ssn FROM customers UNION ALL SELECT card FROM customers;
SELECT CASE WHEN true THEN ssn ELSE name END, if(true, card, 1), coalesce(email, name) FROM customers;
SELECT (SELECT ssn FROM customers WHERE id = o.id) FROM orders o;
SELECT o.words, c.* FROM orders o JOIN customers c USING (id);
SELECT to_base64(ssn), hex(ssn), reverse(reverse(ssn)), min(card) OVER () FROM customers;
SELECT cast(ssn AS char), convert(card USING utf8mb4), account DIV 1, account ^ 0 FROM customers;
SELECT DISTINCT ssn FROM customers;
SELECT ssn FROM customers ORDER BY ssn;
SELECT ssn, count(*) FROM customers GROUP BY ssn WITH ROLLUP;
SELECT cast(ssn AS int), cast(email AS date), account + email FROM customers;
SHOW WARNINGS;
SELECT exp(account), extractvalue('<a/>', concat('//', ssn, '[')) FROM customers;
SELECT number FROM people; SELECT * FROM numbers; SELECT number_of(7); CALL everybody();
CALL kept_aside(); SELECT @aside;
SELECT @all := ssn FROM customers; SELECT @all;
SELECT ssn INTO @one FROM customers LIMIT 1; SELECT @one;
SET @two = (SELECT card FROM customers WHERE id = 3); SELECT @two;
SET @text = 'SELECT ssn FROM customers'; PREPARE p FROM @text; EXECUTE p;
PREPARE q FROM 'SELECT account, email FROM customers'; EXECUTE q; EXECUTE IMMEDIATE 'SELECT iban FROM customers';
/*!50000 SELECT ssn FROM customers */; SELECT /*M! ssn, */ name FROM customers;
SET sql_mode = 'ANSI_QUOTES'; SELECT "ssn" FROM "customers"; SET sql_mode = '';
HANDLER customers OPEN; HANDLER customers READ FIRST; HANDLER customers READ NEXT LIMIT 100; HANDLER customers CLOSE;
CREATE TABLE taken AS SELECT ssn FROM customers; SELECT * FROM taken;
CREATE TEMPORARY TABLE taken_too SELECT card FROM customers; SELECT * FROM taken_too;
CREATE VIEW seen AS SELECT ssn AS s FROM customers; SELECT * FROM seen;
INSERT INTO kept (words) SELECT ssn FROM customers; SELECT * FROM kept;
INSERT INTO customers SELECT id + 1000, name, ssn, card, email, iban, account FROM customers WHERE id < 3 RETURNING *;
UPDATE orders o JOIN customers c USING (id) SET o.words = c.ssn; SELECT * FROM orders;
DELETE FROM customers WHERE id >= 1000 RETURNING ssn, account;
INSERT INTO customers SELECT * FROM customers;
ALTER TABLE customers ADD UNIQUE (name(1)), MODIFY ssn int;
SELECT ssn FROM customers INTO OUTFILE '/tmp/canary-of-nobody';
SELECT ssn FROM customers PROCEDURE ANALYSE();
EXPLAIN EXTENDED SELECT ssn FROM customers; ANALYZE FORMAT=JSON SELECT ssn FROM customers WHERE id = 5;
SELECT info FROM information_schema.processlist; SHOW FULL PROCESSLIST;
SELECT * FROM information_schema.column_stats; SELECT sleep(0), ssn FROM customers;
DELIMITER //
BEGIN NOT ATOMIC DECLARE x text; SELECT ssn INTO x FROM customers LIMIT 1; SELECT x; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = x; END//
CREATE PROCEDURE leak() SELECT card FROM customers//
DELIMITER ;
CALL leak();
SELECT ssn, card FROM customers LIMIT 50 OFFSET 20; SELECT sql_calc_found_rows email FROM customers LIMIT 1;
VALUES ((SELECT ssn FROM customers LIMIT 1));
SELECT ssn FROM customers WHERE id = 4 FOR UPDATE;
"#;

/// A laboratory whose table holds the values.
fn lab(values: &Values, collector_toml: &str) -> Lab {
    let protect = setup::PROTECT.replace("lab-db", "lab-mariadb").replace("public.", "");
    let insert = format!("USE app; {}", values.insert());
    masked_lab(&protect, &[TABLES, &insert], collector_toml).unwrap()
}

/// All that MariaDB's own client shows, going on after errors, with warnings and types.
fn cli(lab: &Lab, user: &str, script: &str) -> Vec<u8> {
    let mut command = program(lab, Who::Service, "mariadb", user).unwrap();
    command.args(["-fv", "--show-warnings", "app"]);
    let answer = run(&mut command, script.as_bytes()).unwrap();
    format!("{}\n{}", answer.stdout, answer.stderr).into_bytes()
}

/// Drivers in text and binary, with cursors and bulk, and statements that hold values themselves.
fn drivers(lab: &Lab, user: &str, typed: &[String]) -> Vec<u8> {
    let mut args = vec![user, APP_PASSWORD];
    args.extend(typed.iter().map(String::as_str));
    let answer = python(lab, include_str!("clients/mysql_canary.py"), &args).unwrap();
    assert!(answer.ok() && answer.stdout.contains("\nrows seen: "), "{user}: {answer}");
    let seen = answer.stdout.rsplit_once("rows seen: ").unwrap().1;
    let seen: usize = seen.trim_end().parse().unwrap();
    assert!(seen > 10 * ROWS, "{user}: only {seen} rows were seen: {answer}");
    format!("{}\n{}", answer.stdout, answer.stderr).into_bytes()
}

#[test]
fn a_thousand_protected_values_in_mariadb_are_nowhere_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let otlp = otlp(dir.path());
    let values = Values::make();
    assert_eq!(values.all_stored().count(), 1000);
    let lab = lab(&values, &otlp.toml);
    let stored = Search::new(values.all_stored());
    for (user, typed) in [("app", &values.typed[..25]), ("analyst", &values.typed[25..])] {
        stored.finds_none(&format!("the CLI of {user}"), &cli(&lab, user, CLI));
        stored.finds_none(&format!("drivers of {user}"), &drivers(&lab, user, typed));
    }
    // Who may see them gets them all, so the search would have found them; the record has them no more
    // than the others'.
    let all = "SELECT ssn, card, email, iban, account FROM customers;";
    let auditor = cli(&lab, "auditor", all);
    assert_eq!(stored.count(&auditor), 5 * ROWS, "{}", String::from_utf8_lossy(&auditor));
    cli(&lab, "app", &format!("{MARK};"));
    is_nowhere(&lab, &values, &otlp);
    // The policy keeps rows: masked ones are there, so what was searched does hold results.
    let query = lab.collector().unwrap().query(&[]).unwrap();
    let kept = query.operations().filter(|one| one.json["result"]["kept"].as_u64() > Some(0));
    assert!(kept.count() > 50, "few results are kept");
    // Whether a log verifies is shown elsewhere; this one is long.
    lab.discard().unwrap();
}
