//! What this host holds of the collector's word: the newest receipt, and the newest checkpoint it was shown.
//!
//! Promise: shown to the collector in each Hello, so that a log that was set back is told so; the checkpoint
//! stands in each heartbeat, under this host's own key. A checkpoint that is smaller than the one before, or
//! another one of the same size, is an error that an operator must look at.
//!
//! Limits: kept in `uplink-held.json` at most every [`SAVE_INTERVAL`] and at the end of a stream, and not synced: an older
//! word still convicts a log that was set back behind it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_proto::uplink::v1::Receipt;

/// Least time between two writes of the file.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest checkpoint that is kept, in bytes: it goes into each heartbeat.
pub const CHECKPOINT_BYTES_MAX: usize = 1024;

const FILE: &str = "uplink-held.json";

/// The newest of each.
#[derive(Debug, Default)]
pub struct Held {
    receipt: Option<Receipt>,
    note: String,
    head: Option<Checkpoint>,
    saved: Option<Instant>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    receipt_body: String,
    receipt_signature: String,
    checkpoint: String,
}

impl Held {
    /// Reads what was kept; what the log's key did not sign is left out, as after a new enrolment.
    pub fn load(state_dir: &Path, key: &VerifierKey) -> Self {
        let text = std::fs::read_to_string(state_dir.join(FILE)).unwrap_or_default();
        let saved: Saved = serde_json::from_str(&text).unwrap_or_default();
        let mut held = Self::default();
        // A file that can't be read costs what it held, and nothing else.
        let _unread = held.show(&saved.checkpoint, key);
        let bytes = |text: &str| hex::decode(text).ok().map(Bytes::from);
        if let (Some(body), Some(signature)) =
            (bytes(&saved.receipt_body), bytes(&saved.receipt_signature))
            && tidegate_ledger::receipt::verify(&body, &signature, key.key()).is_ok()
        {
            held.receipt = Some(Receipt { body, signature });
        }
        held
    }

    /// The newest receipt.
    pub const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// The newest checkpoint, a whole signed note; empty where there is none.
    pub fn checkpoint(&self) -> &str {
        &self.note
    }

    /// Takes a receipt that was verified.
    pub fn acknowledge(&mut self, receipt: &Receipt) {
        self.receipt = Some(receipt.clone());
    }

    /// Takes a checkpoint that the collector shows. An error names what is wrong with it.
    pub fn show(&mut self, note: &str, key: &VerifierKey) -> anyhow::Result<()> {
        anyhow::ensure!(note.len() <= CHECKPOINT_BYTES_MAX, "a checkpoint of {} bytes", note.len());
        let new = checkpoint::open(note, key).map_err(|error| {
            anyhow::anyhow!("a checkpoint that the log's key did not sign: {error}")
        })?;
        if let Some(old) = &self.head {
            let other = new.size < old.size || (new.size == old.size && new.root != old.root);
            anyhow::ensure!(
                !other,
                "the collector shows a checkpoint over {} entries, and showed one over {} before that does \
                 not go with it: its log was set back, or forked",
                new.size,
                old.size
            );
        }
        note.clone_into(&mut self.note);
        self.head = Some(new);
        Ok(())
    }

    /// Writes the file, if the last time was long enough ago.
    pub fn save_sometimes(&mut self, state_dir: &Path) {
        if self.saved.is_none_or(|saved| saved.elapsed() >= SAVE_INTERVAL) {
            self.save(state_dir);
        }
    }

    /// Writes the file. A failure costs a proof, never evidence.
    pub fn save(&mut self, state_dir: &Path) {
        self.saved = Some(Instant::now());
        if let Err(error) = self.write(state_dir) {
            tracing::warn!(error = format!("{error:#}"), "the collector's word is not kept");
        }
    }

    fn write(&self, state_dir: &Path) -> anyhow::Result<()> {
        let hex = |bytes: Option<&Bytes>| bytes.map(hex::encode).unwrap_or_default();
        let receipt = self.receipt.as_ref();
        let saved = Saved {
            receipt_body: hex(receipt.map(|receipt| &receipt.body)),
            receipt_signature: hex(receipt.map(|receipt| &receipt.signature)),
            checkpoint: self.note.clone(),
        };
        let (path, fresh) = (state_dir.join(FILE), state_dir.join(".uplink-held.new"));
        std::fs::write(&fresh, serde_json::to_string(&saved)?)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ledger::SigningKey;

    fn note(key: &SigningKey, size: u64, root: u8) -> String {
        let head = Checkpoint { origin: "t.example".into(), size, root: [root; 32] };
        checkpoint::sign(key, &head).unwrap()
    }

    #[test]
    fn a_log_that_goes_back_or_aside_is_told_and_the_last_word_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[3; 32]);
        let verifier = VerifierKey::new("t.example", key.verifying_key().to_bytes()).unwrap();
        let stranger = SigningKey::from_bytes(&[4; 32]);
        let mut held = Held::load(dir.path(), &verifier);
        assert_eq!((held.checkpoint(), held.receipt()), ("", None));
        for (note, good) in [
            (note(&key, 5, 1), true),
            (note(&key, 5, 1), true),
            (note(&key, 5, 2), false),
            (note(&stranger, 9, 1), false),
            (String::new(), false),
            (note(&key, 9, 1), true),
            (note(&key, 8, 1), false),
        ] {
            assert_eq!(held.show(&note, &verifier).is_ok(), good, "{note}");
        }
        held.save(dir.path());
        let mut again = Held::load(dir.path(), &verifier);
        assert_eq!(again.checkpoint(), note(&key, 9, 1));
        assert!(again.show(&note(&key, 8, 1), &verifier).is_err());
        let other = VerifierKey::new("t.example", stranger.verifying_key().to_bytes()).unwrap();
        assert_eq!(Held::load(dir.path(), &other).checkpoint(), "", "enrolled elsewhere since");
    }
}
