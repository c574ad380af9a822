//! What understanding and deciding a statement costs, the first time and once it is remembered.
//!
//!     cargo run --release -p tidegate-agent --example decision_cost
//!
//! Prints nanoseconds a statement, the median of several rounds, and the ratio. The first time: another
//! name in each text, so that the analyser reads it anew, and an analysis that no decision is remembered
//! for. The policy is the shipped `read-only-masked.cedar`. That what is remembered can't be wrong is
//! shown by `crates/policy/tests/all/memory.rs` and `crates/sql/tests/cache.rs`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement: what fails ends it"
)]

use std::sync::Arc;
use std::time::Instant;

use tidegate_event::{Analysis, Mode, Operation, Principal, Protocol, Statement, TargetName, Via};
use tidegate_policy::{Decider, PolicySet, Ruling, Source, Subject};
use tidegate_sql::{Analyzer, Settings};

/// Statements of one round.
const STATEMENTS: usize = 2_000;
/// Rounds; the median counts.
const ROUNDS: usize = 9;

/// Another name for a column is another statement; another constant would be the same one.
fn text(number: usize) -> String {
    format!(
        "SELECT o.id, o.total, c.name AS name_{number} FROM orders o JOIN customers c \
         ON c.id = o.customer_id WHERE o.id = 5 ORDER BY o.total DESC LIMIT 10"
    )
}

fn main() {
    let (mut first_read, mut read) = (Vec::new(), Vec::new());
    let (mut first_decided, mut decided) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let analyzer = Analyzer::new();
        let texts: Vec<String> = (0..STATEMENTS).map(|at| text(round * STATEMENTS + at)).collect();
        let analyze = |text: &String| analyzer.analyze(text.as_bytes(), Settings::default());
        first_read.push(nanoseconds(|| texts.iter().map(analyze).for_each(drop)));
        let same = text(0);
        let known = analyze(&same);
        read.push(nanoseconds(|| (0..STATEMENTS).map(|_| analyze(&same)).for_each(drop)));
        let mut deciding = decider();
        let anew: Vec<Operation> =
            (0..STATEMENTS).map(|_| operation(Arc::new(Analysis::clone(&known)))).collect();
        let mut permitted = |operation: &Operation| match deciding.decide(operation, None) {
            Ruling::Permitted(_) => {}
            Ruling::Refused(denial) => panic!("{}", denial.decision().reason),
        };
        first_decided.push(nanoseconds(|| anew.iter().for_each(&mut permitted)));
        let again = operation(known);
        permitted(&again);
        decided.push(nanoseconds(|| (0..STATEMENTS).for_each(|_| permitted(&again))));
    }
    for (what, first, remembered) in
        [("understood", first_read, read), ("decided", first_decided, decided)]
    {
        let (first, remembered) = (median(first), median(remembered));
        let times = first / remembered.max(1);
        println!(
            "{what}: {first} ns the first time, {remembered} ns remembered, {times} times less"
        );
    }
}

fn nanoseconds(run: impl FnOnce()) -> u128 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() / u128::try_from(STATEMENTS).unwrap()
}

fn median(mut rounds: Vec<u128>) -> u128 {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap()
}

fn decider() -> Decider {
    let name = "read-only-masked.cedar";
    let text = include_str!("../../docs/policies/read-only-masked.cedar").to_owned();
    let set = PolicySet::compile(&[Source { name: name.to_owned(), text }]).unwrap();
    let subject = Subject {
        principal: Principal { name: "analyst".to_owned(), uid: 991 },
        executable: None,
        cgroup: None,
        target: TargetName("ledger".to_owned()),
        protocol: Protocol::Postgres,
        mode: Mode::Enforce,
        db_user: "analyst".to_owned(),
        database: "bank".to_owned(),
    };
    Decider::new(Arc::new(set), subject)
}

fn operation(analysis: Arc<Analysis>) -> Operation {
    let text = text(0);
    Operation::Statement(Statement {
        via: Via::Simple,
        text_bytes: u64::try_from(text.len()).unwrap(),
        text: text.as_str().into(),
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis,
    })
}
