//! `verify`: walks the whole log and names the first broken record.
//!
//! Promise: needs the log's files and the public keys only; writes nothing; works beside a
//! collector that serves. All judgement is `tidegate-ledger`'s: this module reads files.
//!
//! Limits: all checkpoints of the history are held in memory (about 300 bytes each).

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tidegate_ledger::checkpoint::{self, VerifierKey};
use tidegate_ledger::policy::Policy;
use tidegate_ledger::verify::{AgentKey, Class, Finding, Note, Place, Report, Trust, Verifier};
use tidegate_segment::os::OsFiles;
use tidegate_segment::{Error, Frame, ScanEnd, scan};

use crate::keys::Keys;
use crate::log::{FRAME_SEAL, SEGMENTS, notes};

/// Exit code where the log could not be judged.
pub const UNDECIDED: u8 = 30;

/// Walks of a log that a collector is writing: what a reader finds once in bytes that change under
/// it is no finding; what is wrong in the log is found each time.
const LIVE_WALKS_MAX: u32 = 4;

/// What to hold the log against.
#[derive(Default)]
pub struct Against {
    /// Whose signatures a checkpoint needs; the log's key is taken from here where it is given.
    pub policy: Option<Policy>,
    /// Checkpoints from elsewhere: with the name of their place.
    pub checkpoints: Vec<(String, String)>,
    /// Only what is found in these entries, first and last, counts.
    pub range: Option<(u64, u64)>,
}

impl Against {
    /// The policy's log key, or that of the keys.
    fn log_key(&self, keys: &Keys) -> anyhow::Result<VerifierKey> {
        let key = keys.verifier()?;
        let Some(policy) = self.policy.as_ref().filter(|policy| !policy.logs.is_empty()) else {
            return Ok(key);
        };
        let named = policy.logs.iter().find(|log| **log == key).or(policy.logs.first());
        named.cloned().context("the policy names no log")
    }

    /// What `tidegate-ledger` asks for.
    pub fn trust(&self, keys: &Keys) -> anyhow::Result<Trust> {
        let agents = keys
            .agents
            .iter()
            .map(|agent| AgentKey { agent_id: agent.agent_id.clone(), audit_key: agent.audit_key });
        Ok(Trust {
            agents: agents.collect(),
            log_key: Some(self.log_key(keys)?),
            checkpoints: Vec::new(),
            policy: self.policy.clone(),
        })
    }
}

/// Walks the log in `dir`, and asks for no witness.
pub fn verify(dir: &Path, keys: &Keys) -> anyhow::Result<Report> {
    verify_against(dir, keys, &Against::default())
}

/// Walks the log in `dir`.
pub fn verify_against(dir: &Path, keys: &Keys, against: &Against) -> anyhow::Result<Report> {
    let mut report = verify_once(dir, keys, against)?;
    for _ in 1..LIVE_WALKS_MAX {
        let tampered = report.findings.iter().any(|finding| finding.class == Class::Tampering);
        if !tampered || !is_being_written(&dir.join(SEGMENTS)) {
            break;
        }
        report = verify_once(dir, keys, against)?;
    }
    if let Some((first, last)) = against.range {
        report.findings.retain(|found| match (found.entries, found.index) {
            (Some((from, to)), _) => from <= last && first <= to,
            (None, Some(index)) => (first..=last).contains(&index),
            (None, None) => true,
        });
        report.not_proven.push(format!("Anything about entries outside of {first} to {last}."));
    }
    Ok(report)
}

fn verify_once(dir: &Path, keys: &Keys, against: &Against) -> anyhow::Result<Report> {
    // Checkpoints first: what is appended meanwhile is beyond them, never missing under them.
    let mut trust = against.trust(keys)?;
    let given = notes::read_all(dir)?.into_iter().chain(against.checkpoints.iter().cloned());
    trust.checkpoints = given.map(|(from, text)| Note { from, text }).collect();
    let log_key = against.log_key(keys)?;
    let signed =
        trust.checkpoints.iter().filter_map(|note| checkpoint::open(&note.text, &log_key).ok());
    let signed = signed.map(|checkpoint| checkpoint.size).max().unwrap_or(0);
    let mut walk = Walk { verifier: Verifier::new(trust), tail: Vec::new() };
    let segments = dir.join(SEGMENTS);
    let end = walk.walk(&segments)?;
    let torn = end.and_then(|end| end.torn);
    let mut note = None;
    if (torn.is_some() || !walk.tail.is_empty()) && is_being_written(&segments) {
        note = Some(
            "Anything about the last entries, which the collector was writing at this moment."
                .to_owned(),
        );
    } else {
        walk.settle();
        if let Some(torn) = torn {
            if torn.index < signed {
                let what = "the frame is damaged, and a checkpoint was signed over it";
                walk.verifier.damage(&torn.file, torn.offset, what);
            } else {
                note = Some(format!(
                    "That nothing was in the torn bytes of {} from byte {} on: no checkpoint covers \
                     them, as after a crash of the collector.",
                    torn.file, torn.offset
                ));
            }
        }
    }
    let mut report = walk.verifier.finish();
    // What was tampered with comes first, and of that what names a place.
    report
        .findings
        .sort_by_key(|finding| (finding.class != Class::Tampering, finding.offset.is_none()));
    report.not_proven.extend(note);
    Ok(report)
}

/// Feeds the verifier, and holds back the frames since the last seal: a writer appends whole
/// batches, each with its seal last.
struct Walk {
    verifier: Verifier,
    tail: Vec<Frame>,
}

impl Walk {
    fn walk(&mut self, segments: &Path) -> anyhow::Result<Option<ScanEnd>> {
        let files = OsFiles::read_only(segments)
            .with_context(|| format!("cannot read {}", segments.display()))?;
        let mut frames = match scan(files) {
            Ok(frames) => frames,
            Err(Error::Damaged(damage)) => {
                self.verifier.damage(&damage.file, damage.offset, &damage.what);
                return Ok(None);
            }
            Err(error) => return Err(error).context("while reading the log"),
        };
        for frame in frames.by_ref() {
            match frame {
                Ok(frame) => {
                    let sealed = frame.kind == FRAME_SEAL;
                    self.tail.push(frame);
                    if sealed {
                        self.settle();
                    }
                }
                Err(Error::Damaged(damage)) => {
                    self.settle();
                    self.verifier.damage(&damage.file, damage.offset, &damage.what);
                }
                Err(error) => return Err(error).context("while reading the log"),
            }
        }
        Ok(frames.end().cloned())
    }

    fn settle(&mut self) {
        for frame in self.tail.drain(..) {
            let place = Place { index: frame.index, file: &frame.file, offset: frame.offset };
            self.verifier.feed(place, &frame.payload);
        }
    }
}

/// Whether a collector has the log open: it holds the directory's lock.
fn is_being_written(segments: &Path) -> bool {
    File::open(segments)
        .is_ok_and(|dir| matches!(dir.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

/// The report for people.
pub fn write_text(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    if report.findings_left_out > 0 {
        writeln!(out, "and {} more", report.findings_left_out)?;
    }
    writeln!(
        out,
        "{} entries: {} records under {} seals in {} chains; {} checkpoints, the largest over {} \
         entries; witnessed up to {}; {} checkpoints as agents saw them",
        report.entries,
        report.records,
        report.seals,
        report.chains.len(),
        report.checkpoints_checked,
        report.bound_size,
        report.witnessed_size,
        report.seen_heads
    )?;
    writeln!(out, "root {}", hex::encode(report.root))?;
    for line in &report.not_proven {
        writeln!(out, "not proven: {line}")?;
    }
    writeln!(out, "{}", report.verdict())
}

/// The report for machines.
pub fn to_json(report: &Report) -> serde_json::Value {
    let findings: Vec<_> = report.findings.iter().map(finding_json).collect();
    json!({
        "exit_code": report.exit_code(),
        "verdict": report.verdict(),
        "first_finding": findings.first(),
        "findings": findings,
        "findings_left_out": report.findings_left_out,
        "entries": report.entries,
        "records": report.records,
        "seals": report.seals,
        "chains": report.chains.len(),
        "root": hex::encode(report.root),
        "checkpoints_checked": report.checkpoints_checked,
        "bound_size": report.bound_size,
        "witnessed_size": report.witnessed_size,
        "seen_by_agents": report.seen_heads,
        "not_proven": report.not_proven,
    })
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({
        "class": finding.class.name(),
        "file": finding.file,
        "offset": finding.offset,
        "index": finding.index,
        "entries": finding.entries,
        "chain": finding.chain.map(|chain| chain.to_string()),
        "seq": finding.seq.map(|seq| seq.0),
        "what": finding.what,
    })
}
