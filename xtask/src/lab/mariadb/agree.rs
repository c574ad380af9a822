//! Whether the server's general query log and the records say the same.
//!
//! Method, from what MariaDB 10.11 does: a text is logged whole under `Query` when it is run, each statement
//! of several in one command by itself; under `Prepare` when its preparation succeeded, under `Execute` with
//! its values filled in; COM_INIT_DB under `Init DB`. What was refused by the gate has no line. So one
//! line stands for one record: by text for `Query`, `Prepare` and `Init DB`, by number for the rest.
//!
//! Limits: sessions are not told apart; the texts of a command with several statements are compared
//! joined by session and order only as far as each stands in the command's text.

use std::collections::BTreeMap;

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
    let connects = log.iter().filter(|entry| entry.command == "Connect");
    let by_user: Vec<u64> = connects
        .filter(|entry| entry.argument.starts_with(user) && entry.argument.contains("TCP"))
        .map(|entry| entry.connection)
        .collect();
    for entry in log.iter().filter(|entry| by_user.contains(&entry.connection)) {
        let key = match entry.command.as_str() {
            "Query" => ("Query", shown(&entry.argument)),
            "Prepare" => ("Prepare", shown(&entry.argument)),
            "Execute" | "Bulk_execute" => ("Execute", String::new()),
            "Connect" | "Change user" => ("Connect", String::new()),
            "Init DB" => ("Init DB", entry.argument.clone()),
            _ => continue,
        };
        agreement.lines += 1;
        *balance.entry(key).or_default() -= 1;
    }
    for ((what, text), count) in balance.into_iter().filter(|(_, count)| *count != 0) {
        let side = if count > 0 { "records" } else { "lines" };
        let text: String = text.chars().take(160).collect();
        agreement.differences.push(format!("{} more {side}: {what} {text:?}", count.abs()));
    }
    agreement
}

fn shown(text: &str) -> String {
    let text = text.trim_end();
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}
