//! What becomes of a checkpoint once it is signed: its tiles, then the witnesses' signatures.
//!
//! Promise: never in the way of the log's writer. A witness that is away costs its signature, and the next
//! checkpoint asks again; a witness that knows more than we do stops the collector.
//!
//! Limits: only the newest checkpoint is published where the disk or a witness is slow.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tidegate_ledger::checkpoint::{Checkpoint, VerifierKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::ingest::{Job, Signed};
use crate::log::{Reader, notes};
use crate::seen;
use crate::tlog::{self, TileWriter};
use crate::witness::client::{Asked, Witness};

/// Pause before a quorum of witnesses is asked again what they know.
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// The task's state.
pub struct Publisher {
    /// Where the tiles go.
    pub tlog: PathBuf,
    /// Whether entry bundles are written.
    pub bundles: bool,
    /// The log's directory, for cosigned checkpoints.
    pub log: PathBuf,
    /// Where contradictions are kept.
    pub seen: PathBuf,
    /// The log's key.
    pub key: VerifierKey,
    /// Who is asked.
    pub witnesses: Vec<Witness>,
    /// How many must have answered before anything is signed.
    pub quorum: usize,
    /// To stop the collector, or to let it sign.
    pub jobs: mpsc::WeakSender<Job>,
    /// Reads the log's entries, from the first that has no tile.
    pub reader: Option<Reader>,
}

/// What the witnesses say before anything is signed.
#[derive(Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// A quorum of them knows nothing that we don't.
    Yes,
    /// Too few answered.
    NotYet,
}

impl Publisher {
    /// Asks every witness what it knows of our log. An error means that the log was set back.
    pub async fn confirm(&self, signed: Option<&Signed>) -> anyhow::Result<Confirmed> {
        let mut answered = 0;
        for witness in &self.witnesses {
            match witness.newest(&self.key).await {
                Ok(None) => answered += 1,
                Ok(Some((head, note))) => {
                    let ours = signed.map_or(0, |signed| signed.head.size);
                    if head.size > ours || self.is_other_tree(&head, signed) {
                        return Err(self.set_back(&witness.name, &head, &note)?);
                    }
                    answered += 1;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(witness = %witness.name, error, "witness does not answer");
                }
            }
        }
        Ok(if answered >= self.quorum { Confirmed::Yes } else { Confirmed::NotYet })
    }

    /// Whether our tree of that size is another one. What has no tiles yet is told later, by the proof.
    fn is_other_tree(&self, head: &Checkpoint, signed: Option<&Signed>) -> bool {
        match signed {
            Some(signed) if signed.head.size == head.size => signed.head.root != head.root,
            _ => tlog::root(&self.tlog, head.size).is_some_and(|root| root != head.root),
        }
    }

    fn set_back(&self, who: &str, head: &Checkpoint, note: &str) -> anyhow::Result<anyhow::Error> {
        seen::keep_checkpoint(&self.seen, who, note)?;
        Ok(anyhow::anyhow!(
            "witness {who} holds a checkpoint of this log, signed by its key, over {} entries, that this log \
             does not match: it was set back, or another collector writes under its name. It is not served. \
             Bring back the newer data",
            head.size
        ))
    }

    /// Works until the log's writer has ended and its last checkpoint is published.
    pub async fn run(
        mut self,
        mut signed: watch::Receiver<Option<Arc<Signed>>>,
        mut confirmed: Confirmed,
    ) {
        while confirmed == Confirmed::NotYet {
            tokio::select! {
                () = tokio::time::sleep(CONFIRM_PAUSE) => {}
                ended = signed.changed() => if ended.is_err() { return },
            }
            let newest = signed.borrow().clone();
            match self.confirm(newest.as_deref()).await {
                Ok(Confirmed::NotYet) => {}
                Ok(Confirmed::Yes) => {
                    confirmed = Confirmed::Yes;
                    self.tell(Job::MaySign).await;
                }
                Err(error) => return self.tell(Job::SetBack(error)).await,
            }
        }
        let mut writer = None;
        signed.mark_changed();
        while signed.changed().await.is_ok() {
            let Some(newest) = signed.borrow_and_update().clone() else { continue };
            match self.publish(&mut writer, &newest).await {
                Ok(None) => {}
                Ok(Some(error)) => return self.tell(Job::SetBack(error)).await,
                Err(error) => {
                    writer = None;
                    tracing::warn!(error = format!("{error:#}"), "a checkpoint is not published");
                }
            }
        }
    }

    async fn tell(&self, job: Job) {
        if let Some(jobs) = self.jobs.upgrade() {
            // Nobody hears where the collector stops already.
            let _gone = jobs.send(job).await;
        }
    }

    /// The inner error says that the log was set back.
    async fn publish(
        &mut self,
        writer: &mut Option<TileWriter>,
        signed: &Arc<Signed>,
    ) -> anyhow::Result<Option<anyhow::Error>> {
        let mut tiles = self.write_tiles(writer.take(), signed).await?;
        let Some(root) = tlog::root(&self.tlog, signed.head.size) else {
            tiles = self.anew(signed).await?;
            return self.ask(tiles, writer, signed).await;
        };
        if root != signed.head.root {
            tiles = self.anew(signed).await?;
        }
        self.ask(tiles, writer, signed).await
    }

    /// The tiles are not those of the log: a projection is made again.
    async fn anew(&mut self, signed: &Arc<Signed>) -> anyhow::Result<TileWriter> {
        tracing::warn!("the tiles are not those of the log; making them anew");
        let _none = std::fs::remove_file(self.tlog.join(tlog::CHECKPOINT));
        self.reader = None;
        let tiles = self.write_tiles(None, signed).await?;
        anyhow::ensure!(
            tlog::root(&self.tlog, signed.head.size) == Some(signed.head.root),
            "the tiles cannot be made"
        );
        Ok(tiles)
    }

    async fn write_tiles(
        &mut self,
        writer: Option<TileWriter>,
        signed: &Arc<Signed>,
    ) -> anyhow::Result<TileWriter> {
        let mut writer = if let Some(writer) = writer {
            writer
        } else {
            self.reader = None;
            TileWriter::open(&self.tlog, self.bundles)?
        };
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.reader_at(writer.size()).await?,
        };
        let signed = Arc::clone(signed);
        let work = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            while writer.size() < signed.head.size {
                let frame = reader.next()?.context("the log ends before its checkpoint")?;
                if frame.index >= writer.size() {
                    writer.push(&frame.payload)?;
                }
            }
            writer.publish(&signed.note)?;
            Ok((writer, reader))
        });
        let (writer, reader) = work.await??;
        self.reader = Some(reader);
        Ok(writer)
    }

    async fn reader_at(&self, index: u64) -> anyhow::Result<Reader> {
        let (reply, reader) = tokio::sync::oneshot::channel();
        let jobs = self.jobs.upgrade().context("the collector stops")?;
        jobs.send(Job::Reader(index, reply)).await.ok().context("the collector stops")?;
        reader.await.context("the collector stops")
    }

    async fn ask(
        &mut self,
        tiles: TileWriter,
        writer: &mut Option<TileWriter>,
        signed: &Arc<Signed>,
    ) -> anyhow::Result<Option<anyhow::Error>> {
        let mut asking = JoinSet::new();
        for mut witness in std::mem::take(&mut self.witnesses) {
            let (signed, key, tlog) = (Arc::clone(signed), self.key.clone(), self.tlog.clone());
            asking.spawn(async move {
                let size = signed.head.size;
                let prove = |old| tlog::consistency(&tlog, old, size);
                let asked = witness.add(&key, &signed.head, &signed.note, prove).await;
                (witness, asked)
            });
        }
        let (mut lines, mut contradicted) = (Vec::new(), None);
        while let Some(done) = asking.join_next().await {
            let (witness, asked) = done?;
            match asked {
                Ok(Asked::Signed(line)) => lines.push(line),
                Ok(Asked::KnowsMore(knows)) => {
                    let (head, note) = *knows;
                    if head.size > signed.head.size || self.is_other_tree(&head, Some(signed)) {
                        contradicted = Some(self.set_back(&witness.name, &head, &note)?);
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(witness = %witness.name, error, "no signature of a witness");
                }
            }
            self.witnesses.push(witness);
        }
        if !lines.is_empty() {
            lines.sort();
            let cosigned = format!("{}{}", signed.note, lines.concat());
            notes::keep_cosigned(&self.log, &cosigned)?;
            tiles.republish(&cosigned)?;
        }
        *writer = Some(tiles);
        Ok(contradicted)
    }
}
