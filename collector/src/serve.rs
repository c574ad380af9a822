//! `serve`: puts the parts together, and takes them down in order.
//!
//! One thread writes the log; everything else is tasks. A stop ends the streams first, then the
//! writer (which syncs and signs), then the followers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tidegate_event::ChainId;
use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_proto::audit::v1::CollectorEntry;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::uplink::v1::approvals_server::ApprovalsServer;
use tidegate_proto::uplink::v1::enrolment_server::EnrolmentServer;
use tidegate_proto::uplink::v1::uplink_server::UplinkServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::access::EnrolmentService;
use crate::acts::{self, COLLECTOR};
use crate::approvals::service::{ApprovalsService, EXCHANGE_BYTES_MAX};
use crate::config::{Config, Paths};
use crate::export::{Exporter, Shared};
use crate::index::Index;
use crate::ingest::chains::Chains;
use crate::ingest::commit::{Committer, JOBS_QUEUED_MAX, administration};
use crate::ingest::stream::{MESSAGE_BYTES_MAX, UplinkService};
use crate::ingest::{Job, Signed};
use crate::log::{Opening, Reader, Writer};
use crate::publish::{Confirmed, Publisher};
use crate::silence::Silences;
use crate::state::State;
use crate::witness::client::Witness;
use crate::{clock, files, keys, pki, seen, ui};

/// How often a checkpoint is signed while records come in.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(20);
/// After a stop, streams have this long to end.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A collector at work.
pub struct Running {
    /// Where the uplink listens.
    pub uplink: SocketAddr,
    /// Where the review pages are, where there are any.
    pub ui: Option<SocketAddr>,
    /// How many entries are synced.
    pub durable: watch::Receiver<u64>,
    /// How many entries are in the index.
    pub indexed: watch::Receiver<u64>,
    paths: Paths,
    stop: watch::Sender<bool>,
    jobs: mpsc::Sender<Job>,
    server: JoinHandle<()>,
    pages: Option<JoinHandle<()>>,
    ticker: JoinHandle<()>,
    followers: Vec<JoinHandle<()>>,
    exporters: Vec<JoinHandle<()>>,
    writer: oneshot::Receiver<anyhow::Result<()>>,
    /// The writer's end was told already.
    told: bool,
}

/// Gives readers of the log to followers.
#[derive(Clone)]
pub struct Readers {
    jobs: mpsc::WeakSender<Job>,
}

impl Readers {
    /// A reader from this index on; `None` once the collector stops.
    pub async fn at(&self, index: u64) -> Option<Reader> {
        let (reply, reader) = oneshot::channel();
        self.jobs.upgrade()?.send(Job::Reader(index, reply)).await.ok()?;
        reader.await.ok()
    }
}

/// Starts everything; returns when the uplink listens.
pub async fn start(config: &Config) -> anyhow::Result<Running> {
    // A second call finds the provider there already, which is what is wanted.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let paths = config.paths();
    let opened = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || open(&config)).await??
    };
    let Opened { state, mut committer, index, durable, key } = opened;
    let signed = committer.signed.subscribe();
    let mut publisher = publisher(config, key)?;
    let confirmed = publisher.confirm(signed.borrow().clone().as_deref()).await?;
    committer.log.may_sign(confirmed == Confirmed::Yes);
    let (stop, stopping) = watch::channel(false);
    let (jobs, queue) = mpsc::channel(JOBS_QUEUED_MAX);

    let (done, writer) = oneshot::channel();
    std::thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || {
            // Nobody waits where the collector itself is gone.
            let _gone = done.send(committer.run(queue));
        })
        .context("cannot start the log's thread")?;

    publisher.jobs = jobs.downgrade();
    let publisher = publisher.run(signed.clone(), confirmed);
    let readers = Readers { jobs: jobs.downgrade() };
    let (indexed_sender, indexed) = watch::channel(index.next());
    let follower = follow(index, readers.clone(), durable.clone(), indexed_sender);
    let shared = Shared {
        state: Arc::clone(&state),
        origin: config.collector.origin.clone(),
        index: paths.index(),
        dead_letters: paths.dead_letters(),
    };
    let mut exporters = Vec::new();
    for export in &config.export {
        let exporter = Exporter::new(export, &shared)?;
        exporters.push(tokio::spawn(exporter.run(readers.clone(), indexed.clone())));
    }
    let (ui, pages) = ui::start(config, &state, stopping.clone()).await?.unzip();
    let (uplink, server) = listen(config, &state, &jobs, stopping, signed).await?;
    files::replace(&paths.uplink_address(), uplink.to_string().as_bytes(), files::PUBLIC)?;
    Ok(Running {
        uplink,
        ui,
        durable,
        indexed,
        paths,
        stop,
        pages,
        ticker: tokio::spawn(tick(jobs.clone())),
        jobs,
        server,
        followers: vec![tokio::spawn(follower), tokio::spawn(publisher)],
        exporters,
        writer,
        told: false,
    })
}

impl Running {
    /// Returns when the log's writer has ended by itself, which is always a failure.
    pub async fn failed(&mut self) -> anyhow::Error {
        let ended = (&mut self.writer).await;
        self.told = true;
        match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => anyhow::anyhow!("the log's thread ended"),
        }
    }

    /// Ends everything in order; what was received is synced and under a checkpoint then.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_MAX, &mut self.server).await.is_err() {
            self.server.abort();
        }
        if let Some(mut pages) = self.pages
            && tokio::time::timeout(STOP_MAX, &mut pages).await.is_err()
        {
            pages.abort();
        }
        self.ticker.abort();
        // The ticker holds a sender until it is really gone.
        let _cancelled = (&mut self.ticker).await;
        for exporter in self.exporters {
            exporter.abort();
            let _cancelled = exporter.await;
        }
        drop(self.jobs);
        let written = if self.told { Ok(()) } else { self.writer.await.unwrap_or_else(|_| Ok(())) };
        for follower in self.followers {
            follower.await.context("a follower of the log")?;
        }
        // A leftover would only name a port where nobody listens.
        let _gone = std::fs::remove_file(self.paths.uplink_address());
        let _gone = std::fs::remove_file(self.paths.ui_address());
        written
    }
}

struct Opened {
    state: Arc<State>,
    committer: Committer,
    index: Index,
    durable: watch::Receiver<u64>,
    key: VerifierKey,
}

fn publisher(config: &Config, key: VerifierKey) -> anyhow::Result<Publisher> {
    let paths = config.paths();
    let (jobs, _none) = mpsc::channel(1);
    Ok(Publisher {
        tlog: paths.tlog(),
        bundles: config.log.entry_bundles,
        log: paths.log(),
        seen: paths.seen(),
        key,
        witnesses: config.witnesses.iter().map(Witness::new).collect::<Result<_, _>>()?,
        quorum: config.quorum(),
        jobs: jobs.downgrade(),
        reader: None,
    })
}

fn open(config: &Config) -> anyhow::Result<Opened> {
    let paths = config.paths();
    let key = keys::load(&paths.log_key())?;
    let verifier = keys::verifier(&key, &config.collector.origin)?;
    let state = Arc::new(State::open(&paths.state())?);
    let audit_key = keys::own(&paths.audit_key())?;
    state.own_key(&audit_key.verifying_key().to_bytes())?;
    let (mut chains, mut last_act) = (Chains::default(), 0);
    let opening = Opening {
        dir: &paths.log(),
        key: key.clone(),
        verifier: &verifier,
        origin: &config.collector.origin,
        segment_bytes: config.log.segment_bytes,
        seen: seen::read(&paths.seen(), &verifier)?,
    };
    let log =
        Writer::open(opening, |index, payload| replay(&mut chains, &mut last_act, index, payload))?;
    state.acts_begin_behind(last_act)?;
    let (sender, durable) = watch::channel(log.durable());
    let index = Index::open(&paths.index(), log.durable())?;
    keys::publish(&paths.keys(), &verifier, &state)?;
    let policy = config.policy(verifier.clone())?;
    files::replace(&paths.policy(), policy.to_string().as_bytes(), files::PUBLIC)?;
    tracing::info!(entries = log.size(), indexed = index.next(), "log opened");
    let (signed, _) = watch::channel(log.signed().cloned().map(Arc::new));
    let silences = Silences::begin(chains.agents(), clock::now_ns(), clock::boot_ns());
    let committer = Committer {
        log,
        chains,
        silences,
        key,
        audit_key,
        last_act,
        own: vec![started(config)],
        told: HashSet::new(),
        seen: paths.seen(),
        tlog: paths.tlog(),
        state: Arc::clone(&state),
        index: paths.index(),
        durable: sender,
        signed,
    };
    Ok(Opened { state, committer, index, durable, key: verifier })
}

/// The start as an act, with the digest of the configuration: a change of it shows.
fn started(config: &Config) -> Body {
    let mut body = administration(
        "started",
        format!("version {}; digest of the configuration", env!("CARGO_PKG_VERSION")),
    );
    if let Body::Administration(act) = &mut body {
        act.digest = config.digest.to_vec().into();
    }
    body
}

fn replay(
    chains: &mut Chains,
    last_act: &mut u64,
    index: u64,
    payload: &[u8],
) -> anyhow::Result<()> {
    use prost::Message as _;
    let entry = CollectorEntry::decode(payload)?;
    match entry.kind() {
        Kind::Record => {
            chains.replay_record(&entry.bytes)?;
            let chain = ChainId::from_slice(&entry.chain_id);
            let own = chain
                .and_then(|id| chains.get(&id))
                .is_some_and(|held| held.agent_id() == COLLECTOR);
            if own && let Some(act) = acts::act_id(&entry.bytes) {
                *last_act = act.max(*last_act);
            }
            Ok(())
        }
        Kind::Seal => chains.replay_seal(index, &entry.bytes),
        Kind::Unspecified => anyhow::bail!("an entry of unknown kind"),
    }
}

async fn listen(
    config: &Config,
    state: &Arc<State>,
    jobs: &mpsc::Sender<Job>,
    stopping: watch::Receiver<bool>,
    signed: watch::Receiver<Option<Arc<Signed>>>,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let paths = config.paths();
    let ca = pki::Pair {
        certificate: files::read(&paths.ca_certificate())?,
        key: files::read(&paths.ca_key())?,
    };
    let identity = Identity::from_pem(
        files::read(&paths.server_certificate())?,
        files::read(&paths.server_key())?,
    );
    let tls = ServerTlsConfig::new()
        .identity(identity)
        .client_ca_root(Certificate::from_pem(&ca.certificate))
        .client_auth_optional(true)
        .timeout(TLS_HANDSHAKE_MAX);
    let key = keys::load(&paths.log_key())?;
    let log_key = keys::verifier(&key, &config.collector.origin)?;
    let approvals = ApprovalsService::new(Arc::clone(state), config.approvers.clone(), key);
    let enrolment =
        EnrolmentService::new(Arc::clone(state), ca, log_key, &config.collector.origin, paths);
    let uplink = UplinkService::new(Arc::clone(state), jobs, stopping.clone(), signed);

    let listener = TcpListener::bind(config.uplink.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.uplink.listen))?;
    let address = listener.local_addr()?;
    let router = Server::builder()
        .tls_config(tls)
        .context("the uplink's certificate")?
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER_MAX))
        .add_service(EnrolmentServer::new(enrolment))
        .add_service(ApprovalsServer::new(approvals).max_decoding_message_size(EXCHANGE_BYTES_MAX))
        .add_service(UplinkServer::new(uplink).max_decoding_message_size(MESSAGE_BYTES_MAX));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tokio::spawn(async move {
        let mut stopping = stopping;
        let stopped = async move {
            // A sender that is gone means a stop, too.
            let _gone = stopping.wait_for(|stop| *stop).await;
        };
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(error = %error, "the uplink ended");
        }
    });
    Ok((address, server))
}

async fn tick(jobs: mpsc::Sender<Job>) {
    let mut interval = tokio::time::interval(CHECKPOINT_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        if jobs.send(Job::Tick).await.is_err() {
            return;
        }
    }
}

/// Keeps the index behind the log. A failure costs answers, never evidence: it is told and tried
/// again with the next commit.
async fn follow(
    mut index: Index,
    readers: Readers,
    mut durable: watch::Receiver<u64>,
    indexed: watch::Sender<u64>,
) {
    loop {
        let next = index.next();
        if durable.wait_for(|durable| *durable > next).await.is_err() {
            return;
        }
        let Some(mut reader) = readers.at(next).await else {
            return;
        };
        let mut durable = durable.clone();
        loop {
            let work = tokio::task::spawn_blocking(move || {
                let taken = index.follow(&mut reader);
                (index, reader, taken)
            });
            let Ok(done) = work.await else { return };
            let taken;
            (index, reader, taken) = done;
            let next = index.next();
            indexed.send_replace(next);
            if let Err(error) = taken {
                tracing::error!(entry = next, error = format!("{error:#}"), "the index is stuck");
                // The next commit tries again.
                if durable.changed().await.is_err() {
                    return;
                }
                break;
            }
            if durable.wait_for(|durable| *durable > next).await.is_err() {
                return;
            }
        }
    }
}
