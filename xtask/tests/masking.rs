//! Protected columns, end to end: real clients, a real server, the real agent and collector.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::indexing_slicing, reason = "tests")]

#[path = "masking/canary.rs"]
mod canary;
#[path = "masking/setup.rs"]
mod setup;
#[path = "masking/tokio.rs"]
mod tokio;

use setup::{CATALOGUE, PROTECT, Search, dsn, lab, sql};
use xtask::lab::Who;

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
    assert_eq!(shown[1], format!("************{}", &card[12..]));
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
    assert_eq!(evidence.statements(select).count(), 3);
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
