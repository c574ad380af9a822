//! The feed to a SIEM: every record, in the log's order, at least once, from a durable cursor.
//!
//! Promise: the cursor moves only over what the receiver took or what lies in the dead-letter
//! file; a receiver that is down or slow loses nothing, since the log is the queue.
//!
//! What a receiver rejects (`partial_success`, or the request itself as malformed) is bisected down to
//! single records; those go to `dead-letters/NAME.jsonl` by their log index, with a warning. What
//! may be our configuration's fault (credentials, wrong path) is retried for ever, loudly.
//!
//! The feed follows the index, which it asks for each record's session. Field by field:
//! `docs/formats/otlp.md`, `docs/formats/syslog.md`. Known gaps: seals are not exported; no compression.

mod cef;
mod grpc;
mod http;
pub mod mapping;
mod ocsf;
mod syslog;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use serde_json::json;
use tokio::sync::watch;

use self::mapping::{Item, Mapper};
use crate::config::{Export, ExportProtocol};
use crate::index;
use crate::log::Reader;
use crate::serve::Readers;
use crate::state::State;

/// First wait after a failure.
const WAIT_MS_MIN: u64 = 200;
/// Longest wait between two tries.
const WAIT_MS_MAX: u64 = 30_000;

/// What became of one request.
#[derive(Debug)]
pub enum Delivery {
    /// The receiver has all of it.
    Taken,
    /// The receiver will never take it as it is, or not all of it.
    Rejected(String),
    /// Try again later; at least this long where the receiver says so.
    Retry(String, Option<Duration>),
}

impl Delivery {
    /// What the receiver's answer says.
    fn of(response: &ExportLogsServiceResponse) -> Self {
        match &response.partial_success {
            Some(partial) if partial.rejected_log_records > 0 => Self::Rejected(format!(
                "{} rejected: {}",
                partial.rejected_log_records, partial.error_message
            )),
            _ => Self::Taken,
        }
    }
}

enum Sink {
    Grpc(Box<grpc::Sink>),
    Http(Box<http::Sink>),
    Syslog(Box<syslog::Sink>),
}

impl Sink {
    fn new(config: &Export) -> anyhow::Result<Self> {
        match config.protocol {
            ExportProtocol::Grpc => Ok(Self::Grpc(Box::new(grpc::Sink::new(config)?))),
            ExportProtocol::Http => Ok(Self::Http(Box::new(http::Sink::new(config)?))),
            ExportProtocol::Syslog => Ok(Self::Syslog(Box::new(syslog::Sink::new(config)?))),
        }
    }

    async fn send(&self, items: &[Item]) -> Delivery {
        match self {
            Self::Grpc(sink) => sink.send(mapping::request(items)).await,
            Self::Http(sink) => sink.send(&mapping::request(items)).await,
            Self::Syslog(sink) => sink.send(items).await,
        }
    }
}

/// One export.
pub struct Exporter {
    config: Export,
    sink: Sink,
    state: Arc<State>,
    origin: String,
    index: PathBuf,
    dead_letters: PathBuf,
}

/// What every export shares.
pub struct Shared {
    /// Cursors.
    pub state: Arc<State>,
    /// Origin of the log.
    pub origin: String,
    /// The index.
    pub index: PathBuf,
    /// Directory of the dead-letter files.
    pub dead_letters: PathBuf,
}

impl Exporter {
    /// Prepares one export; connects later.
    pub fn new(config: &Export, shared: &Shared) -> anyhow::Result<Self> {
        let sink = Sink::new(config).with_context(|| format!("export {:?}", config.name))?;
        Ok(Self {
            config: config.clone(),
            sink,
            state: Arc::clone(&shared.state),
            origin: shared.origin.clone(),
            index: shared.index.clone(),
            dead_letters: shared.dead_letters.join(format!("{}.jsonl", config.name)),
        })
    }

    /// Exports for ever; ends when the collector stops. `indexed` says how far the index is.
    pub async fn run(self, readers: Readers, mut indexed: watch::Receiver<u64>) {
        let mut pause = Pause::new();
        loop {
            let outcome = self.follow(&readers, &mut indexed).await;
            let Err(error) = outcome else { return };
            tracing::error!(
                export = %self.config.name, error = format!("{error:#}"), "export failed; starting over"
            );
            pause.wait(None).await;
        }
    }

    async fn follow(
        &self,
        readers: &Readers,
        indexed: &mut watch::Receiver<u64>,
    ) -> anyhow::Result<()> {
        let (mut next, _) = self.state.export_cursor(&self.config.name)?;
        let Some(mut reader) = readers.at(next).await else {
            return Ok(());
        };
        let mut mapper = Mapper::new(&self.origin, index::open_for_reading(&self.index)?);
        loop {
            let Ok(upto) = indexed.wait_for(|upto| *upto > next).await.map(|upto| *upto) else {
                return Ok(());
            };
            let most = self.config.records_max;
            let gather = move || {
                let batch = gather(&mut reader, &mut mapper, next, upto, most);
                (reader, mapper, batch)
            };
            let batch;
            (reader, mapper, batch) = tokio::task::spawn_blocking(gather).await?;
            let batch = batch?;
            self.deliver(&batch.items).await?;
            next = batch.next;
            self.state.move_export(&self.config.name, next, 0)?;
        }
    }

    /// Delivers the items in order; bisects what is rejected.
    async fn deliver(&self, items: &[Item]) -> anyhow::Result<()> {
        let mut pause = Pause::new();
        let mut open = vec![items];
        while let Some(piece) = open.pop() {
            if piece.is_empty() {
                continue;
            }
            match self.sink.send(piece).await {
                Delivery::Taken => {
                    pause = Pause::new();
                    self.passed(piece, 0)?;
                }
                Delivery::Rejected(why) => {
                    if let [item] = piece {
                        self.bury(item, &why)?;
                        self.passed(piece, 1)?;
                    } else {
                        let (left, right) = piece.split_at(piece.len() / 2);
                        open.push(right);
                        open.push(left);
                    }
                }
                Delivery::Retry(why, at_least) => {
                    tracing::warn!(export = %self.config.name, why, "export waits");
                    open.push(piece);
                    pause.wait(at_least).await;
                }
            }
        }
        Ok(())
    }

    fn passed(&self, piece: &[Item], dead: u64) -> anyhow::Result<()> {
        let Some(last) = piece.last() else {
            return Ok(());
        };
        self.state.move_export(&self.config.name, last.index + 1, dead)
    }

    fn bury(&self, item: &Item, why: &str) -> anyhow::Result<()> {
        tracing::warn!(
            export = %self.config.name, index = item.index, why,
            "the receiver will not take this record; it is in the dead-letter file"
        );
        let line = json!({
            "index": item.index,
            "uid": format!("{}#{}", self.origin, item.index),
            "event": item.record.event_name,
            "why": why,
        });
        append_line(&self.dead_letters, &line.to_string())
    }
}

struct Batch {
    items: Vec<Item>,
    next: u64,
}

fn gather(
    reader: &mut Reader,
    mapper: &mut Mapper,
    mut next: u64,
    upto: u64,
    most: usize,
) -> anyhow::Result<Batch> {
    let mut items = Vec::new();
    while next < upto && items.len() < most {
        let Some(frame) = reader.next()? else { break };
        next = frame.index + 1;
        items.extend(mapper.item(frame.index, &frame.payload)?);
    }
    Ok(Batch { items, next })
}

fn append_line(path: &Path, line: &str) -> anyhow::Result<()> {
    let append = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    };
    append().with_context(|| format!("cannot write {}", path.display()))
}

/// Waits that double, each by chance between half and all of it, so that many don't retry at once.
struct Pause {
    ms: u64,
}

impl Pause {
    const fn new() -> Self {
        Self { ms: WAIT_MS_MIN }
    }

    async fn wait(&mut self, at_least: Option<Duration>) {
        let half = self.ms / 2;
        let chance = getrandom::u64().unwrap_or(0) % (half + 1);
        self.ms = (self.ms * 2).min(WAIT_MS_MAX);
        let wait = Duration::from_millis(half + chance);
        tokio::time::sleep(wait.max(at_least.unwrap_or_default())).await;
    }
}
