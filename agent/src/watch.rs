//! Watches what the agent itself stands on: the hooks in the kernel, the file of its program, the host's clock.
//!
//! Promises: a hook that was taken away or replaced behind the agent's back, another program in the agent's
//! place on the disk, and a clock that was set are told at the next heartbeat, each once for as long as it lasts.
//!
//! Limits: a clock step below [`CLOCK_STEP_NS_MIN`] is taken for its ordinary correction. The file is read anew only
//! where its size, place or times changed.
//!
//! Cannot: see what root does to the agent's memory, or to the kernel's maps, or between two heartbeats and back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tidegate_event::Digest;
use tidegate_journal::{HookState, hooks_digest};

use crate::capture::Measured;

/// A clock that moves this far against the boot clock was set, in nanoseconds.
pub const CLOCK_STEP_NS_MIN: i64 = 2_000_000_000;

/// Bytes of a program that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// `hooks`, `executable` or `clock`.
    pub kind: &'static str,
    /// In words.
    pub detail: String,
}

/// What one look shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Over all hooks; `None` where not all are there.
    pub hooks_digest: Option<Digest>,
    /// Of the program's file; `None` where it cannot be read.
    pub agent_digest: Option<Digest>,
    /// What is wrong now.
    pub wrong: Vec<Change>,
    /// Of these, what the look before did not show.
    pub fresh: Vec<Change>,
}

/// Remembers how it was.
#[derive(Debug)]
pub struct Watch {
    hooks: Vec<HookState>,
    program: Program,
    offset_ns: Option<i64>,
    known: BTreeSet<Change>,
}

impl Watch {
    /// From the hooks as they were attached, and the program as it runs.
    pub fn new(hooks: Vec<HookState>, program: Program) -> Self {
        Self { hooks, program, offset_ns: None, known: BTreeSet::new() }
    }

    /// Looks: the hooks as the kernel has them, or `None` after a detachment, which is a record of its own; both
    /// clocks in nanoseconds.
    pub fn look(&mut self, measured: Option<Measured>, wall_ns: u64, boot_ns: u64) -> Look {
        let mut wrong = Vec::new();
        wrong.extend(self.clock(wall_ns, boot_ns));
        wrong.extend(self.program.change());
        let hooks_digest = measured.and_then(|measured| {
            wrong.extend(self.changed(&measured));
            measured.missing.is_empty().then(|| hooks_digest(&measured.hooks))
        });
        let now: BTreeSet<Change> = wrong.iter().cloned().collect();
        let fresh = wrong.iter().filter(|change| !self.known.contains(change)).cloned().collect();
        self.known = now;
        Look { hooks_digest, agent_digest: self.program.on_disk, wrong, fresh }
    }

    fn changed(&self, measured: &Measured) -> Vec<Change> {
        let hooks = |detail: String| Change { kind: "hooks", detail };
        let mut changes: Vec<Change> = measured
            .missing
            .iter()
            .map(|what| hooks(format!("a hook was taken away: {what}")))
            .collect();
        for was in &self.hooks {
            if let Some(is) = measured.hooks.iter().find(|is| is.place == was.place)
                && is != was
            {
                changes.push(hooks(format!(
                    "a hook was replaced: {} was link {} with program {}, and is link {} with program {}",
                    was.place, was.link_id, was.program_id, is.link_id, is.program_id
                )));
            }
        }
        changes
    }

    /// A step shows once: the look after it starts from the new time.
    fn clock(&mut self, wall_ns: u64, boot_ns: u64) -> Option<Change> {
        let signed = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        let offset_ns = signed(wall_ns).saturating_sub(signed(boot_ns));
        let before = self.offset_ns.replace(offset_ns)?;
        let step_ns = offset_ns.saturating_sub(before);
        (step_ns.abs() >= CLOCK_STEP_NS_MIN).then(|| Change {
            kind: "clock",
            detail: format!("the host's clock was set by {} ms", step_ns / 1_000_000),
        })
    }
}

/// The file of the agent's program.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// Of what runs.
    running: Digest,
    mark: Option<Mark>,
    on_disk: Option<Digest>,
}

/// Tells a changed file without reading it: device, inode, size, times of content and of inode.
type Mark = (u64, u64, u64, (i64, i64), (i64, i64));

impl Program {
    /// The program that runs as this process.
    pub fn own() -> io::Result<Self> {
        // Opens the running file, also where another one has its name by now.
        let running = digest_of(Path::new("/proc/self/exe"))?;
        Ok(Self::at(fs::read_link("/proc/self/exe")?, running))
    }

    fn at(path: PathBuf, running: Digest) -> Self {
        Self { path, running, mark: None, on_disk: None }
    }

    /// SHA-256 of what runs.
    pub const fn digest(&self) -> Digest {
        self.running
    }

    /// Whether another file stands in its place.
    fn change(&mut self) -> Option<Change> {
        let mark = fs::metadata(&self.path).ok().map(|of| {
            let times = ((of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()));
            (of.dev(), of.ino(), of.size(), times.0, times.1)
        });
        if mark.is_none() || mark != self.mark {
            self.on_disk = digest_of(&self.path).ok();
            self.mark = mark;
        }
        let path = self.path.display();
        let detail = match self.on_disk {
            Some(digest) if digest == self.running => return None,
            Some(digest) => {
                format!("{path} is another program than the one that runs: its SHA-256 is {digest}")
            }
            None => format!("{path}, the file of the program that runs, cannot be read any more"),
        };
        Some(Change { kind: "executable", detail })
    }
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash) = (fs::File::open(path)?, Sha256::new());
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(Digest(hash.finalize().into()));
        }
        hash.update(piece.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn hook(place: &'static str, link_id: u32) -> HookState {
        HookState { place, link_id, program_id: 7, program_tag: [1; 8], cgroup_id: 1 }
    }

    fn watch(dir: &Path) -> Watch {
        let path = dir.join("program");
        fs::write(&path, "one").unwrap();
        let running = digest_of(&path).unwrap();
        let hooks = vec![hook("cgroup/connect4", 1), hook("sockops", 2)];
        Watch::new(hooks, Program::at(path, running))
    }

    fn said(look: &Look) -> Vec<&str> {
        look.fresh.iter().map(|change| change.detail.as_str()).collect()
    }

    #[test]
    fn what_stays_is_not_told_and_its_digests_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        let all = Measured { hooks: watch.hooks.clone(), missing: Vec::new() };
        let first = watch.look(Some(all.clone()), 1000 * SECOND, SECOND);
        let second = watch.look(Some(all), 1010 * SECOND + 1_000_000, 11 * SECOND);
        assert_eq!(first, second);
        assert!(first.wrong.is_empty() && first.hooks_digest.is_some());
        assert_eq!(first.agent_digest, Some(watch.program.digest()));
    }

    #[test]
    fn a_hook_taken_away_or_replaced_is_told_once_and_stays_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        let other = Measured {
            hooks: vec![hook("cgroup/connect4", 9)],
            missing: vec!["sockops: its pin is gone".to_owned()],
        };
        let look = watch.look(Some(other.clone()), 0, 0);
        assert_eq!(
            said(&look),
            [
                "a hook was taken away: sockops: its pin is gone",
                "a hook was replaced: cgroup/connect4 was link 1 with program 7, and is link 9 with program 7",
            ]
        );
        assert_eq!(look.hooks_digest, None);
        let again = watch.look(Some(other), 0, 0);
        assert_eq!((said(&again).len(), again.wrong.len()), (0, 2));
    }

    #[test]
    fn another_program_on_the_disk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path());
        assert!(watch.look(None, 0, 0).wrong.is_empty());
        let path = dir.path().join("program");
        fs::write(&path, "another").unwrap();
        assert!(
            said(&watch.look(None, 0, 0))[0].contains("is another program than the one that runs")
        );
        fs::remove_file(&path).unwrap();
        assert!(said(&watch.look(None, 0, 0))[0].contains("cannot be read any more"));
    }

    #[test]
    fn a_clock_that_was_set_is_told_in_either_direction() {
        let dir = tempfile::tempdir().unwrap();
        for (wall_s, expected) in [
            (1010, None),
            (1013, Some("the host's clock was set by 3000 ms")),
            (410, Some("the host's clock was set by -600000 ms")),
        ] {
            let mut watch = watch(dir.path());
            watch.look(None, 1000 * SECOND, 5 * SECOND);
            let look = watch.look(None, wall_s * SECOND, 15 * SECOND);
            assert_eq!(said(&look), expected.into_iter().collect::<Vec<_>>(), "{wall_s}");
            assert!(watch.look(None, (wall_s + 10) * SECOND, 25 * SECOND).wrong.is_empty());
        }
    }
}
