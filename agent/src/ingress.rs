//! From an accepted connection to a session: whose is it, and where did it want to go.
//!
//! Promises: a connection without the kernel's note, without a principal or without a target is
//! closed, and is a record; the note is read before anything of the client's is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tidegate_agent_common::{RULE_STRICT, RawCapture};
use tidegate_event::{Capture, Principal, Protocol as Spoken};
use tidegate_journal::{Journal, SessionOpening, SessionRefusal};
use tidegate_policy::PolicySet;
use tidegate_sql::Analyzer;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::approvals::Approvals;
use crate::budget::Budgets;
use crate::capture::capture_of;
use crate::capture::netns::Netns;
use crate::catalogue::Catalogues;
use crate::config::{ClientTls, Config, StrictDefault, TargetConfig};
use crate::counted::Counted;
use crate::coverage::{Account, Coverage};
use crate::drain::Guard;
use crate::gate::masking::Masking;
use crate::gate::sight::{Analyzers, Sight, Site};
use crate::gate::{Gate, Standing, Token, Watch};
use crate::lanes::Lanes;
use crate::masking::{TargetMasking, detectors_of};
use crate::opaque;
use crate::password_key::GateKey;
use crate::resolve::Resolver;
use crate::session::leg::Leg;
use crate::session::{Session, Surroundings};
use crate::ssh::{self, host::SshHost};
use crate::telemetry::{Labels, Metrics};
use crate::tls::{HostCa, Verifications};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Pause after the kernel refused an accept (out of descriptors), in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// What every connection needs.
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The journal.
    pub journal: Journal,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<PolicySet>>,
    /// Where approvals are asked for; `None` where no collector is configured.
    pub approvals: Option<Arc<Approvals>>,
    /// What host names mean now.
    pub resolver: RwLock<Resolver>,
    /// Answers clients' TLS.
    pub host_ca: Arc<HostCa>,
    /// Answers SSH clients; `None` where no target speaks it.
    pub ssh_host: Option<Arc<SshHost>>,
    /// How each target's servers are verified, in the order of the configuration.
    pub verifications: Vec<Verifications>,
    /// The analyser that all sessions of PostgreSQL share.
    pub analyzer: Arc<Analyzer>,
    /// The same for MySQL and MariaDB.
    pub mysql_analyzer: Arc<tidegate_sql::mysql::Analyzer>,
    /// What MySQL's clients without TLS seal passwords with; `None` where no such server has TLS.
    pub password_key: Option<Arc<GateKey>>,
    /// What is protected at each target, in the order of the configuration.
    pub masking: Vec<Option<Arc<TargetMasking>>>,
    /// What databases hold.
    pub catalogues: Arc<Catalogues>,
    /// What principals were given.
    pub budgets: Budgets,
    /// Counts for status and heartbeat.
    pub metrics: Arc<Metrics>,
    /// What kernel and gate counted.
    pub coverage: Coverage,
}

/// Where connections come in.
#[derive(Clone)]
pub struct Door {
    /// Held while the gate listens there, and by each session.
    pub guard: Guard,
    /// The network namespace; the agent's own where absent.
    pub namespace: Option<Netns>,
}

/// Opens the gate's port on both loopback addresses. IPv6 is left out where the host has none.
pub fn listen(port: u16) -> std::io::Result<Vec<TcpListener>> {
    let mut listeners = vec![listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?];
    match listen_on(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Ok(listener) => listeners.push(listener),
        Err(error) if error.raw_os_error() == Some(nix::libc::EADDRNOTAVAIL) => {
            tracing::warn!("this host has no ::1: IPv6 connections will be refused");
        }
        Err(error) => return Err(error),
    }
    Ok(listeners)
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // What is accepted inherits it.
    unpaced(&SockRef::from(&socket));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// On a leg that does not leave this host there is no congestion, and what paces its segments (BBR does,
/// with a timer each) costs more than sending them. Reno is built into every kernel (tcp(7)); where it may
/// not be chosen, the system's choice stays.
pub fn unpaced(socket: &SockRef<'_>) {
    if let Err(error) = socket.set_tcp_congestion(b"reno") {
        tracing::debug!(%error, "the system's congestion control stays");
    }
}

/// Accepts until dropped.
pub async fn accept(listener: TcpListener, lanes: Arc<Lanes>, shared: Arc<Shared>, door: Door) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "no connection can be accepted: restart the agent");
            return;
        }
    };
    loop {
        // This lane watches the new socket no longer than until it is known which lane will.
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, client)| Ok((stream.into_std()?, client))) {
            Ok((stream, client)) => {
                let (shared, door) = (Arc::clone(&shared), door.clone());
                lanes.spawn(stream, move |stream| async move {
                    serve(stream, client, &shared, &door).await;
                    drop(door);
                });
            }
            Err(error) => {
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, client: SocketAddr, shared: &Shared, door: &Door) {
    let admitted = admit(&stream, client, shared, door);
    _ = stream.set_nodelay(true);
    match admitted {
        Ok((Admitted::Opaque(capture, principal), account)) => {
            let labels = Labels::target("");
            let open = Open::new(&shared.metrics, &labels);
            let stream = Counted::new(stream, account);
            let served =
                Box::pin(opaque::serve(stream, client, &capture, &principal, shared, door)).await;
            drop(open);
            if let Err(reason) = served {
                refuse(client, shared, &Refused { reason, capture: Some(capture) });
            }
        }
        Ok((Admitted::Session(admitted), account)) => {
            let (gate, machine, around) = *admitted;
            let labels = gate.labels().clone();
            let open = Open::new(&shared.metrics, &labels);
            _ = stream.set_nodelay(true);
            let stream = Counted::new(stream, account);
            match machine {
                Machine::Postgres(machine) => {
                    Session::new(*machine, gate, Leg::Plain(stream)).run(around).await;
                }
                Machine::Mysql(machine) => {
                    Session::new(*machine, gate, Leg::Plain(stream)).run(around).await;
                }
                Machine::Ssh(settings) => {
                    Box::pin(ssh::serve(stream, gate, settings, around)).await;
                }
            }
            drop(open);
        }
        Err(refused) => refuse(client, shared, &refused),
    }
}

/// Closes the connection, which the caller drops, and records why.
fn refuse(client: SocketAddr, shared: &Shared, refused: &Refused) {
    shared.metrics.session_refused();
    tracing::warn!(%client, reason = refused.reason, "connection refused");
    let note = SessionRefusal {
        reason: &refused.reason,
        client,
        original: refused.capture.as_ref().map(|capture| capture.original),
        process: refused.capture.as_ref().map(|capture| &capture.process),
    };
    if let Err(error) = shared.journal.refused_session(&note) {
        tracing::error!(%error, "a refused connection could not be recorded");
    }
}

/// Counts a session for as long as it lives.
struct Open<'a> {
    metrics: &'a Metrics,
    labels: &'a Labels,
}

impl<'a> Open<'a> {
    fn new(metrics: &'a Metrics, labels: &'a Labels) -> Self {
        metrics.session_opened(labels);
        Self { metrics, labels }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.metrics.session_ended(self.labels);
    }
}

struct Refused {
    reason: String,
    capture: Option<Box<Capture>>,
}

/// The machine of a target's protocol.
enum Machine {
    Postgres(Box<tidegate_wire_postgres::Machine<Token>>),
    Mysql(Box<tidegate_wire_mysql::Machine<Token>>),
    /// Its library owns the sockets.
    Ssh(ssh::Settings),
}

/// What becomes of a connection.
enum Admitted {
    /// Its protocol is read and decided.
    Session(Box<(Gate, Machine, Surroundings)>),
    /// A strict account's, to no target: it passes unread.
    Opaque(Box<Capture>, Principal),
}

fn admit(
    stream: &TcpStream,
    client: SocketAddr,
    shared: &Shared,
    door: &Door,
) -> Result<(Admitted, Account), Refused> {
    let without = |reason: String| Refused { reason, capture: None };
    let raw = capture_of(stream.as_fd())
        .map_err(|error| without(format!("the kernel's note cannot be read: {error}")))?
        .ok_or_else(|| without("it reached the gate's port without being captured".into()))?;
    let admitted = admit_captured(&raw, client, shared, door);
    match &admitted {
        Ok(_) => shared.coverage.session(raw.owner, raw.rule),
        Err(_) => shared.coverage.refused(raw.owner, raw.rule),
    }
    Ok((admitted?, shared.coverage.account(raw.owner, raw.rule)))
}

fn admit_captured(
    raw: &RawCapture,
    client: SocketAddr,
    shared: &Shared,
    door: &Door,
) -> Result<Admitted, Refused> {
    let capture = tidegate_identity::describe(raw);
    let refused = |reason: String| Refused { reason, capture: Some(Box::new(capture.clone())) };
    if raw.rule == RULE_STRICT
        && shared.config.capture.strict_default == StrictDefault::Pass
        && let Some(principal) = shared.config.principal(raw.owner)
    {
        return Ok(Admitted::Opaque(Box::new(capture), principal.clone()));
    }
    let (index, target, principal) = whose(&shared.config, raw).map_err(&refused)?;
    let opening = SessionOpening {
        capture: &capture,
        principal,
        target: &target.name,
        protocol: target.protocol,
        mode: target.mode,
        client,
        on_failure: target.on_failure,
    };
    let log = shared
        .journal
        .session(&opening)
        .map_err(|error| refused(format!("the session cannot be recorded: {error}")))?;
    let standing = Standing {
        principal: principal.clone(),
        executable: capture.process.executable.clone(),
        cgroup: capture.process.cgroup.clone(),
        target: target.name.clone(),
        protocol: target.protocol,
        mode: target.mode,
        on_failure: target.on_failure,
    };
    let around = surroundings(shared, index, target, capture.original, door);
    let sight = sight(shared, index, target, &around);
    let machine = machine(target, shared, sight.as_ref(), around.verification.is_some())
        .ok_or_else(|| refused("the target has no ssh table".into()))?;
    let watch = Watch {
        masking: sight.map(Masking::new),
        given: shared.budgets.of(principal.uid, index),
        metrics: Arc::clone(&shared.metrics),
        approvals: shared.approvals.clone(),
    };
    let gate = Gate::new(shared.journal.clone(), log, shared.policy.clone(), standing, watch);
    Ok(Admitted::Session(Box::new((gate, machine, around))))
}

fn sight(
    shared: &Shared,
    index: usize,
    target: &TargetConfig,
    around: &Surroundings,
) -> Option<Arc<Sight>> {
    let masking = shared.masking.get(index)?.as_ref()?;
    let site = Site {
        masking: Arc::clone(masking),
        catalogues: Arc::clone(&shared.catalogues),
        protocol: target.protocol,
        target: target.name.0.clone(),
        server: around.server,
        verification: around.verification.clone(),
    };
    let analyzers = Analyzers {
        postgres: Arc::clone(&shared.analyzer),
        mysql: Arc::clone(&shared.mysql_analyzer),
    };
    Some(Arc::new(Sight::new(analyzers, site)))
}

/// The target by the rule, the principal by the user id that the connection was caught by: the
/// caller's own, or that of the socket's maker.
fn whose<'a>(
    config: &'a Config,
    raw: &RawCapture,
) -> Result<(usize, &'a TargetConfig, &'a Principal), String> {
    let principal =
        config.principal(raw.owner).ok_or_else(|| format!("uid {} is no principal", raw.owner))?;
    if raw.rule == RULE_STRICT {
        return Err(format!(
            "{} is no target, and principal {} is strict",
            raw.original(),
            principal.name
        ));
    }
    let index = usize::try_from(raw.rule).unwrap_or(usize::MAX);
    let target = config
        .targets
        .get(index)
        .ok_or_else(|| format!("the kernel's rule {} names no target", raw.rule))?;
    Ok((index, target, principal))
}

fn surroundings(
    shared: &Shared,
    index: usize,
    target: &TargetConfig,
    server: SocketAddr,
    door: &Door,
) -> Surroundings {
    let server = SocketAddr::new(server.ip().to_canonical(), server.port());
    let resolver = shared.resolver.read().unwrap_or_else(PoisonError::into_inner);
    let mut names = resolver.names_of(target, server.ip());
    let host = names.first().cloned();
    let verification =
        shared.verifications.get(index).and_then(|target| target.of(host.as_deref()));
    names.extend(target.tls.server_name.clone());
    Surroundings {
        server,
        namespace: door.namespace.clone(),
        names,
        host_ca: Arc::clone(&shared.host_ca),
        verification,
        stop: door.guard.stop(),
    }
}

fn ssh_settings(config: &TargetConfig, shared: &Shared) -> Option<ssh::Settings> {
    let (host, target) = shared.ssh_host.as_ref().zip(config.ssh.as_ref())?;
    let detectors = detectors_of(&config.masking.detectors);
    // In shadow mode all passes as it is.
    let detectors = if config.mode == tidegate_event::Mode::Enforce {
        detectors
    } else {
        tidegate_mask::Detectors::default()
    };
    Some(ssh::Settings { host: Arc::clone(host), target: target.clone(), detectors })
}

fn machine(
    target: &TargetConfig,
    shared: &Shared,
    sight: Option<&Arc<Sight>>,
    server_tls: bool,
) -> Option<Machine> {
    let offers = target.tls.client == ClientTls::Offer;
    match target.protocol {
        Spoken::Ssh => Some(Machine::Ssh(ssh_settings(target, shared)?)),
        Spoken::Postgres => {
            use tidegate_wire_postgres as wire;
            let client_tls = if offers { wire::ClientTls::Offer } else { wire::ClientTls::Refuse };
            let config = wire::Config { client_tls, ..Default::default() };
            let analyzer: Arc<dyn wire::Analyze> = match sight {
                Some(sight) => Arc::clone(sight) as _,
                None => Arc::clone(&shared.analyzer) as _,
            };
            Some(Machine::Postgres(Box::new(wire::Machine::with_analyzer(config, analyzer))))
        }
        Spoken::Mysql => {
            use tidegate_wire_mysql as wire;
            let client_tls = if offers { wire::ClientTls::Offer } else { wire::ClientTls::Refuse };
            let server_tls =
                if server_tls { wire::ServerTls::Require } else { wire::ServerTls::Off };
            let config = wire::Config { client_tls, server_tls, ..Default::default() };
            let analyzer: Arc<dyn wire::Analyze> = match sight {
                Some(sight) => Arc::clone(sight) as _,
                None => Arc::clone(&shared.mysql_analyzer) as _,
            };
            let mut machine = wire::Machine::with_analyzer(config, analyzer);
            if let Some(key) = &shared.password_key {
                machine = machine.with_password_key(Arc::<GateKey>::clone(key));
            }
            Some(Machine::Mysql(Box::new(machine)))
        }
    }
}
