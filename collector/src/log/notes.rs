//! Signed checkpoints on the disk: `checkpoint` (the newest), `checkpoints` (all of them) and `cosigned`
//! (those that witnesses signed, with their signatures).
//!
//! `checkpoints` holds one JSON string a line, each a whole signed note; it is synced before
//! `checkpoint` is renamed into place, so the newest is never newer than the history's end. A last line
//! without its line feed was torn by a crash before anyone saw that checkpoint, and is cut.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};

use crate::files;

/// The newest checkpoint.
pub const NEWEST: &str = "checkpoint";
/// All checkpoints.
pub const HISTORY: &str = "checkpoints";

/// Checkpoints with the signatures of witnesses.
pub const COSIGNED: &str = "cosigned";

/// Longest line of the history: origin and signatures are short.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// The two files, open for writing.
pub struct Notes {
    dir: PathBuf,
    history: File,
    newest: Vec<Checkpoint>,
    newest_text: String,
}

impl Notes {
    /// Opens them, and makes them where there are none. A note that does not verify is an error.
    pub fn open(dir: &Path, key: &VerifierKey) -> anyhow::Result<Self> {
        let path = dir.join(HISTORY);
        let context = || format!("cannot open {}", path.display());
        let mut history = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .with_context(context)?;
        let last = last_line(&mut history).with_context(context)?;
        let (mut newest, mut newest_text) = (Vec::new(), String::new());
        if let Some(line) = last {
            let note: String = serde_json::from_str(&line)
                .with_context(|| format!("the last line of {}", path.display()))?;
            newest.push(open_note(&path, &note, key)?);
            newest_text = note;
        }
        let path = dir.join(NEWEST);
        if path.exists() {
            let note = files::read(&path)?;
            let head = open_note(&path, &note, key)?;
            if newest.iter().all(|known| known.size < head.size) {
                newest_text = note;
            }
            newest.push(head);
        }
        Ok(Self { dir: dir.to_path_buf(), history, newest, newest_text })
    }

    /// The newest note as found on the disk; empty where there is none.
    pub fn newest_text(&self) -> &str {
        &self.newest_text
    }

    /// The newest checkpoints as found on the disk: of the history and of the file.
    pub fn newest(&self) -> &[Checkpoint] {
        &self.newest
    }

    /// Keeps a new note in both files, durably.
    pub fn keep(&mut self, note: &str) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(note)?;
        line.push('\n');
        let append = |file: &mut File| -> std::io::Result<()> {
            file.write_all(line.as_bytes())?;
            file.sync_data()
        };
        append(&mut self.history).context("cannot append to the checkpoint history")?;
        files::replace(&self.dir.join(NEWEST), note.as_bytes(), files::PUBLIC)
    }
}

/// Every note of a log directory with the name of its file, oldest first; verified by nobody yet.
pub fn read_all(dir: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut notes = Vec::new();
    for name in [HISTORY, COSIGNED] {
        let path = dir.join(name);
        if path.exists() {
            notes.extend(lines_of(name, &files::read(&path)?));
        }
    }
    let path = dir.join(NEWEST);
    if path.exists() {
        notes.push((NEWEST.to_owned(), files::read(&path)?));
    }
    Ok(notes)
}

/// The last notes with signatures of witnesses, oldest first: a few, for the newest may lack a quorum.
pub fn newest_cosigned(dir: &Path) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(dir.join(COSIGNED))?;
        let len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(len.saturating_sub(4 * LINE_BYTES_MAX)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    // The first line may be cut, and then it is no JSON.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The notes of a file that holds one note, or a JSON string a line; each with the name of its place.
pub fn read_some(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = files::read(path)?;
    let name = path.display().to_string();
    if text.starts_with('"') { Ok(lines_of(&name, &text)) } else { Ok(vec![(name, text)]) }
}

fn lines_of(name: &str, text: &str) -> Vec<(String, String)> {
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let lines = whole.lines().enumerate().map(|(at, line)| {
        // A line that is no JSON string is handed on as it is, so that it is reported.
        let note = serde_json::from_str(line).unwrap_or_else(|_| line.to_owned());
        (format!("{name}:{}", at + 1), note)
    });
    lines.collect()
}

/// Keeps a note with the signatures of witnesses, durably.
pub fn keep_cosigned(dir: &Path, note: &str) -> anyhow::Result<()> {
    let path = dir.join(COSIGNED);
    let mut line = serde_json::to_string(note)?;
    line.push('\n');
    let append = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        last_line(&mut file)?;
        file.write_all(line.as_bytes())?;
        file.sync_data()
    };
    append().with_context(|| format!("cannot append to {}", path.display()))
}

fn open_note(path: &Path, note: &str, key: &VerifierKey) -> anyhow::Result<Checkpoint> {
    checkpoint::open(note, key).map_err(|error| {
        anyhow::anyhow!(
            "{}: not a checkpoint of this log: {error}. Run: tidegate-collector verify",
            path.display()
        )
    })
}

/// The last whole line; cuts a torn one behind it.
fn last_line(file: &mut File) -> std::io::Result<Option<String>> {
    let len = file.seek(SeekFrom::End(0))?;
    let from = len.saturating_sub(2 * LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|&byte| byte == b'\n') else {
        if from == 0 && !tail.is_empty() {
            file.set_len(0)?;
        }
        return Ok(None);
    };
    let torn = tail.len() - end - 1;
    if torn > 0 {
        let torn = u64::try_from(torn).unwrap_or(0);
        file.set_len(len - torn)?;
        file.sync_data()?;
    }
    let whole = tail.get(..end).unwrap_or_default();
    let line = whole.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_ledger::SigningKey;

    fn note(key: &SigningKey, size: u64) -> String {
        let checkpoint = Checkpoint { origin: "t.example".into(), size, root: [7; 32] };
        checkpoint::sign(key, &checkpoint).unwrap()
    }

    #[test]
    fn a_torn_last_line_is_cut_and_the_one_before_counts() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[3; 32]);
        let verifier = crate::keys::verifier(&key, "t.example").unwrap();
        let mut notes = Notes::open(dir.path(), &verifier).unwrap();
        assert!(notes.newest().is_empty());
        notes.keep(&note(&key, 1)).unwrap();
        notes.keep(&note(&key, 2)).unwrap();
        let path = dir.path().join(HISTORY);
        let whole = std::fs::read(&path).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(b"\"t.example\\n3");
        std::fs::write(&path, torn).unwrap();

        let notes = Notes::open(dir.path(), &verifier).unwrap();
        assert_eq!(notes.newest().iter().map(|note| note.size).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(read_all(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn a_checkpoint_by_another_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[3; 32]);
        let verifier = crate::keys::verifier(&key, "t.example").unwrap();
        std::fs::write(dir.path().join(NEWEST), note(&SigningKey::from_bytes(&[4; 32]), 1))
            .unwrap();
        assert!(Notes::open(dir.path(), &verifier).is_err());
    }
}
