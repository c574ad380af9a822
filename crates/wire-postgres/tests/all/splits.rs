//! However the bytes are cut on their way, the same comes out.

use proptest::prelude::*;
use tidegate_wire_postgres::exercise::SMALL_LIMITS;
use tidegate_wire_postgres::{ClientTls, Limits};

use super::script::{Driver, encode};

/// A session with something of everything; each line is said whole before the other side answers.
const SESSION: &[(bool, &str)] = &[
    (true, "startup(user=u,database=d)"),
    (false, "R[~~~\x03]"),
    (true, "p[password~]"),
    (false, "ok"),
    (true, "Q[SELECT 1~]"),
    (false, "T[~~] | D[row] | D[another] | C[SELECT 2~] | Z[I]"),
    (true, "parse(s,SELECT $1) | D[Ss~] | S[]"),
    (false, "1[] | t[~\x01~~~\x17] | T[~~] | Z[I]"),
    (true, "bind(,s,value) | D[P~] | exec() | bind(p,s,secret) | exec(p) | parse(,SELECT 2) | S[]"),
    (false, "2[] | T[~~] | D[row] | C[SELECT 1~] | E[SERROR~VERROR~C42601~Msyntax~~] | Z[I]"),
    (
        true,
        "parse(,SELECT 3) | bind(,,a much longer value that does not fit the bounds, twice) | exec() | S[]",
    ),
    (false, "1[] | 2[] | N[SNOTICE~~] | C[SELECT 1~] | Z[I]"),
    (true, "Q[COPY t FROM STDIN~]"),
    (false, "G[~~~]"),
    (true, "d[some data] | d[more] | c[]"),
    (false, "C[COPY 2~] | Z[I]"),
    (
        true,
        "Q[SELECT a very long text that does not fit the limits which this test sets, at all, by far~]",
    ),
    (false, "C[SELECT 1~] | Z[I]"),
    (true, "Q[DELETE secret~] | X[]"),
    (false, "S[client_encoding~LATIN1~]"),
];

/// What went each way, and what was asked and reported: how these three interleave may differ.
type Came = [Vec<(String, Vec<u8>)>; 3];

fn run(limits: Limits, mut cut: impl FnMut(usize) -> Vec<usize>) -> Came {
    let mut driver = Driver::new(ClientTls::Refuse, limits);
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
