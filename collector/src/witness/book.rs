//! What a witness knows of each log, and what it signs.
//!
//! Promise: for each origin, each checkpoint that is cosigned is a continuation of the one cosigned
//! before; it is on the disk before its signature leaves. Two requests at once are judged one after
//! the other.
//!
//! Limits: the history of what was cosigned grows by a line each time (about 500 bytes).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::cosignature::cosign;
use tidegate_ledger::proof::{decimal, read_hash};
use tidegate_ledger::{Hash, SigningKey, tree};

use super::{PROOF_HASHES_MAX, origin_hash};
use crate::log::notes::Notes;

/// A request, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the tree that the log thinks we know.
    pub old: u64,
    /// From that tree to the new one.
    pub proof: Vec<Hash>,
    /// The signed note.
    pub note: String,
}

impl AddCheckpoint {
    /// Reads the body of a request; `None` where it is none.
    pub fn read(body: &str) -> Option<Self> {
        let (head, note) = body.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = decimal(lines.next()?.strip_prefix("old ")?)?;
        let proof = lines.map(read_hash).collect::<Option<Vec<_>>>()?;
        (proof.len() <= PROOF_HASHES_MAX).then(|| Self { old, proof, note: note.to_owned() })
    }
}

/// Why nothing was signed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No log of that origin is known (404).
    UnknownOrigin,
    /// The log's key did not sign it (403).
    NotSigned,
    /// The request contradicts itself (400).
    Malformed,
    /// Another size was cosigned last (409).
    OtherSize(u64),
    /// The tree does not continue the one cosigned last (422).
    Inconsistent,
}

/// The logs that a witness knows.
pub struct Book {
    name: String,
    key: SigningKey,
    logs: BTreeMap<String, Mutex<Known>>,
}

struct Known {
    verifier: VerifierKey,
    notes: Notes,
    newest: Option<(Checkpoint, String)>,
}

impl Book {
    /// Opens what is known of these logs below `dir`. A note there that does not verify is an error.
    pub fn open(
        dir: &Path,
        name: &str,
        key: SigningKey,
        logs: &[VerifierKey],
    ) -> anyhow::Result<Self> {
        let mut known = BTreeMap::new();
        for verifier in logs {
            let dir = dir.join(origin_hash(verifier.name()));
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
            let notes = Notes::open(&dir, verifier)?;
            // The newest of the history and of the file: whichever came further.
            let newest = notes.newest().iter().max_by_key(|head| head.size).cloned();
            let text = notes.newest_text().to_owned();
            let newest = newest.map(|newest| (newest, text));
            let entry = Known { verifier: verifier.clone(), notes, newest };
            let twice = known.insert(verifier.name().to_owned(), Mutex::new(entry)).is_some();
            anyhow::ensure!(!twice, "two logs have the origin {}", verifier.name());
        }
        Ok(Self { name: name.to_owned(), key, logs: known })
    }

    /// Judges a request; the signature lines, or why there are none. The outer error is the disk's.
    pub fn add(
        &self,
        request: &AddCheckpoint,
        time_s: u64,
    ) -> anyhow::Result<Result<String, Refusal>> {
        let Ok(claimed) = checkpoint::read_unsigned(&request.note) else {
            return Ok(Err(Refusal::Malformed));
        };
        let Some(known) = self.logs.get(&claimed.origin) else {
            return Ok(Err(Refusal::UnknownOrigin));
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(new) = checkpoint::open(&request.note, &known.verifier) else {
            return Ok(Err(Refusal::NotSigned));
        };
        if let Err(refusal) = judge(known.newest.as_ref().map(|(head, _)| head), &new, request) {
            return Ok(Err(refusal));
        }
        let line = cosign(&self.key, &self.name, &request.note, time_s)
            .map_err(|error| anyhow::anyhow!("cannot sign: {error}"))?;
        // Only the log's own signature and ours are kept: others are theirs to show.
        let kept = format!("{}{line}", own_note(&request.note, &known.verifier));
        known.notes.keep(&kept)?;
        known.newest = Some((new, kept));
        Ok(Ok(line))
    }

    /// The newest note cosigned for the log whose origin has this hash.
    pub fn newest(&self, hash: &str) -> Option<String> {
        let (_, known) = self.logs.iter().find(|(origin, _)| origin_hash(origin) == hash)?;
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.newest.as_ref().map(|(_, note)| note.clone())
    }
}

/// The note with the log's signature alone.
fn own_note(note: &str, verifier: &VerifierKey) -> String {
    let begin = format!("\u{2014} {} ", verifier.name());
    let (text, lines) = note.rsplit_once("\n\n").unwrap_or((note, ""));
    let own = lines.lines().filter(|line| line.starts_with(&begin));
    own.fold(format!("{text}\n\n"), |note, line| format!("{note}{line}\n"))
}

fn judge(
    known: Option<&Checkpoint>,
    new: &Checkpoint,
    request: &AddCheckpoint,
) -> Result<(), Refusal> {
    if request.old > new.size {
        return Err(Refusal::Malformed);
    }
    let (size, root) = known.map_or((0, tree::empty_root()), |known| (known.size, known.root));
    if request.old != size {
        return Err(Refusal::OtherSize(size));
    }
    let empty_is_empty = new.size > 0 || new.root == tree::empty_root();
    let grown = if size == 0 {
        request.proof.is_empty()
    } else {
        tree::verify_consistency(size, &root, new.size, &new.root, &request.proof)
    };
    if empty_is_empty && grown { Ok(()) } else { Err(Refusal::Inconsistent) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ledger::cosignature::{WitnessKey, cosignatures};
    use tidegate_ledger::tree::{in_slice, leaf_hash};

    const ORIGIN: &str = "log.example";

    struct Log {
        key: SigningKey,
        leaves: Vec<Hash>,
    }

    impl Log {
        fn new() -> Self {
            let leaves = (0..40_u8).map(|index| leaf_hash(&[index])).collect();
            Self { key: SigningKey::from_bytes(&[1; 32]), leaves }
        }

        fn verifier(&self) -> VerifierKey {
            VerifierKey::new(ORIGIN, self.key.verifying_key().to_bytes()).unwrap()
        }

        fn note(&self, size: u64) -> String {
            let root = tree::root_of(&in_slice(&self.leaves), size).unwrap();
            let head = Checkpoint { origin: ORIGIN.into(), size, root };
            checkpoint::sign(&self.key, &head).unwrap()
        }

        fn request(&self, old: u64, size: u64) -> AddCheckpoint {
            let proof = tree::prove_consistency(&in_slice(&self.leaves), old, size);
            AddCheckpoint { old, proof: proof.unwrap_or_default(), note: self.note(size) }
        }
    }

    fn book(dir: &Path, log: &Log) -> Book {
        Book::open(dir, "w.example", SigningKey::from_bytes(&[2; 32]), &[log.verifier()]).unwrap()
    }

    #[test]
    fn only_what_continues_the_last_is_signed_and_a_restart_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new();
        let mut fork = Log::new();
        fork.leaves[3] = [9; 32];
        let stranger = Log { key: SigningKey::from_bytes(&[5; 32]), ..Log::new() };
        let padded = AddCheckpoint { proof: vec![[0; 32]], ..log.request(0, 7) };
        let other =
            AddCheckpoint { note: log.note(7).replace(ORIGIN, "else"), ..log.request(0, 7) };
        let rows = [
            (padded, Err(Refusal::Inconsistent)),
            (other, Err(Refusal::UnknownOrigin)),
            (stranger.request(0, 7), Err(Refusal::NotSigned)),
            (log.request(7, 9), Err(Refusal::OtherSize(0))),
            (log.request(0, 7), Ok(())),
            (log.request(7, 7), Ok(())),
            (log.request(0, 9), Err(Refusal::OtherSize(7))),
            (log.request(7, 6), Err(Refusal::Malformed)),
            (fork.request(7, 7), Err(Refusal::Inconsistent)),
            (fork.request(7, 12), Err(Refusal::Inconsistent)),
            (log.request(7, 12), Ok(())),
            (log.request(7, 12), Err(Refusal::OtherSize(12))),
            (log.request(12, 40), Ok(())),
        ];
        for (at, (request, expected)) in rows.iter().enumerate() {
            // Opened anew each time: what was signed is on the disk.
            let book = book(dir.path(), &log);
            let answer = book.add(request, 7).unwrap();
            assert_eq!(answer.as_ref().map(drop), expected.as_ref().map(drop), "row {at}");
            if let Ok(line) = answer {
                let key = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
                let key = WitnessKey::new("w.example", key).unwrap();
                let cosigned = format!("{}{line}", request.note);
                assert_eq!(cosignatures(&cosigned, &[key]).unwrap().len(), 1);
                assert_eq!(book.newest(&origin_hash(ORIGIN)), Some(cosigned));
            }
        }
        assert_eq!(book(dir.path(), &log).newest(&origin_hash("else")), None);
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        let log = Log::new();
        let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let good = format!("old 1\n{hash}\n\n{}", log.note(2));
        assert!(AddCheckpoint::read(&good).is_some());
        for bad in [
            String::new(),
            good.replacen("old 1", "old 01", 1),
            good.replacen("old 1", "old -1", 1),
            good.replacen("old 1\n", "", 1),
            good.replacen(hash, "AAAA", 1),
            good.replacen(&format!("{hash}\n"), &format!("{hash}\n").repeat(64), 1),
        ] {
            assert_eq!(AddCheckpoint::read(&bad), None, "{bad}");
        }
    }
}
