//! One captured SSH connection: russh answers the client, russh asks the server, and between them every
//! request is decided and recorded. The one module that translates russh's words into Tidegate's.
//!
//! Promises: a command, shell, subsystem, variable or forward reaches the server only with the
//! [`Clearance`] of its own record ([`target`] takes it in no other way); a refused
//! command ends with the reason on standard error and status 126, any other refusal is a channel failure,
//! and the connection lives on; every permitted request gets its outcome.
//!
//! Limits: [`BACKLOG_BYTES_MAX`] wait for a slow server, then the client gets next to no window ([`paced`]);
//! [`slack::WAITING_BYTES_MAX`] of a channel wait for a slow client.
//! Sessions, forwards either way, the key agent and the display are carried; what else a side may open is refused.

mod back;
mod channel;
mod cover;
mod door;
mod files;
mod flag;
mod handler;
pub mod host;
mod known_hosts;
mod login;
mod paced;
mod slack;
mod target;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::counted::Counted;
use russh::server::{self, ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect};
use tidegate_event::{Ending, Operation, Outcome, SshKind, Status};
use tidegate_journal::{Receipt, SessionCounts};
use tidegate_mask::Detectors;
use tidegate_wire::AskId;
use tidegate_wire_ssh::outcome::End;
use tidegate_wire_ssh::request;

use tokio::sync::Semaphore;

use crate::capture::netns::Netns;
use crate::config::TargetSsh;
use crate::gate::{Answer, Gate, Token};
use crate::session::Surroundings;
use crate::upstream::Clearance;
use back::Back;
use channel::{Live, State};
use door::Door;
use host::SshHost;
use paced::{Backlog, Paced};
use slack::Slack;
use target::{Display, Target};

/// Bytes of one connection that may wait for the server before the client is not read any more.
const BACKLOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long the server may take to answer a request on a channel, and a record to become durable, in seconds.
const ANSWER_SECONDS_MAX: u64 = 60;

/// Channels of one connection that may be open at once.
const CHANNELS_MAX: usize = 100_000;

/// How long the channels of a connection that has ended may take to be recorded, in seconds.
const SETTLE_SECONDS_MAX: u64 = 5;

/// How long a client rests between two windows of [`paced::TRICKLE_BYTES`].
const TRICKLE: Duration = Duration::from_millis(1);

/// Exit status of a command that was refused.
const NOT_RUN: u32 = 126;

/// The extended data that is standard error (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// How long the client may take to log in, in seconds.
const LOGIN_SECONDS_MAX: u64 = 60;

/// What a session of this protocol needs beside its surroundings.
pub struct Settings {
    /// What answers the client.
    pub host: Arc<SshHost>,
    /// How the server is verified, and logged in to.
    pub target: TargetSsh,
    /// What is covered in the output of commands.
    pub detectors: Detectors,
}

/// The gate, for the client's side and for each channel's end.
#[derive(Clone)]
struct Shared {
    gate: Arc<Mutex<Gate>>,
    backlog: Arc<Backlog>,
    /// How many operations were asked.
    asked: Arc<AtomicU64>,
    slack: Arc<Slack>,
    /// Each channel holds one of these until its outcome is recorded.
    channels: Arc<Semaphore>,
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the next operation.
    fn id(&self) -> AskId {
        AskId(self.asked.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Decides `operation` and waits for its record.
    async fn clear(&self, id: AskId, operation: &Operation) -> Result<Arc<Receipt>, String> {
        self.clear_kept(id, operation).await.map(|(receipt, _)| receipt)
    }

    /// The same; and whether what it writes is kept.
    async fn clear_kept(
        &self,
        id: AskId,
        operation: &Operation,
    ) -> Result<(Arc<Receipt>, bool), String> {
        let (answer, journal) = {
            let mut gate = self.gate();
            (gate.ask(id, operation), gate.journal().clone())
        };
        let (pledge, keep) = match answer {
            // Nothing can be recorded, so nothing is kept.
            Answer::Permit { token: Token::Open(receipt), .. } => return Ok((receipt, false)),
            Answer::Permit { token: Token::Pledged(pledge), duties } => {
                (pledge, duties.is_some_and(|duties| duties.keep_rows))
            }
            Answer::Refuse { message, .. } => return Err(message),
            // Only statements can be bound to an approval, so only they are held.
            Answer::Hold(_) => return Err("tidegate: only SQL can wait for an approval".to_owned()),
        };
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        let why = match tokio::time::timeout(limit, journal.redeem(&pledge)).await {
            Ok(Ok(receipt)) => return Ok((Arc::new(receipt), keep)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not within {ANSWER_SECONDS_MAX} s"),
        };
        let mut gate = self.gate();
        if let Some(receipt) = gate.pass_open() {
            return Ok((receipt, false));
        }
        gate.outcome(id, Outcome::without_result(Status::Skipped));
        Err(format!("tidegate: the record did not become durable: {why}"))
    }

    /// Notes that a permitted operation did not come about.
    fn failed(&self, id: AskId, message: &str) {
        let status = Status::Failed { code: String::new(), message: message.to_owned() };
        self.gate().outcome(id, Outcome::without_result(status));
    }
}

/// Where a connection through the server goes; an address with who it is for.
enum To {
    Address((String, u32), (String, u32)),
    Socket(String),
}

/// The client's side.
struct Client {
    shared: Shared,
    settings: Settings,
    server: SocketAddr,
    /// The name under which the server is known, or its address.
    host: String,
    /// The network namespace in which that address means it.
    namespace: Option<Netns>,
    /// The login was refused, or the server could not be used: nothing more is asked.
    refused: bool,
    target: Option<Arc<Target>>,
    channels: HashMap<ChannelId, Live>,
    /// Channels of a connection that is about to be ended.
    unanswered: Vec<ChannelOpenHandle>,
    /// A server that asks the client who it is, and the login that is under way there.
    door: Option<(Option<AskId>, Door)>,
    handle: Arc<OnceLock<Handle>>,
    back: Arc<Back>,
    gone: Option<tokio::sync::oneshot::Sender<tokio::sync::oneshot::Receiver<()>>>,
}

/// Runs a session to its end and records it.
pub async fn serve(stream: Counted, gate: Gate, settings: Settings, mut around: Surroundings) {
    let backlog = Arc::new(Backlog::new(BACKLOG_BYTES_MAX));
    let (gate, asked, slack) = (Arc::new(Mutex::new(gate)), Arc::default(), Arc::default());
    let channels = Arc::new(Semaphore::new(CHANNELS_MAX));
    let shared = Shared { gate, backlog: Arc::clone(&backlog), asked, slack, channels };
    let handle = Arc::new(OnceLock::new());
    let (logged_in, target_gone) = tokio::sync::oneshot::channel();
    let config = match settings.host.config(settings.target.host_key_file.as_deref()) {
        Ok(config) => config,
        Err(error) => return finish(&shared, &Ending::Gate(error.to_string())),
    };
    let client = Client {
        shared: shared.clone(),
        settings,
        server: around.server,
        host: around.names.first().cloned().unwrap_or_else(|| around.server.ip().to_string()),
        namespace: around.namespace.clone(),
        refused: false,
        target: None,
        channels: HashMap::new(),
        unanswered: Vec::new(),
        door: None,
        handle: Arc::clone(&handle),
        back: Arc::new(Back::new(Arc::clone(&handle), shared.clone())),
        gone: Some(logged_in),
    };
    let stream = Paced::new(stream, Arc::clone(&backlog));
    let limit = Duration::from_secs(LOGIN_SECONDS_MAX);
    let ending = match tokio::time::timeout(limit, server::run_stream(config, stream, client)).await
    {
        Err(_) => Ending::Gate(format!("no SSH identification within {LOGIN_SECONDS_MAX} s")),
        Ok(Err(error)) => Ending::Gate(format!("no SSH: {error}")),
        Ok(Ok(running)) => {
            let own = running.handle();
            _ = handle.set(own.clone());
            let server_gone = async move {
                match tokio::time::timeout(limit, target_gone).await {
                    Ok(Ok(gone)) => {
                        _ = gone.await;
                        Ending::Server
                    }
                    Ok(Err(_)) => std::future::pending().await,
                    Err(_) => Ending::Gate(format!("no login within {LOGIN_SECONDS_MAX} s")),
                }
            };
            let ending = tokio::select! {
                ended = running => match ended {
                    Ok(()) | Err(russh::Error::Disconnect | russh::Error::HUP) => Ending::Client,
                    Err(error) => Ending::Gate(error.to_string()),
                },
                ending = server_gone => ending,
                _ = around.stop.wait_for(|stop| *stop) => Ending::Gate("the agent stops".to_owned()),
            };
            if ending != Ending::Client {
                let why = "tidegate: the connection to the server has ended".to_owned();
                _ = own.disconnect(Disconnect::ConnectionLost, why, String::new()).await;
            }
            ending
        }
    };
    let all = shared.channels.acquire_many(u32::try_from(CHANNELS_MAX).unwrap_or(u32::MAX));
    if tokio::time::timeout(Duration::from_secs(SETTLE_SECONDS_MAX), all).await.is_err() {
        tracing::warn!(session = %shared.gate().log().id(), "channels of an ended connection go on");
    }
    finish(&shared, &ending);
}

fn finish(shared: &Shared, ending: &Ending) {
    let mut gate = shared.gate();
    gate.lose_pending(&Outcome::without_result(Status::Lost));
    let totals = gate.totals();
    let counts = SessionCounts {
        operations: totals.operations,
        refused: totals.refused,
        bytes_from_client: shared.backlog.received(),
        bytes_from_server: shared.backlog.answered(),
    };
    if let Err(error) = gate.log().close(ending, counts) {
        tracing::error!(%error, "the end of a session could not be recorded");
    }
}

impl Client {
    /// Decides a request that concerns no channel; `None` where it is refused, or no server is there.
    async fn listening(&self, about: &str) -> Option<(AskId, Arc<Receipt>, &Target)> {
        let ask = self.shared.id();
        let asked = request::request(SshKind::Forward, 0, about.as_bytes(), "");
        let receipt = self.shared.clear(ask, &asked).await.ok()?;
        let target = self.target.as_ref()?;
        Some((ask, receipt, target))
    }

    /// Decides and carries a connection to `about`. The client's other requests do not wait for it: an address that
    /// does not answer takes minutes.
    fn forward(&self, channel: Channel<Msg>, about: String, reply: ChannelOpenHandle, to: To) {
        let shared = self.shared.clone();
        let sides = self.target.clone().zip(self.handle.get().cloned());
        tokio::spawn(async move {
            let (id, ask) = (channel.id(), shared.id());
            let asked = request::request(SshKind::Forward, id.into(), about.as_bytes(), "");
            let Ok(receipt) = shared.clear(ask, &asked).await else {
                return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            };
            let clearance = Clearance::Receipt(&receipt);
            let opened = match (&sides, &to) {
                (Some((target, _)), To::Address((host, port), (from, from_port))) => {
                    target.forward(&clearance, (host, *port), (from, *from_port)).await.ok()
                }
                (Some((target, _)), To::Socket(path)) => {
                    target.forward_to_socket(&clearance, path).await.ok()
                }
                (None, _) => None,
            };
            let Some(((running, from_server), (_, handle))) = opened.zip(sides) else {
                shared.failed(ask, "the server did not open it");
                return reply.reject(ChannelOpenFailure::ConnectFailed).await;
            };
            reply.accept().await;
            let (from_client, to_client) = channel.split();
            let mut live = Live::forward((from_server, to_client), handle, &shared);
            live.begin(ask);
            live.run(running, &shared);
            live.carry_from(from_client, &shared).await;
        });
    }

    /// Decides the lending of the client's agent or display, and asks the server whether it takes it.
    async fn lend(
        &mut self,
        channel: ChannelId,
        kind: SshKind,
        display: Option<Display<'_>>,
    ) -> bool {
        let ask = self.shared.id();
        let asked = request::request(kind, channel.into(), b"", "");
        let Ok(receipt) = self.shared.clear(ask, &asked).await else { return false };
        let _asking = self.shared.slack.asking();
        let Some(live) = self.channels.get_mut(&channel) else { return false };
        let State::Waiting(waiting) = &live.state else { return false };
        let clearance = Clearance::Receipt(&receipt);
        // Its connections may come as soon as the server has said yes.
        self.back.lends(kind);
        let sent = match &display {
            None => waiting.lend_agent(&clearance).await,
            Some(display) => waiting.lend_display(&clearance, display).await,
        };
        let lent = sent.is_ok() && live.answer().await;
        if lent {
            self.shared.gate().outcome(ask, Outcome::without_result(Status::Ok));
        } else {
            self.shared.failed(ask, "the server does not take it");
        }
        lent
    }

    /// Decides a request that runs something on a channel, lets it run, and answers the client.
    async fn run(
        &mut self,
        (id, kind, about): (ChannelId, SshKind, &[u8]),
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let ask = self.shared.id();
        let Some(live) = self.channels.get_mut(&id) else { return session.channel_failure(id) };
        let Some(waiting) = live.take_waiting() else { return session.channel_failure(id) };
        let _asking = self.shared.slack.asking();
        let operation = match kind {
            SshKind::Exec => request::exec(id.into(), about, live.terminal()),
            _ => request::request(kind, id.into(), about, live.terminal()),
        };
        let (receipt, keep) = match self.shared.clear_kept(ask, &operation).await {
            Ok(cleared) => cleared,
            Err(why) => {
                waiting.close().await;
                return refuse(id, kind, &why, session);
            }
        };
        live.begin(ask);
        if request::speaks_sftp(&operation) {
            live.speaks_sftp(id.into(), &self.shared);
        } else {
            live.record(ask, keep, &self.shared);
            if kind == SshKind::Exec && !request::carries_files(&operation) {
                live.cover(self.settings.detectors);
            }
        }
        let running = match kind {
            SshKind::Exec => waiting.exec(&Clearance::Receipt(&receipt), about).await,
            SshKind::Subsystem => {
                waiting
                    .subsystem(&Clearance::Receipt(&receipt), &String::from_utf8_lossy(about))
                    .await
            }
            _ => waiting.shell(&Clearance::Receipt(&receipt)).await,
        };
        let answered = match running {
            Ok(running) => {
                live.run(running, &self.shared);
                live.answer().await
            }
            Err(_) => false,
        };
        if answered {
            return session.channel_success(id);
        }
        live.ended(&End::Refused, &self.shared);
        session.channel_failure(id)
    }
}

/// Refuses what was to run. OpenSSH's client throws away what was said before a channel failure, so a
/// command ends as one that may not be run does (POSIX: 126), with the reason on its standard error. The
/// channel closes at once; OpenSSH's server closes one on which nothing ran only with its connection.
fn refuse(
    id: ChannelId,
    kind: SshKind,
    why: &str,
    session: &mut server::Session,
) -> Result<(), russh::Error> {
    if kind == SshKind::Subsystem {
        return session.channel_failure(id);
    }
    session.channel_success(id)?;
    session.extended_data(id, STDERR, request::refusal_line(why).into_bytes())?;
    session.exit_status_request(id, NOT_RUN)?;
    session.eof(id)?;
    session.close(id)
}

impl Client {
    /// Passes on what belongs to something that runs; what belongs to nothing is dropped.
    fn up(&self, channel: ChannelId, up: channel::Up) {
        if let Some(live) = self.channels.get(&channel) {
            live.up(up, &self.shared);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            tokio::spawn(async move { target.close().await });
        }
    }
}

/// What the server answers to a request, or nothing where it refuses it or takes too long.
async fn within<T, E>(answer: impl Future<Output = Result<T, E>>) -> Option<T> {
    let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
    tokio::time::timeout(limit, answer).await.ok()?.ok()
}

/// Nanoseconds since `started`.
fn elapsed_ns(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
