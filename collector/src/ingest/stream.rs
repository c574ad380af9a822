//! One task for each agent's connection.
//!
//! Promises: nobody is heard before the certificate is an enrolled agent's and the Hello names
//! the same agent; one agent has one stream, and a second one ends the first.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_event::{ChainId, Seq};
use tidegate_proto::uplink::v1::agent_message::Message as FromAgent;
use tidegate_proto::uplink::v1::collector_message::Message;
use tidegate_proto::uplink::v1::refused::Why;
use tidegate_proto::uplink::v1::{AgentMessage, Batch, CollectorMessage, Hello, uplink_server};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{BatchJob, HelloJob, Job, Signed, StreamEnd, refusal};
use crate::access;
use crate::state::{Agent, State};

/// Largest message of an agent.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one agent's batches that wait for their commit; then its stream is not read.
pub const BYTES_IN_FLIGHT_MAX: u32 = 16 * 1024 * 1024;
/// Receipts that an agent may leave unread before it loses the stream.
pub const RECEIPTS_UNREAD_MAX: usize = 4096;

/// The `Uplink` service.
#[derive(Clone)]
pub struct UplinkService {
    state: Arc<State>,
    jobs: mpsc::WeakSender<Job>,
    stop: watch::Receiver<bool>,
    streams: Arc<Mutex<HashMap<String, watch::Sender<bool>>>>,
    signed: watch::Receiver<Option<Arc<Signed>>>,
}

impl UplinkService {
    /// A service that hands its batches to this queue, until `stop` says so.
    pub fn new(
        state: Arc<State>,
        jobs: &mpsc::Sender<Job>,
        stop: watch::Receiver<bool>,
        signed: watch::Receiver<Option<Arc<Signed>>>,
    ) -> Self {
        Self { state, jobs: jobs.downgrade(), stop, streams: Arc::default(), signed }
    }
}

type Answers = Pin<Box<ReceiverStream<Result<CollectorMessage, Status>>>>;

#[tonic::async_trait]
impl uplink_server::Uplink for UplinkService {
    type StreamStream = Answers;

    async fn stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        let agent = Arc::new(access::agent_of(&request, &self.state)?);
        let jobs = self.jobs.upgrade().ok_or_else(stopping)?;
        let (out, answers) = mpsc::channel(RECEIPTS_UNREAD_MAX);
        let end = Arc::new(StreamEnd::new(out));
        let replaced = self.replace(&agent.agent_id);
        let stop = self.stop.clone();
        let input = request.into_inner();
        let signed = self.signed.clone();
        tokio::spawn(async move {
            let road = Road { agent, jobs, end: Arc::clone(&end), signed };
            let outcome = tokio::select! {
                outcome = road.drive(input) => outcome,
                () = flagged(stop) => Err(stopping()),
                () = flagged(replaced) => Err(Status::aborted("another stream of this agent began")),
            };
            end.end();
            if let Err(status) = outcome {
                // Where nobody reads, nobody needs to know why.
                let _gone = road.end.out.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl UplinkService {
    /// Ends the agent's stream before; the receiver says when this one is to end.
    fn replace(&self, agent_id: &str) -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = streams.insert(agent_id.to_owned(), sender) {
            before.send_replace(true);
        }
        receiver
    }
}

async fn flagged(mut flag: watch::Receiver<bool>) {
    // An error says that the sender is gone, which is an end too.
    let _ended = flag.wait_for(|set| *set).await;
}

fn stopping() -> Status {
    Status::unavailable("the collector is stopping")
}

struct Road {
    agent: Arc<Agent>,
    jobs: mpsc::Sender<Job>,
    end: Arc<StreamEnd>,
    signed: watch::Receiver<Option<Arc<Signed>>>,
}

impl Road {
    async fn drive(&self, mut input: Streaming<AgentMessage>) -> Result<(), Status> {
        let first = input.message().await?.and_then(|message| message.message);
        let Some(FromAgent::Hello(hello)) = first else {
            self.end.refuse(refusal(Why::Malformed, "the first message must be Hello"));
            return Ok(());
        };
        if !self.greet(&hello).await? {
            return Ok(());
        }
        tracing::info!(agent = %self.agent.agent_id, "agent connected");
        let outcome = tokio::select! {
            outcome = self.take(input) => outcome,
            () = self.show_checkpoints(), if hello.takes_checkpoints => Ok(()),
        };
        tracing::info!(agent = %self.agent.agent_id, "agent's stream ended");
        outcome
    }

    /// Shows the agent each checkpoint, until there are no more: then the collector stops.
    async fn show_checkpoints(&self) {
        let mut signed = self.signed.clone();
        signed.mark_changed();
        while signed.changed().await.is_ok() {
            let newest = signed.borrow_and_update().clone();
            if let Some(newest) = newest {
                self.end.send(Message::Checkpoint(newest.note.clone()));
            }
        }
        std::future::pending::<()>().await;
    }

    async fn take(&self, mut input: Streaming<AgentMessage>) -> Result<(), Status> {
        let places = Arc::new(Semaphore::new(BYTES_IN_FLIGHT_MAX as usize));
        while let Some(message) = input.message().await? {
            let Some(FromAgent::Batch(batch)) = message.message else {
                self.end.refuse(refusal(Why::Malformed, "expected a Batch"));
                break;
            };
            let bytes = batch_bytes(&batch).min(BYTES_IN_FLIGHT_MAX);
            let permit = Arc::clone(&places).acquire_many_owned(bytes).await;
            let permit = permit.map_err(|_| stopping())?;
            let (stream, agent) = (Arc::clone(&self.end), Arc::clone(&self.agent));
            let job = Job::Batch(BatchJob { stream, agent, batch, permit });
            self.jobs.send(job).await.map_err(|_| stopping())?;
            if self.end.has_ended() {
                break;
            }
        }
        Ok(())
    }

    /// Answers the Hello; `false` where it was refused.
    async fn greet(&self, hello: &Hello) -> Result<bool, Status> {
        if hello.agent_id != self.agent.agent_id {
            let detail = "the certificate was given to another agent than the Hello names";
            self.end.refuse(refusal(Why::UnknownAgent, detail));
            return Ok(false);
        }
        let oldest = if hello.chain_id.is_empty() {
            None
        } else {
            let Some(chain_id) = ChainId::from_slice(&hello.chain_id) else {
                self.end.refuse(refusal(Why::Malformed, "chain_id: 32 bytes expected"));
                return Ok(false);
            };
            Some((chain_id, Seq(hello.next_seq)))
        };
        let (reply, answer) = oneshot::channel();
        let agent = Arc::clone(&self.agent);
        let (receipt, checkpoint) = (hello.receipt.clone(), hello.checkpoint.clone());
        let job = Job::Hello(HelloJob { agent, oldest, receipt, checkpoint, reply });
        self.jobs.send(job).await.map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())? {
            Ok(ack) => {
                self.end.send(Message::HelloAck(ack));
                Ok(true)
            }
            Err(refused) => {
                self.end.refuse(refused);
                Ok(false)
            }
        }
    }
}

fn batch_bytes(batch: &Batch) -> u32 {
    let bytes: usize = batch.records.iter().map(bytes::Bytes::len).sum();
    u32::try_from(bytes + batch.seal.len()).unwrap_or(u32::MAX)
}
