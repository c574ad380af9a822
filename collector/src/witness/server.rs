//! The witness as a server: `POST /add-checkpoint`, `GET /ORIGIN-HASH/checkpoint`.
//!
//! Promise: needs a directory, a key and the logs' verifier keys, and nothing else of the collector.
//!
//! Limits: [`super::REQUEST_BYTES_MAX`], [`CONNECTIONS_MAX`], [`REQUEST_MAX`].
//! Known gap: plain HTTP. What is sent is signed and public; put a TLS proxy before it where somebody may
//! keep requests back.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_ledger::cosignature::WitnessKey;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::book::{AddCheckpoint, Book, Refusal};
use super::{REQUEST_BYTES_MAX, SIZE_TYPE};
use crate::{clock, files, keys};

/// Connections at once; others wait.
pub const CONNECTIONS_MAX: usize = 64;
/// A request must be there within this.
pub const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Configuration file in the witness's directory.
pub const CONFIG: &str = "witness.toml";

const KEY: &str = "witness.key";
const STATE: &str = "logs";

/// `witness.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that it signs under: a URL without scheme.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Verifier keys of the logs that it watches.
    pub logs: Vec<String>,
}

/// Makes a directory with key and configuration; returns the verifier key for the collectors.
pub fn init(dir: &Path, config: &Config) -> anyhow::Result<WitnessKey> {
    for log in &config.logs {
        log.parse::<VerifierKey>().map_err(|error| anyhow::anyhow!("log {log:?}: {error}"))?;
    }
    let key = keys::generate()?;
    let public = WitnessKey::new(&config.name, key.verifying_key().to_bytes())
        .map_err(|error| anyhow::anyhow!("name: {error}"))?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    keys::create(&dir.join(KEY), &key)?;
    files::create(&dir.join(CONFIG), toml::to_string(config)?.as_bytes(), files::PUBLIC)?;
    Ok(public)
}

/// A witness at work.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its verifier key.
    pub key: WitnessKey,
    task: JoinHandle<()>,
    _lock: File,
}

impl Running {
    /// Ends it; what it has signed is on the disk.
    pub fn stop(self) {
        self.task.abort();
    }
}

/// Starts the witness of this directory.
pub async fn start(dir: &Path) -> anyhow::Result<Running> {
    let path = dir.join(CONFIG);
    let config: Config =
        toml::from_str(&files::read(&path)?).with_context(|| format!("in {}", path.display()))?;
    let mut logs = Vec::new();
    for log in &config.logs {
        let key = log.parse::<VerifierKey>();
        logs.push(key.map_err(|error| anyhow::anyhow!("log {log:?}: {error}"))?);
    }
    let key = keys::load(&dir.join(KEY))?;
    let public = WitnessKey::new(&config.name, key.verifying_key().to_bytes())
        .map_err(|error| anyhow::anyhow!("name: {error}"))?;
    let state: PathBuf = dir.join(STATE);
    std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let lock = lock(&state)?;
    let book = Arc::new(Book::open(&state, &config.name, key, &logs)?);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, name = %config.name, logs = logs.len(), "witness listens");
    Ok(Running { address, key: public, task: tokio::spawn(accept(listener, book)), _lock: lock })
}

/// One process may sign from this state.
fn lock(state: &Path) -> anyhow::Result<File> {
    let file = File::open(state).with_context(|| format!("cannot open {}", state.display()))?;
    file.try_lock().map_err(|error| anyhow::anyhow!("{} is in use: {error}", state.display()))?;
    Ok(file)
}

async fn accept(listener: TcpListener, book: Arc<Book>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; others end in the meantime.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let book = Arc::clone(&book);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let book = Arc::clone(&book);
                async move { Ok::<_, std::convert::Infallible>(answer(request, book).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that goes away is no news.
            let _gone = connection.await;
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, book: Arc<Book>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET
        && let Some(hash) = path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint"))
    {
        return match book.newest(hash) {
            Some(note) => reply(StatusCode::OK, note),
            None => reply(StatusCode::NOT_FOUND, "nothing of that origin was cosigned\n"),
        };
    }
    if path != "/add-checkpoint" {
        return reply(StatusCode::NOT_FOUND, "no such path\n");
    }
    if request.method() != Method::POST {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "POST\n");
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect();
    let Ok(Ok(body)) = tokio::time::timeout(REQUEST_MAX, body).await else {
        return reply(StatusCode::BAD_REQUEST, "too long, or too slow\n");
    };
    let body = String::from_utf8(body.to_bytes().to_vec()).ok();
    let Some(request) = body.as_deref().and_then(AddCheckpoint::read) else {
        return reply(StatusCode::BAD_REQUEST, "not an add-checkpoint request\n");
    };
    let time_s = clock::now_ns() / 1_000_000_000;
    let work = tokio::task::spawn_blocking(move || book.add(&request, time_s));
    match work.await {
        Ok(Ok(Ok(line))) => reply(StatusCode::OK, line),
        Ok(Ok(Err(refusal))) => refuse(&refusal),
        Ok(Err(error)) => {
            tracing::error!(error = format!("{error:#}"), "nothing was signed");
            reply(StatusCode::INTERNAL_SERVER_ERROR, "the witness cannot keep it now\n")
        }
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "failed\n"),
    }
}

fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    tracing::warn!(?refusal, "a checkpoint was not signed");
    match refusal {
        Refusal::UnknownOrigin => reply(StatusCode::NOT_FOUND, "no such log\n"),
        Refusal::NotSigned => reply(StatusCode::FORBIDDEN, "not signed by the log's key\n"),
        Refusal::Malformed => reply(StatusCode::BAD_REQUEST, "no checkpoint, or a smaller one\n"),
        Refusal::OtherSize(size) => {
            let mut response = reply(StatusCode::CONFLICT, format!("{size}\n"));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SIZE_TYPE));
            response
        }
        Refusal::Inconsistent => {
            reply(StatusCode::UNPROCESSABLE_ENTITY, "it does not continue what was cosigned\n")
        }
    }
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
