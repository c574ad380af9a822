//! What calling a function does, judged by its name.
//!
//! Promises: a native function that only computes or reads the server's own state is no effect
//! (`data/harmless_functions_mysql.txt`: MariaDB's `information_schema.SQL_FUNCTIONS`, and the manuals of
//! both for what it leaves out, reviewed). An unqualified name means the native function where there is
//! one (manual, "Function Name Parsing and Resolution"). All others are `execute`.
//!
//! A sequence that `nextval` moves on is updated, as in PostgreSQL.
//!
//! Known gaps: a loadable function that shadows none has any effect it likes: it is `execute`.

use std::collections::HashSet;
use std::sync::LazyLock;

use tidegate_event::{Action, Relation};

use super::found::Found;

static HARMLESS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../../data/harmless_functions_mysql.txt").lines().collect());

/// Families of functions that only compute.
const HARMLESS_HEADS: [&str; 2] = ["st_", "mbr"];

/// Words that stand before a parenthesis and call nothing.
const NO_FUNCTIONS: [&str; 28] = [
    "in", "and", "or", "xor", "not", "on", "using", "exists", "any", "all", "some", "values",
    "value", "set", "from", "as", "over", "where", "when", "then", "else", "like", "between", "by",
    "key", "select", "limit", "is",
];

/// Notes what a call of that name does.
pub(super) fn judge(function: Relation, to: &mut Found) {
    let name = function.name.to_ascii_lowercase();
    if function.schema.is_none() {
        match name.as_str() {
            "load_file" => return to.add_on(Action::ServerFile, Relation { schema: None, name }),
            "nextval" => return to.add(Action::Update),
            "get_lock" | "release_lock" | "release_all_locks" => return to.add(Action::Lock),
            "master_pos_wait"
            | "master_gtid_wait"
            | "source_pos_wait"
            | "wait_for_executed_gtid_set"
            | "wsrep_sync_wait_upto_gtid"
            | "binlog_gtid_pos" => {
                return to.add_on(Action::Replicate, Relation { schema: None, name });
            }
            _ if only_computes(&name) => return,
            _ => {}
        }
    }
    to.add_on(Action::Execute, Relation { schema: function.schema, name });
}

/// Whether a native function of that name, in lower case, computes from its arguments and the server's own
/// state alone.
pub(super) fn only_computes(name: &str) -> bool {
    HARMLESS.contains(name) || HARMLESS_HEADS.iter().any(|head| name.starts_with(head))
}

/// Whether a word before a parenthesis calls something.
pub(super) fn may_call(word: &str) -> bool {
    !NO_FUNCTIONS.contains(&word.to_ascii_lowercase().as_str())
}
