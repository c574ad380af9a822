//! Statements that wait for people: tickets, the collector's answers, and what they release.
//!
//! Promises: a ticket is on the disk before its client waits, and its use before its statement passes;
//! an answer counts only under the signature of the collector that this agent is enrolled at, for the
//! very statement, parameters, principal, target, user and database, within the deadline on both clocks
//! of the host (`tidegate_policy::approval`), and is checked again each time that it is used. Each
//! request, answer, use and refusal is a record.
//!
//! What it can't do: keep root of this host from setting a used ticket back in `approvals.json`; its
//! second use would be a second record.
//!
//! Limits: [`TICKETS_MAX`] tickets; when full, what needs an approval is refused.

mod carry;
mod ticket;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tidegate_journal::{Clock as _, Found, Journal, SystemClock};
use tidegate_ledger::approval::{self as answer, AnswerFacts};
use tidegate_policy::approval::{self, Approved, Approver, Binding, Clock, Grant, Need};
use tidegate_proto::uplink::v1::{ApprovalAnswer, ApprovalRequest};
use tokio::sync::{Notify, watch};

use crate::uplink::enrolment::{Enrolment, SECRET, replace};
pub use carry::carry;
use ticket::{Kept, Place, Row};

/// Most tickets that are kept.
pub const TICKETS_MAX: usize = 256;

/// The file below `state_dir`.
const FILE: &str = "approvals.json";

/// What wants an approval.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is bound to.
    pub binding: Binding,
    /// What the policies ask.
    pub need: Need,
    /// The statement as its record has it: protected values are masked.
    pub statement: String,
    /// Its effects in words.
    pub effects: Vec<String>,
    /// Why it is denied as it stands.
    pub reason: String,
    /// By which policies.
    pub policies: Vec<String>,
}

/// How the waiting for an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There is an answer.
    Answered,
    /// The policy's time to wait is over.
    TooLong,
    /// The client cancelled.
    Cancelled,
}

/// The tickets of this host.
pub struct Approvals {
    state_dir: PathBuf,
    agent_id: String,
    journal: Journal,
    rows: Mutex<Vec<Row>>,
    changed: watch::Sender<u64>,
    cancels: Mutex<HashMap<Bytes, Arc<Notify>>>,
}

impl Approvals {
    /// The tickets that this directory holds.
    pub fn open(state_dir: &Path, agent_id: &str, journal: Journal) -> anyhow::Result<Self> {
        let path = state_dir.join(FILE);
        let rows = match std::fs::read(&path) {
            Ok(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{}: move it away to begin anew", path.display()))?;
                kept.tickets
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self {
            state_dir: state_dir.to_path_buf(),
            agent_id: agent_id.to_owned(),
            journal,
            rows: Mutex::new(rows),
            changed: watch::channel(0).0,
            cancels: Mutex::default(),
        })
    }

    /// The ticket for it: one that is there and in time, or a new one. The error is for the client.
    pub fn ask(&self, wanted: &Wanted) -> Result<String, String> {
        self.ask_at(wanted, &now()?)
    }

    fn ask_at(&self, wanted: &Wanted, now: &Clock) -> Result<String, String> {
        let mut rows = self.rows();
        self.forget_old(&mut rows, now);
        let known =
            rows.iter().find(|row| row.is_for(&wanted.binding, &wanted.need) && !row.is_spent(now));
        if let Some(row) = known {
            return Ok(row.id.clone());
        }
        if rows.len() >= TICKETS_MAX {
            return Err(format!("{TICKETS_MAX} requests for approval wait already on this host"));
        }
        let (mut bytes, mut salt) = ([0; 16], [0; 32]);
        getrandom::fill(&mut bytes)
            .and_then(|()| getrandom::fill(&mut salt))
            .map_err(|error| format!("no random bytes: {error}"))?;
        let id = hex::encode(bytes);
        rows.push(Row::new(&id, salt, wanted, now));
        if let Err(error) = self.keep(&rows) {
            rows.pop();
            return Err(format!("the request can't be kept: {error:#}"));
        }
        let detail = format!("request {id}: {} needs {}", wanted.statement, wanted.need.words());
        self.record("asked", &wanted.binding, &detail);
        drop(rows);
        self.changed.send_modify(|count| *count += 1);
        Ok(id)
    }

    /// Waits for the answer, at most so many seconds.
    pub async fn wait(self: Arc<Self>, id: String, key: Option<Bytes>, seconds: u64) -> Waited {
        let cancelled = Arc::new(Notify::new());
        let _listed = key.map(|key| Listed::new(&self, key, &cancelled));
        let mut changed = self.changed.subscribe();
        let answered = changed.wait_for(|_| self.is_answered(&id));
        tokio::select! {
            _ = answered => Waited::Answered,
            () = cancelled.notified() => Waited::Cancelled,
            () = tokio::time::sleep(Duration::from_secs(seconds)) => Waited::TooLong,
        }
    }

    /// Ends the waiting of the session that this cancel request is for; whether there is one.
    pub fn cancel(&self, key: &Bytes) -> bool {
        let waiting = lock(&self.cancels).get(key).cloned();
        waiting.is_some_and(|waiting| {
            waiting.notify_one();
            true
        })
    }

    fn is_answered(&self, id: &str) -> bool {
        self.rows().iter().any(|row| row.id == id && row.place != Place::Waiting)
    }

    /// Takes the leave of a ticket for what is asked now. The error is for the client.
    pub fn redeem(&self, id: &str, asked: &Binding) -> Result<Approved, String> {
        self.redeem_at(id, asked, &now()?)
    }

    fn redeem_at(&self, id: &str, asked: &Binding, now: &Clock) -> Result<Approved, String> {
        let mut rows = self.rows();
        let done = self.redeem_row(&mut rows, id, asked, now);
        let (outcome, detail) = match &done {
            Ok(_) => ("passed", format!("request {id}: used")),
            Err(why) => ("refused", format!("request {id}: {why}")),
        };
        self.record(outcome, asked, &detail);
        done
    }

    fn redeem_row(
        &self,
        rows: &mut [Row],
        id: &str,
        asked: &Binding,
        now: &Clock,
    ) -> Result<Approved, String> {
        let at = rows.iter().position(|row| row.id == id).ok_or("there is no such request")?;
        let row = rows.get_mut(at).ok_or("there is no such request")?;
        let Place::Answered { body, signature } = &row.place else {
            return Err("nobody has answered yet".to_owned());
        };
        let facts = self.read(body, signature)?;
        if !facts.granted {
            let names: Vec<&str> = facts.people.iter().map(|one| one.name.as_str()).collect();
            return Err(format!("denied by {}", names.join(", ")));
        }
        let ticket = row.ticket()?;
        let approved =
            approval::check(&ticket, &grant(facts)?, asked, row.first_use().as_ref(), now)
                .map_err(|unfit| unfit.to_string())?;
        if row.first_use().is_none() {
            row.use_first(now);
            if let Err(error) = self.keep(rows) {
                return Err(format!("its use can't be kept: {error:#}"));
            }
        }
        Ok(approved)
    }

    /// Reads an answer of our collector to us.
    fn read(&self, body: &[u8], signature: &[u8]) -> Result<AnswerFacts, String> {
        let key = Enrolment::load(&self.state_dir)
            .and_then(|enrolment| enrolment.log_key())
            .map_err(|error| format!("no collector's key: {error:#}"))?;
        let facts =
            answer::verify(body, signature, key.key()).map_err(|error| error.to_string())?;
        if facts.agent_id != self.agent_id {
            return Err("the answer is for another agent".to_owned());
        }
        Ok(facts)
    }

    /// Takes an answer in, where it is one and is for a ticket that waits.
    pub fn answered(&self, came: &ApprovalAnswer) -> Result<(), String> {
        let facts = match self.read(&came.body, &came.signature) {
            Ok(facts) => facts,
            Err(why) => return Err(self.not_an_answer(why)),
        };
        let mut rows = self.rows();
        let waits = |row: &&mut Row| row.id == facts.id && row.place == Place::Waiting;
        let Some(row) = rows.iter_mut().find(waits) else {
            return Err("it is for no request that waits".to_owned());
        };
        let ticket = row.ticket()?;
        if facts.binding != ticket.digest() || facts.deadline_ns != ticket.deadline_ns() {
            let why = format!("request {}: the answer is for something else", facts.id);
            return Err(self.not_an_answer(why));
        }
        let (body, signature) = (came.body.to_vec(), came.signature.to_vec());
        row.place = Place::Answered { body, signature };
        if let Err(error) = self.keep(&rows) {
            tracing::error!(error = format!("{error:#}"), "an answer can't be kept");
        }
        let names: Vec<&str> = facts.people.iter().map(|one| one.name.as_str()).collect();
        let (outcome, word) = if facts.granted { ("open", "granted") } else { ("ended", "denied") };
        let detail = format!("request {}: {word} by {}", facts.id, names.join(", "));
        self.record(outcome, &ticket.binding, &detail);
        drop(rows);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn not_an_answer(&self, why: String) -> String {
        self.write(&Found { detail: &why, ..crate::findings::plain("approval", "refused", "") });
        why
    }

    /// What waits for an answer.
    pub fn waiting(&self) -> Vec<ApprovalRequest> {
        let Ok(now) = now() else { return Vec::new() };
        let rows = self.rows();
        let waiting = rows.iter().filter(|row| row.place == Place::Waiting && !row.is_spent(&now));
        waiting.filter_map(Row::request).collect()
    }

    fn forget_old(&self, rows: &mut Vec<Row>, now: &Clock) {
        rows.retain(|row| {
            let Ok(ticket) = row.ticket() else { return false };
            let in_time = ticket.is_in_time(now);
            if !in_time && row.place == Place::Waiting {
                let detail = format!("request {}: expired without an answer", row.id);
                self.record("ended", &ticket.binding, &detail);
            }
            in_time
        });
    }

    fn keep(&self, rows: &[Row]) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&Kept { v: 1, tickets: rows.to_vec() })?;
        replace(&self.state_dir.join(FILE), &text, SECRET)
    }

    fn record(&self, outcome: &str, about: &Binding, detail: &str) {
        self.write(&Found {
            detail,
            principal: &about.principal,
            target: &about.target,
            ..crate::findings::plain("approval", outcome, "")
        });
    }

    fn write(&self, found: &Found<'_>) {
        if let Err(error) = self.journal.finding(found) {
            tracing::error!(%error, "what became of an approval could not be recorded");
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        lock(&self.rows)
    }
}

/// A session that can be cancelled while it waits, for as long as it waits.
struct Listed<'a> {
    approvals: &'a Approvals,
    key: Bytes,
}

impl<'a> Listed<'a> {
    fn new(approvals: &'a Approvals, key: Bytes, cancelled: &Arc<Notify>) -> Self {
        lock(&approvals.cancels).insert(key.clone(), Arc::clone(cancelled));
        Self { approvals, key }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.approvals.cancels).remove(&self.key);
    }
}

fn grant(facts: AnswerFacts) -> Result<Grant, String> {
    let people = facts.people.into_iter();
    Ok(Grant {
        id: facts.id,
        binding: facts.binding.as_slice().try_into().map_err(|_| "a digest of another length")?,
        deadline_ns: facts.deadline_ns,
        people: people.map(|one| Approver { name: one.name, groups: one.groups }).collect(),
    })
}

/// The host's clocks now.
fn now() -> Result<Clock, String> {
    let boot_id = tidegate_journal::boot_id().map_err(|error| format!("no boot id: {error}"))?;
    Ok(Clock { boot_id, wall_ns: SystemClock.wall_ns(), boot_ns: SystemClock.boot_ns() })
}

/// What it guards is whole between calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
