//! The collector asks its witnesses.
//!
//! Promise: a signature is kept only when it is the configured key's over exactly our checkpoint. A
//! witness that knows a larger tree of ours, or another one, is [`Asked::KnowsMore`] with its proof: then
//! our log was set back, and must not sign.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use tidegate_ledger::Hash;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::cosignature::{WitnessKey, taken_from_answer};
use tidegate_ledger::proof::{decimal, write_hash};

use super::{book::AddCheckpoint, origin_hash};
use crate::config;
use crate::http::{Answer, Client};

/// A witness has this long for its answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);

/// One witness.
pub struct Witness {
    /// Its name in our configuration and policy.
    pub name: String,
    /// Its key.
    pub key: WitnessKey,
    client: Client,
    /// Size of the tree that it knows, as far as we know.
    known: u64,
}

/// What came of asking.
#[derive(Debug)]
pub enum Asked {
    /// Its signature lines.
    Signed(String),
    /// A note, signed by our key, that our log does not match.
    KnowsMore(Box<(Checkpoint, String)>),
}

impl Witness {
    /// As configured.
    pub fn new(config: &config::Witness) -> anyhow::Result<Self> {
        let client = Client::new(&config.url, config.ca_file.as_deref(), ANSWER_MAX)?;
        let key = config.key()?;
        Ok(Self { name: config.name.clone(), key, client, known: 0 })
    }

    /// The newest checkpoint of our log that it cosigned; `None` where it never did.
    pub async fn newest(&self, log: &VerifierKey) -> anyhow::Result<Option<(Checkpoint, String)>> {
        let path = format!("{}/{}/checkpoint", self.client.path(), origin_hash(log.name()));
        let answer = self.send(Method::GET, &path, Bytes::new()).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => {
                let note = String::from_utf8(answer.body.to_vec()).context("its checkpoint")?;
                let head = checkpoint::open(&note, log)
                    .map_err(|error| anyhow::anyhow!("its checkpoint: {error}"))?;
                Ok(Some((head, note)))
            }
            status => anyhow::bail!("HTTP {status}"),
        }
    }

    /// Asks for a signature under this checkpoint. `prove` gives the proof from an older size.
    pub async fn add(
        &mut self,
        log: &VerifierKey,
        head: &Checkpoint,
        note: &str,
        prove: impl Fn(u64) -> Option<Vec<Hash>>,
    ) -> anyhow::Result<Asked> {
        // Once more where the witness knows another size than we thought.
        for _ in 0..2 {
            let proof = prove(self.known).context("the proof can't be computed yet")?;
            let request = AddCheckpoint { old: self.known, proof, note: note.to_owned() };
            let path = format!("{}/add-checkpoint", self.client.path());
            let answer = self.send(Method::POST, &path, Bytes::from(write(&request))).await?;
            match answer.status {
                StatusCode::OK => {
                    let lines = std::str::from_utf8(&answer.body).context("its signature")?;
                    let own = taken_from_answer(note, lines, &self.key)
                        .map_err(|error| anyhow::anyhow!("its signature: {error}"))?;
                    self.known = head.size;
                    return Ok(Asked::Signed(own.context("it signed with another key")?));
                }
                StatusCode::CONFLICT => {
                    let size = std::str::from_utf8(&answer.body).ok().map(str::trim_end);
                    let size = size.and_then(decimal).context("a conflict without a size")?;
                    if size > head.size {
                        return self.accuse(log).await;
                    }
                    self.known = size;
                }
                StatusCode::UNPROCESSABLE_ENTITY => return self.accuse(log).await,
                status => anyhow::bail!("HTTP {status}"),
            }
        }
        anyhow::bail!("it knows another size each time")
    }

    /// Its word alone is no proof that we were set back: the note that it holds is.
    async fn accuse(&self, log: &VerifierKey) -> anyhow::Result<Asked> {
        let held = self.newest(log).await?.context("it refuses, and shows no checkpoint")?;
        Ok(Asked::KnowsMore(Box::new(held)))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        self.client.send(method, path, &HeaderMap::new(), body).await
    }
}

fn write(request: &AddCheckpoint) -> String {
    let mut text = format!("old {}\n", request.old);
    for hash in &request.proof {
        text.push_str(&write_hash(hash));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&request.note);
    text
}
