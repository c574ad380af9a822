//! The stream: Hello, batches with a bounded window, receipts, and coming back after a failure.
//!
//! Limits: at most [`BATCHES_IN_FLIGHT_MAX`] batches or [`BYTES_IN_FLIGHT_MAX`] bytes wait for
//! their receipt; beyond that nothing is read from the spool.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_ledger::receipt;
use tidegate_proto::uplink::v1::agent_message::Message as ToCollector;
use tidegate_proto::uplink::v1::collector_message::Message as FromCollector;
use tidegate_proto::uplink::v1::refused::Why;
use tidegate_proto::uplink::v1::uplink_client::UplinkClient;
use tidegate_proto::uplink::v1::{
    AgentMessage, Batch as BatchMessage, CollectorMessage, Hello, HelloAck, Receipt, Refused,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::enrolment::{Enrolment, connect_enrolled};
use super::held::Held;
use super::source::{Batch, Source};
use super::{Handle, Status};

/// Batches that may wait for their receipt.
pub const BATCHES_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of records that may wait for their receipt; one batch may be beyond it.
pub const BYTES_IN_FLIGHT_MAX: usize = 8 * 1024 * 1024;
/// The collector has this long for its greeting, and for the next receipt while one is due.
pub const ANSWER_MAX: Duration = Duration::from_mins(1);
/// First wait before the next try.
pub const WAIT_MS_MIN: u64 = 250;
/// Longest wait before the next try.
pub const WAIT_MS_MAX: u64 = 30_000;

/// Why a stream ended.
enum End {
    /// Try again.
    Again(anyhow::Error),
    /// An operator must look at it.
    GiveUp(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Again(error.into())
    }
}

/// Runs until the collector refuses for good; see [`super::start`].
pub async fn run(state_dir: PathBuf, agent_id: String, mut source: impl Source, handle: Handle) {
    let mut wait_ms = WAIT_MS_MIN;
    loop {
        let before = handle.status().batches;
        let end = connect(&state_dir, &agent_id, &mut source, &handle).await;
        let worked = handle.status().batches > before;
        let Err(End::Again(error) | End::GiveUp(error)) = &end else { return };
        let text = format!("{error:#}");
        let stopped = matches!(end, Err(End::GiveUp(_)));
        let news = {
            let mut status = handle.lock();
            let news = status.last_error.as_ref() != Some(&text);
            *status = Status {
                connected: false,
                last_error: Some(text.clone()),
                stopped,
                ..status.clone()
            };
            news
        };
        if stopped {
            tracing::error!(
                error = text,
                "the uplink has STOPPED; the spool keeps everything; see OPERATING"
            );
            return;
        }
        if worked {
            wait_ms = WAIT_MS_MIN;
        }
        if news || worked {
            tracing::warn!(error = text, "no uplink; the spool keeps everything");
        }
        sleep(jittered(wait_ms)).await;
        wait_ms = (wait_ms * 2).min(WAIT_MS_MAX);
    }
}

/// Between half and all of it, by chance, so that many agents don't come back in one moment.
fn jittered(wait_ms: u64) -> Duration {
    let half = wait_ms / 2;
    Duration::from_millis(half + getrandom::u64().unwrap_or(0) % (half + 1))
}

enum Never {}

async fn connect(
    state_dir: &Path,
    agent_id: &str,
    source: &mut impl Source,
    handle: &Handle,
) -> Result<Never, End> {
    let enrolment = Enrolment::load(state_dir)?;
    let log_key = enrolment.log_key()?;
    let channel = connect_enrolled(state_dir, &enrolment).await?;
    let oldest = source.oldest().await.context("the spool")?;
    let mut held = Held::load(state_dir, &log_key);
    source.saw_checkpoint(held.checkpoint());
    let (out, outgoing) = mpsc::channel(BATCHES_IN_FLIGHT_MAX + 1);
    let hello = Hello {
        agent_id: agent_id.to_owned(),
        chain_id: oldest
            .map_or(Bytes::new(), |(chain, _)| Bytes::copy_from_slice(chain.as_bytes())),
        next_seq: oldest.map_or(0, |(_, seq)| seq.0),
        receipt: held.receipt().cloned(),
        checkpoint: held.checkpoint().to_owned(),
        takes_checkpoints: true,
    };
    out.send(AgentMessage { message: Some(ToCollector::Hello(hello)) }).await?;
    let mut client = UplinkClient::new(channel);
    let opening = client.stream(ReceiverStream::new(outgoing));
    let opened = timeout(ANSWER_MAX, opening).await.context("the collector does not answer")?;
    let mut incoming = opened.map_err(said)?.into_inner();
    let first = timeout(ANSWER_MAX, incoming.message()).await;
    let first = first.context("the collector does not greet")?.map_err(said)?;
    let ack = match first.and_then(|message| message.message) {
        Some(FromCollector::HelloAck(ack)) => ack,
        Some(FromCollector::Refused(refused)) => return Err(refusal(&refused)),
        _ => return Err(End::Again(anyhow::anyhow!("the collector sent no HelloAck"))),
    };
    if let Some((chain, next)) = resume(oldest, &ack) {
        source.seek(chain, next).await.context("the spool")?;
    }
    {
        let mut status = handle.lock();
        status.connected = true;
        status.last_error = None;
    }
    tracing::info!(collector = %enrolment.address, "uplink connected");
    let window = Window::default();
    let flow = Flow { out, source, handle, log_key, window, held: &mut held, state_dir };
    let end = flow.run(&mut incoming).await;
    held.save(state_dir);
    end
}

/// Where to go on: with the last batch that the collector says it holds. What it says is not
/// signed, so it frees nothing; the receipt for that one batch, sent again, frees all of it.
fn resume(oldest: Option<(ChainId, Seq)>, ack: &HelloAck) -> Option<(ChainId, Seq)> {
    let (chain, seq) = oldest?;
    let held = if ack.known { Seq(ack.durable_seq) } else { seq };
    Some((chain, held.max(seq)))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the collector ended the stream: {:?} {}", status.code(), status.message())
}

fn refusal(refused: &Refused) -> End {
    let why = refused.why();
    let error = anyhow::anyhow!("the collector refused: {}: {}", why.as_str_name(), refused.detail);
    match why {
        Why::Fork | Why::UnknownAgent => End::GiveUp(error),
        _ => End::Again(error),
    }
}

/// What was sent and has no receipt yet.
#[derive(Default)]
struct Window {
    batches: VecDeque<Sent>,
    bytes: usize,
    due: Option<Instant>,
}

struct Sent {
    chain_id: ChainId,
    last: Seq,
    chain_value: [u8; 32],
    bytes: usize,
}

impl Window {
    fn is_open(&self) -> bool {
        self.batches.len() < BATCHES_IN_FLIGHT_MAX && self.bytes < BYTES_IN_FLIGHT_MAX
    }

    fn push(&mut self, batch: &Batch) {
        let bytes = batch.records.iter().map(Bytes::len).sum();
        self.bytes += bytes;
        let (chain_id, last, chain_value) = (batch.chain_id, batch.last, batch.chain_value);
        self.batches.push_back(Sent { chain_id, last, chain_value, bytes });
        self.due.get_or_insert_with(|| Instant::now() + ANSWER_MAX);
    }

    /// Takes out what the receipt covers; it must end exactly at a batch of ours.
    fn settle(&mut self, facts: &receipt::ReceiptFacts) -> Result<u64, End> {
        let at = self
            .batches
            .iter()
            .position(|sent| sent.chain_id == facts.chain_id && sent.last == facts.durable);
        let Some(at) = at else {
            return Err(End::Again(anyhow::anyhow!("a receipt for nothing that was sent")));
        };
        let mut settled = 0;
        for sent in self.batches.drain(..=at) {
            self.bytes = self.bytes.saturating_sub(sent.bytes);
            settled += 1;
            if sent.last == facts.durable
                && sent.chain_id == facts.chain_id
                && sent.chain_value != facts.chain_value
            {
                return Err(End::GiveUp(anyhow::anyhow!(
                    "FORK: the collector's receipt for record {} names another history than ours",
                    facts.durable
                )));
            }
        }
        self.due = (!self.batches.is_empty()).then(|| Instant::now() + ANSWER_MAX);
        Ok(settled)
    }
}

struct Flow<'a, S> {
    out: mpsc::Sender<AgentMessage>,
    source: &'a mut S,
    handle: &'a Handle,
    log_key: VerifierKey,
    window: Window,
    held: &'a mut Held,
    state_dir: &'a Path,
}

impl<S: Source> Flow<'_, S> {
    async fn run(mut self, incoming: &mut Streaming<CollectorMessage>) -> Result<Never, End> {
        loop {
            let due = self.window.due;
            let late = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(said)?.and_then(|message| message.message);
                    self.take(message)?;
                }
                batch = self.source.next(), if self.window.is_open() => {
                    self.send(batch.context("the spool")?).await?;
                }
                () = late => {
                    return Err(End::Again(anyhow::anyhow!("no receipt in {ANSWER_MAX:?}")));
                }
            }
        }
    }

    async fn send(&mut self, batch: Batch) -> Result<(), End> {
        self.window.push(&batch);
        let message = BatchMessage { records: batch.records, seal: batch.seal };
        let message = AgentMessage { message: Some(ToCollector::Batch(message)) };
        // The channel has room for the whole window, so this never waits for long.
        self.out.send(message).await.context("the stream ended")?;
        Ok(())
    }

    fn take(&mut self, message: Option<FromCollector>) -> Result<(), End> {
        match message {
            Some(FromCollector::Receipt(receipt)) => self.acknowledge(&receipt),
            Some(FromCollector::Refused(refused)) => Err(refusal(&refused)),
            Some(FromCollector::Checkpoint(note)) => {
                self.held.show(&note, &self.log_key).map_err(End::GiveUp)?;
                self.source.saw_checkpoint(&note);
                self.held.save_sometimes(self.state_dir);
                Ok(())
            }
            Some(FromCollector::HelloAck(_)) => {
                Err(End::Again(anyhow::anyhow!("a second HelloAck")))
            }
            None => Err(End::Again(anyhow::anyhow!("the collector ended the stream"))),
        }
    }

    fn acknowledge(&mut self, receipt: &Receipt) -> Result<(), End> {
        let facts = receipt::verify(&receipt.body, &receipt.signature, self.log_key.key())
            .map_err(|error| {
                anyhow::anyhow!("a receipt that the log's key did not sign: {error}")
            })?;
        let settled = self.window.settle(&facts)?;
        self.source.acknowledge(facts.chain_id, facts.durable).context("the spool")?;
        self.held.acknowledge(receipt);
        self.held.save_sometimes(self.state_dir);
        let mut status = self.handle.lock();
        status.acknowledged = Some((facts.chain_id, facts.durable));
        status.batches += settled;
        Ok(())
    }
}
