//! Noninterference: of two databases that differ in the values of protected columns alone, no client can
//! tell which is which.
//!
//! Promises: statements made by seed run through the gate in both, as an account that may read and write,
//! and neither filter by protected columns nor see them. Whatever comes back (columns, rows, errors, numbers of
//! rows and of warnings) is the same from both. Nothing of how the gate works is assumed.
//!
//! Limits: `STATEMENTS` statements of one seed; `TIDEGATE_LINEAGE_SEED` and `TIDEGATE_LINEAGE_QUERIES` ask for
//! others. Time is not compared. A NULL in a column that is masked stays NULL, so both have it in the same
//! places. A unique key on a protected column would tell whether a value exists (docs/THREATS.md): there is none.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::format_push_string, reason = "statements are pieced together")]

#[path = "mysql_noninterference/make.rs"]
mod make;

use std::fmt::Write as _;

use xtask::lab::mariadb::clients::python;
use xtask::lab::mariadb::{APP_PASSWORD, masked_lab};

/// Statements of the ordinary run.
const STATEMENTS: u64 = 1_500;

/// Those that must be answered, and those whose answers must hold something masked, in percent: else little is
/// compared.
const ANSWERED_PERCENT_MIN: u64 = 30;
const MASKED_PERCENT_MIN: u64 = 10;

const PROTECT: &str = r#"
[[protect]]
target = "lab-mariadb"
columns = ["customers.ssn", "staff.ssn"]
class = "ssn"
mask = "redact"
[[protect]]
target = "lab-mariadb"
columns = ["customers.code", "customers.born"]
class = "code"
mask = "null"
"#;

/// The protected values of a row, for one of the two databases: of other length, sign, order and form.
fn values(database: &str, row: u32) -> (String, String, String) {
    if row % 7 == 3 {
        return ("NULL".to_owned(), "NULL".to_owned(), "NULL".to_owned());
    }
    let mixed = row.wrapping_mul(2_654_435_761) >> 8;
    if database == "alphadb" {
        let ssn = format!("'{:03}-{:02}-{:04}'", row, mixed % 100, mixed % 10_000);
        (ssn, format!("{}", row * 3), format!("'19{:02}-01-0{}'", 50 + row, 1 + row % 9))
    } else {
        let ssn = format!("'{}x{}'", "z".repeat(usize::try_from(row % 5).unwrap()), 99 - row);
        (ssn, format!("-{}", mixed % 97), format!("'20{:02}-12-2{}'", row % 20, row % 9))
    }
}

fn database(name: &str) -> String {
    let mut sql = format!(
        "CREATE DATABASE {name} CHARACTER SET utf8mb4; USE {name}; GRANT ALL ON {name}.* TO app@'%'; \
         CREATE TABLE customers (id int PRIMARY KEY, name varchar(20), ssn varchar(20), code bigint, \
             born date, city varchar(20)); \
         CREATE TABLE staff (id int PRIMARY KEY, ssn varchar(20), name varchar(20)); \
         CREATE TABLE orders (id int PRIMARY KEY, customer_id int, total int, ref varchar(20)); \
         CREATE TABLE notes (a varchar(60), b bigint); \
         CREATE VIEW clients AS SELECT id, ssn AS number, name FROM customers; \
         CREATE VIEW names AS SELECT id, name, city FROM customers WHERE city <> 'x'; \
         CREATE VIEW tails AS SELECT right(number, 2) AS tail, id FROM clients; \
         CREATE FUNCTION plus(x int) RETURNS int DETERMINISTIC RETURN x + 1; \
         CREATE FUNCTION ssn_of(x int) RETURNS varchar(20) READS SQL DATA \
             RETURN (SELECT ssn FROM customers WHERE id = x); \
         CREATE PROCEDURE everybody() SELECT id, ssn FROM customers; "
    );
    for row in 1..=20 {
        let (ssn, code, born) = values(name, row);
        write!(
            sql,
            "INSERT INTO customers VALUES ({row}, 'n{}', {ssn}, {code}, {born}, 'c{}'); \
             INSERT INTO staff VALUES ({row}, {ssn}, 's{row}'); \
             INSERT INTO orders VALUES ({row}, {}, {}, 'n{}'); ",
            row % 6,
            row % 4,
            row % 11 + 1,
            row * 10 % 70,
            row % 5
        )
        .unwrap();
    }
    sql
}

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn no_client_can_tell_protected_values_apart() {
    let sql: Vec<String> = ["alphadb", "omegadb"].map(database).into();
    let sql: Vec<&str> = sql.iter().map(String::as_str).collect();
    let lab = masked_lab(PROTECT, &sql, "").unwrap();
    let (seed, count) =
        (asked("TIDEGATE_LINEAGE_SEED", 1), asked("TIDEGATE_LINEAGE_QUERIES", STATEMENTS));
    let mut maker = make::Maker::new(seed);
    let statements: String =
        (0..count).map(|_| serde_json::to_string(&maker.statement()).unwrap() + "\n").collect();
    let file = lab.path("statements.json");
    std::fs::write(&file, statements).unwrap();
    let args = [APP_PASSWORD, file.to_str().unwrap()];
    let answer = python(&lab, include_str!("clients/noninterference.py"), &args).unwrap();
    assert!(answer.ok() && answer.stdout.ends_with("differing: 0\n"), "seed {seed}: {answer}");
    let told = answer.stdout.lines().rev().nth(1).unwrap();
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    println!("{told}");
    let share = |what: &str| told[what].as_u64().unwrap_or(0) * 100 / count;
    assert!(share("answered") >= ANSWERED_PERCENT_MIN, "{told}");
    assert!(share("masked") >= MASKED_PERCENT_MIN, "{told}");
    assert!(told["refused"].as_u64() > Some(0) && told["withheld"].as_u64() > Some(0), "{told}");
    lab.discard().unwrap();
}
