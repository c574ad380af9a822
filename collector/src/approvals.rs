//! Requests for approval: who may answer, who has, and the signed answer.
//!
//! Promises: a request is granted only by different people of the roster (`[[approvers]]`), of the groups
//! that its policies name, none of whom speaks for the account that asks, while it is in time; each is
//! looked up in the roster again when the answer is signed. An answer is signed once and then stays.
//! Every request, vote, refused vote and answer is an act in the collector's own chain, before it has
//! its effect.
//!
//! What it can't do: tell people apart who share a login of this host; keep who can write `state.db`
//! and read the log's key from making an answer.
//!
//! Limits: [`REQUESTS_MAX`] of one agent's requests are open at once.

use std::collections::BTreeSet;

use prost::Message as _;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use tidegate_ledger::SigningKey;
use tidegate_ledger::approval::{self, AnswerFacts, Person};
use tidegate_proto::uplink::v1::{ApprovalAnswer, ApprovalRequest};

use crate::acts::Act;
use crate::clock::signed_ns;
use crate::state::State;

pub mod service;

/// Most open requests of one agent.
pub const REQUESTS_MAX: usize = 256;
/// Longest note of a vote, in bytes.
pub const NOTE_BYTES_MAX: usize = 512;

/// Tables in `state.db`.
pub const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS approvals (
        id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, request BLOB NOT NULL,
        received_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL,
        body BLOB, signature BLOB) STRICT;
    CREATE TABLE IF NOT EXISTS approval_votes (
        id TEXT NOT NULL, name TEXT NOT NULL, granted INTEGER NOT NULL, note TEXT NOT NULL,
        voted_ns INTEGER NOT NULL, PRIMARY KEY (id, name)) STRICT;
";

/// `[[approvers]]`: somebody who may answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// The name in records.
    pub name: String,
    /// The user id under which they log in at this host.
    pub uid: u32,
    /// Groups that policies name.
    pub groups: Vec<String>,
    /// Service accounts that they speak for: never approved by them.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// A request with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The agent that asked.
    pub agent_id: String,
    /// What it asks.
    pub request: ApprovalRequest,
    /// When it came.
    pub received_ns: u64,
    /// The votes, oldest first.
    pub votes: Vec<Vote>,
    /// Whether it was granted; `None` while it is open.
    pub granted: Option<bool>,
}

/// One vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Whose.
    pub name: String,
    /// For or against.
    pub granted: bool,
    /// In their words.
    pub note: String,
}

/// What a vote came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Enough: the agent is told.
    Granted,
    /// One is enough.
    Denied,
    /// More people are needed.
    MoreNeeded,
}

/// Somebody's vote as it comes.
#[derive(Debug, Clone, Copy)]
pub struct Ballot<'a> {
    /// The request.
    pub id: &'a str,
    /// Whose, by the user id of this host.
    pub uid: u32,
    /// For or against.
    pub granted: bool,
    /// In their words.
    pub note: &'a str,
}

/// Whether the roster can be used.
pub fn check_roster(roster: &[Approver]) -> anyhow::Result<()> {
    let (mut names, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for one in roster {
        anyhow::ensure!(!one.name.is_empty(), "[[approvers]]: a name is empty");
        anyhow::ensure!(names.insert(&one.name), "[[approvers]]: {:?} is there twice", one.name);
        anyhow::ensure!(
            uids.insert(one.uid),
            "[[approvers]]: uid {} is there twice: two names would be one person",
            one.uid
        );
        anyhow::ensure!(!one.groups.is_empty(), "[[approvers]]: {:?} has no group", one.name);
    }
    Ok(())
}

/// Those of these votes that count now, with the groups of the roster.
fn people(roster: &[Approver], request: &ApprovalRequest, votes: &[Vote]) -> Vec<Person> {
    let granted = votes.iter().filter(|vote| vote.granted);
    let known = granted.filter_map(|vote| roster.iter().find(|one| one.name == vote.name));
    let fit = known.filter(|one| may_answer(one, request).is_ok());
    fit.map(|one| Person { name: one.name.clone(), groups: one.groups.clone() }).collect()
}

fn may_answer(one: &Approver, request: &ApprovalRequest) -> Result<(), String> {
    if one.name == request.principal || one.accounts.contains(&request.principal) {
        return Err(format!("{} speaks for the account that asks", one.name));
    }
    let named = request.demands.iter().flat_map(|demand| &demand.groups);
    if !named.into_iter().any(|group| one.groups.contains(group)) {
        return Err(format!("{} is in none of the groups that the policies name", one.name));
    }
    Ok(())
}

fn is_met(request: &ApprovalRequest, people: &[Person]) -> bool {
    !request.demands.is_empty()
        && request.demands.iter().all(|demand| {
            let fits = |one: &&Person| one.groups.iter().any(|group| demand.groups.contains(group));
            let names: BTreeSet<&str> =
                people.iter().filter(fits).map(|one| one.name.as_str()).collect();
            demand.people > 0
                && u32::try_from(names.len()).is_ok_and(|number| number >= demand.people)
        })
}

impl State {
    /// Takes a request in; one that is there already must be the same.
    pub fn approval_asked(
        &self,
        agent_id: &str,
        request: &ApprovalRequest,
        now_ns: u64,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            request.id.len() == 32 && request.id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "a request's id is 32 hexadecimal digits"
        );
        anyhow::ensure!(request.binding.len() == 32, "a request's binding is 32 bytes");
        let bytes = request.encode_to_vec();
        if let Some(known) = self.approval(&request.id)? {
            anyhow::ensure!(
                known.agent_id == agent_id && known.request == *request,
                "request {}: it came before with another content",
                request.id
            );
            return Ok(());
        }
        let open: usize = self.db().query_row(
            "SELECT count(*) FROM approvals
             WHERE agent_id = ?1 AND body IS NULL AND deadline_ns > ?2",
            params![agent_id, signed_ns(now_ns)],
            |row| row.get(0),
        )?;
        anyhow::ensure!(open < REQUESTS_MAX, "{agent_id} has {REQUESTS_MAX} requests open");
        let detail = format!(
            "request {} of agent {agent_id}: {} on {} wants {}",
            request.id, request.principal, request.target, request.statement
        );
        let digest = request.binding.to_vec();
        self.act_by("agent", &Act { digest, ..Act::new("approval_asked", detail) })?;
        self.db().execute(
            "INSERT OR IGNORE INTO approvals (id, agent_id, request, received_ns, deadline_ns)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![request.id, agent_id, bytes, signed_ns(now_ns), signed_ns(request.deadline_ns)],
        )?;
        Ok(())
    }

    /// One request.
    pub fn approval(&self, id: &str) -> anyhow::Result<Option<Entry>> {
        let db = self.db();
        let row = db
            .query_row(
                "SELECT agent_id, request, received_ns, body FROM approvals WHERE id = ?1",
                [id],
                |row| {
                    let body: Option<Vec<u8>> = row.get(3)?;
                    Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?, body))
                },
            )
            .optional()?;
        let Some((agent_id, request, received_ns, body)) = row else { return Ok(None) };
        let mut votes = db.prepare(
            "SELECT name, granted, note FROM approval_votes WHERE id = ?1 ORDER BY voted_ns, name",
        )?;
        let votes = votes.query_map([id], |row| {
            Ok(Vote { name: row.get(0)?, granted: row.get(1)?, note: row.get(2)? })
        })?;
        let answer = body.map(|body| AnswerFacts::decode(body.as_slice())).transpose()?;
        Ok(Some(Entry {
            agent_id,
            request: ApprovalRequest::decode(request.as_slice())?,
            received_ns: u64::try_from(received_ns).unwrap_or(0),
            votes: votes.collect::<Result<_, _>>()?,
            granted: answer.map(|facts| facts.granted),
        }))
    }

    /// The requests, newest first.
    pub fn approvals(&self, most: usize) -> anyhow::Result<Vec<Entry>> {
        let ids = {
            let db = self.db();
            let mut ids =
                db.prepare("SELECT id FROM approvals ORDER BY received_ns DESC, id LIMIT ?1")?;
            let ids = ids.query_map([most], |row| row.get::<_, String>(0))?;
            ids.collect::<Result<Vec<_>, _>>()?
        };
        ids.iter().filter_map(|id| self.approval(id).transpose()).collect()
    }

    /// Counts a vote. The inner error says why it does not count; that is an act, too.
    pub fn vote(
        &self,
        roster: &[Approver],
        ballot: Ballot<'_>,
        now_ns: u64,
    ) -> anyhow::Result<Result<Counted, String>> {
        let (name, entry) = match self.may_vote(roster, ballot, now_ns)? {
            Ok(fit) => fit,
            Err(why) => {
                let detail = format!("request {}: uid {}: {why}", ballot.id, ballot.uid);
                self.act(&Act::new("approval_refused", detail))?;
                return Ok(Err(why));
            }
        };
        let word = if ballot.granted { "granted" } else { "denied" };
        let detail = format!("request {}: {word} by {name}: {}", ballot.id, ballot.note);
        let digest = entry.request.binding.to_vec();
        let act = if ballot.granted { "approval_granted" } else { "approval_denied" };
        self.act(&Act { digest, ..Act::new(act, detail) })?;
        let counted = self.db().execute(
            "INSERT OR IGNORE INTO approval_votes (id, name, granted, note, voted_ns)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![ballot.id, name, ballot.granted, ballot.note, signed_ns(now_ns)],
        )?;
        if counted != 1 {
            return Ok(Err(format!("{name} has voted already")));
        }
        if !ballot.granted {
            return Ok(Ok(Counted::Denied));
        }
        let votes = self.approval(ballot.id)?.map(|entry| entry.votes).unwrap_or_default();
        let enough = is_met(&entry.request, &people(roster, &entry.request, &votes));
        Ok(Ok(if enough { Counted::Granted } else { Counted::MoreNeeded }))
    }

    fn may_vote(
        &self,
        roster: &[Approver],
        ballot: Ballot<'_>,
        now_ns: u64,
    ) -> anyhow::Result<Result<(String, Entry), String>> {
        let Some(one) = roster.iter().find(|one| one.uid == ballot.uid) else {
            return Ok(Err(format!("uid {} is nobody of the roster", ballot.uid)));
        };
        let Some(entry) = self.approval(ballot.id)? else {
            return Ok(Err("there is no such request".to_owned()));
        };
        let refused = if ballot.note.len() > NOTE_BYTES_MAX {
            Err(format!("the note is longer than {NOTE_BYTES_MAX} bytes"))
        } else if entry.granted.is_some() {
            Err("it was answered already".to_owned())
        } else if entry.votes.iter().any(|vote| !vote.granted) {
            Err("it was denied already".to_owned())
        } else if entry.votes.iter().any(|vote| vote.name == one.name) {
            Err(format!("{} has voted already", one.name))
        } else if now_ns >= entry.request.deadline_ns {
            Err("its time is over".to_owned())
        } else {
            may_answer(one, &entry.request)
        };
        Ok(refused.map(|()| (one.name.clone(), entry)))
    }

    /// The signed answer to a request, where it is decided.
    pub fn approval_answer(
        &self,
        roster: &[Approver],
        key: &SigningKey,
        id: &str,
        now_ns: u64,
    ) -> anyhow::Result<Option<ApprovalAnswer>> {
        if let Some(kept) = self.kept_answer(id)? {
            return Ok(Some(kept));
        }
        let Some(entry) = self.approval(id)? else { return Ok(None) };
        let against = entry.votes.iter().find(|vote| !vote.granted);
        let (granted, people) = if let Some(vote) = against {
            (false, vec![Person { name: vote.name.clone(), groups: Vec::new() }])
        } else {
            let people = people(roster, &entry.request, &entry.votes);
            if !is_met(&entry.request, &people) || now_ns >= entry.request.deadline_ns {
                return Ok(None);
            }
            (true, people)
        };
        let facts = AnswerFacts {
            id: id.to_owned(),
            agent_id: entry.agent_id,
            binding: entry.request.binding.to_vec(),
            deadline_ns: entry.request.deadline_ns,
            granted,
            people,
            decided_ns: now_ns,
        };
        let (body, signature) = approval::sign(key, &facts);
        let word = if granted { "granted" } else { "denied" };
        let detail = format!("request {id}: the agent is told that it is {word}");
        self.act(&Act { digest: facts.binding, ..Act::new("approval_answered", detail) })?;
        self.db().execute(
            "UPDATE approvals SET body = ?2, signature = ?3 WHERE id = ?1 AND body IS NULL",
            params![id, body, signature],
        )?;
        self.kept_answer(id)
    }

    fn kept_answer(&self, id: &str) -> anyhow::Result<Option<ApprovalAnswer>> {
        let row = self
            .db()
            .query_row(
                "SELECT body, signature FROM approvals WHERE id = ?1 AND body IS NOT NULL",
                [id],
                |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)),
            )
            .optional()?;
        Ok(row.map(|(body, signature)| ApprovalAnswer {
            body: body.into(),
            signature: signature.into(),
        }))
    }
}
