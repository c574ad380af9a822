//! The control socket: how `status` and `detach` reach a running agent.
//!
//! Promises: `run_dir/agent.sock` (directory 0700, socket 0600) answers only root and the agent's
//! own user, checked by the kernel's `SO_PEERCRED` beside the file's mode. One request a line of
//! JSON, one answer a line. A peer that is slow, silent or talks nonsense costs one bounded task and
//! never slows traffic.
//!
//! Limits: named below.
//!
//! Known gaps: no subscription; `status` is a snapshot.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// The socket's name in `run_dir`.
pub const SOCKET_NAME: &str = "agent.sock";

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 4096;

/// Longest answer, in bytes: a status with every target.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// How long a peer may take for one request, in seconds.
const REQUEST_SECONDS_MAX: u64 = 5;

/// How long `detach` may take, in seconds: a record, its sync, the hooks.
const DETACH_SECONDS_MAX: u64 = 60;

/// Most peers at once; more wait in the socket's backlog.
const PEERS_MAX: usize = 8;

/// How an agent is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// The agent's name.
    pub agent_id: String,
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Whether it is stopping and takes no new sessions.
    pub draining: bool,
    /// Sessions open now.
    pub sessions_active: u64,
    /// Sessions since the start.
    pub sessions_total: u64,
    /// Operations decided since the start.
    pub operations: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Connections that the kernel led to the gate.
    pub captured: u64,
    /// The queue of records on disk.
    pub spool: SpoolStatus,
    /// The way to the collector.
    pub uplink: UplinkStatus,
    /// SHA-256 of the policy in force.
    pub policy_digest: String,
    /// The protected systems.
    pub targets: Vec<TargetStatus>,
    /// What kernel and gate counted of each principal and target, at the last heartbeat.
    pub coverage: Vec<CoverageStatus>,
    /// What their counts do not agree in; empty where they do.
    pub discrepancies: Vec<String>,
    /// Packets that the guard dropped since the hooks were attached.
    pub dropped: u64,
}

/// The counts of one principal and target since the agent's start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CoverageStatus {
    /// The principal.
    pub principal: String,
    /// The target; empty for what is no target.
    pub target: String,
    /// By the kernel: led to the gate.
    pub redirected: u64,
    /// By the kernel: of these, established at the gate.
    pub accepted: u64,
    /// By the kernel: refused by a hook.
    pub refused: u64,
    /// By the kernel: sockets whose packets were dropped.
    pub dropped: u64,
    /// By the kernel: let pass directly.
    pub exempt: u64,
    /// By the gate: sessions.
    pub sessions: u64,
    /// By the gate: connections refused.
    pub sessions_refused: u64,
    /// By the gate: of the sessions, ended; the rest is about these.
    #[serde(default)]
    pub sessions_ended: u64,
    /// By the kernel: bytes that were taken from clients' sockets.
    #[serde(default)]
    pub kernel_bytes_in: u64,
    /// By the kernel: bytes that were given to clients' sockets.
    #[serde(default)]
    pub kernel_bytes_out: u64,
    /// By the gate: bytes read from clients.
    #[serde(default)]
    pub bytes_in: u64,
    /// By the gate: bytes written to clients.
    #[serde(default)]
    pub bytes_out: u64,
}

/// The queue of records on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that it may use.
    pub max_bytes: u64,
    /// The level that decides what is still taken, in words.
    pub level: String,
    /// Why nothing can be recorded, where that is so.
    pub error: Option<String>,
}

/// The way to the collector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Whether the agent has a collector at all.
    pub configured: bool,
    /// Whether it has a connection now.
    pub connected: bool,
    /// The last record that the collector has synced.
    pub acknowledged_seq: Option<u64>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// A protected system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// `closed` or `open`.
    pub on_failure: String,
    /// Addresses caught now, names resolved.
    pub addresses: Vec<String>,
}

/// What a running agent can tell and do; the agent's `app` implements it.
pub trait StatusSource: Send + Sync + 'static {
    /// How it is doing.
    fn status(&self) -> Status;

    /// Records the detachment, takes the hooks away, and says so in words. May block.
    fn detach(&self) -> anyhow::Result<String>;
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How are you?
    Status,
    /// Record it, and take the hooks away.
    Detach,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// How the agent is doing.
    Status(Box<Status>),
    /// It is done.
    Done {
        /// What was done.
        text: String,
    },
    /// It is not done.
    Error {
        /// Why.
        text: String,
    },
}

/// Makes the socket in `run_dir` and answers at it until the task is aborted. Call it on the runtime
/// that is not busy with traffic.
pub fn spawn(
    run_dir: &Path,
    source: Arc<dyn StatusSource>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = bind(&run_dir.join(SOCKET_NAME))?;
    Ok(tokio::spawn(serve(listener, source)))
}

/// Makes the socket; a socket that a dead agent left is replaced, a live agent's is not.
pub fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    let dir = socket.parent().context("the control socket has no directory")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))?;
    if socket.exists() {
        anyhow::ensure!(
            StdUnixStream::connect(socket).is_err(),
            "another agent answers at {}: stop it first, or give this one a run_dir of its own",
            socket.display()
        );
        std::fs::remove_file(socket)
            .with_context(|| format!("removing the stale {}", socket.display()))?;
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
    // Peers are checked by SO_PEERCRED too, so the moment before this mode is set opens nothing.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("setting the mode of {}", socket.display()))?;
    Ok(listener)
}

/// Answers for ever; drop the future to stop. Errors of single peers are logged, never returned.
pub async fn serve(listener: UnixListener, source: Arc<dyn StatusSource>) {
    let places = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let wait = Duration::from_secs(DETACH_SECONDS_MAX + REQUEST_SECONDS_MAX);
            match tokio::time::timeout(wait, peer(stream, source)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "control socket: peer dropped"),
                Err(_) => tracing::warn!("control socket: peer took too long, dropped"),
            }
            drop(place);
        });
    }
}

/// One peer, one request.
async fn peer(stream: UnixStream, source: Arc<dyn StatusSource>) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let own = nix::unistd::geteuid().as_raw();
    anyhow::ensure!(uid == 0 || uid == own, "uid {uid} may not use the control socket");
    let (reading, mut writing) = stream.into_split();
    let mut line = Vec::new();
    let mut reading = tokio::io::BufReader::new(reading.take(REQUEST_BYTES_MAX));
    let wait = Duration::from_secs(REQUEST_SECONDS_MAX);
    tokio::time::timeout(wait, reading.read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(Request::Status) => Answer::Status(Box::new(source.status())),
        Ok(Request::Detach) => {
            tracing::info!(uid, "detach asked for at the control socket");
            match tokio::task::spawn_blocking(move || source.detach()).await? {
                Ok(text) => Answer::Done { text },
                Err(error) => Answer::Error { text: format!("{error:#}") },
            }
        }
        Err(error) => Answer::Error { text: format!("not a request: {error}") },
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    writing.write_all(&bytes).await?;
    writing.shutdown().await?;
    Ok(())
}

/// Asks the agent at `socket`; `None` where no agent answers there.
pub fn ask(socket: &Path, request: Request) -> anyhow::Result<Option<Answer>> {
    use std::io::ErrorKind;
    let mut stream = match StdUnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!("connecting to {} (are you root or the agent's user?)", socket.display())
            });
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(DETACH_SECONDS_MAX + REQUEST_SECONDS_MAX)))?;
    stream.set_write_timeout(Some(Duration::from_secs(REQUEST_SECONDS_MAX)))?;
    let mut bytes = serde_json::to_vec(&request)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    anyhow::ensure!(
        line.ends_with('\n'),
        "the agent at {} closed without a whole answer; its log says why",
        socket.display()
    );
    Ok(Some(serde_json::from_str(&line).context("reading the agent's answer")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Canned;

    impl StatusSource for Canned {
        fn status(&self) -> Status {
            Status { agent_id: "host-a".to_owned(), operations: 7, ..Status::default() }
        }

        fn detach(&self) -> anyhow::Result<String> {
            anyhow::bail!("the journal is full")
        }
    }

    /// Sends `line` as it is, and gives the answer.
    fn raw(socket: &Path, line: &[u8]) -> String {
        let mut stream = StdUnixStream::connect(socket).unwrap();
        stream.write_all(line).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_running_agent_answers_and_nonsense_gets_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/agent.sock");
        assert_eq!(ask(&socket, Request::Status).unwrap(), None);
        let server = tokio::spawn(serve(bind(&socket).unwrap(), Arc::new(Canned)));
        let asked = socket.clone();
        tokio::task::spawn_blocking(move || {
            let Some(Answer::Status(status)) = ask(&asked, Request::Status).unwrap() else {
                panic!("no status")
            };
            assert_eq!((status.agent_id.as_str(), status.operations), ("host-a", 7));
            let refused = Answer::Error { text: "the journal is full".to_owned() };
            assert_eq!(ask(&asked, Request::Detach).unwrap(), Some(refused));
            let long = vec![b'x'; 4096];
            for nonsense in [b"\n".as_slice(), b"{\"request\":\"stop\"}\n", b"{}", &long] {
                assert!(raw(&asked, nonsense).contains("not a request"), "{nonsense:?}");
            }
            assert!(bind(&asked).is_err(), "a live agent's socket was taken");
        })
        .await
        .unwrap();
        server.abort();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
        drop(server.await);
        bind(&socket).unwrap();
    }
}
