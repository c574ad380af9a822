//! `policy replay`: what other policies would have decided on what was recorded.
//!
//! Reads what `tidegate-collector query --json` writes, one object a line: the collector's query
//! chooses which records, over time, target or account.
//!
//! Promises: a record is replayed only as what it was. Its text is analysed anew, and must have the
//! fingerprint that was recorded; else (its text was cut, or another version analysed it) it is
//! counted and named as not replayed, and never taken for unchanged. Effects count as recorded, since
//! the agent may have seen through views that the text does not tell of.
//!
//! Limits: [`LINE_BYTES_MAX`] a record, [`CHANGES_MAX`] different changes.
//!
//! Known gaps: where the query's answer does not say which columns were shown clear, every masked column
//! is told as a change. It does not hold the control group, nor whether a login came under TLS: they
//! count as unknown and as no TLS. What protected columns are touched is told by the text without
//! a catalogue.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_event::{
    Action, Cancel, Effect, FunctionCall, Login, Mode, Operation, Principal, Relation, TargetName,
    Unknown, Via,
};
use tidegate_policy::{Decision, ProtectedColumn, Verdict};

use super::bench::{self, Bench};
use super::{Replay, policies};
use crate::cli::print;
use crate::config::Config;

/// Changes that are listed where the command line does not say.
pub(super) const LISTED: usize = 50;

/// Longest record, in bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Different changes that are kept apart; what comes after is counted only.
const CHANGES_MAX: usize = 10_000;

/// Characters of a statement that are shown.
const SHOWN_CHARS: usize = 100;

/// One line of the collector's answer, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Recorded {
    index: u64,
    who: String,
    target: String,
    kind: String,
    text: String,
    /// Only operations have one.
    verdict: Option<String>,
    #[serde(default)]
    effects: Vec<RecordedEffect>,
    #[serde(default)]
    unknown: String,
    fingerprint: Option<String>,
    user: Option<String>,
    database: Option<String>,
    application: Option<String>,
    uid: Option<i64>,
    executable: Option<String>,
    /// Protected columns that were shown clear, as the record names them; absent where the collector does
    /// not say.
    unmasked: Option<Vec<String>>,
    /// Columns of the result that were masked.
    masked_columns: Option<u32>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct RecordedEffect {
    action: String,
    relation: String,
    unbounded: bool,
}

/// Replays, and says what would have changed. Exits with 0 whatever changes.
pub(super) fn run(args: &Replay) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let (records, more) = args.files.split_last().context("no records are named")?;
    let instead = [args.policy.as_slice(), more].concat();
    let set = policies(&config, &instead)?;
    let protect = config.targets.iter().map(|target| (&target.name, target.protect.as_slice()));
    let mut report = Report::new(Bench::new(set.into(), protect)?);
    let input: Box<dyn BufRead> = if records == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(records);
        Box::new(BufReader::new(file.with_context(|| records.display().to_string())?))
    };
    report.read(input).with_context(|| records.display().to_string())?;
    if args.json {
        print::json(&report.json(args.limit))?;
    } else {
        print::line(report.words(args.limit).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was decided then, or would be now.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Fate {
    verdict: &'static str,
    /// Why it is refused.
    reason: String,
    /// What of the result would be masked.
    masked: Vec<ProtectedColumn>,
    alert: Option<String>,
}

/// One change, as it may have come often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Change {
    who: String,
    target: String,
    kind: String,
    then: String,
    now: Fate,
    fingerprint: Option<String>,
}

/// How often, and an example.
#[derive(Debug)]
struct Came {
    times: u64,
    first_index: u64,
    text: String,
}

/// What comes of a replay.
struct Report {
    bench: Bench,
    changes: HashMap<Change, Came>,
    changed: u64,
    unchanged: u64,
    /// Records that are no operations.
    others: u64,
    /// Why what could not be replayed, with the places of its records in the log.
    not_replayed: BTreeMap<String, Vec<u64>>,
    /// For each way of changing, how often.
    ways: BTreeMap<String, u64>,
}

impl Report {
    fn new(bench: Bench) -> Self {
        Self {
            bench,
            changes: HashMap::new(),
            changed: 0,
            unchanged: 0,
            others: 0,
            not_replayed: BTreeMap::new(),
            ways: BTreeMap::new(),
        }
    }

    fn read(&mut self, mut input: impl BufRead) -> anyhow::Result<()> {
        for number in 1_u64.. {
            let mut line = String::new();
            let mut limited = (&mut input).take(LINE_BYTES_MAX);
            let read = limited.read_line(&mut line).with_context(|| format!("line {number}"))?;
            if read == 0 {
                break;
            }
            let whole = line.ends_with('\n') || u64::try_from(read).ok() < Some(LINE_BYTES_MAX);
            ensure!(whole, "line {number} is longer than {LINE_BYTES_MAX} bytes");
            if line.trim().is_empty() {
                continue;
            }
            let recorded = serde_json::from_str(&line).with_context(|| {
                format!(
                    "line {number} is no record; write them with \
                     `tidegate-collector query --json`"
                )
            })?;
            self.add(recorded);
        }
        Ok(())
    }

    fn add(&mut self, recorded: Recorded) {
        let Some(then) = recorded.verdict.clone().filter(|verdict| !verdict.is_empty()) else {
            self.others = self.others.saturating_add(1);
            return;
        };
        let mut now = match self.decide(&recorded, &then) {
            Ok(now) => now,
            Err(why) => {
                self.not_replayed.entry(why).or_default().push(recorded.index);
                return;
            }
        };
        // What was masked then is no change. Without a masked column in the outcome, nothing was protected.
        let masks = recorded.masked_columns.is_some_and(|columns| columns > 0);
        if let Some(clear) = recorded.unmasked.as_ref().filter(|_| masks) {
            now.masked.retain(|column| clear.contains(&column.to_string()));
        }
        let refuses = now.verdict == Verdict::Deny.name();
        let way = match (then != "deny", !refuses) {
            (true, false) => "passed, would be refused",
            (false, true) => "was refused, would pass",
            (true, true) if !now.masked.is_empty() => "passed, would be masked",
            _ if now.alert.is_some() => "would raise an alert",
            _ if then == "would_deny" && now.verdict == Verdict::Allow.name() => {
                "passed in shadow mode, would be permitted"
            }
            _ if then == "allow" && now.verdict == Verdict::WouldDeny.name() => {
                "was permitted, would pass in shadow mode only"
            }
            _ => {
                self.unchanged = self.unchanged.saturating_add(1);
                return;
            }
        };
        self.changed = self.changed.saturating_add(1);
        let count = self.ways.entry(way.to_owned()).or_default();
        *count = count.saturating_add(1);
        let Recorded { who, target, kind, fingerprint, index, text, .. } = recorded;
        let change = Change { who, target, kind, then, now, fingerprint };
        if self.changes.len() >= CHANGES_MAX && !self.changes.contains_key(&change) {
            return;
        }
        let came = Came { times: 0, first_index: index, text };
        let came = self.changes.entry(change).or_insert(came);
        came.times = came.times.saturating_add(1);
    }

    /// What would be decided now; the error says why that can't be told.
    fn decide(&self, recorded: &Recorded, then: &str) -> Result<Fate, String> {
        let operation = self.operation(recorded)?;
        let name = recorded.who.clone();
        let uid = recorded.uid.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(u32::MAX);
        // A decision that did not bind then is judged as one that does not.
        let mode = if then == "would_deny" { Mode::Shadow } else { Mode::Enforce };
        let names = (
            recorded.user.clone().unwrap_or_default(),
            recorded.database.clone().unwrap_or_default(),
        );
        let target = TargetName(recorded.target.clone());
        let mut subject = bench::subject(Principal { name, uid }, target, mode, names);
        subject.executable = recorded.executable.clone().filter(|path| !path.is_empty());
        let (explanation, _) = self.bench.explain(&subject, &operation);
        let Decision { verdict, reason, masked, alert, .. } = explanation.decision;
        Ok(Fate { verdict: verdict.name(), reason, masked, alert })
    }

    /// The operation, as it was recorded.
    fn operation(&self, recorded: &Recorded) -> Result<Operation, String> {
        let via = match recorded.kind.as_str() {
            "query" => Via::Simple,
            "parse" => Via::Parse,
            "execute" => Via::Execute,
            "login" => {
                let replication =
                    recorded.effects.iter().any(|effect| effect.action == Action::Replicate.name());
                return Ok(Operation::Login(Login {
                    user: recorded.user.clone().unwrap_or_default(),
                    database: recorded.database.clone().unwrap_or_default(),
                    application: recorded.application.clone().filter(|name| !name.is_empty()),
                    options: Vec::new(),
                    replication,
                    client_tls: false,
                }));
            }
            "cancel" => return Ok(Operation::Cancel(Cancel { backend_pid: 0 })),
            "function_call" => {
                return Ok(Operation::FunctionCall(FunctionCall { oid: 0, arguments: 0 }));
            }
            other => return Err(format!("operations of kind \"{other}\" are not known here")),
        };
        let mut operation = self.bench.statement(&recorded.text, via);
        let Operation::Statement(statement) = &mut operation else { return Ok(operation) };
        let print = statement.analysis.fingerprint.map(|print| format!("{print:016x}"));
        if print != recorded.fingerprint {
            return Err(
                "its text was cut or masked, or another version analysed it: it has another \
                        fingerprint"
                    .to_owned(),
            );
        }
        let effects: Option<Vec<Effect>> = recorded.effects.iter().map(effect).collect();
        let analysis = Arc::make_mut(&mut statement.analysis);
        let mut told: Vec<Effect> = analysis.effects.clone();
        told.sort_unstable();
        match effects {
            Some(mut effects) => {
                effects.sort_unstable();
                analysis.effects = effects;
            }
            None if written(&told) == recorded.effects => {}
            None => return Err("its effects can't be read back: a name holds a dot".to_owned()),
        }
        analysis.unknown = Some(recorded.unknown.clone())
            .filter(|why| !why.is_empty())
            .map(|reason| Unknown { reason });
        Ok(operation)
    }

    /// The changes, those that came most often first.
    fn sorted(&self) -> Vec<(&Change, &Came)> {
        let mut all: Vec<_> = self.changes.iter().collect();
        all.sort_by_key(|(_, came)| (std::cmp::Reverse(came.times), came.first_index));
        all
    }

    fn words(&self, limit: usize) -> String {
        let mut lines = vec![format!(
            "policies {}: {} operations would be decided as they were, {} otherwise",
            self.bench.set().digest(),
            self.unchanged,
            self.changed
        )];
        for (way, times) in &self.ways {
            lines.push(format!("  {times} {way}"));
        }
        for (why, indexes) in &self.not_replayed {
            let places: Vec<String> = indexes.iter().take(10).map(u64::to_string).collect();
            let more = if indexes.len() > places.len() { ", .." } else { "" };
            lines.push(format!(
                "  {} NOT REPLAYED, {why} (index {}{more})",
                indexes.len(),
                places.join(", ")
            ));
        }
        if self.others > 0 {
            lines.push(format!("  {} records are no operations", self.others));
        }
        let all = self.sorted();
        for (change, came) in all.iter().take(limit) {
            lines.push(String::new());
            lines.extend(change_words(change, came));
        }
        if all.len() > limit {
            lines.push(format!("\n.. and {} more; --limit lists them", all.len() - limit));
        }
        lines.join("\n")
    }

    fn json(&self, limit: usize) -> Value {
        let changes: Vec<Value> = self
            .sorted()
            .into_iter()
            .take(limit)
            .map(|(change, came)| {
                let masked: Vec<String> =
                    change.now.masked.iter().map(ToString::to_string).collect();
                json!({
                    "times": came.times, "first_index": came.first_index, "who": change.who,
                    "target": change.target, "kind": change.kind, "text": came.text,
                    "then": change.then, "now": change.now.verdict, "reason": change.now.reason,
                    "masked": masked, "alert": change.now.alert,
                })
            })
            .collect();
        json!({
            "policy_digest": self.bench.set().digest().to_string(),
            "unchanged": self.unchanged,
            "changed": self.changed,
            "ways": self.ways,
            "not_replayed": self.not_replayed,
            "no_operations": self.others,
            "changes": changes,
        })
    }
}

/// An effect as the collector writes it; `None` where a name with dots could be read in two ways.
fn effect(recorded: &RecordedEffect) -> Option<Effect> {
    let action = Action::from_name(&recorded.action)?;
    let named = |schema: Option<&str>, name: &str| {
        Some(Relation { schema: schema.map(str::to_owned), name: name.to_owned() })
    };
    let mut parts = recorded.relation.split('.');
    let relation = match (parts.next(), parts.next(), parts.next()) {
        (Some(""), None, _) | (None, ..) => None,
        (Some(name), None, _) => named(None, name),
        (Some(schema), Some(name), None) if object(action) => named(Some(schema), name),
        _ => return None,
    };
    Some(Effect { action, relation, bounded: !recorded.unbounded })
}

/// Whether what the action is about can have a schema. Settings and channels may hold dots.
const fn object(action: Action) -> bool {
    !matches!(
        action,
        Action::Set | Action::Show | Action::SetRole | Action::Session | Action::Notify
    )
}

fn written(effects: &[Effect]) -> Vec<RecordedEffect> {
    let written = |effect: &Effect| RecordedEffect {
        action: effect.action.name().to_owned(),
        relation: effect.relation.as_ref().map_or_else(String::new, ToString::to_string),
        unbounded: !effect.bounded,
    };
    effects.iter().map(written).collect()
}

fn change_words(change: &Change, came: &Came) -> Vec<String> {
    let one_line: Vec<&str> = came.text.split_whitespace().collect();
    let one_line = one_line.join(" ");
    let mut shown: String = one_line.chars().take(SHOWN_CHARS).collect();
    if shown.len() < one_line.len() {
        shown.push_str("..");
    }
    let times = if came.times == 1 { "once".to_owned() } else { format!("{} times", came.times) };
    let mut lines = vec![
        format!(
            "{} to {} ({}), {times}, first at index {}: {shown}",
            change.who, change.target, change.kind, came.first_index
        ),
        format!("  {} -> {}", change.then, change.now.verdict),
    ];
    if !change.now.reason.is_empty() {
        lines.push(format!("  since {}", change.now.reason));
    }
    for column in &change.now.masked {
        lines.push(format!("  masked: {column}"));
    }
    if let Some(alert) = &change.now.alert {
        lines.push(format!("  alert: {alert}"));
    }
    lines
}

#[cfg(test)]
mod tests;
