//! The ways from a client to the server that are measured.
//!
//! Promises: each path's processes are its own, started once and kept for the whole run, so that
//! rounds are alike. Clients of the gate run as the protected account in the guarded cgroup; clients
//! of all other paths run outside of it, with no hook in their way.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::lab::agent::{Agent, AgentOptions, Site};
use crate::lab::cgroup::Cgroup;
use crate::lab::process::{Daemon, Identity, wait_for};
use crate::lab::{Lab, places};

/// How long a hop may take to listen.
const START_MS_MAX: u64 = 20_000;

/// What is protected on [`Path::Masking`].
const MASKING: &str = r#"
[targets.catalogue]
user = "app"

[[protect]]
target = "lab-db"
columns = ["public.wide.ssn"]
class = "ssn"
mask = "redact"

[[protect]]
target = "lab-db"
columns = ["public.wide.card"]
class = "card"
mask = "partial"
"#;

/// One way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// No hop.
    Direct,
    /// Our own relay: the runtime and buffers of the agent, nothing looked at.
    Relay,
    /// haproxy, TCP mode.
    Haproxy,
    /// pgbouncer, a server connection for each session.
    BouncerSession,
    /// pgbouncer, a server connection for each transaction.
    BouncerTransaction,
    /// The gate, evidence at the default levels.
    Gate,
    /// The gate, every statement at level `host`.
    GateHost,
    /// The gate, evidence at the default levels, at a target with protected columns: two of the ten of
    /// table `wide`.
    Masking,
}

impl Path {
    /// In the order in which they are measured.
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Relay,
        Self::Haproxy,
        Self::BouncerSession,
        Self::BouncerTransaction,
        Self::Gate,
        Self::GateHost,
        Self::Masking,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "plain relay",
            Self::Haproxy => "haproxy tcp",
            Self::BouncerSession => "pgbouncer session",
            Self::BouncerTransaction => "pgbouncer transaction",
            Self::Gate => "tidegate",
            Self::GateHost => "tidegate host level",
            Self::Masking => "tidegate masking",
        }
    }

    /// Whether clients run as the protected account.
    pub const fn is_gate(self) -> bool {
        matches!(self, Self::Gate | Self::GateHost | Self::Masking)
    }
}

/// A gate with a cgroup of its own.
pub(super) struct Gate {
    agent: Agent,
    cgroup: Cgroup,
}

impl Gate {
    /// The cgroup for its clients.
    pub fn cgroup(&self) -> &FilePath {
        self.cgroup.path()
    }

    /// The agent's process.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.agent.pid()
    }

    /// Stops it, and takes its hooks and its cgroup away.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.agent.stop()?;
        self.agent.detach()?;
        self.cgroup.remove()
    }
}

/// All paths, running.
#[derive(Default)]
pub struct Paths {
    server_port: u16,
    relay: Option<(Daemon, u16)>,
    haproxy: Option<(Daemon, u16)>,
    session: Option<(Daemon, u16)>,
    transaction: Option<(Daemon, u16)>,
    gate: Option<Gate>,
    gate_host: Option<Gate>,
    masking: Option<Gate>,
    collector: Option<u32>,
}

impl Paths {
    /// Starts the wanted ones.
    pub fn start(lab: &mut Lab, wanted: &[Path]) -> anyhow::Result<Self> {
        let mut paths = Self { server_port: lab.postgres.port(), ..Self::default() };
        if wanted.iter().any(|path| path.is_gate()) {
            lab.start_collector()?;
            let pid = lab.collector()?.pid().context("the collector does not run")?;
            give_way(pid)?;
            paths.collector = Some(pid);
        }
        for path in wanted {
            match path {
                Path::Direct => {}
                Path::Relay => paths.relay = Some(relay(lab, lab.postgres.port())?),
                Path::Haproxy => paths.haproxy = Some(haproxy(lab, lab.postgres.port())?),
                Path::BouncerSession => paths.session = Some(pgbouncer(lab, "session")?),
                Path::BouncerTransaction => {
                    paths.transaction = Some(pgbouncer(lab, "transaction")?);
                }
                Path::Gate => paths.gate = Some(gate(lab, "default", &AgentOptions::default())?),
                Path::GateHost => {
                    let options = AgentOptions { durability: "host", ..AgentOptions::default() };
                    paths.gate_host = Some(gate(lab, "host", &options)?);
                }
                Path::Masking => {
                    let options =
                        AgentOptions { toml: MASKING.to_owned(), ..AgentOptions::default() };
                    paths.masking = Some(gate(lab, "masking", &options)?);
                }
            }
        }
        Ok(paths)
    }

    /// Where clients of a path connect to.
    pub fn port(&self, path: Path) -> anyhow::Result<u16> {
        match path {
            Path::Direct | Path::Gate | Path::GateHost | Path::Masking => Ok(self.server_port),
            other => Ok(self.hop(other).context("this path was not started")?.1),
        }
    }

    /// Where the path accepts connections.
    pub fn listening_port(&self, path: Path) -> anyhow::Result<u16> {
        if path.is_gate() {
            return Ok(self.gate_of(path)?.agent.gate_port());
        }
        self.port(path)
    }

    /// The processes of a path.
    pub fn pids(&self, path: Path) -> anyhow::Result<Vec<u32>> {
        match path {
            Path::Direct => Ok(Vec::new()),
            Path::Gate | Path::GateHost | Path::Masking => {
                Ok(vec![self.gate_of(path)?.agent.pid()?])
            }
            other => Ok(vec![self.hop(other).context("this path was not started")?.0.pid()]),
        }
    }

    /// The cgroup for clients of a path.
    pub fn cgroup(&self, path: Path) -> anyhow::Result<Option<PathBuf>> {
        if path.is_gate() {
            return Ok(Some(self.gate_of(path)?.cgroup.path().to_owned()));
        }
        Ok(None)
    }

    /// The collector's process.
    pub fn collector(&self) -> Option<u32> {
        self.collector
    }

    /// Stops everything that [`Paths::start`] started, except what belongs to the laboratory.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let gates = [&mut self.gate, &mut self.gate_host, &mut self.masking];
        for gate in gates.into_iter().filter_map(Option::as_mut) {
            gate.stop()?;
        }
        Ok(())
    }

    fn hop(&self, path: Path) -> Option<&(Daemon, u16)> {
        match path {
            Path::Relay => self.relay.as_ref(),
            Path::Haproxy => self.haproxy.as_ref(),
            Path::BouncerSession => self.session.as_ref(),
            Path::BouncerTransaction => self.transaction.as_ref(),
            Path::Direct | Path::Gate | Path::GateHost | Path::Masking => None,
        }
    }

    fn gate_of(&self, path: Path) -> anyhow::Result<&Gate> {
        let gate = match path {
            Path::GateHost => &self.gate_host,
            Path::Masking => &self.masking,
            _ => &self.gate,
        };
        gate.as_ref().context("this path was not started")
    }
}

/// Every thread of the process gets only what nobody else wants (sched(7), `SCHED_IDLE`): the collector,
/// which lives on another machine in real life, must not take the processor from what is measured. Where
/// the kernel groups by session, that counts within the group only, so the group gives way too.
pub(super) fn give_way(pid: u32) -> anyhow::Result<()> {
    let group = PathBuf::from(format!("/proc/{pid}/autogroup"));
    if group.exists() {
        fs::write(group, "19")?;
    }
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = entry?.file_name().to_string_lossy().parse()?;
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: the struct lives through the call, which only reads it.
        let set = unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const none) };
        if set != 0 {
            let error = std::io::Error::last_os_error();
            // A thread that ended since it was listed needs nothing any more.
            anyhow::ensure!(error.raw_os_error() == Some(libc::ESRCH), "SCHED_IDLE: {error}");
        }
    }
    Ok(())
}

fn gate(lab: &Lab, name: &str, options: &AgentOptions) -> anyhow::Result<Gate> {
    gate_with(lab, name, options, |site| site)
}

/// A gate whose site is changed so.
pub(super) fn gate_with(
    lab: &Lab,
    name: &str,
    options: &AgentOptions,
    change: impl FnOnce(Site) -> Site,
) -> anyhow::Result<Gate> {
    let lab_cgroup = lab.cgroup.path();
    let parent = lab_cgroup.file_name().unwrap_or_default().to_string_lossy();
    let cgroup = Cgroup::create(&format!("{parent}-{name}"), false)?;
    let site = Site {
        id: format!("bench-{name}"),
        dir: lab.path(&format!("agent-{name}")),
        cgroup: cgroup.path().to_owned(),
        service_uid: lab.service_uid,
        server_port: lab.postgres.port(),
        server_ca: None,
        mariadb: None,
    };
    let id = site.id.clone();
    let mut agent = Agent::prepare(change(site), options)?;
    let collector = lab.collector.as_ref().context("no collector")?;
    agent.enrol(&collector.enrol(&id, &lab.path(&format!("enrol-{name}.json")))?)?;
    agent.run()?;
    Ok(Gate { agent, cgroup })
}

/// Our own relay to that port.
pub(super) fn relay(lab: &Lab, to: u16) -> anyhow::Result<(Daemon, u16)> {
    let port = places::free_port()?;
    let mut command = Command::new(places::our_program("examples/relay")?);
    command.arg(format!("127.0.0.1:{port}"));
    command.arg(format!("127.0.0.1:{to}"));
    hop("relay", lab, &mut command, &Identity::default(), port)
}

/// haproxy to that port.
pub(super) fn haproxy(lab: &Lab, to: u16) -> anyhow::Result<(Daemon, u16)> {
    let port = places::free_port()?;
    let config = lab.path("haproxy.cfg");
    fs::write(
        &config,
        format!(
            "global\n  maxconn 1000\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 10m\n  timeout server 10m\nlisten pg\n  bind 127.0.0.1:{port}\n  \
             server pg 127.0.0.1:{to}\n"
        ),
    )?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config);
    hop("haproxy", lab, &mut command, &Identity::default(), port)
}

fn pgbouncer(lab: &Lab, mode: &str) -> anyhow::Result<(Daemon, u16)> {
    let port = places::free_port()?;
    let dir = lab.path(&format!("pgbouncer-{mode}"));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("users"), "\"app\" \"\"\n")?;
    fs::write(
        dir.join("pgbouncer.ini"),
        format!(
            "[databases]\napp = host=127.0.0.1 port={} dbname=app\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 20\n\
             max_client_conn = 300\nlog_connections = 0\nlog_disconnections = 0\n",
            lab.postgres.port(),
            dir.join("users").display()
        ),
    )?;
    let mut command = Command::new("/usr/sbin/pgbouncer");
    command.arg("-q").arg(dir.join("pgbouncer.ini"));
    // It refuses to run as root.
    let identity = Identity { uid: Some(lab.other_uid), ..Identity::default() };
    hop("pgbouncer", lab, &mut command, &identity, port)
}

fn hop(
    name: &str,
    lab: &Lab,
    command: &mut Command,
    identity: &Identity,
    port: u16,
) -> anyhow::Result<(Daemon, u16)> {
    let log: &FilePath = &lab.path(&format!("{name}-{port}.log"));
    let mut daemon = Daemon::start(name, command, identity, log)?;
    wait_for(&format!("{name} listens"), Duration::from_millis(START_MS_MAX), || {
        let ended = daemon.ended()?;
        anyhow::ensure!(ended.is_none(), "{name} ended: {}", crate::lab::tail(log));
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })?;
    Ok((daemon, port))
}
