//! Judges one host's records in their order. Pure: no clock, no file.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::lifecycle::Kind;
use tidegate_proto::audit::v1::{Coverage, Finding, Heartbeat, Lifecycle};

use super::{BEAT_GAP_NS_MAX, CLOCK_STEP_NS_MIN, HOLES_MAX, Hole, Host, Pair, Question, Verdict};

const SECOND_NS: i64 = 1_000_000_000;

/// One record of a host, or one of the collector's own about it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its agent's clock.
    pub wall_ns: i64,
    /// The boot clock.
    pub boot_ns: i64,
    /// The collector's clock.
    pub received_ns: i64,
    /// Tells chains apart.
    pub chain: i64,
    /// What it says.
    pub body: Body,
}

/// What one heartbeat leaves for the next.
#[derive(Debug)]
struct Beat {
    wall_ns: i64,
    boot_ns: i64,
    chain: i64,
    ahead: bool,
    body: Heartbeat,
    /// By principal and target: what was wrong already.
    wrong: BTreeMap<(String, String), Wrong>,
}

/// By how much the counts of a pair disagree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wrong {
    unserved: u64,
    uncounted: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// The judge of one host.
#[derive(Debug)]
pub struct Judge<'a> {
    question: &'a Question,
    host: Host,
    totals: BTreeMap<(String, String), Pair>,
    doors: BTreeSet<String>,
    last: Option<Beat>,
    boot_id: Bytes,
    /// The host was started anew since the last heartbeat.
    rebooted: bool,
    /// The newest chain found hooks in place.
    taken_over: bool,
    detached: bool,
}

impl<'a> Judge<'a> {
    /// Of a host of which nothing is known yet.
    pub fn new(question: &'a Question, agent: &str, host: &str) -> Self {
        let host = Host {
            agent: agent.to_owned(),
            host: host.to_owned(),
            verdict: Verdict::NotWhole,
            heard_until_ns: None,
            holes: Vec::new(),
            holes_more: 0,
            doors: Vec::new(),
            pairs: Vec::new(),
        };
        Self {
            question,
            host,
            totals: BTreeMap::new(),
            doors: BTreeSet::new(),
            last: None,
            boot_id: Bytes::new(),
            rebooted: false,
            taken_over: false,
            detached: false,
        }
    }

    /// The next record in the order of the log. The two heartbeats before the period come first, where there
    /// are any, so that what was wrong before it is not held against it.
    pub fn take(&mut self, seen: Seen) {
        let at = seen.wall_ns;
        match seen.body {
            Body::Genesis(genesis) => {
                self.rebooted = !self.boot_id.is_empty() && self.boot_id != genesis.boot_id;
                self.boot_id = genesis.boot_id;
                self.taken_over = false;
            }
            Body::Lifecycle(lifecycle) => self.lifecycle(&lifecycle),
            Body::Heartbeat(beat) => {
                self.beat(seen.chain, at, seen.boot_ns, seen.received_ns, beat);
            }
            Body::Gap(gap) => self.hole(
                at,
                at,
                format!("records {} to {} are lost: {}", gap.from_seq, gap.to_seq, gap.reason),
            ),
            Body::Bypass(bypass)
                if self.question.target.as_ref().is_none_or(|only| *only == bypass.target) =>
            {
                self.hole(
                    at,
                    at,
                    format!(
                        "on_failure = \"open\" was used for {}: {}",
                        bypass.target, bypass.reason
                    ),
                );
            }
            Body::Finding(finding) => self.finding(at, &finding),
            Body::Missing(missing) => self.hole(
                at,
                at,
                format!(
                    "records {} to {} never came: {}",
                    missing.from_seq, missing.to_seq, missing.detail
                ),
            ),
            Body::Equivocation(fork) => {
                self.hole(at, at, format!("the agent sealed two histories: {}", fork.detail));
            }
            _ => {}
        }
    }

    /// The verdict.
    pub fn finish(mut self) -> Host {
        let (from, to) = (self.question.from_ns, self.question.to_ns);
        match self.last.as_ref().map(|beat| beat.wall_ns).filter(|at| *at >= from) {
            None => self.hole(from, to, "nothing was heard of this host in the period".to_owned()),
            Some(last) => {
                self.host.heard_until_ns = Some(last);
                if to.saturating_sub(last) > BEAT_GAP_NS_MAX {
                    self.hole(last, to, "nothing was heard of this host any more".to_owned());
                }
            }
        }
        let mut host = self.host;
        host.doors = self.doors.into_iter().collect();
        host.pairs = self.totals.into_values().collect();
        host.verdict = match (host.holes.is_empty(), host.doors.is_empty()) {
            (true, true) => Verdict::Whole,
            (true, false) => Verdict::OpenDoors,
            (false, _) => Verdict::NotWhole,
        };
        host
    }

    fn lifecycle(&mut self, lifecycle: &Lifecycle) {
        match lifecycle.kind() {
            Kind::Attached => {
                self.taken_over = lifecycle.taken_over;
                self.detached = false;
            }
            Kind::Detached => self.detached = true,
            _ => {}
        }
    }

    /// What goes, or could go, past the gate.
    fn finding(&mut self, at: i64, finding: &Finding) {
        let named = |only: &Option<String>, name: &str| {
            name.is_empty() || only.as_ref().is_none_or(|only| only == name)
        };
        let asked = named(&self.question.principal, &finding.principal)
            && named(&self.question.target, &finding.target);
        let in_period = (self.question.from_ns..=self.question.to_ns).contains(&at);
        // What a heartbeat says too is taken from there.
        if !asked || finding.kind == "coverage" {
            return;
        }
        match (finding.kind.as_str(), finding.outcome.as_str()) {
            ("hooks" | "clock" | "executable", _) => {
                let since = self.last.as_ref().map_or(at, |beat| beat.wall_ns);
                self.hole(since.min(at), at, finding.detail.clone());
            }
            // Relayed by the gate, and recorded with its bytes.
            ("opaque", _) => {}
            (kind, "open" | "passed") if in_period => {
                let who = &finding.principal;
                self.doors
                    .insert(format!("{kind}: {} {who}", finding.detail).trim_end().to_owned());
            }
            _ => {}
        }
    }

    fn beat(&mut self, chain: i64, at: i64, boot_ns: i64, received_ns: i64, body: Heartbeat) {
        let ahead = at.saturating_sub(received_ns) >= CLOCK_STEP_NS_MIN;
        let mut now = Beat { wall_ns: at, boot_ns, chain, ahead, body, wrong: BTreeMap::new() };
        let before = self.last.take();
        let since = before.as_ref().map_or(at, |beat| beat.wall_ns);
        let mut said = Vec::new();
        match &before {
            Some(before) => said.extend(self.between(before, &now)),
            None if at > self.question.from_ns => {
                let from = self.question.from_ns;
                self.hole(from, at, "nothing was heard of this host before".to_owned());
            }
            None => {}
        }
        let same_chain = before.as_ref().filter(|before| before.chain == chain);
        if now.ahead && before.as_ref().is_none_or(|before| !before.ahead) {
            let seconds = at.saturating_sub(received_ns) / SECOND_NS;
            said.push(format!("the host's clock is {seconds} s ahead of the collector's"));
        }
        let known = same_chain.map(|before| &before.body.discrepancies);
        for text in &now.body.discrepancies {
            if known.is_none_or(|known| !known.contains(text)) {
                said.push(format!("the agent says: {text}"));
            }
        }
        said.extend(self.counts(same_chain, &mut now));
        for why in said {
            self.hole(since.min(at), since.max(at), why);
        }
        self.rebooted = false;
        self.last = Some(now);
    }

    /// What happened between two heartbeats, but for the counts of pairs.
    fn between(&self, before: &Beat, now: &Beat) -> Vec<String> {
        let mut said = Vec::new();
        let wall = now.wall_ns.saturating_sub(before.wall_ns);
        let boot = now.boot_ns.saturating_sub(before.boot_ns);
        let silent = if before.chain == now.chain { wall.max(boot) } else { wall };
        if silent > BEAT_GAP_NS_MAX {
            let seconds = silent / SECOND_NS;
            said.push(format!(
                "no heartbeat for {seconds} s: the agent, or its host, was stopped or paused"
            ));
        }
        if now.body.passed_open > before.body.passed_open {
            let more = now.body.passed_open - before.body.passed_open;
            said.push(format!("{more} connections passed the gate by on_failure = \"open\""));
        }
        if self.detached {
            said.push("the hooks were taken away by a command (detach)".to_owned());
        }
        if before.chain != now.chain {
            if self.rebooted {
                said.push(
                    "the host was started anew: no hook was there until the agent".to_owned(),
                );
            } else if !self.taken_over {
                said.push("the agent found no hooks in place, and attached them anew".to_owned());
            }
            return said;
        }
        if (wall - boot).abs() >= CLOCK_STEP_NS_MIN {
            let seconds = (wall - boot) / SECOND_NS;
            said.push(format!("the host's clock was set by {seconds} s"));
        }
        if before.body.hooks_digest != now.body.hooks_digest {
            said.push("the hooks in the kernel are not those of the heartbeat before".to_owned());
        }
        if before.body.agent_digest != now.body.agent_digest {
            said.push("the agent's program file is not that of the heartbeat before".to_owned());
        }
        if now.body.kernel_lost > before.body.kernel_lost {
            let more = now.body.kernel_lost - before.body.kernel_lost;
            said.push(format!("{more} events or counts found no room in the kernel"));
        }
        said
    }

    /// Compares what kernel and gate counted, and adds it up.
    fn counts(&mut self, before: Option<&Beat>, now: &mut Beat) -> Vec<String> {
        let mut said = Vec::new();
        if now.body.hooks_digest.is_empty() {
            said.push("the heartbeat does not say how the hooks are".to_owned());
        }
        if now.body.coverage_total > 0 {
            said.push(format!("of {} pairs not all are listed", now.body.coverage_total));
        }
        let overlaps = now.wall_ns > self.question.from_ns
            && before.is_none_or(|before| before.wall_ns < self.question.to_ns);
        for pair in &now.body.coverage {
            if !self.question.concerns(&pair.principal, &pair.target) {
                continue;
            }
            let key = (pair.principal.clone(), pair.target.clone());
            let earlier = before.and_then(|before| {
                let same = |one: &&Coverage| one.principal == key.0 && one.target == key.1;
                before.body.coverage.iter().find(same)
            });
            let wrong = wrong(earlier, pair);
            let was = before.and_then(|before| before.wrong.get(&key)).copied().unwrap_or_default();
            said.extend(fresh(was, wrong, &key));
            if overlaps {
                add(self.totals.entry(key.clone()).or_default(), earlier, pair);
            }
            now.wrong.insert(key, wrong);
        }
        said
    }

    /// Notes a hole that touches the period; one that goes on is made longer.
    fn hole(&mut self, from_ns: i64, to_ns: i64, why: String) {
        let (first, last) = (self.question.from_ns, self.question.to_ns);
        if to_ns < first || from_ns > last || (to_ns == first && from_ns < first) {
            return;
        }
        let hole = Hole { from_ns: from_ns.max(first), to_ns: to_ns.min(last), why };
        let same = |one: &&mut Hole| one.why == hole.why && one.to_ns >= hole.from_ns;
        if let Some(goes_on) = self.host.holes.iter_mut().rev().find(same) {
            goes_on.to_ns = goes_on.to_ns.max(hole.to_ns);
        } else if self.host.holes.len() < HOLES_MAX {
            self.host.holes.push(hole);
        } else {
            self.host.holes_more += 1;
        }
    }
}

/// How the counts of a pair disagree. What the kernel had at the heartbeat before, the gate must have by now.
fn wrong(earlier: Option<&Coverage>, now: &Coverage) -> Wrong {
    let served = now.sessions.saturating_add(now.sessions_refused);
    Wrong {
        unserved: earlier.map_or(0, |earlier| earlier.accepted).saturating_sub(served),
        uncounted: served.saturating_sub(now.accepted),
        bytes_in: now.kernel_bytes_in.abs_diff(now.bytes_in),
        bytes_out: now.kernel_bytes_out.abs_diff(now.bytes_out),
    }
}

/// What is wrong now and was not before, in words.
fn fresh(was: Wrong, now: Wrong, (principal, target): &(String, String)) -> Vec<String> {
    let rows = [
        (
            was.unserved,
            now.unserved,
            "connections reached the gate and were neither served nor refused",
        ),
        (
            was.uncounted,
            now.uncounted,
            "connections were counted by the gate and not by the kernel",
        ),
        (was.bytes_in, now.bytes_in, "bytes from the client are not the same to kernel and gate"),
        (was.bytes_out, now.bytes_out, "bytes to the client are not the same to kernel and gate"),
    ];
    rows.into_iter()
        .filter(|(was, now, _)| now > was)
        .map(|(_, now, what)| format!("{principal} to \"{target}\": {now} {what}"))
        .collect()
}

fn add(total: &mut Pair, earlier: Option<&Coverage>, now: &Coverage) {
    let none = Coverage::default();
    let old = earlier.unwrap_or(&none);
    total.principal.clone_from(&now.principal);
    total.target.clone_from(&now.target);
    total.accepted += now.accepted.saturating_sub(old.accepted);
    total.sessions += now.sessions.saturating_sub(old.sessions);
    total.sessions_ended += now.sessions_ended.saturating_sub(old.sessions_ended);
    total.sessions_refused += now.sessions_refused.saturating_sub(old.sessions_refused);
    total.refused += now.refused.saturating_sub(old.refused);
    total.dropped += now.dropped.saturating_sub(old.dropped);
    total.exempt += now.exempt.saturating_sub(old.exempt);
    total.kernel_bytes_in += now.kernel_bytes_in.saturating_sub(old.kernel_bytes_in);
    total.kernel_bytes_out += now.kernel_bytes_out.saturating_sub(old.kernel_bytes_out);
    total.bytes_in += now.bytes_in.saturating_sub(old.bytes_in);
    total.bytes_out += now.bytes_out.saturating_sub(old.bytes_out);
}

#[cfg(test)]
mod tests;
