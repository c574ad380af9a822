//! Results in the record, end to end: shape and digest of each, the masked rows where a policy keeps them,
//! and `tidegate-collector replay` over them.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::indexing_slicing, reason = "tests")]

#[path = "masking/setup.rs"]
#[expect(dead_code, reason = "shared with the masking tests, which use all of it")]
mod setup;

use serde_json::{Value, json};
use setup::{CATALOGUE, PROTECT, dsn, lab, sql};
use xtask::lab::client::run;
use xtask::lab::{Lab, Who};

/// Ends what psql prints, and the session.
const PSYCOPG: &str = r#"
import sys, psycopg
with psycopg.connect(sys.argv[1]) as conn, conn.cursor(binary=True) as cursor:
    rows = cursor.execute("SELECT id, ssn, id::int8 AS big, id = 1 AS first, name FROM customers WHERE id < %s ORDER BY 1", (2,)).fetchall()
    print(rows)
"#;

/// `tidegate-collector replay`.
fn replay(lab: &Lab, args: &[&str]) -> String {
    let collector = lab.collector().unwrap();
    let mut command = collector.program();
    let answer =
        run(command.arg("replay").arg("--config").arg(collector.config()).args(args), b"").unwrap();
    assert!(answer.ok(), "{answer}");
    answer.stdout
}

/// The last session that ran this, and the answer of `replay --json` about it.
fn replayed(lab: &Lab, text: &str) -> (String, Value) {
    let evidence = lab.evidence().unwrap();
    let session = evidence.statements(text).last().unwrap().session().to_owned();
    let all = replay(lab, &[&session, "--json"]);
    let mut lines = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = lines.find(|answer| answer["text"] == text && !answer["result"].is_null());
    (session, found.unwrap())
}

#[test]
fn masked_rows_are_kept_and_replayed_and_clear_ones_are_not() {
    let (lab, values) = lab(&format!("{CATALOGUE}{PROTECT}"), "");
    let select = "SELECT id, ssn, name FROM customers WHERE id < 3 ORDER BY id";
    assert!(
        sql(&lab, "app", &[select, "COPY (SELECT id, card FROM customers WHERE id = 2) TO STDOUT"])
            .ok()
    );
    let (session, answer) = replayed(&lab, select);
    let shown = replay(&lab, &[&session, "--rows", "2"]);
    for line in
        ["| id | ssn  | name", "| 0  | **** | name 0", "| 1  | **** | name 1", "| and 1 more,"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("name 2"), "{shown}");
    let card = &values.stored[2][1];
    assert!(
        shown.contains(&format!("| 2\u{2409}************{}", card.get(12..).unwrap())),
        "{shown}"
    );
    let kept = &answer["kept"];
    assert_eq!(kept["rows"][2], json!(["2", "****", "name 2"]), "{answer}");
    assert_eq!((&kept["digest_agrees"], &kept["wrong"]), (&json!(true), &Value::Null), "{answer}");
    assert_eq!(
        answer["result"]["columns"][1],
        json!({"name": "ssn", "type_oid": 25, "binary": false})
    );

    assert!(sql(&lab, "auditor", &[select]).stdout.contains(&values.stored[1][0]));
    let (_, answer) = replayed(&lab, select);
    let result = &answer["result"];
    assert_eq!(
        (&result["keyed"], &result["not_kept"]),
        (&json!(true), &json!("protected")),
        "{answer}"
    );
    assert_eq!((&result["kept"], &answer["kept"]), (&json!(0), &Value::Null), "{answer}");
    assert_eq!(result["digest"].as_str().unwrap().len(), 64);
    let clear = replay(&lab, &["--last", "--who", "auditor"]);
    assert!(clear.contains("(keyed), 0 kept (protected)"), "{clear}");
    lab.finish().unwrap();
}

#[test]
fn rows_of_the_extended_protocol_are_read_by_their_types() {
    let (lab, _) = lab(&format!("{CATALOGUE}{PROTECT}"), "");
    let mut python = lab.python(Who::Service).unwrap();
    let answer = run(python.arg(dsn(&lab, "app")), PSYCOPG.as_bytes()).unwrap();
    assert_eq!(
        answer.stdout, "[(0, '****', 0, False, 'name 0'), (1, '****', 1, True, 'name 1')]\n",
        "{answer}"
    );
    let text = "SELECT id, ssn, id::int8 AS big, id = 1 AS first, name FROM customers WHERE id < $1 ORDER BY 1";
    let (_, answer) = replayed(&lab, text);
    let rows = &answer["kept"];
    assert_eq!(rows["columns"], json!(["id", "ssn", "big", "first", "name"]), "{rows}");
    assert_eq!(rows["rows"][1], json!(["1", "****", "1", "t", "name 1"]), "{rows}");
    assert_eq!(rows["digest_agrees"], json!(true), "{rows}");
    lab.finish().unwrap();
}

#[test]
fn a_large_result_is_kept_up_to_the_limit_and_digested_whole() {
    let (lab, _) = lab(&format!("{CATALOGUE}{PROTECT}"), "");
    let select = "SELECT n, repeat('x', 1000) FROM generate_series(1, 3000) n";
    let answer = sql(&lab, "app", &[select]);
    assert_eq!(answer.stdout.lines().count(), 3000);
    let (_, recorded) = replayed(&lab, select);
    let result = &recorded["result"];
    assert_eq!(
        (&result["kept"], &result["not_kept"]),
        (&json!(1 << 20), &json!("limit")),
        "{result}"
    );
    // DataRow: 5 bytes of header, 2 of count, two lengths of 4; RowDescription: 7, and 19 and a name each.
    let digits: usize = (1..=3000_u32).map(|n| n.to_string().len()).sum();
    let expected = 7 + 19 + "n".len() + 19 + "repeat".len() + 3000 * (15 + 1000) + digits;
    assert_eq!(result["bytes"], json!(expected), "{result}");
    let rows = recorded["kept"]["rows"].as_array().unwrap();
    assert!((1000..1040).contains(&rows.len()), "{} rows", rows.len());
    lab.finish().unwrap();
}
