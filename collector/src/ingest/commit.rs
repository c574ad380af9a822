//! The committing thread: checks batches, appends them, syncs once for all that waited, answers.
//!
//! Promise: no answer leaves before the sync that it speaks of. When a sync fails nobody gets a
//! receipt, the thread ends, and the collector stops: what is on the disk is read again at the
//! next start.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::checkpoint::{self, VerifierKey};
use tidegate_ledger::receipt::{self, ReceiptFacts};
use tidegate_ledger::seal::SealFacts;
use tidegate_ledger::{Genesis, SigningKey, chain_value};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::{Administration, CollectorEntry, Equivocation, Missing};
use tidegate_proto::entry;
use tidegate_proto::uplink::v1::collector_message::Message;
use tidegate_proto::uplink::v1::refused::Why;
use tidegate_proto::uplink::v1::{Batch, HelloAck, Receipt, Refused};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::chains::{Chains, Checked, Held, fork};
use super::{BatchJob, HelloJob, Job, Signed, StreamEnd, refusal};
use crate::acts::{self, ACTS_AT_ONCE_MAX};
use crate::log::{FRAME_RECORD, FRAME_SEAL, Writer};
use crate::silence::{self, Silences};
use crate::state::{Agent, Fork, State};
use crate::{clock, index, seen, tlog};

/// Jobs that wait at most; then streams wait.
pub const JOBS_QUEUED_MAX: usize = 1024;
/// A group commit takes no further job above this many bytes of records.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A group commit takes at most this many jobs.
pub const GROUP_JOBS_MAX: usize = 512;

/// Most holes that are remembered as told, until the next start.
pub const HOLES_TOLD_MAX: usize = 4096;

/// The thread's state.
pub struct Committer {
    /// The log.
    pub log: Writer,
    /// What it holds of each chain.
    pub chains: Chains,
    /// Signs receipts.
    pub key: SigningKey,
    /// Seals the collector's own chain.
    pub audit_key: SigningKey,
    /// The last act that is in the log.
    pub last_act: u64,
    /// What to write into the own chain at the next tick.
    pub own: Vec<Body>,
    /// Agents that are not heard of.
    pub silences: Silences,
    /// Holes that were told already: chain and place.
    pub told: HashSet<(ChainId, u64)>,
    /// Where contradictions are kept.
    pub seen: PathBuf,
    /// Tiles, to look up the root of an older size.
    pub tlog: PathBuf,
    /// Shows each checkpoint to agents and witnesses.
    pub signed: watch::Sender<Option<Arc<Signed>>>,
    /// Fork evidence, and whether an agent may begin a chain afresh.
    pub state: Arc<State>,
    /// For batches that are too old for memory.
    pub index: PathBuf,
    /// Tells followers how many entries are durable.
    pub durable: watch::Sender<u64>,
}

/// An answer that waits for the sync.
enum Answer {
    Hello(HelloJob),
    Receipt(Arc<StreamEnd>, ReceiptFacts, OwnedSemaphorePermit),
    Refusal(Arc<StreamEnd>, Refused, OwnedSemaphorePermit),
}

impl Committer {
    /// Works until every sender of jobs is gone, then closes the log in order.
    pub fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> anyhow::Result<()> {
        self.durable.send_replace(self.log.durable());
        while let Some(first) = jobs.blocking_recv() {
            let group = gather(first, &mut jobs);
            if let Err(error) = self.work(group) {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the log cannot be written; stopping"
                );
                return Err(error);
            }
        }
        self.own.push(administration("stopping", String::new()));
        self.write_own().context("the collector's own chain")?;
        let signed = self.signed;
        self.log.close(|last| {
            signed.send_replace(Some(Arc::new(last.clone())));
        })
    }

    fn work(&mut self, group: Vec<Job>) -> anyhow::Result<()> {
        let mut answers = Vec::with_capacity(group.len());
        let mut tick = false;
        let mut failed = None;
        let kept_before = self.last_act;
        for job in group {
            match job {
                Job::Tick => tick = true,
                Job::Reader(index, reply) => {
                    // Nobody waits where the follower has ended.
                    let _gone = reply.send(self.log.reader(index));
                }
                Job::MaySign => self.log.may_sign(true),
                Job::SetBack(error) => failed = Some(error),
                Job::Hello(hello) => {
                    failed = failed.or(self.set_back(&hello)?);
                    answers.push(Answer::Hello(hello));
                }
                Job::Batch(batch) if batch.stream.has_ended() => {}
                Job::Batch(batch) if failed.is_some() => {
                    batch.stream.refuse(refusal(Why::Storage, "the log cannot be written"));
                }
                Job::Batch(BatchJob { stream, agent, batch, permit }) => {
                    match self.take(&agent, &batch) {
                        Ok(Ok(facts)) => answers.push(Answer::Receipt(stream, facts, permit)),
                        Ok(Err(refused)) => {
                            // Nothing behind a refused batch may be taken from this stream.
                            stream.end();
                            answers.push(Answer::Refusal(stream, refused, permit));
                        }
                        Err(error) => {
                            stream.refuse(refusal(Why::Storage, "the log cannot be written"));
                            failed = Some(error);
                        }
                    }
                }
            }
        }
        if failed.is_none() {
            if tick {
                failed = self.write_own().context("the collector's own chain").err();
            }
            failed = failed.or_else(|| self.log.commit().context("cannot sync the log").err());
        }
        if let Some(error) = failed {
            answers.into_iter().for_each(no_storage);
            return Err(error);
        }
        self.durable.send_replace(self.log.durable());
        for answer in merged(answers) {
            self.answer(answer);
        }
        if !tick {
            return Ok(());
        }
        if self.last_act > kept_before {
            self.state.acts_are_kept(self.last_act)?;
        }
        if self.log.checkpoint()?
            && let Some(signed) = self.log.signed()
        {
            self.signed.send_replace(Some(Arc::new(signed.clone())));
        }
        Ok(())
    }

    /// Puts what waits into the collector's own chain; synced with the next commit.
    fn write_own(&mut self) -> anyhow::Result<()> {
        let mut bodies: Vec<(u64, Body)> = Vec::new();
        for silence in self.silences.look(clock::boot_ns()) {
            tracing::error!("{}", index::sentence(&silence));
            self.own.push(silence);
        }
        for body in std::mem::take(&mut self.own) {
            bodies.push((clock::now_ns(), body));
        }
        for act in self.state.waiting_acts(self.last_act, ACTS_AT_ONCE_MAX)? {
            self.last_act = act.id;
            bodies.push((act.wall_ns, Body::Administration(act.body)));
        }
        self.append_own(bodies)
    }

    fn append_own(&mut self, bodies: Vec<(u64, Body)>) -> anyhow::Result<()> {
        let standing = self.chains.own(&self.audit_key.verifying_key().to_bytes());
        let Some(made) = acts::make(&self.audit_key, standing, bodies)? else { return Ok(()) };
        let (chain_id, received_ns) = (&made.facts.chain_id, clock::now_ns());
        for record in &made.records {
            let entry = entry::encode(Kind::Record, chain_id, received_ns, record);
            self.log.append(FRAME_RECORD, &entry)?;
        }
        let entry = entry::encode(Kind::Seal, chain_id, received_ns, &made.seal);
        let index = self.log.append(FRAME_SEAL, &entry)?;
        self.chains.took(&made.facts, made.genesis.as_ref(), &made.records, index)?;
        Ok(())
    }

    /// Whether the agent holds a promise of ours that this log cannot keep: then it was set back. What
    /// our key did not sign counts for nothing.
    fn set_back(&self, hello: &HelloJob) -> anyhow::Result<Option<anyhow::Error>> {
        let public = self.key.verifying_key().to_bytes();
        let agent = &hello.agent.agent_id;
        if let Some(held) = &hello.receipt
            && let Ok(facts) = receipt::verify(&held.body, &held.signature, &public)
        {
            let chain = self.chains.get(&facts.chain_id).and_then(Held::last_seal);
            let kept = chain.is_some_and(|sealed| sealed.last >= facts.durable);
            if !kept || facts.last_index >= self.log.size() {
                seen::keep_receipt(&self.seen, agent, &held.body, &held.signature)?;
                let what = format!("a receipt for entry {}", facts.last_index);
                return Ok(Some(set_back(agent, &what, self.log.size())));
            }
        }
        let Some(signed) = self.log.signed() else { return Ok(None) };
        let origin = &signed.head.origin;
        let Ok(verifier) = VerifierKey::new(origin, public) else { return Ok(None) };
        let Ok(head) = checkpoint::open(&hello.checkpoint, &verifier) else { return Ok(None) };
        let other = match head.size {
            size if size > signed.head.size => true,
            size if size == signed.head.size => head.root != signed.head.root,
            size => tlog::root(&self.tlog, size).is_some_and(|root| root != head.root),
        };
        if !other {
            return Ok(None);
        }
        seen::keep_checkpoint(&self.seen, agent, &hello.checkpoint)?;
        let what = format!("a checkpoint over {} entries", head.size);
        Ok(Some(set_back(agent, &what, self.log.size())))
    }

    /// Checks and appends one batch. The inner error is the agent's, the outer one is ours.
    fn take(
        &mut self,
        agent: &Agent,
        batch: &Batch,
    ) -> anyhow::Result<Result<ReceiptFacts, Refused>> {
        let checked = match self.enrolled_now(agent, batch)? {
            Some(now) => self.chains.check(&now, &batch.records, &batch.seal),
            None => Err(refusal(Why::UnknownAgent, "the agent is not enrolled any more")),
        };
        let received_ns = clock::now_ns();
        match checked {
            Ok(Checked::Take { facts, skip, genesis }) => {
                self.append(agent, batch, &facts, skip, genesis.as_deref(), received_ns).map(Ok)
            }
            Ok(Checked::Held(sealed)) => Ok(Ok(ReceiptFacts {
                chain_id: chain_of(batch)?,
                durable: sealed.last,
                chain_value: sealed.value,
                first_index: sealed.index,
                last_index: sealed.index,
                received_ns,
            })),
            Ok(Checked::Find(facts)) => match self.find(&facts.chain_id, facts.last)? {
                Some((value, index)) if value == facts.chain_value => Ok(Ok(ReceiptFacts {
                    chain_id: facts.chain_id,
                    durable: facts.last,
                    chain_value: value,
                    first_index: index,
                    last_index: index,
                    received_ns,
                })),
                Some(_) => self.refuse(agent, batch, fork(facts.last)).map(Err),
                None => Ok(Err(refusal(Why::Storage, "the index is behind; try again later"))),
            },
            Err(refused) => self.refuse(agent, batch, refused).map(Err),
        }
    }

    /// The agent as it is enrolled now, where the batch begins a chain; else as it was when its
    /// stream began, since a chain's key never changes.
    fn enrolled_now<'a>(
        &self,
        agent: &'a Agent,
        batch: &Batch,
    ) -> anyhow::Result<Option<Cow<'a, Agent>>> {
        match chain_of(batch) {
            Ok(chain_id) if self.chains.get(&chain_id).is_none() => {
                Ok(self.state.agent(&agent.agent_id)?.map(Cow::Owned))
            }
            _ => Ok(Some(Cow::Borrowed(agent))),
        }
    }

    fn append(
        &mut self,
        agent: &Agent,
        batch: &Batch,
        facts: &SealFacts,
        skip: usize,
        genesis: Option<&Genesis>,
        received_ns: u64,
    ) -> anyhow::Result<ReceiptFacts> {
        let first_index = self.log.size();
        let chain_id = &facts.chain_id;
        let fresh: Vec<Bytes> = batch.records.iter().skip(skip).cloned().collect();
        for record in &fresh {
            let entry = entry::encode(Kind::Record, chain_id, received_ns, record);
            self.log.append(FRAME_RECORD, &entry).context("cannot append to the log")?;
        }
        let entry = entry::encode(Kind::Seal, chain_id, received_ns, &batch.seal);
        let last_index = self.log.append(FRAME_SEAL, &entry).context("cannot append to the log")?;
        self.chains.took(facts, genesis, &fresh, last_index)?;
        if fresh.iter().any(|record| silence::is_heartbeat(record)) {
            let ended = self.silences.heard(&agent.agent_id, received_ns, clock::boot_ns());
            self.own.extend(ended);
        }
        if genesis.is_some() {
            self.state.chain_began(&agent.agent_id)?;
            tracing::info!(agent = %agent.agent_id, chain = %chain_id, "a chain began");
        }
        Ok(ReceiptFacts {
            chain_id: *chain_id,
            durable: facts.last,
            chain_value: facts.chain_value,
            first_index,
            last_index,
            received_ns,
        })
    }

    /// Keeps what contradicts the log, in the log too, and says so once, here.
    fn refuse(
        &mut self,
        agent: &Agent,
        batch: &Batch,
        refused: Refused,
    ) -> anyhow::Result<Refused> {
        if refused.why() == Why::Fork {
            let chain_id = chain_of(batch)?;
            let kept = Fork {
                agent_id: &agent.agent_id,
                chain_id: chain_id.as_bytes(),
                seq: refused.expected_seq,
                detail: &refused.detail,
                batch: &batch.encode_to_vec(),
            };
            if self.state.keep_fork(&kept, clock::now_ns())? {
                let equivocation = Equivocation {
                    agent_id: agent.agent_id.clone(),
                    chain_id: Bytes::copy_from_slice(chain_id.as_bytes()),
                    seq: refused.expected_seq,
                    seal: batch.seal.clone(),
                    batch_sha256: Bytes::copy_from_slice(&Sha256::digest(kept.batch)),
                    detail: refused.detail.clone(),
                };
                self.append_own(vec![(clock::now_ns(), Body::Equivocation(equivocation))])?;
            }
            tracing::error!(
                agent = %agent.agent_id, chain = %chain_id, detail = %refused.detail,
                "FORK: an agent signed two histories; the second is kept in state.db, table forks"
            );
        } else {
            if refused.why() == Why::NotContiguous
                && let Some(first) = batch.records.first()
                && let Ok(header) = tidegate_ledger::Header::read(first)
            {
                self.miss(&agent.agent_id, header.chain_id, header.seq, &refused);
            }
            tracing::warn!(
                agent = %agent.agent_id, why = refused.why().as_str_name(),
                detail = %refused.detail, "batch refused"
            );
        }
        Ok(refused)
    }

    /// Notes once, for the own chain, that records before `next` are not here.
    fn miss(&mut self, agent_id: &str, chain_id: ChainId, next: Seq, refused: &Refused) {
        let from_seq = refused.expected_seq;
        let Some(to_seq) = next.0.checked_sub(1).filter(|to| *to >= from_seq) else { return };
        if self.told.len() < HOLES_TOLD_MAX && self.told.insert((chain_id, next.0)) {
            self.own.push(Body::Missing(Missing {
                agent_id: agent_id.to_owned(),
                chain_id: Bytes::copy_from_slice(chain_id.as_bytes()),
                from_seq,
                to_seq,
                detail: refused.detail.clone(),
            }));
        }
    }

    /// Chain value and log index of a record that is in the log, by way of the index.
    fn find(&self, chain_id: &ChainId, seq: Seq) -> anyhow::Result<Option<([u8; 32], u64)>> {
        let Some((from, to)) = index::sealed_range(&self.index, chain_id, seq)? else {
            return Ok(None);
        };
        let mut reader = self.log.reader(from);
        while let Some(frame) = reader.next()? {
            if frame.index > to {
                break;
            }
            let entry = CollectorEntry::decode(frame.payload.as_slice())?;
            if entry.kind() == Kind::Record && entry.chain_id.as_ref() == chain_id.as_bytes() {
                let header = tidegate_ledger::Header::read(&entry.bytes)?;
                if header.seq == seq {
                    return Ok(Some((chain_value(&entry.bytes), frame.index)));
                }
            }
        }
        Ok(None)
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Hello(job) => {
                let ack = self.hello(&job);
                if let Err(refused) = &ack {
                    tracing::warn!(
                        agent = %job.agent.agent_id, why = refused.why().as_str_name(),
                        detail = %refused.detail, "stream refused"
                    );
                    if refused.why() == Why::NotContiguous
                        && let Some((chain_id, oldest)) = job.oldest
                    {
                        self.miss(&job.agent.agent_id, chain_id, oldest, refused);
                    }
                }
                // Nobody waits where the stream is gone.
                let _gone = job.reply.send(ack);
            }
            Answer::Receipt(stream, facts, _permit) => {
                let (body, signature) = receipt::sign(&self.key, &facts);
                let signature = Bytes::copy_from_slice(&signature);
                stream.send(Message::Receipt(Receipt { body: body.into(), signature }));
            }
            Answer::Refusal(stream, refused, _permit) => stream.refuse(refused),
        }
    }

    fn hello(&self, job: &HelloJob) -> Result<HelloAck, Refused> {
        let unknown = HelloAck { known: false, durable_seq: 0, chain_value: Bytes::new() };
        let Some((chain_id, oldest)) = &job.oldest else {
            return Ok(unknown);
        };
        let Some(held) = self.chains.get(chain_id) else {
            if *oldest == Seq(0) {
                return Ok(unknown);
            }
            let detail = "the spool begins in the middle of a chain of which nothing is here";
            return Err(refusal(Why::NotContiguous, detail));
        };
        if held.agent_id() != job.agent.agent_id {
            return Err(refusal(Why::UnknownAgent, "the chain is another agent's"));
        }
        let Some(sealed) = held.last_seal() else {
            return Ok(unknown);
        };
        if *oldest > sealed.last.next() {
            let expected_seq = sealed.last.next().0;
            let detail = format!("the spool begins at {oldest}; expected {expected_seq}");
            return Err(Refused { expected_seq, ..refusal(Why::NotContiguous, detail) });
        }
        Ok(HelloAck {
            known: true,
            durable_seq: sealed.last.0,
            chain_value: Bytes::copy_from_slice(&sealed.value),
        })
    }
}

/// A receipt covers all that came before it on its chain, so of those for one stream the last is enough.
fn merged(answers: Vec<Answer>) -> Vec<Answer> {
    let mut kept: Vec<Answer> = Vec::with_capacity(answers.len());
    for answer in answers {
        if let Answer::Receipt(stream, facts, _) = &answer {
            let before = kept.iter_mut().rev().find_map(|kept| match kept {
                Answer::Receipt(of, before, _) if Arc::ptr_eq(of, stream) => Some(before),
                _ => None,
            });
            // One that ends earlier answers a batch that was sent again, and says its own.
            if let Some(before) = before
                && before.chain_id == facts.chain_id
                && before.durable < facts.durable
            {
                *before = ReceiptFacts { first_index: before.first_index, ..*facts };
                continue;
            }
        }
        kept.push(answer);
    }
    kept
}

fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while group.len() < GROUP_JOBS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.bytes();
        group.push(job);
    }
    group
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Batch(job) => job.batch.records.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }
}

fn no_storage(answer: Answer) {
    let refused = || refusal(Why::Storage, "the log cannot be written; try again later");
    match answer {
        Answer::Hello(job) => {
            let _gone = job.reply.send(Err(refused()));
        }
        Answer::Receipt(stream, ..) | Answer::Refusal(stream, ..) => stream.refuse(refused()),
    }
}

fn chain_of(batch: &Batch) -> anyhow::Result<ChainId> {
    let first = batch.records.first().context("a batch without records")?;
    Ok(tidegate_ledger::Header::read(first)?.chain_id)
}

/// An act of the collector itself.
pub fn administration(act: &str, detail: String) -> Body {
    let who = acts::who();
    Body::Administration(Administration {
        act: act.to_owned(),
        who,
        detail,
        ..Administration::default()
    })
}

fn set_back(agent: &str, what: &str, size: u64) -> anyhow::Error {
    anyhow::anyhow!(
        "agent {agent} holds {what}, signed by this log's key, which this log of {size} entries does not \
         keep: it was set back, or another collector writes under its name. It is not served. Bring back \
         the newer data"
    )
}
