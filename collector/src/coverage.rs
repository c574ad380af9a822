//! Coverage: whether the log accounts for all that protected accounts did in a period, and where not.
//!
//! Promises: *whole* is said only where every host in question was heard of from the period's beginning to its
//! end without a pause, and its kernel's counts agree with its gate's; whatever is not known is a hole with
//! its time and its reason. A host that never spoke is not whole, and a question that no host answers
//! is not decided. The answer comes from records alone, by the same sums that the agent makes, made anew.
//!
//! Limits: [`HOLES_MAX`] holes a host are listed, the rest is counted.
//!
//! Known gaps: a host on which no agent was ever enrolled is not known here. One that is given up stays enrolled:
//! ask for the others by name. Bytes of a session are counted at its end.

mod gather;
mod judge;
mod show;

use serde::Serialize;

pub use self::gather::ask;
pub use self::judge::{Judge, Seen};
pub use self::show::{rows_of, write_text};

/// Longest time between two heartbeats, in nanoseconds: one comes every ten seconds.
pub const BEAT_GAP_NS_MAX: i64 = 25_000_000_000;

/// A clock that moves this far against the boot clock was set (docs/formats/chain.md), in nanoseconds.
pub const CLOCK_STEP_NS_MIN: i64 = 2_000_000_000;

/// Most holes of one host that are listed.
pub const HOLES_MAX: usize = 100;

/// What is asked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Question {
    /// From this time on, by the hosts' clocks.
    pub from_ns: i64,
    /// Until then.
    pub to_ns: i64,
    /// Only this agent, or host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Only this principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Question {
    /// Whether a pair is asked for.
    pub fn concerns(&self, principal: &str, target: &str) -> bool {
        self.principal.as_ref().is_none_or(|only| only == principal)
            && self.target.as_ref().is_none_or(|only| only == target)
    }
}

/// The answer. The order is that of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is missing.
    Whole,
    /// Nothing is missing of what goes by the gate, and something can go past it, as is on record.
    OpenDoors,
    /// Something is missing, or not known.
    NotWhole,
    /// There is nothing to judge.
    Undecided,
}

impl Verdict {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Whole => 0,
            Self::OpenDoors => 10,
            Self::NotWhole => 20,
            Self::Undecided => 30,
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::OpenDoors => "whole, with open doors",
            Self::NotWhole => "NOT WHOLE",
            Self::Undecided => "not decided: no host answers this question",
        }
    }
}

/// All hosts.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The question.
    #[serde(flatten)]
    pub question: Question,
    /// The worst of the hosts' verdicts.
    pub verdict: Verdict,
    /// Each host.
    pub hosts: Vec<Host>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its agent.
    pub agent: String,
    /// Its name, where it was heard of.
    pub host: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The last heartbeat: what came later is not told yet.
    pub heard_until_ns: Option<i64>,
    /// What is missing, or not known.
    pub holes: Vec<Hole>,
    /// Holes beyond [`HOLES_MAX`].
    pub holes_more: u64,
    /// What can go past the gate.
    pub doors: Vec<String>,
    /// What was counted.
    pub pairs: Vec<Pair>,
}

/// One time that is not covered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Its beginning.
    pub from_ns: i64,
    /// Its end.
    pub to_ns: i64,
    /// Why.
    pub why: String,
}

/// What kernel and gate counted of one principal and target in the period.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The principal.
    pub principal: String,
    /// The target; empty for what is no target.
    pub target: String,
    /// Kernel: connections that reached the gate.
    pub accepted: u64,
    /// Gate: sessions.
    pub sessions: u64,
    /// Gate: sessions that have ended, of which bytes are counted.
    pub sessions_ended: u64,
    /// Gate: connections refused.
    pub sessions_refused: u64,
    /// Kernel: sockets refused by a hook.
    pub refused: u64,
    /// Kernel: sockets whose packets were dropped.
    pub dropped: u64,
    /// Kernel: connections let pass directly, by the configuration.
    pub exempt: u64,
    /// Kernel: bytes that came from clients.
    pub kernel_bytes_in: u64,
    /// Kernel: bytes that went to clients.
    pub kernel_bytes_out: u64,
    /// Gate: bytes that it read.
    pub bytes_in: u64,
    /// Gate: bytes that it wrote.
    pub bytes_out: u64,
}
