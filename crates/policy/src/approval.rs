//! What an approval must be, what it is bound to, and whether one fits.
//!
//! Promises: where several policies ask for approvals, all of their demands hold, each bound is the
//! least, and one use is all where any of them says so. An [`Approved`] is made only by [`check`], for
//! exactly the operation, the principal, the target, the database and the user that were asked for,
//! and within the deadline on both clocks of the host.
//!
//! What it can't do: it verifies no signature and keeps no count of uses; who holds the tickets does
//! both (`agent/src/approvals.rs`). What an unqualified name means under another `search_path` is not
//! part of what is bound.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use tidegate_event::{Operation, Parameter, Statement, Via};

/// How long a client waits where no policy says it, in seconds.
pub const WAIT_SECONDS: u64 = 120;
/// How long a request can be answered, and its answer used, where no policy says it, in seconds.
pub const DEADLINE_SECONDS: u64 = 3600;
/// Longest wait or deadline that can be written, in seconds.
pub const SECONDS_MAX: u64 = 24 * 3600;
/// Most people that one policy can ask for.
pub const PEOPLE_MAX: u32 = 8;

/// The annotations that ask for approvals.
pub(crate) const ANNOTATIONS: [&str; 5] =
    ["approvers", "approvals", "approval_minutes", "approval_wait", "approval_deadline"];

/// So many different people of these groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// Any of these groups will do.
    pub groups: BTreeSet<String>,
    /// How many different people.
    pub people: u32,
}

/// What the policies ask of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Need {
    /// Each must be met; one person may be counted in several.
    pub demands: BTreeSet<Demand>,
    /// How long after the grant it may be used again, in seconds; `None` for one use.
    pub reuse_seconds: Option<u64>,
    /// How long the client is held, in seconds.
    pub wait_seconds: u64,
    /// How long after the request it may be granted and used, in seconds.
    pub deadline_seconds: u64,
}

impl Need {
    /// The most protective of both.
    pub fn tighten(&mut self, other: &Self) {
        self.demands.extend(other.demands.iter().cloned());
        self.reuse_seconds = match (self.reuse_seconds, other.reuse_seconds) {
            (Some(one), Some(another)) => Some(one.min(another)),
            _ => None,
        };
        self.wait_seconds = self.wait_seconds.min(other.wait_seconds);
        self.deadline_seconds = self.deadline_seconds.min(other.deadline_seconds);
    }

    /// Whether these people, with their groups, are enough. The same name twice is one person.
    pub fn is_met_by(&self, people: &[Approver]) -> bool {
        !self.demands.is_empty()
            && self.demands.iter().all(|demand| {
                let of_them: BTreeSet<&str> = people
                    .iter()
                    .filter(|one| one.groups.iter().any(|group| demand.groups.contains(group)))
                    .map(|one| one.name.as_str())
                    .collect();
                u32::try_from(of_them.len()).is_ok_and(|number| number >= demand.people)
            })
    }

    /// In words, for people.
    pub fn words(&self) -> String {
        let demands = self.demands.iter().map(|demand| {
            let groups: Vec<&str> = demand.groups.iter().map(String::as_str).collect();
            format!("{} of {}", demand.people, groups.join(" or "))
        });
        let uses = match self.reuse_seconds {
            None => "for one use".to_owned(),
            Some(seconds) => format!("for {} minutes", seconds / 60),
        };
        format!("{}, {uses}", demands.collect::<Vec<_>>().join(" and "))
    }
}

/// Somebody who approved, as the collector's roster has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// The name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// What an approval is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The service account.
    pub principal: String,
    /// The protected system.
    pub target: String,
    /// Database user of the session.
    pub db_user: String,
    /// Database of the session.
    pub database: String,
    /// SHA-256 over the text and the parameters ([`operation_digest`]).
    pub operation: [u8; 32],
}

impl Binding {
    /// SHA-256 over all of it, and over random bytes that only this host knows: what is signed. Without
    /// them, who sees it could try which protected value was meant.
    pub fn digest(&self, salt: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"tidegate/approval/binding/v1\0");
        hash.update(salt);
        for part in [&self.principal, &self.target, &self.db_user, &self.database] {
            add(&mut hash, part.as_bytes());
        }
        hash.update(self.operation);
        hash.finalize().into()
    }
}

fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(bytes);
}

/// SHA-256 over a statement's whole text and each parameter with its kind; `None` for what can't be
/// bound: no statement, or one with a parameter of which only the beginning is known.
pub fn operation_digest(operation: &Operation) -> Option<[u8; 32]> {
    let Operation::Statement(statement) = operation else { return None };
    let mut hash = Sha256::new();
    hash.update(b"tidegate/approval/operation/v1\0");
    match statement.text_sha256 {
        Some(whole) => hash.update(whole),
        None => hash.update(Sha256::digest(statement.text.as_bytes())),
    }
    for parameter in &statement.parameters {
        match parameter {
            Parameter::Null => hash.update([0]),
            Parameter::Text(value) => {
                hash.update([1]);
                add(&mut hash, value);
            }
            Parameter::Binary { type_oid, value } => {
                hash.update([2]);
                hash.update(type_oid.to_le_bytes());
                add(&mut hash, value);
            }
            Parameter::Cut { .. } => return None,
        }
    }
    Some(hash.finalize().into())
}

/// Whether an approval can be asked for it at all.
pub(crate) fn is_approvable(operation: &Operation) -> bool {
    operation_digest(operation).is_some()
}

/// Whether it only prepares what is asked again when it is run.
pub(crate) fn only_prepares(operation: &Operation) -> bool {
    matches!(operation, Operation::Statement(Statement { via: Via::Parse, .. }))
}

/// The host's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// `CLOCK_REALTIME`, in nanoseconds.
    pub wall_ns: u64,
    /// `CLOCK_BOOTTIME`, in nanoseconds: it can't be set.
    pub boot_ns: u64,
}

impl Clock {
    /// How long ago `then` was, by the clock that says more; `None` where the time that can be set is
    /// before it.
    fn since(&self, then: &Self) -> Option<u64> {
        let wall = self.wall_ns.checked_sub(then.wall_ns)?;
        if self.boot_id != then.boot_id {
            return Some(wall);
        }
        Some(wall.max(self.boot_ns.checked_sub(then.boot_ns)?))
    }
}

/// A request for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its name.
    pub id: String,
    /// What it is for.
    pub binding: Binding,
    /// What the policies ask.
    pub need: Need,
    /// Random, and known to this host only.
    pub salt: [u8; 32],
    /// When it was made.
    pub asked: Clock,
}

impl Ticket {
    /// The absolute deadline by `CLOCK_REALTIME`, in nanoseconds.
    pub fn deadline_ns(&self) -> u64 {
        let seconds = self.need.deadline_seconds.saturating_mul(1_000_000_000);
        self.asked.wall_ns.saturating_add(seconds)
    }

    /// What is signed of what it is for.
    pub fn digest(&self) -> [u8; 32] {
        self.binding.digest(&self.salt)
    }

    /// Whether it can still be granted and used.
    pub fn is_in_time(&self, now: &Clock) -> bool {
        let max = self.need.deadline_seconds.saturating_mul(1_000_000_000);
        now.since(&self.asked).is_some_and(|since| since < max)
    }
}

/// A grant whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The ticket.
    pub id: String,
    /// [`Binding::digest`] of what was approved.
    pub binding: [u8; 32],
    /// The deadline that the approvers saw, by `CLOCK_REALTIME` in nanoseconds.
    pub deadline_ns: u64,
    /// Who approved.
    pub people: Vec<Approver>,
}

/// Why a grant does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unfit {
    /// It names another ticket.
    #[error("the grant is for another request")]
    OtherTicket,
    /// What is asked now is not what the ticket is for.
    #[error(
        "the request was for another statement, parameter, principal, target, user or database"
    )]
    OtherOperation,
    /// The approvers saw something else.
    #[error("the grant is for another statement, parameter, principal, target, user or database")]
    OtherBinding,
    /// The approvers saw another deadline.
    #[error("the grant has another deadline than the request")]
    OtherDeadline,
    /// Too late, or a clock was set back.
    #[error("the request's time is over, or this host's clock was set back")]
    OutOfTime,
    /// It was used, or its minutes are over.
    #[error("the grant was used")]
    Used,
    /// Too few people, or not of the groups.
    #[error("too few people of the groups that the policies name")]
    TooFew,
    /// One of them is the requester.
    #[error("the requester is among the approvers")]
    Oneself,
}

/// Proof that a grant fits one operation, spent on one decision. Only [`check`] makes it:
///
/// ```compile_fail,E0451
/// fn forge(need: tidegate_policy::approval::Need) -> tidegate_policy::approval::Approved {
///     tidegate_policy::approval::Approved { id: String::new(), people: Vec::new(), need, operation: [0; 32] }
/// }
/// ```
#[derive(Debug)]
pub struct Approved {
    id: String,
    people: Vec<String>,
    need: Need,
    operation: [u8; 32],
}

impl Approved {
    /// Whether it is for this operation, and for what the policies ask of it now.
    pub(crate) fn fits(&self, operation: &Operation, need: &Need) -> bool {
        operation_digest(operation) == Some(self.operation) && self.need == *need
    }

    /// For the record.
    pub(crate) fn words(&self) -> String {
        format!("approved by {}; request {}", self.people.join(", "), self.id)
    }
}

/// Whether the grant of a ticket covers what is asked now. `first_use` is when it was used first.
pub fn check(
    ticket: &Ticket,
    grant: &Grant,
    asked: &Binding,
    first_use: Option<&Clock>,
    now: &Clock,
) -> Result<Approved, Unfit> {
    if grant.id != ticket.id {
        return Err(Unfit::OtherTicket);
    }
    if *asked != ticket.binding {
        return Err(Unfit::OtherOperation);
    }
    if grant.binding != ticket.digest() {
        return Err(Unfit::OtherBinding);
    }
    if grant.deadline_ns != ticket.deadline_ns() {
        return Err(Unfit::OtherDeadline);
    }
    if !ticket.is_in_time(now) {
        return Err(Unfit::OutOfTime);
    }
    if let Some(first) = first_use {
        let again = ticket.need.reuse_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let since = now.since(first);
        if again.zip(since).is_none_or(|(max, since)| since >= max) {
            return Err(Unfit::Used);
        }
    }
    if grant.people.iter().any(|one| one.name == ticket.binding.principal) {
        return Err(Unfit::Oneself);
    }
    if !ticket.need.is_met_by(&grant.people) {
        return Err(Unfit::TooFew);
    }
    Ok(Approved {
        id: ticket.id.clone(),
        people: grant.people.iter().map(|one| one.name.clone()).collect(),
        need: ticket.need.clone(),
        operation: ticket.binding.operation,
    })
}

/// What the annotations of one policy say, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Written {
    groups: BTreeSet<String>,
    people: Option<u32>,
    reuse_seconds: Option<u64>,
    wait_seconds: Option<u64>,
    deadline_seconds: Option<u64>,
    any: bool,
}

impl Written {
    /// Reads one annotation; the error says how it is written.
    pub(crate) fn set(&mut self, annotation: &str, text: &str) -> Result<(), String> {
        self.any = true;
        let bad = |form: &str| Err(format!("@{annotation}({text:?}): write {form}"));
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        match annotation {
            "approvers" => {
                let groups = text.split(',').map(|group| group.trim().to_owned());
                self.groups = groups.collect();
                let plain = |group: &String| {
                    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
                    !group.is_empty() && group.bytes().all(known)
                };
                if !self.groups.iter().all(plain) {
                    return bad("groups of the collector's roster as \"dba, security\"");
                }
            }
            "approvals" => match number.and_then(|number| u32::try_from(number).ok()) {
                Some(people) if people <= PEOPLE_MAX => self.people = Some(people),
                _ => return bad(&format!("how many different people, 1 to {PEOPLE_MAX}")),
            },
            "approval_minutes" => match number.and_then(|minutes| minutes.checked_mul(60)) {
                Some(seconds) if seconds <= SECONDS_MAX => self.reuse_seconds = Some(seconds),
                _ => {
                    return bad(
                        "for how many minutes after its first use it is good, at most 1440",
                    );
                }
            },
            "approval_wait" | "approval_deadline" => match number {
                Some(seconds) if seconds <= SECONDS_MAX && annotation == "approval_wait" => {
                    self.wait_seconds = Some(seconds);
                }
                Some(seconds) if seconds <= SECONDS_MAX => self.deadline_seconds = Some(seconds),
                _ => return bad(&format!("seconds, 1 to {SECONDS_MAX}")),
            },
            _ => return Err(format!("@{annotation} is nothing of approvals")),
        }
        Ok(())
    }

    /// What they come to; `mentions` is whether the policy looks at `context.approved`.
    pub(crate) fn finish(self, mentions: bool) -> Result<Option<Need>, String> {
        match (self.any, self.groups.is_empty(), mentions) {
            (false, _, false) => Ok(None),
            (_, true, _) => Err("a policy that looks at context.approved, or says anything of \
                 approvals, says by whom: @approvers(\"group, group\")"
                .to_owned()),
            (_, false, false) => Err("@approvers has no use here: the policy does not look at \
                 context.approved"
                .to_owned()),
            (_, false, true) => {
                let demand = Demand { groups: self.groups, people: self.people.unwrap_or(1) };
                let deadline_seconds = self.deadline_seconds.unwrap_or(DEADLINE_SECONDS);
                Ok(Some(Need {
                    demands: BTreeSet::from([demand]),
                    reuse_seconds: self.reuse_seconds,
                    wait_seconds: self.wait_seconds.unwrap_or(WAIT_SECONDS).min(deadline_seconds),
                    deadline_seconds,
                }))
            }
        }
    }
}

/// Whether the policy looks at `context.approved`.
pub(crate) fn mentions(policy: &cedar_policy::Policy) -> bool {
    policy.to_json().is_ok_and(|json| json.to_string().contains("\"attr\":\"approved\""))
}

#[cfg(test)]
mod tests;
