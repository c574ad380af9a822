//! However the bytes are cut on their way, the same comes out.

use proptest::prelude::*;
use tidegate_testkit::Ways;
use tidegate_wire_mysql::compress::Algorithm;
use tidegate_wire_mysql::exercise::SMALL_LIMITS;
use tidegate_wire_mysql::{ClientTls, Limits, ServerTls};

use super::script::{Driver, encode};

/// A session with something of everything; each line is said whole before the other side answers.
const SESSION: &[(bool, &str)] = &[
    (false, "greet"),
    (true, "hello(1,u,d)"),
    (false, "ok(2)"),
    (true, "q(SELECT 1)"),
    (false, "1[\\x01] | 2[col] | eof(3) | 4[\\x03row] | 5[\\x07another] | eof(6)"),
    (true, "q(SELECT 1; INSERT 2)"),
    (false, "more(1) | ok(2)"),
    (true, "prepare(SELECT ?)"),
    (false, "prepared(7,1,1) | 2[par] | eof(3) | 4[col] | eof(5)"),
    (true, "0[\\x18\\x07~~~~~some long data] | 0[\\x17\\x07~~~~\\x01~~~~\\x01\\xfd~]"),
    (false, "1[\\x01] | 2[col] | eof(3) | 4[~~\\x03row] | eof(5)"),
    (true, "q(DELETE secret) | 0[\\x0e] | q(SELECT 3)"),
    (false, "ok(1)"),
    (false, "err(1)"),
    (
        true,
        "q(SELECT a very long text that does not fit the limits which this test sets, at all, by far, no, really not)",
    ),
    (false, "ok(1)"),
    (true, "q(LOAD DATA LOCAL INFILE 'some.csv')"),
    (false, "1[\\xfbsome.csv]"),
    (true, "2[some,data] | 3[more,data] | 4[]"),
    (false, "ok(5)"),
    (true, "0[\\x19\\x07~~~] | 0[\\x01]"),
];

/// The same, compressed: some packets hold several commands, some parts of one. What is cut is what is on the wire.
const PACKED: &[(bool, &str)] = &[
    (false, "greet8"),
    (true, "hellozstd(1)"),
    (false, "ok(2)"),
    (true, "zstd 0: q(SELECT 1)"),
    (false, "zstd 1: 1[\\x01] | 2[column column column column column column column] | eof(3)"),
    (false, "zstd 2 by 7: 4[\\x03row] | 5[\\x07another] | eof(6)"),
    (
        true,
        "zstd 0: q(DELETE secret) | 0[\\x0e] | q(SELECT 3 and some, and some, and some, and some, and some)",
    ),
    (false, "zstd 1: ok(1)"),
    (false, "zstd 2: err(1)"),
    (true, "zstd 0 by 9: prepare(SELECT ?)"),
    (false, "zstd 5: prepared(7,1,1) | 2[par] | eof(3) | 4[col] | eof(5)"),
    (true, "zstd 0 by 60: 0[\\x18\\x07~~~~~some long long long long long long long long data]"),
    (true, "zstd 0: 0[\\x17\\x07~~~~\\x01~~~~\\x01\\xfd~]"),
    (false, "zstd 1: 1[\\x01] | 2[col] | eof(3) | 4[~~\\x03row] | eof(5)"),
    (true, "zstd 0: q(LOAD DATA LOCAL INFILE 'some.csv')"),
    (false, "zstd 1: 1[\\xfbsome.csv]"),
    (true, "zstd 2 by 11: 2[some,data,data,data,data] | 3[more,data] | 4[]"),
    (false, "zstd 7: ok(5)"),
    (true, "zstd 0: 0[\\x19\\x07~~~] | 0[\\x01]"),
];

fn run_packed(limits: Limits, cut: impl FnMut(usize) -> Vec<usize>) -> Ways {
    let mut driver = Driver::packed(Algorithm::Zstd, limits);
    tidegate_testkit::said_in_parts(PACKED, encode, cut, |client, part| {
        if client {
            driver.client_says(part);
        } else {
            driver.server_says(part);
        }
    });
    tidegate_testkit::ways(driver.log())
}

fn run(limits: Limits, cut: impl FnMut(usize) -> Vec<usize>) -> Ways {
    let mut driver = Driver::new(ClientTls::Refuse, ServerTls::Off, limits);
    tidegate_testkit::said_in_parts(SESSION, encode, cut, |client, part| {
        if client {
            driver.client_says(part);
        } else {
            driver.server_says(part);
        }
    });
    tidegate_testkit::ways(driver.log())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_cut_gives_the_same(
        cuts in proptest::collection::vec(1_usize..40, 1..40), small: bool,
    ) {
        let limits = if small { SMALL_LIMITS } else { Limits::default() };
        let whole = run(limits, |_| Vec::new());
        let mut at = cuts.into_iter().cycle();
        let cut = run(limits, |length| (0..length).map(|_| at.next().unwrap_or(1)).collect());
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(run(limits, |length| vec![1; length]), whole);
    }

    #[test]
    fn any_cut_of_compressed_packets_gives_the_same(
        cuts in proptest::collection::vec(1_usize..40, 1..40), small: bool,
    ) {
        let limits = if small { SMALL_LIMITS } else { Limits::default() };
        let whole = run_packed(limits, |_| Vec::new());
        prop_assert!(whole[1].iter().any(|(what, _)| what.contains("framing")), "{:?}", whole);
        let mut at = cuts.into_iter().cycle();
        let cut = run_packed(limits, |length| (0..length).map(|_| at.next().unwrap_or(1)).collect());
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(run_packed(limits, |length| vec![1; length]), whole);
    }
}
