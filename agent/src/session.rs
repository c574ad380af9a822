//! One captured connection, from its first byte to its last record.
//!
//! Promises: one task, no hop per message; both directions flow while a record waits for the disk;
//! memory is bounded by the machine's limits and [`queue::BACKLOG_BYTES_MAX`] a leg; every
//! permitted operation gets its outcome, also when the connection dies.
//!
//! The order for each operation is the gate's: decide, record, send.

mod hold;
pub mod leg;
mod outbox;
pub mod queue;
mod slow;
mod unpack;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tidegate_event::{Ending, Operation, Outcome, Status, Stream};
use tidegate_journal::{JournalError, SessionCounts};
use tidegate_wire::{Action, Answer as MachineAnswer, AskId, Authority, Machine};
use tidegate_wire_postgres::Duties;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::capture::netns::Netns;
use crate::catalogue::Source;
use crate::gate::{Answer, Gate, IO_ERROR, NOTHING_SENT, Token};
use crate::tls::{HostCa, ServerVerification};
use crate::upstream::Upstream;
use leg::Leg;
use outbox::Outbox;
use queue::Queue;

/// First read of a connection, in bytes; it grows while reads fill it.
const READ_BYTES_MIN: usize = 8 * 1024;

/// Largest single read, in bytes (measured: below 64 KiB, bulk copies cost more CPU).
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long a client may take for its TLS handshake, in seconds.
const HANDSHAKE_SECONDS_MAX: u64 = 15;

/// How long the last bytes may take to leave, in seconds.
const FLUSH_SECONDS_MAX: u64 = 5;

/// How long a client may take to its StartupMessage, in seconds. The server's own
/// `authentication_timeout` begins only when it is dialled.
const LOGIN_SECONDS_MAX: u64 = 60;

/// How long a login may wait for its record to be durable, in seconds.
const REDEEM_SECONDS_MAX: u64 = 30;

/// SQLSTATE sqlclient_unable_to_establish_sqlconnection.
const UNREACHABLE: &str = "08001";

/// What a session needs to know of its surroundings.
pub struct Surroundings {
    /// Where the client wanted to go.
    pub server: SocketAddr,
    /// The network namespace in which that address means it; the agent's own where absent.
    pub namespace: Option<Netns>,
    /// Names under which that server is known, for the leaf towards the client.
    pub names: Vec<String>,
    /// Answers the client's TLS.
    pub host_ca: Arc<HostCa>,
    /// Verifies the server, where TLS is spoken to it.
    pub verification: Option<Arc<ServerVerification>>,
    /// Turns true when the agent stops and its patience is over.
    pub stop: watch::Receiver<bool>,
}

/// One session's state, over the machine of its protocol.
pub struct Session<M> {
    machine: M,
    gate: Gate,
    client: Option<Leg>,
    to_client: Queue,
    client_bytes: BytesMut,
    client_read: usize,
    client_state: ClientState,
    /// Bytes for a client that was gone.
    discarded: usize,
    /// The machine may now take more of the client's bytes that it left in the buffer.
    offer_again: bool,
    upstream: Option<Upstream>,
    outbox: Outbox,
    /// A statement that waits for people.
    held: Option<Box<hold::Holding>>,
    /// A cancel request of the machine's own is on its way.
    cancelling: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    server_bytes: BytesMut,
    server_read: usize,
    server_open: bool,
    started: Instant,
    /// The time of this turn, in nanoseconds since `started`.
    now_ns: u64,
    silent: Silent,
    received: (u64, u64),
}

/// Which legs have nothing to read for the rest of this turn: they wake the next one themselves.
#[derive(Debug, Clone, Copy, Default)]
struct Silent {
    client: bool,
    server: bool,
}

/// What can still be expected of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    /// It sends and takes.
    Open,
    /// It sends no more, and still takes.
    Ended,
    /// It takes no more either.
    Gone,
}

/// What the pump stops for.
enum Event {
    Open(AskId, Operation),
    CatchUp(AskId, Operation, Arc<Source>),
    Cancel(Bytes),
    Dial,
    StartClientTls,
    StartServerTls,
    Close(Ending),
}

impl<M: Machine<Token, Duties = Duties>> Session<M> {
    /// A session over an accepted connection.
    pub fn new(machine: M, gate: Gate, client: Leg) -> Box<Self> {
        Box::new(Self {
            machine,
            gate,
            client: Some(client),
            to_client: Queue::default(),
            client_bytes: BytesMut::new(),
            client_read: READ_BYTES_MIN,
            client_state: ClientState::Open,
            discarded: 0,
            offer_again: false,
            upstream: None,
            outbox: Outbox::default(),
            held: None,
            cancelling: None,
            server_bytes: BytesMut::new(),
            server_read: READ_BYTES_MIN,
            server_open: true,
            started: Instant::now(),
            now_ns: 0,
            silent: Silent::default(),
            received: (0, 0),
        })
    }

    /// Runs to the end and records it. What happens once in a session's life is boxed for as long as
    /// it takes, so that an idle session's task holds no room for it.
    pub async fn run(mut self: Box<Self>, mut around: Surroundings) {
        let stop = around.stop.clone();
        let ending = until_stopped(self.drive(&mut around), stop).await;
        Box::pin(self.finish(&ending)).await;
    }

    async fn drive(&mut self, around: &mut Surroundings) -> Ending {
        loop {
            let Some(event) = self.pump().await else {
                return Ending::Gate(format!("no login within {LOGIN_SECONDS_MAX} s"));
            };
            let step = match event {
                Event::Open(id, operation) => Box::pin(self.open(id, &operation, around)).await,
                Event::CatchUp(id, operation, catalogue) => {
                    Box::pin(self.catch_up(id, operation, &catalogue)).await;
                    Ok(())
                }
                Event::Cancel(request) => {
                    self.cancel(request, around);
                    Ok(())
                }
                Event::Dial => Box::pin(self.dial_first(around)).await,
                Event::StartClientTls => Box::pin(self.start_client_tls(around)).await,
                Event::StartServerTls => Box::pin(self.start_server_tls(around)).await,
                Event::Close(ending) => return ending,
            };
            if let Err(ending) = step {
                return ending;
            }
        }
    }

    /// Pumps until something needs the slow path; `None` when no login came in time.
    async fn pump(&mut self) -> Option<Event> {
        if self.upstream.is_some() {
            return Some(std::future::poll_fn(|cx| self.poll_pump(cx)).await);
        }
        let limit = Duration::from_secs(LOGIN_SECONDS_MAX);
        tokio::time::timeout(limit, std::future::poll_fn(|cx| self.poll_pump(cx))).await.ok()
    }

    /// Moves whatever can be moved; ready when something needs the slow path.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.tick();
        self.silent = Silent::default();
        loop {
            if let Some(cancelling) = &mut self.cancelling
                && cancelling.as_mut().poll(cx).is_ready()
            {
                self.cancelling = None;
                self.machine.cancel_ended();
                self.offer_again = true;
            }
            while let Some(action) = self.machine.poll() {
                if let Some(event) = self.act(action) {
                    return Poll::Ready(event);
                }
            }
            if self.poll_held(cx) {
                self.offer_again = true;
                continue;
            }
            if self.offer_again {
                self.offer_again = false;
                if self.machine.reads_client() {
                    self.machine.from_client(self.now_ns, &mut self.client_bytes);
                    continue;
                }
            }
            let client_before = self.client_state;
            if self.poll_writes(cx) {
                continue;
            }
            if !self.poll_reads(cx) && client_before == self.client_state {
                return Poll::Pending;
            }
        }
    }

    fn act(&mut self, action: Action<Token>) -> Option<Event> {
        match action {
            Action::ToClient(bytes) if self.client_state == ClientState::Gone => {
                // A server that notices a dead client by a failed send ends the statement, too.
                self.discarded += bytes.len();
                if self.discarded > queue::BACKLOG_BYTES_MAX {
                    return Some(Event::Close(Ending::Client));
                }
            }
            Action::ToClient(bytes) => self.to_client.push(bytes),
            Action::ToServer { authority: Authority::Receipt(token), bytes } => {
                self.outbox.push(token, bytes);
            }
            Action::ToServer { authority: Authority::Exempt(exempt), bytes } => {
                self.outbox.push_exempt(exempt, bytes);
            }
            Action::Ask {
                id,
                operation: operation @ (Operation::Login(_) | Operation::Cancel(_)),
            } if self.upstream.is_none() => {
                return Some(Event::Open(id, operation));
            }
            Action::Ask { id, operation } => {
                if let Some(database) = self.machine.database() {
                    self.gate.in_database(database);
                }
                if let Some(catalogue) = self.gate.behind() {
                    return Some(Event::CatchUp(id, operation, catalogue));
                }
                let answer = self.gate.ask(id, &operation);
                self.asked(id, operation, answer);
            }
            Action::Rows { id, offset, data } => self.gate.rows(id, Stream::Rows, (offset, &data)),
            Action::Outcome { id, outcome } => self.gate.outcome(id, outcome),
            Action::Cancel(request) => return Some(Event::Cancel(request)),
            Action::Dial => return Some(Event::Dial),
            Action::StartClientTls => return Some(Event::StartClientTls),
            Action::StartServerTls => return Some(Event::StartServerTls),
            Action::Close { ending } => return Some(Event::Close(ending)),
        }
        None
    }

    /// The gate's answer to what was asked.
    fn asked(&mut self, id: AskId, operation: Operation, answer: Answer) {
        match answer {
            Answer::Hold(hold) => self.hold(id, operation, hold),
            answer => self.answer(id, answer),
        }
    }

    fn answer(&mut self, id: AskId, answer: Answer) {
        let now_ns = self.now_ns;
        match answer {
            Answer::Permit { token, duties: None } => {
                self.machine.answer(now_ns, id, MachineAnswer::Permit(token));
            }
            Answer::Permit { token, duties: Some(duties) } => {
                self.machine.permit_with(now_ns, id, token, duties);
            }
            Answer::Refuse { sqlstate, message, hint } => {
                let refusal = MachineAnswer::Refuse { sqlstate, message, hint };
                self.machine.answer(now_ns, id, refusal);
            }
            // Only statements are held, and they come by `asked`.
            Answer::Hold(_) => {}
        }
        self.offer_again = true;
    }

    /// Writes what may leave; `true` when the machine has something to say about it.
    fn poll_writes(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(upstream) = &mut self.upstream {
            if let Err(error) = self.outbox.poll_release(cx, self.gate.journal(), upstream) {
                self.not_durable(&error);
                return true;
            }
            if let Poll::Ready(Err(error)) = upstream.poll_write(cx) {
                // What the server still says (a FATAL error) must reach the client first.
                tracing::debug!(%error, "the server no longer takes bytes");
            }
        }
        if let Some(client) = &mut self.client
            && self.client_state != ClientState::Gone
            && let Poll::Ready(Err(_)) = self.to_client.poll_write(client, cx)
        {
            // Its statements still run; their outcomes are waited for as after its end of stream.
            let before = std::mem::replace(&mut self.client_state, ClientState::Gone);
            self.to_client = Queue::default();
            if before == ClientState::Open {
                self.machine.client_closed(self.now_ns);
            }
        }
        false
    }

    /// A record that bytes wait for could not be made durable. Where the target's owner chose
    /// `on_failure = "open"`, and the journal really cannot record, they pass; otherwise they never
    /// leave, and the client is told why its session ends: what it sent before may have run.
    fn not_durable(&mut self, error: &JournalError) {
        if let Some(receipt) = self.gate.pass_open() {
            let cleared = self.outbox.pass_open(&receipt);
            self.gate.passed_open_too(cleared.saturating_sub(1));
            return;
        }
        self.outbox.forget();
        let message = format!("tidegate: a record did not become durable: {error}");
        self.machine.abort(self.now_ns, IO_ERROR, &message, NOTHING_SENT);
    }

    /// Reads what may be read; `true` when something came.
    fn poll_reads(&mut self, cx: &mut Context<'_>) -> bool {
        let from_server = self.unpacks_server() || self.poll_server(cx);
        let from_client =
            self.unpacks_client() || self.poll_client(cx) || self.poll_client_of_held(cx);
        from_server || from_client
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> bool {
        let waits =
            self.client_state != ClientState::Open || self.silent.client || self.is_congested();
        if waits || !self.machine.reads_client() {
            return false;
        }
        let Some(leg) = &mut self.client else { return false };
        make_room(&mut self.client_bytes, self.client_read);
        let read = match self.machine.client_bytes_max(self.client_bytes.len()) {
            None => poll_read_into(leg, cx, &mut self.client_bytes),
            Some(most) => poll_read_into(leg, cx, &mut (&mut self.client_bytes).limit(most)),
        };
        match read {
            Poll::Pending => {
                self.silent.client = true;
                return false;
            }
            Poll::Ready(Ok(0) | Err(_)) => {
                self.client_state = ClientState::Ended;
                self.machine.client_closed(self.now_ns);
            }
            Poll::Ready(Ok(read)) => {
                self.tick_after(read);
                self.received.0 += as_u64(read);
                self.client_read = next_read(self.client_read, read);
                self.machine.from_client(self.now_ns, &mut self.client_bytes);
            }
        }
        true
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = !self.server_open || self.silent.server || self.to_client.is_congested();
        if waits || !self.machine.reads_server() {
            return false;
        }
        let Some(upstream) = &mut self.upstream else { return false };
        make_room(&mut self.server_bytes, self.server_read);
        match upstream.poll_read(cx, &mut self.server_bytes) {
            Poll::Pending => {
                self.silent.server = true;
                return false;
            }
            Poll::Ready(Ok(0) | Err(_)) => {
                self.server_open = false;
                self.machine.server_closed(self.now_ns);
            }
            Poll::Ready(Ok(read)) => {
                self.tick_after(read);
                self.received.1 += as_u64(read);
                self.server_read = next_read(self.server_read, read);
                self.machine.from_server(self.now_ns, &mut self.server_bytes);
                if self.gate.is_changing() && self.machine.is_idle() {
                    self.gate.settled();
                }
                self.offer_again = true;
            }
        }
        true
    }

    /// Flushes, closes both legs, and records how it ended.
    async fn finish(mut self: Box<Self>, ending: &Ending) {
        let now_ns = self.tick();
        self.drop_held();
        if self.client_state == ClientState::Open {
            self.machine.client_closed(now_ns);
        }
        if self.server_open {
            self.machine.server_closed(now_ns);
        }
        while let Some(action) = self.machine.poll() {
            match action {
                Action::Rows { id, offset, data } => {
                    self.gate.rows(id, Stream::Rows, (offset, &data));
                }
                Action::Outcome { id, outcome } => self.gate.outcome(id, outcome),
                Action::ToClient(bytes) => self.to_client.push(bytes),
                _ => {}
            }
        }
        self.gate.lose_pending(&Outcome::without_result(Status::Lost));
        self.close_legs(ending).await;
        let totals = self.gate.totals();
        let counts = SessionCounts {
            operations: totals.operations,
            refused: totals.refused,
            bytes_from_client: self.received.0,
            bytes_from_server: self.received.1,
        };
        if let Err(error) = self.gate.log().close(ending, counts) {
            tracing::error!(%error, "the end of a session could not be recorded");
        }
    }

    /// Lets the last bytes leave, each leg in its own time, and says goodbye.
    async fn close_legs(&mut self, ending: &Ending) {
        let Self { outbox, upstream, to_client, client, client_state, gate, .. } = self;
        // As without a gate: what the client sent before it left still reaches the server, once
        // its record is durable. What the gate itself ended does not.
        let releases = !matches!(ending, Ending::Gate(_));
        let to_server = async {
            let Some(upstream) = upstream else { return };
            std::future::poll_fn(|cx| {
                if releases && outbox.poll_release(cx, gate.journal(), upstream).is_err() {
                    return Poll::Ready(());
                }
                match upstream.poll_write(cx) {
                    Poll::Ready(Ok(())) if releases && !outbox.is_empty() => Poll::Pending,
                    written => written.map(|_| ()),
                }
            })
            .await;
            _ = upstream.close().await;
        };
        let to_client = async {
            let Some(leg) = client.as_mut().filter(|_| *client_state != ClientState::Gone) else {
                return;
            };
            if std::future::poll_fn(|cx| to_client.poll_write(leg, cx)).await.is_ok() {
                _ = leg.shutdown().await;
            }
        };
        let limit = Duration::from_secs(FLUSH_SECONDS_MAX);
        let (server_took, client_took) = tokio::join!(
            tokio::time::timeout(limit, to_server),
            tokio::time::timeout(limit, to_client)
        );
        if server_took.is_err() || client_took.is_err() {
            tracing::debug!("a leg did not take its last bytes in time");
        }
    }

    /// Reads the clock again after a read that may have taken a while.
    fn tick_after(&mut self, read: usize) {
        if read >= READ_BYTES_MIN {
            self.tick();
        }
    }

    /// Reads the clock, once for all that happens in a turn.
    fn tick(&mut self) -> u64 {
        self.now_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.now_ns
    }
}

/// Drives a session to its own end, or to the agent's. A task has one waker for life, and the watch keeps it
/// once it was asked: a turn need not ask it again, only look whether it has said something.
async fn until_stopped(
    driven: impl Future<Output = Ending>,
    stop: watch::Receiver<bool>,
) -> Ending {
    let (mut driven, mut watched) = (pin!(driven), stop.clone());
    // An error says that the other side is gone, which is a stop too.
    let mut stopped = pin!(async move { _ = watched.wait_for(|stop| *stop).await });
    let mut is_watched = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ending) = driven.as_mut().poll(cx) {
            return Poll::Ready(ending);
        }
        if is_watched && !stop.has_changed().unwrap_or(true) {
            return Poll::Pending;
        }
        is_watched = true;
        stopped.as_mut().poll(cx).map(|()| Ending::Gate("the agent stops".to_owned()))
    })
    .await
}

/// Reads once into `buffer`; `Ready(0)` at the end of the stream.
pub fn poll_read_into(
    leg: &mut Leg,
    cx: &mut Context<'_>,
    buffer: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    let read: Pin<&mut _> = pin!(leg.read_buf(buffer));
    read.poll(cx)
}

/// Makes room for one read, at the allocation's start where nobody holds a part of it any more, so
/// that an idle session touches few pages.
fn make_room(buffer: &mut BytesMut, wanted: usize) {
    if buffer.capacity() - buffer.len() < wanted && !buffer.try_reclaim(wanted) {
        buffer.reserve(wanted);
    }
}

fn next_read(wanted: usize, read: usize) -> usize {
    if read >= wanted { (wanted * 2).min(READ_BYTES_MAX) } else { wanted }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes some turns, tells of them, and then waits for ever.
    async fn some_turns(told: tokio::sync::oneshot::Sender<()>) -> Ending {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        told.send(()).unwrap();
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_session_that_has_had_turns_still_hears_of_the_stop() {
        let stopping = Ending::Gate("the agent stops".to_owned());
        for by_drop in [false, true] {
            let (stop, watched) = watch::channel(false);
            let (tell, told) = tokio::sync::oneshot::channel();
            let session = tokio::spawn(until_stopped(some_turns(tell), watched));
            told.await.unwrap();
            // One turn more, so that the session is surely asleep.
            tokio::task::yield_now().await;
            if by_drop {
                drop(stop);
            } else {
                stop.send(true).unwrap();
            }
            assert_eq!(session.await.unwrap(), stopping);
        }
        let (stop, watched) = watch::channel(false);
        stop.send(true).unwrap();
        assert_eq!(until_stopped(std::future::pending(), watched).await, stopping);
    }

    #[tokio::test]
    async fn the_sessions_own_end_comes_first() {
        let (_stop, watched) = watch::channel(true);
        assert_eq!(until_stopped(async { Ending::Client }, watched).await, Ending::Client);
    }
}
