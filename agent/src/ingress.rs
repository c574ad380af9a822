//! From an accepted connection to a session: whose is it, and where did it want to go.
//!
//! Promises: a connection without the kernel's note, without a principal or without a target is
//! closed, and is a record; the note is read before anything of the client's is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tidegate_event::{Capture, Principal};
use tidegate_journal::{Journal, SessionOpening, SessionRefusal};
use tidegate_policy::PolicySet;
use tidegate_sql::Analyzer;
use tidegate_wire_postgres::Machine;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::capture::capture_of;
use crate::config::{ClientTls, Config, TargetConfig};
use crate::drain::Guard;
use crate::gate::{Gate, Standing};
use crate::resolve::Resolver;
use crate::session::leg::Leg;
use crate::session::{Session, Surroundings};
use crate::telemetry::{Labels, Metrics};
use crate::tls::{HostCa, Verifications};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

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
    /// What host names mean now.
    pub resolver: RwLock<Resolver>,
    /// Answers clients' TLS.
    pub host_ca: Arc<HostCa>,
    /// How each target's servers are verified, in the order of the configuration.
    pub verifications: Vec<Verifications>,
    /// The analyser that all sessions share.
    pub analyzer: Arc<Analyzer>,
    /// Counts for status and heartbeat.
    pub metrics: Arc<Metrics>,
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
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until dropped.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>, guard: Guard) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let (shared, guard) = (Arc::clone(&shared), guard.clone());
                tokio::spawn(async move {
                    serve(stream, client, &shared, &guard).await;
                    drop(guard);
                });
            }
            Err(error) => {
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, client: SocketAddr, shared: &Shared, guard: &Guard) {
    match admit(&stream, client, shared, guard) {
        Ok((gate, machine, around)) => {
            let labels = gate.labels().clone();
            let open = Open::new(&shared.metrics, &labels);
            _ = stream.set_nodelay(true);
            Session::new(machine, gate, Leg::Plain(stream)).run(around).await;
            drop(open);
        }
        Err(refused) => {
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

type Admitted = (Gate, Machine<crate::gate::Token>, Surroundings);

fn admit(
    stream: &TcpStream,
    client: SocketAddr,
    shared: &Shared,
    guard: &Guard,
) -> Result<Admitted, Refused> {
    let without = |reason: String| Refused { reason, capture: None };
    let raw = capture_of(stream.as_fd())
        .map_err(|error| without(format!("the kernel's note cannot be read: {error}")))?
        .ok_or_else(|| without("it reached the gate's port without being captured".into()))?;
    let capture = tidegate_identity::describe(&raw);
    let refused = |reason: String| Refused { reason, capture: Some(Box::new(capture.clone())) };
    let (index, target, principal) = whose(&shared.config, &capture).map_err(&refused)?;
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
        mode: target.mode,
        on_failure: target.on_failure,
    };
    let metrics = Arc::clone(&shared.metrics);
    let gate = Gate::new(shared.journal.clone(), log, shared.policy.clone(), standing, metrics);
    let machine = Machine::new(machine_config(target), Arc::clone(&shared.analyzer));
    Ok((gate, machine, surroundings(shared, index, target, capture.original, guard)))
}

fn whose<'a>(
    config: &'a Config,
    capture: &Capture,
) -> Result<(usize, &'a TargetConfig, &'a Principal), String> {
    let index = usize::try_from(capture.rule).unwrap_or(usize::MAX);
    let target = config
        .targets
        .get(index)
        .ok_or_else(|| format!("the kernel's rule {} names no target", capture.rule))?;
    let principal = config
        .principals
        .iter()
        .find(|principal| principal.uid == capture.process.uid)
        .ok_or_else(|| format!("uid {} is no principal", capture.process.uid))?;
    Ok((index, target, principal))
}

fn surroundings(
    shared: &Shared,
    index: usize,
    target: &TargetConfig,
    server: SocketAddr,
    guard: &Guard,
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
        names,
        host_ca: Arc::clone(&shared.host_ca),
        verification,
        stop: guard.stop(),
    }
}

fn machine_config(target: &TargetConfig) -> tidegate_wire_postgres::Config {
    let client_tls = match target.tls.client {
        ClientTls::Offer => tidegate_wire_postgres::ClientTls::Offer,
        ClientTls::Refuse => tidegate_wire_postgres::ClientTls::Refuse,
    };
    tidegate_wire_postgres::Config { client_tls, ..Default::default() }
}
