//! The agent as a whole: start in the right order, keep the beat, stop without a gap.
//!
//! Order at start: policy, journal, gate, uplink. The journal is there before the gate, so that no
//! captured connection goes unrecorded; the gate's port is taken before connections are led to it.
//! Order at stop: listeners, sessions, journal; the hooks stay, and protected targets are refused
//! (or open, where the target says so) until the next start.

mod policy;
mod status;

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tidegate_event::{Digest, TargetName};
use tidegate_journal::{Clock as _, HeartbeatCounts, Journal, Lifecycle, Recovered, SystemClock};
use tidegate_policy::PolicySet;
use tidegate_sql::Analyzer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::approvals::{self, Approvals};
use crate::budget::Budgets;
use crate::capture::{self, Kernel, Rule};
use crate::catalogue::Catalogues;
use crate::config::{Config, Destination, TargetConfig};
use crate::control;
use crate::coverage::Coverage;
use crate::drain::Drain;
use crate::findings;
use crate::ingress::{self, Shared};
use crate::lanes::Lanes;
use crate::masking;
use crate::namespaces;
use crate::password_key::GateKey;
use crate::resolve::{RESOLVE_SECONDS, Resolver};
use crate::ssh::host::SshHost;
use crate::telemetry::Metrics;
use crate::tls::{HostCa, Verifications};
use crate::uplink;
use crate::watch::{Program, Watch};

pub use policy::load as load_policy;

/// How often the kernel learns that the agent lives, in milliseconds.
const BEAT_MS: u64 = 1000;

/// How often the kernel's events are looked for, in milliseconds: a client whose packets are dropped
/// waits this long for its error.
const EVENTS_MS: u64 = 200;

/// How often a heartbeat is recorded, in seconds, also when nothing happens.
const HEARTBEAT_SECONDS: u64 = 10;

/// Threads for what is not traffic: uplink, control socket, beats.
const ADMIN_THREADS: usize = 1;

/// The journal's directory below `state_dir`.
const SPOOL_DIR: &str = "spool";

/// Runs until SIGTERM or SIGINT. SIGHUP reads the policy anew.
pub fn run(config: Config) -> anyhow::Result<()> {
    let lanes = Arc::new(Lanes::start()?);
    // On its own, so that status and uplink never wait for traffic, nor traffic for them.
    let admin = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ADMIN_THREADS)
        .thread_name("tidegate-admin")
        .enable_all()
        .build()?;
    admin.block_on(serve(config, lanes))
}

/// Records the detachment of hooks that no running agent holds, and takes them away.
pub fn detach_offline(config: &Config) -> anyhow::Result<bool> {
    let policy = policy::load(config)?;
    let program = Program::own().context("reading the agent's own file")?.digest();
    let (journal, _) = open_journal(config, policy.digest(), Digest([0; 32]), program)?;
    let detached = capture::detach(&config.capture.pin_dir)?;
    let detail = if detached { "by command, no agent was running" } else { "nothing was attached" };
    journal.lifecycle(Lifecycle::Detached, detail, None)?;
    journal.seal_and_sync()?;
    journal.shutdown()?;
    Ok(detached)
}

/// The kernel handle; `None` once detached.
type Hooks = Arc<Mutex<Option<Kernel>>>;

async fn serve(config: Config, lanes: Arc<Lanes>) -> anyhow::Result<()> {
    let agent = start(config, &lanes).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    // A limit on the size of files is then an error of the write, which the journal knows how to take,
    // and not the end of this process (setrlimit(2), RLIMIT_FSIZE).
    let _file_size = signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
    announce(&agent.shared.config)?;
    let mut beat = tokio::time::interval(Duration::from_millis(BEAT_MS));
    let mut heartbeat = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
    // After a pause one heartbeat says all that can be said.
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = tokio::time::interval(Duration::from_millis(EVENTS_MS));
    events.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => agent.beat(),
            _ = events.tick() => agent.events(),
            _ = heartbeat.tick() => agent.heartbeat(),
            _ = reload.recv() => agent.reload(),
            _ = terminate.recv() => return agent.stop("SIGTERM").await,
            _ = interrupt.recv() => return agent.stop("SIGINT").await,
        }
    }
}

/// A running agent.
struct Agent {
    shared: Arc<Shared>,
    hooks: Hooks,
    drain: Drain,
    policy: watch::Sender<Arc<PolicySet>>,
    control: tokio::task::JoinHandle<()>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
    draining: Arc<AtomicBool>,
    resolving: tokio::task::JoinHandle<()>,
    packets: Mutex<findings::packet::Packets>,
    watch: Mutex<Watch>,
}

/// What answers SSH clients, where a target speaks it.
fn ssh_host(config: &Config) -> anyhow::Result<Option<Arc<SshHost>>> {
    if config.targets.iter().all(|target| target.ssh.is_none()) {
        return Ok(None);
    }
    Ok(Some(Arc::new(SshHost::open(&config.state_dir, &config.agent_id)?)))
}

async fn start(config: Config, lanes: &Arc<Lanes>) -> anyhow::Result<Agent> {
    let started = Instant::now();
    let policy = Arc::new(policy::load(&config)?);
    let mut resolver = Resolver::default();
    let said = resolver.refresh(&config).await;
    let unknown = resolver.unresolved(&config);
    anyhow::ensure!(
        unknown.is_empty(),
        "cannot resolve {}: hooks and rules stay as they were, since without an address a target \
         would be unprotected; mend the name, or write addresses in destinations",
        unknown.join(", ")
    );
    let rules = resolver.rules(&config);
    let host_ca = Arc::new(HostCa::open(&config.state_dir, &config.agent_id)?);
    let ssh_host = ssh_host(&config)?;
    let verifications =
        config.targets.iter().map(verifications_of).collect::<anyhow::Result<Vec<_>>>()?;
    let masking = masking::of(&config)?;
    let program = Program::own().context("reading the agent's own file")?;
    let (journal, recovered) =
        open_journal(&config, policy.digest(), capture::object_digest(), program.digest())?;
    tracing::info!(chain = %recovered.chain_id, clean = recovered.clean, "journal open");
    let (listeners, hooks) = open_gate(&config, &rules, &journal)?;
    let attached = status::measure(&hooks).unwrap_or_default().hooks;
    record_start(&config, &journal, &said)?;
    let (policy, receiver) = watch::channel(policy);
    let uplink = uplink::spawn(&config, journal.uplink())?;
    let metrics = Arc::new(Metrics::new());
    let approvals = approvals(&config, &journal)?;
    let runtime = tokio::runtime::Handle::current();
    let shared = Arc::new(Shared {
        journal,
        policy: receiver,
        resolver: RwLock::new(resolver),
        host_ca,
        ssh_host,
        verifications,
        analyzer: Arc::new(Analyzer::new()),
        masking,
        catalogues: Arc::new(Catalogues::new(Arc::clone(&metrics), runtime)),
        budgets: Budgets::default(),
        approvals,
        mysql_analyzer: Arc::new(tidegate_sql::mysql::Analyzer::new()),
        password_key: GateKey::for_targets(&config.targets),
        metrics,
        coverage: Coverage::default(),
        config,
    });
    shared.coverage.begin(status::kernel_counts(&hooks));
    let drain = Drain::default();
    let accepting = accept_all(listeners, &drain, lanes, &shared)?;
    let source = status::Source::new(started, Arc::clone(&shared), Arc::clone(&hooks), uplink);
    let draining = Arc::clone(&source.draining);
    let control = control::spawn(&shared.config.run_dir, Arc::new(source))?;
    // On its own: a name server that does not answer must not stop the beat.
    let resolving = tokio::spawn(resolve_on(Arc::clone(&shared), Arc::clone(&hooks)));
    Ok(Agent {
        shared,
        hooks,
        drain,
        policy,
        control,
        accepting,
        draining,
        resolving,
        packets: Mutex::default(),
        watch: Mutex::new(Watch::new(attached, program)),
    })
}

/// Where approvals are asked for; `None` where no collector is configured.
fn approvals(config: &Config, journal: &Journal) -> anyhow::Result<Option<Arc<Approvals>>> {
    if !config.collector {
        return Ok(None);
    }
    let opened = Approvals::open(&config.state_dir, &config.agent_id, journal.clone())?;
    let approvals = Arc::new(opened);
    tokio::spawn(approvals::carry(Arc::clone(&approvals)));
    Ok(Some(approvals))
}

/// Accepts at these listeners, and in the other network namespaces.
fn accept_all(
    listeners: Vec<TcpListener>,
    drain: &Drain,
    lanes: &Arc<Lanes>,
    shared: &Arc<Shared>,
) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let guard = drain.guard().context("stopped before it started")?;
    let mut accepting = Vec::new();
    for listener in listeners {
        let door = ingress::Door { guard: guard.clone(), namespace: None };
        let accept = ingress::accept(listener, Arc::clone(lanes), Arc::clone(shared), door);
        accepting.push(lanes.first()?.spawn(accept));
    }
    let elsewhere = namespaces::follow(Arc::clone(shared), Arc::clone(lanes), guard);
    accepting.push(tokio::spawn(elsewhere));
    Ok(accepting)
}

impl Agent {
    fn beat(&self) {
        if let Some(kernel) = hooks_of(&self.hooks).as_mut()
            && let Err(error) = kernel.beat()
        {
            tracing::error!(%error, "the kernel was not told that the agent lives");
        }
    }

    /// Makes records of what the kernel has told.
    fn events(&self) {
        let events = hooks_of(&self.hooks).as_mut().map(Kernel::events).unwrap_or_default();
        let recorded = findings::record(&self.shared.config, &self.shared.journal, &events);
        if let Err(error) = recorded {
            tracing::error!(%error, events = events.len(), "events could not be recorded");
        }
    }

    fn heartbeat(&self) {
        let mut packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = packets.look(&self.shared.config, &self.shared.journal) {
            tracing::error!(%error, "a packet socket could not be recorded");
        }
        drop(packets);
        let mut counts = status::heartbeat_counts(&self.shared, &self.hooks);
        self.look_after_itself(&mut counts);
        for detail in self.shared.coverage.last().fresh {
            tracing::error!("coverage: {detail}");
            let found = findings::plain("coverage", "open", &detail);
            if let Err(error) = self.shared.journal.finding(&found) {
                tracing::error!(%error, "a discrepancy could not be recorded");
            }
        }
        if let Err(error) = self.shared.journal.heartbeat(&counts) {
            tracing::error!(%error, "a heartbeat could not be recorded");
        }
    }

    /// Looks at what the agent stands on, and puts it into the heartbeat.
    fn look_after_itself(&self, counts: &mut HeartbeatCounts) {
        let (clock, measured) = (SystemClock, status::measure(&self.hooks));
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let look = watch.look(measured, clock.wall_ns(), clock.boot_ns());
        drop(watch);
        for change in &look.fresh {
            tracing::error!(kind = change.kind, "{}", change.detail);
            let found = findings::plain(change.kind, "open", &change.detail);
            if let Err(error) = self.shared.journal.finding(&found) {
                tracing::error!(%error, "a change could not be recorded");
            }
        }
        counts.hooks_digest = look.hooks_digest;
        counts.agent_digest = look.agent_digest;
        counts.discrepancies.extend(look.wrong.into_iter().map(|change| change.detail));
    }

    /// Reads the policy anew. A policy that does not compile changes nothing.
    fn reload(&self) {
        let policy = match policy::load(&self.shared.config) {
            Ok(policy) => Arc::new(policy),
            Err(error) => {
                tracing::error!(error = %format!("{error:#}"), "the policy in force stays");
                let detail = format!("a new policy was refused, the old one stays: {error:#}");
                _ = self.shared.journal.lifecycle(Lifecycle::Warning, &detail, None);
                return;
            }
        };
        let digest = policy.digest();
        match self.shared.journal.lifecycle(Lifecycle::PolicyLoaded, "by SIGHUP", Some(&digest)) {
            Ok(()) => {
                self.policy.send_replace(policy);
                tracing::info!(%digest, "policy loaded");
            }
            Err(error) => tracing::error!(%error, "a policy that cannot be recorded is not used"),
        }
    }

    /// Stops accepting, lets sessions end, closes the journal. The hooks stay.
    async fn stop(mut self, why: &str) -> anyhow::Result<()> {
        tracing::info!(why, "stopping");
        self.draining.store(true, Ordering::Relaxed);
        self.shared.journal.lifecycle(Lifecycle::Stopping, why, None)?;
        for task in &self.accepting {
            task.abort();
        }
        let patience = Duration::from_millis(self.shared.config.gate.drain_ms_max);
        self.resolving.abort();
        let mut drain = std::mem::take(&mut self.drain);
        let mut beat = tokio::time::interval(Duration::from_millis(BEAT_MS));
        let mut drained = std::pin::pin!(drain.finish(patience));
        loop {
            tokio::select! {
                () = &mut drained => break,
                _ = beat.tick() => self.beat(),
            }
        }
        self.events();
        self.heartbeat();
        self.control.abort();
        let journal = self.shared.journal.clone();
        tokio::task::spawn_blocking(move || journal.shutdown()).await??;
        Ok(())
    }
}

/// Asks for host names again and again.
async fn resolve_on(shared: Arc<Shared>, hooks: Hooks) {
    let mut every = tokio::time::interval(Duration::from_secs(RESOLVE_SECONDS));
    every.tick().await;
    loop {
        every.tick().await;
        resolve(&shared, &hooks).await;
    }
}

/// Asks for host names anew, and tells the kernel when they mean other addresses. What the kernel
/// does not take is not remembered, so that the next round tries again.
async fn resolve(shared: &Shared, hooks: &Hooks) {
    let config = &shared.config;
    let mut fresh = shared.resolver.read().unwrap_or_else(PoisonError::into_inner).clone();
    let before = fresh.rules(config);
    let said = fresh.refresh(config).await;
    let rules = fresh.rules(config);
    let changed = before != rules;
    if changed
        && let Some(kernel) = hooks_of(hooks).as_mut()
        && let Err(error) = kernel.set_rules(&rules)
    {
        tracing::error!(%error, "the kernel did not take the new addresses");
        return;
    }
    *shared.resolver.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    if !changed {
        // A name server that does not answer: nothing is less protected, but somebody should know.
        for sentence in &said {
            tracing::warn!("{sentence}");
        }
        return;
    }
    for sentence in &said {
        tracing::info!("{sentence}");
        if let Err(error) = shared.journal.lifecycle(Lifecycle::TargetResolved, sentence, None) {
            tracing::error!(%error, "a changed address could not be recorded");
        }
    }
}

/// Says on standard output that the gate is open: scripts and service managers wait for it.
fn announce(config: &Config) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready: gate=127.0.0.1:{}", config.gate.port)?;
    out.flush()
}

/// Opens the gate's port and leads connections to it. On a first start the port is taken before the
/// hooks are, so that no captured connection finds a stranger there. After a stop or a crash the
/// hooks that stayed keep everybody from the port, so this run takes them over first.
fn open_gate(
    config: &Config,
    rules: &[Rule],
    journal: &Journal,
) -> anyhow::Result<(Vec<TcpListener>, Hooks)> {
    let port = config.gate.port;
    let taken = || format!("the gate's port {port}; set gate.port to a free one");
    match ingress::listen(port) {
        Ok(listeners) => Ok((listeners, attach(config, rules, journal)?)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let hooks = attach(config, rules, journal)?;
            Ok((ingress::listen(port).with_context(taken)?, hooks))
        }
        Err(error) => Err(error).with_context(taken),
    }
}

fn hooks_of(hooks: &Hooks) -> std::sync::MutexGuard<'_, Option<Kernel>> {
    hooks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attach(config: &Config, rules: &[Rule], journal: &Journal) -> anyhow::Result<Hooks> {
    let options = capture::Options {
        cgroup: config.capture.cgroup.clone(),
        pin_dir: config.capture.pin_dir.clone(),
        gate_port: config.gate.port,
        strict_uids: config.strict_uids.clone(),
    };
    let (mut kernel, resumed) = Kernel::attach(options, rules)?;
    let how = if resumed.was_pinned { "took over the hooks of the run before" } else { "attached" };
    tracing::info!(how, rules = rules.len(), "kernel hooks");
    let hooks = kernel.measure().hooks;
    journal.attached(how, &kernel.ebpf_digest(), &hooks, resumed.was_whole)?;
    for (rule, connections) in resumed.passed_open {
        let index = usize::try_from(rule).unwrap_or(usize::MAX);
        let target = config
            .targets
            .get(index)
            .map_or_else(|| TargetName(format!("rule {rule}")), |target| target.name.clone());
        tracing::warn!(%target, connections, "connections passed while no agent ran");
        journal.bypass_report(&target, "no agent was running", connections)?;
    }
    if !kernel.sees_effective_ids() {
        let detail = "this kernel has no type information (CONFIG_DEBUG_INFO_BTF): effective user ids and \
                      descriptors that were handed over are not seen";
        tracing::warn!("{detail}");
        journal.lifecycle(Lifecycle::Warning, detail, None)?;
    }
    findings::earlier::sweep(config, rules, &mut kernel, journal)?;
    findings::local::record(config, journal)?;
    Ok(Arc::new(Mutex::new(Some(kernel))))
}

fn record_start(config: &Config, journal: &Journal, said: &[String]) -> anyhow::Result<()> {
    for sentence in said {
        tracing::info!("{sentence}");
        journal.lifecycle(Lifecycle::TargetResolved, sentence, None)?;
    }
    let file = config.path.display().to_string();
    let targets: Vec<&str> = config.targets.iter().map(|one| one.name.0.as_str()).collect();
    let principals: Vec<&str> = config.principals.iter().map(|one| one.name.as_str()).collect();
    journal.config_loaded(&file, &config.digest, &targets, &principals)?;
    journal.lifecycle(Lifecycle::Started, env!("CARGO_PKG_VERSION"), None)?;
    Ok(())
}

fn open_journal(
    config: &Config,
    policy_digest: Digest,
    ebpf_digest: Digest,
    agent_digest: Digest,
) -> anyhow::Result<(Journal, Recovered)> {
    let options = tidegate_journal::Options {
        agent_id: config.agent_id.clone(),
        audit_key: uplink::audit_key(&config.state_dir)?,
        host: nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_digest,
        policy_digest,
        ebpf_digest,
        boot_id: tidegate_journal::boot_id().context("reading the kernel's boot id")?,
    };
    let spool = tidegate_spool::Options {
        bytes_max: config.spool.bytes_max,
        segment_bytes: config.spool.segment_bytes,
        ..Default::default()
    };
    let dir = config.state_dir.join(SPOOL_DIR);
    let opened = Journal::open(&dir, spool, options, Arc::new(SystemClock))
        .with_context(|| format!("opening the journal in {}", dir.display()))?;
    Ok(opened)
}

fn verifications_of(target: &TargetConfig) -> anyhow::Result<Verifications> {
    let hosts: Vec<&str> = target
        .destinations
        .iter()
        .filter_map(|destination| match destination {
            Destination::Name { host, .. } => Some(host.as_str()),
            Destination::Net { .. } => None,
        })
        .collect();
    Verifications::from_config(&target.tls, &hosts)
        .with_context(|| format!("target {}", target.name))
}
