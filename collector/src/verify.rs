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
use tidegate_ledger::checkpoint;
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

/// Walks the log in `dir`.
pub fn verify(dir: &Path, keys: &Keys) -> anyhow::Result<Report> {
    let mut report = verify_once(dir, keys)?;
    for _ in 1..LIVE_WALKS_MAX {
        let tampered = report.findings.iter().any(|finding| finding.class == Class::Tampering);
        if !tampered || !is_being_written(&dir.join(SEGMENTS)) {
            break;
        }
        report = verify_once(dir, keys)?;
    }
    Ok(report)
}

fn verify_once(dir: &Path, keys: &Keys) -> anyhow::Result<Report> {
    // Checkpoints first: what is appended meanwhile is beyond them, never missing under them.
    let log_key = keys.verifier()?;
    let checkpoints: Vec<Note> =
        notes::read_all(dir)?.into_iter().map(|(from, text)| Note { from, text }).collect();
    let signed = checkpoints.iter().filter_map(|note| checkpoint::open(&note.text, &log_key).ok());
    let signed = signed.map(|checkpoint| checkpoint.size).max().unwrap_or(0);
    let agents = keys
        .agents
        .iter()
        .map(|agent| AgentKey { agent_id: agent.agent_id.clone(), audit_key: agent.audit_key });
    let trust = Trust { agents: agents.collect(), log_key: Some(log_key), checkpoints };
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
         entries",
        report.entries,
        report.records,
        report.seals,
        report.chains.len(),
        report.checkpoints_checked,
        report.bound_size
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
        "not_proven": report.not_proven,
    })
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({
        "class": finding.class.name(),
        "file": finding.file,
        "offset": finding.offset,
        "index": finding.index,
        "chain": finding.chain.map(|chain| chain.to_string()),
        "seq": finding.seq.map(|seq| seq.0),
        "what": finding.what,
    })
}
