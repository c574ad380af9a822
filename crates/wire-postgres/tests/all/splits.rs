//! However the bytes are cut on their way, the same comes out.

use proptest::prelude::*;
use tidegate_testkit::Ways;
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

fn run(limits: Limits, cut: impl FnMut(usize) -> Vec<usize>) -> Ways {
    let mut driver = Driver::new(ClientTls::Refuse, limits);
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
}
