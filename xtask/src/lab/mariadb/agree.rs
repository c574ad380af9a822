//! Whether the server's general query log and the records say the same.
//!
//! Method, from what MariaDB 10.11 does: a text is logged whole under `Query` when it is run, each statement
//! of several in one command by itself; under `Prepare` when its preparation succeeded, under `Execute` with
//! its values filled in; COM_INIT_DB under `Init DB`. What was refused by the gate has no line. So one
//! line stands for one record: by text for `Query`, `Prepare` and `Init DB`, by number for the rest.
//!
//! Some lines stand for no record, since the statement that ran them has its own:
//!
//! 1. What SQL's own `PREPARE`, `EXECUTE` and `EXECUTE IMMEDIATE` prepare and run: one `Prepare` or `Execute`
//!    (of the last, both) directly behind their `Query`, on the same connection, also behind
//!    `SET STATEMENT .. FOR`.
//! 2. What a trigger or stored function runs is logged under `Query` (what a procedure runs is not, with
//!    `log_disabled_statements = sp`, the server's default), with `NAME_CONST('v',..)` in place of a variable
//!    `v`. Such a line is left out only where there are more lines than records of its text, the
//!    text stands in one that created a routine or trigger earlier in the log, and the line before that on
//!    its connection, but for others of this kind, is of a statement that may run a routine.
//! 3. MySQL prepares again what is executed with parameters of other types, and logs a second `Prepare` before that
//!    `Execute`. Such a line is left out only where there are more lines than records of its text, its
//!    connection has prepared the same text before, and its next line there is an `Execute`.
//!
//! Limits: sessions are not told apart; the texts of a command with several statements are compared
//! joined by session and order only as far as each stands in the command's text.

use std::collections::{BTreeMap, BTreeSet};

use super::Logged;
use crate::lab::agent::MARIADB_TARGET;
use crate::lab::evidence::Evidence;

/// What was found.
#[derive(Debug, Default)]
pub struct Agreement {
    /// Lines that stand for a record.
    pub lines: usize,
    /// Records that stand for a line.
    pub records: usize,
    /// What there is more of on one side, and of what.
    pub differences: Vec<String>,
}

/// Longest part of a text that is compared: records hold so much.
const TEXT_BYTES_MAX: usize = 15 * 1024;

/// Compares the lines of the users whose names begin with `user` with the records.
pub fn compare(evidence: &Evidence, log: &[Logged], user: &str) -> Agreement {
    let mut agreement = Agreement::default();
    let mut balance: BTreeMap<(&str, String), i64> = BTreeMap::new();
    let ours = evidence.operations().filter(|event| event.text_of("target") == MARIADB_TARGET);
    for event in ours.filter(|event| event.verdict() != "deny" && event.status() != "skipped") {
        let (via, text) = (event.via(), event.text());
        let key = match via {
            "query" => ("Query", shown(text)),
            "parse" if event.status() != "failed" => ("Prepare", shown(text)),
            "execute" => ("Execute", String::new()),
            "login" => ("Connect", String::new()),
            "command" => match text.split_once(' ') {
                Some(("COM_INIT_DB", name)) if event.status() == "ok" => {
                    ("Init DB", name.to_owned())
                }
                _ => continue,
            },
            _ => continue,
        };
        agreement.records += 1;
        *balance.entry(key).or_default() += 1;
    }
    let within = Within::of(log, &BTreeSet::new());
    let connects = log.iter().filter(|entry| entry.command == "Connect");
    let by_user: Vec<u64> = connects
        .filter(|entry| {
            let network = entry.argument.contains("TCP") || entry.argument.contains("SSL/TLS");
            entry.argument.starts_with(user) && network
        })
        .map(|entry| entry.connection)
        .collect();
    let by_user: BTreeSet<u64> = by_user.into_iter().collect();
    for (at, entry) in log.iter().enumerate() {
        if !by_user.contains(&entry.connection) || within.prepared.contains(&at) {
            continue;
        }
        let key = match entry.command.as_str() {
            "Query" => ("Query", shown(&entry.argument)),
            "Prepare" => ("Prepare", shown(&entry.argument)),
            "Execute" | "Bulk_execute" => ("Execute", String::new()),
            // A second line for one attempt.
            "Connect" if entry.argument.starts_with("Access denied") => continue,
            "Connect" | "Change user" => ("Connect", String::new()),
            "Init DB" => ("Init DB", entry.argument.clone()),
            _ => continue,
        };
        agreement.lines += 1;
        *balance.entry(key).or_default() -= 1;
    }
    leave_out(&mut agreement, &mut balance, log, &by_user);
    for ((what, text), count) in balance.into_iter().filter(|(_, count)| *count != 0) {
        let side = if count > 0 { "records" } else { "lines" };
        let text: String = text.chars().take(160).collect();
        agreement.differences.push(format!("{} more {side}: {what} {text:?}", count.abs()));
    }
    agreement
}

/// Leaves lines out by rules 2 and 3.
fn leave_out(
    agreement: &mut Agreement,
    balance: &mut BTreeMap<(&str, String), i64>,
    log: &[Logged],
    by_user: &BTreeSet<u64>,
) {
    let more = balance.iter().filter(|((what, _), count)| *what == "Query" && **count < 0);
    let more = more.map(|((_, text), _)| text.clone()).collect();
    let routines = Within::of(log, &more).routines.into_iter().map(|at| ("Query", at));
    let again = prepared_again(log).into_iter().map(|at| ("Prepare", at));
    for (what, at) in routines.chain(again) {
        let Some(entry) = log.get(at).filter(|entry| by_user.contains(&entry.connection)) else {
            continue;
        };
        if let Some(count) = balance.get_mut(&(what, shown(&entry.argument)))
            && *count < 0
        {
            *count += 1;
            agreement.lines -= 1;
        }
    }
}

/// Lines that may stand for no record by rule 3, by their index.
fn prepared_again(log: &[Logged]) -> Vec<usize> {
    let mut again = Vec::new();
    let mut seen: BTreeSet<(u64, &str)> = BTreeSet::new();
    for (at, entry) in log.iter().enumerate().filter(|(_, entry)| entry.command == "Prepare") {
        let mut behind = log.iter().skip(at + 1);
        let next = behind.find(|other| other.connection == entry.connection);
        let first = seen.insert((entry.connection, &entry.argument));
        if !first && next.is_some_and(|next| next.command == "Execute") {
            again.push(at);
        }
    }
    again
}

/// The part of a text that is compared: the server leaves out blanks at both ends and every last `;` before it
/// logs (`alloc_query` of MariaDB 10.11); a record has the text as it came.
fn shown(text: &str) -> String {
    let blank = |byte: char| matches!(byte, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let text = text.trim_start_matches(blank);
    let text = text.trim_end_matches(|byte| byte == ';' || blank(byte));
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}

/// Lines that may stand for no record, by their index.
#[derive(Debug, Default)]
struct Within {
    /// By rule 1.
    prepared: BTreeSet<usize>,
    /// By rule 2.
    routines: BTreeSet<usize>,
}

/// Verbs of statements that may run a routine.
const MAY_RUN: [&str; 12] = [
    "call", "create", "delete", "do", "execute", "insert", "load", "replace", "select", "set",
    "update", "with",
];

impl Within {
    /// `more` are the texts with more lines than records.
    fn of(log: &[Logged], more: &BTreeSet<String>) -> Self {
        let mut this = Self::default();
        let mut definitions: Vec<String> = Vec::new();
        // Of each connection: what the statement there may prepare or run, and whether it may run a routine.
        let mut before: BTreeMap<u64, (Vec<&str>, bool)> = BTreeMap::new();
        for (at, entry) in log.iter().enumerate() {
            let whole = plain(&entry.argument);
            let text = behind_set_statement(&whole).to_owned();
            let (next, runs) = before.entry(entry.connection).or_default();
            let command = entry.command.as_str();
            if next.first() == Some(&command) {
                next.remove(0);
                this.prepared.insert(at);
                continue;
            }
            if command == "Query"
                && *runs
                && more.contains(&shown(&entry.argument))
                && definitions.iter().any(|definition| stands_in(&text, definition))
            {
                this.routines.insert(at);
                continue;
            }
            let verb = text.split([' ', '(']).next().unwrap_or_default();
            let head = text.split('(').next().unwrap_or_default();
            let kinds = ["procedure", "function", "trigger"];
            let defines = verb == "create" && head.split(' ').any(|word| kinds.contains(&word));
            *runs = MAY_RUN.contains(&verb) && !defines;
            *next = match verb {
                _ if command != "Query" => Vec::new(),
                "prepare" => vec!["Prepare"],
                "execute" if text.starts_with("execute immediate ") => vec!["Prepare", "Execute"],
                "execute" => vec!["Execute"],
                _ => Vec::new(),
            };
            if defines {
                definitions.push(whole);
            }
        }
        this
    }
}

/// The statement that a `SET STATEMENT .. FOR` runs, or the text itself.
fn behind_set_statement(text: &str) -> &str {
    let behind = text.strip_prefix("set statement ").and_then(|rest| rest.split_once(" for "));
    behind.map_or(text, |(_, statement)| statement)
}

/// The text in lower case with single blanks.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Whether a statement that a routine ran stands in its definition.
fn stands_in(text: &str, definition: &str) -> bool {
    let mut rest = definition;
    let mut parts = text.split("name_const('").enumerate();
    parts.all(|(at, part)| {
        // Of `v',value)`, the name has to stand there; what follows the value is compared.
        let found = match part.split_once("',") {
            Some((name, behind)) if at > 0 => {
                let behind = behind.split_once(')').map_or("", |(_, behind)| behind);
                after(rest, name).and_then(|rest| after(rest, behind.trim()))
            }
            _ => after(rest, part.trim()),
        };
        rest = found.unwrap_or_default();
        found.is_some()
    })
}

fn after<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.split_once(part).map(|(_, behind)| behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The differences of a log and records, each line `connection command|text`.
    fn differences(lines: &[(u64, &str, &str)], records: &[&str]) -> Vec<String> {
        let mut log = vec![Logged {
            connection: 1,
            command: "Connect".to_owned(),
            argument: "app@127.0.0.1 on app using TCP/IP".to_owned(),
        }];
        log.extend(lines.iter().map(|(connection, command, argument)| Logged {
            connection: *connection,
            command: (*command).to_owned(),
            argument: (*argument).to_owned(),
        }));
        let record = |(at, text): (usize, &&str)| {
            let kind = if at == 0 { "login" } else { "query" };
            serde_json::json!({
                "index": at, "seq": at, "chain": "c", "session": "s", "kind": kind, "text": text,
                "verdict": "allow", "status": "ok", "target": MARIADB_TARGET,
            })
            .to_string()
        };
        let records: Vec<_> = ["app"].iter().chain(records).enumerate().map(record).collect();
        let evidence = Evidence::parse(&records.join("\n")).unwrap();
        compare(&evidence, &log, "app").differences
    }

    const TRIGGER: &str = "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW\n  DELETE  FROM u";
    const FUNCTION: &str = "create function f(a int) returns int begin update t set b = a + 1; end";

    #[test]
    fn what_a_statement_runs_needs_no_record_of_its_own() {
        let log = [
            (1, "Query", TRIGGER),
            (1, "Query", FUNCTION),
            (1, "Query", "INSERT INTO t VALUES (1)"),
            (1, "Query", "DELETE  FROM u"),
            (1, "Query", "SELECT f(2)"),
            (1, "Query", "update t set b =  NAME_CONST('a',2) + 1"),
            (1, "Query", "PREPARE s FROM 'SELECT 1'"),
            (1, "Prepare", "SELECT 1"),
            (1, "Query", "EXECUTE s"),
            (1, "Execute", "SELECT 1"),
            (1, "Query", "EXECUTE IMMEDIATE 'SELECT 2'"),
            (1, "Prepare", "SELECT 2"),
            (1, "Execute", "SELECT 2"),
        ];
        let records = [
            TRIGGER,
            FUNCTION,
            "INSERT INTO t VALUES (1)",
            "SELECT f(2)",
            "PREPARE s FROM 'SELECT 1'",
            "EXECUTE s",
            "EXECUTE IMMEDIATE 'SELECT 2'",
        ];
        assert_eq!(differences(&log, &records), Vec::<String>::new());
        // Each record has its line all the same.
        for left_out in 0..records.len() {
            let mut fewer = records.to_vec();
            fewer.remove(left_out);
            assert_eq!(differences(&log, &fewer).len(), 1, "without {}", records[left_out]);
        }
    }

    #[test]
    fn a_last_semicolon_is_not_compared_but_one_within_is() {
        let log = [(1, "Query", "SELECT 1")];
        assert_eq!(differences(&log, &["\n SELECT 1 ; ;\n"]), Vec::<String>::new());
        assert_eq!(differences(&log, &["SELECT; 1"]).len(), 2);
        assert_eq!(differences(&log, &["SELECT 1; SELECT 2"]).len(), 2);
    }

    #[test]
    fn what_no_rule_explains_is_a_difference() {
        let check = |lines: &[(u64, &str, &str)], records: &[&str], count: usize| {
            assert_eq!(differences(lines, records).len(), count, "{lines:?}");
        };
        let deletes = (1, "Query", "DELETE FROM u");
        check(&[deletes], &[], 1);
        // Before the trigger was there; behind what runs none; of another text.
        check(
            &[(1, "Query", "SELECT 1"), deletes, (1, "Query", TRIGGER)],
            &["SELECT 1", TRIGGER],
            1,
        );
        check(&[(1, "Query", TRIGGER), deletes], &[TRIGGER], 1);
        let inserts = [(1, "Query", TRIGGER), (1, "Query", "INSERT INTO t VALUES (1)")];
        let records = [TRIGGER, "INSERT INTO t VALUES (1)"];
        check(&[inserts[0], inserts[1], (1, "Query", "DELETE FROM v")], &records, 1);
        check(&[inserts[0], inserts[1], deletes], &records, 0);
        // More than one, not behind its statement, on another connection.
        let prepare = (1, "Query", "PREPARE s FROM 'SELECT 1'");
        let (one, other) = ((1, "Prepare", "SELECT 1"), (1, "Query", "SELECT 2"));
        check(&[prepare, one, one], &[prepare.2], 1);
        check(&[prepare, other, one], &[prepare.2, other.2], 1);
        check(&[one], &[], 1);
        check(&[prepare, (1, "Execute", "SELECT 1")], &[prepare.2], 1);
    }
}
