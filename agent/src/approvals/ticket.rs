//! A ticket as the file `approvals.json` has it.
//!
//! Promises: what the file says is checked each time that it is read; of an answer it keeps the exact
//! bytes that were signed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_policy::approval::{Binding, Clock, Demand, Need, Ticket};
use tidegate_proto::uplink::v1::{ApprovalDemand, ApprovalRequest};

use super::Wanted;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// 1.
    pub v: u32,
    /// Oldest first.
    pub tickets: Vec<Row>,
}

/// Where a ticket stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// No answer yet.
    Waiting,
    /// The collector's exact bytes.
    Answered {
        /// What is signed.
        body: Vec<u8>,
        /// Its signature.
        signature: Vec<u8>,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Moment {
    boot_id: [u8; 16],
    wall_ns: u64,
    boot_ns: u64,
}

impl Moment {
    const fn of(clock: &Clock) -> Self {
        let Clock { boot_id, wall_ns, boot_ns } = *clock;
        Self { boot_id, wall_ns, boot_ns }
    }

    const fn clock(self) -> Clock {
        let Self { boot_id, wall_ns, boot_ns } = self;
        Clock { boot_id, wall_ns, boot_ns }
    }
}

/// One ticket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub id: String,
    principal: String,
    target: String,
    db_user: String,
    database: String,
    operation: [u8; 32],
    demands: Vec<(BTreeSet<String>, u32)>,
    reuse_seconds: Option<u64>,
    wait_seconds: u64,
    deadline_seconds: u64,
    salt: [u8; 32],
    asked: Moment,
    statement: String,
    effects: Vec<String>,
    reason: String,
    policies: Vec<String>,
    /// Where it stands.
    pub place: Place,
    first_use: Option<Moment>,
}

impl Row {
    /// A ticket that waits.
    pub fn new(id: &str, salt: [u8; 32], wanted: &Wanted, now: &Clock) -> Self {
        let Wanted { binding, need, .. } = wanted.clone();
        let demands = need.demands.into_iter().map(|demand| (demand.groups, demand.people));
        Self {
            id: id.to_owned(),
            principal: binding.principal,
            target: binding.target,
            db_user: binding.db_user,
            database: binding.database,
            operation: binding.operation,
            demands: demands.collect(),
            reuse_seconds: need.reuse_seconds,
            wait_seconds: need.wait_seconds,
            deadline_seconds: need.deadline_seconds,
            salt,
            asked: Moment::of(now),
            statement: wanted.statement.clone(),
            effects: wanted.effects.clone(),
            reason: wanted.reason.clone(),
            policies: wanted.policies.clone(),
            place: Place::Waiting,
            first_use: None,
        }
    }

    /// The ticket; an error where the file can't be what this agent wrote.
    pub fn ticket(&self) -> Result<Ticket, String> {
        if self.demands.is_empty() {
            return Err("the request names nobody who could approve".to_owned());
        }
        let demands = self.demands.iter().cloned();
        Ok(Ticket {
            id: self.id.clone(),
            binding: Binding {
                principal: self.principal.clone(),
                target: self.target.clone(),
                db_user: self.db_user.clone(),
                database: self.database.clone(),
                operation: self.operation,
            },
            need: Need {
                demands: demands.map(|(groups, people)| Demand { groups, people }).collect(),
                reuse_seconds: self.reuse_seconds,
                wait_seconds: self.wait_seconds,
                deadline_seconds: self.deadline_seconds,
            },
            salt: self.salt,
            asked: self.asked.clock(),
        })
    }

    /// Whether it is for exactly this.
    pub fn is_for(&self, binding: &Binding, need: &Need) -> bool {
        self.ticket().is_ok_and(|ticket| ticket.binding == *binding && ticket.need == *need)
    }

    /// Whether it can't be used any more.
    pub fn is_spent(&self, now: &Clock) -> bool {
        let Ok(ticket) = self.ticket() else { return true };
        let used = self.first_use.is_some_and(|first| {
            let max =
                ticket.need.reuse_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000));
            let since = now.wall_ns.checked_sub(first.wall_ns);
            max.zip(since).is_none_or(|(max, since)| since >= max)
        });
        used || !ticket.is_in_time(now)
    }

    /// When it was used first.
    pub fn first_use(&self) -> Option<Clock> {
        self.first_use.map(Moment::clock)
    }

    /// It is used now.
    pub fn use_first(&mut self, now: &Clock) {
        self.first_use = Some(Moment::of(now));
    }

    /// As it goes to the collector.
    pub fn request(&self) -> Option<ApprovalRequest> {
        let ticket = self.ticket().ok()?;
        let demands = self.demands.iter().map(|(groups, people)| ApprovalDemand {
            groups: groups.iter().cloned().collect(),
            people: *people,
        });
        Some(ApprovalRequest {
            id: self.id.clone(),
            principal: self.principal.clone(),
            target: self.target.clone(),
            db_user: self.db_user.clone(),
            database: self.database.clone(),
            statement: self.statement.clone(),
            binding: ticket.digest().to_vec().into(),
            deadline_ns: ticket.deadline_ns(),
            demands: demands.collect(),
            reuse_seconds: self.reuse_seconds.unwrap_or(0),
            reason: self.reason.clone(),
            policies: self.policies.clone(),
            effects: self.effects.clone(),
        })
    }
}
