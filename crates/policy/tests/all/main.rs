//! What policies promise, shown from outside.
//!
//! `compile`: what is a policy and what isn't. `decide`: one row a promise. `columns`: protected columns, duties and
//! alerts. `memory`: what is remembered is never stale.

#![expect(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod approval;
mod columns;
mod compile;
mod decide;
mod memory;

use tidegate_event::{Mode, Principal, Protocol, Relation, TargetName};
use tidegate_policy::{PolicySet, Source, Subject};

/// The account `batch` at the target `ledger`.
fn subject(mode: Mode) -> Subject {
    Subject {
        principal: Principal { name: "batch".to_owned(), uid: 991 },
        executable: None,
        cgroup: None,
        target: TargetName("ledger".to_owned()),
        protocol: Protocol::Postgres,
        mode,
        db_user: "app".to_owned(),
        database: "bank".to_owned(),
    }
}

/// The policies in `text`.
fn set(text: &str) -> PolicySet {
    let source = Source { name: "p.cedar".to_owned(), text: text.to_owned() };
    PolicySet::compile(&[source]).unwrap_or_else(|errors| panic!("{errors:?} in {text}"))
}

/// `name` or `schema.name`.
fn relation(text: &str) -> Relation {
    match text.split_once('.') {
        Some((schema, name)) => Relation { schema: Some(schema.to_owned()), name: name.to_owned() },
        None => Relation { schema: None, name: text.to_owned() },
    }
}
