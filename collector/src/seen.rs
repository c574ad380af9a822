//! What others hold of this log, signed by its own key, that it cannot keep: then it was set back.
//!
//! A restored snapshot of the whole data directory agrees with itself. What does not come back with
//! it is what was given away: receipts and checkpoints with the agents, checkpoints with the witnesses. A
//! single one that does not fit is kept in `seen.jsonl`, and the log is not opened for writing until it
//! matches: bring back the newer data.
//!
//! Cannot do: notice a log that was set back to where nobody outside knows more.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::receipt::{self, ReceiptFacts};

use crate::files;

/// Everything that the log must be able to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tree heads that it must match.
    pub heads: Vec<Checkpoint>,
    /// Entries that it must have at least.
    pub size: u64,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Who held it.
    from: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    checkpoint: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    receipt_body: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    receipt_signature: String,
}

/// Reads the file. What is not signed by the log's key counts for nothing.
pub fn read(path: &Path, key: &VerifierKey) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    if !path.exists() {
        return Ok(seen);
    }
    for line in files::read(path)?.lines() {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("in {}", path.display()))?;
        if let Ok(head) = checkpoint::open(&line.checkpoint, key) {
            seen.size = seen.size.max(head.size);
            seen.heads.push(head);
        }
        if let Some(facts) = read_receipt(&line, key) {
            seen.size = seen.size.max(facts.last_index.saturating_add(1));
        }
    }
    Ok(seen)
}

fn read_receipt(line: &Line, key: &VerifierKey) -> Option<ReceiptFacts> {
    let (body, signature) =
        (hex::decode(&line.receipt_body).ok()?, hex::decode(&line.receipt_signature).ok()?);
    receipt::verify(&body, &signature, key.key()).ok()
}

/// Keeps a checkpoint that the log does not match, durably.
pub fn keep_checkpoint(path: &Path, from: &str, note: &str) -> anyhow::Result<()> {
    let line = Line {
        from: from.to_owned(),
        checkpoint: note.to_owned(),
        receipt_body: String::new(),
        receipt_signature: String::new(),
    };
    keep(path, &line)
}

/// Keeps a receipt that the log does not keep, durably.
pub fn keep_receipt(path: &Path, from: &str, body: &[u8], signature: &[u8]) -> anyhow::Result<()> {
    let line = Line {
        from: from.to_owned(),
        checkpoint: String::new(),
        receipt_body: hex::encode(body),
        receipt_signature: hex::encode(signature),
    };
    keep(path, &line)
}

fn keep(path: &Path, line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let append = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().append(true).create(true).mode(files::SECRET).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    append().with_context(|| format!("cannot append to {}", path.display()))
}
