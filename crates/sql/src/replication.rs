//! Commands of a replication session, which have a grammar of their own.
//!
//! Promises: a text is taken for one only where the server's own scanner would, by its first word; in
//! an ordinary session the server refuses such a text as a syntax error, so nothing is missed there.
//! Every one is `replicate`; a base backup may write files on the server, and is `server_file` too.
//!
//! What it can't do: tell what a stream of changes holds. Its rows are opaque.
//!
//! Source: PostgreSQL 18, "Streaming Replication Protocol"; `src/backend/replication/repl_scanner.l`.

use tidegate_event::Action;

use crate::collect::Collector;

/// First words, in lower case. `SHOW` reads as SQL.
const WORDS: [&str; 9] = [
    "alter_replication_slot",
    "base_backup",
    "create_replication_slot",
    "drop_replication_slot",
    "identify_system",
    "read_replication_slot",
    "start_replication",
    "timeline_history",
    "upload_manifest",
];

/// Notes the command, if the text is one.
pub(crate) fn note(text: &str, to: &mut Collector) -> bool {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let end = text.find(|char: char| !char.is_ascii_alphabetic() && char != '_');
    let first = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let Some(word) = WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(first)) else {
        return false;
    };
    to.literals_matter = true;
    to.kinds.push(word);
    to.add(Action::Replicate);
    if word == "base_backup" {
        to.add(Action::ServerFile);
    }
    true
}
