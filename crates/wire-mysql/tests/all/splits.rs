//! However the bytes are cut on their way, the same comes out.

use proptest::prelude::*;
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

/// What went each way, and what was asked and reported: how these three interleave may differ.
type Came = [Vec<(String, Vec<u8>)>; 3];

fn run(limits: Limits, mut cut: impl FnMut(usize) -> Vec<usize>) -> Came {
    let mut driver = Driver::new(ClientTls::Refuse, ServerTls::Off, limits);
    for (client, line) in SESSION {
        let bytes = encode(line);
        let mut rest = bytes.as_slice();
        for length in cut(bytes.len()) {
            let (part, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            if *client {
                driver.client_says(part);
            } else {
                driver.server_says(part);
            }
        }
        if *client {
            driver.client_says(rest);
        } else {
            driver.server_says(rest);
        }
    }
    let way = |keep: &dyn Fn(&str) -> bool| {
        let mut joined: Vec<(String, Vec<u8>)> = Vec::new();
        for (what, bytes) in driver.log().iter().filter(|(what, _)| keep(what)) {
            match joined.last_mut() {
                Some((last, all)) if !bytes.is_empty() && last == what => all.extend(bytes),
                _ => joined.push((what.clone(), bytes.clone())),
            }
        }
        joined
    };
    let (client, server) = ("client <-", "server <-");
    [
        way(&|what| what.starts_with(client)),
        way(&|what| what.starts_with(server)),
        way(&|what| !what.starts_with(client) && !what.starts_with(server)),
    ]
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
}
