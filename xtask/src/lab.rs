//! The laboratory: a private PostgreSQL, a collector, an agent and clients under a service UID.
//!
//! Promises: everything that a [`Lab`] starts is its own (ports, directories, a cgroup, user ids, pins
//! in bpffs) so that laboratories run side by side, and nothing of it is left behind when it is
//! dropped. Every process is ready when its `start` returns: PostgreSQL accepts connections, the
//! collector and the agent have printed their `ready:` line. A laboratory that is dropped without
//! [`Lab::finish`] prints the end of every log, since something went wrong.
//!
//! Cannot do: it needs root (user ids, cgroups, BPF), a cgroup2 mount and a bpffs at `/sys/fs/bpf`.
//! A laboratory of a harness that dies by SIGKILL leaves its cgroup and its pins; its processes die
//! with it. Its hooks sit on its own cgroup alone, so that nothing else on the machine is touched.
//!
//! Limits: one protected principal (`batch`) a laboratory, and one target (`lab-db`), or a second one
//! (`lab-mariadb`) where a MariaDB is asked for.

pub mod agent;
pub mod certs;
pub mod cgroup;
pub mod client;
pub mod collector;
pub mod evidence;
pub mod mariadb;
pub mod places;
pub mod policies;
pub mod postgres;
pub mod process;
pub mod random;
pub mod sshd;
pub mod term;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use agent::{Agent, AgentOptions};
pub use client::{Answer, Who};
pub use collector::Collector;
pub use evidence::{Evidence, Kind};
pub use mariadb::{Mariadb, MariadbOptions, Server};
pub use postgres::{Auth, Log, Postgres, PostgresOptions, Tls};

/// Lowest user id that a laboratory picks; far above what Debian hands out.
const UID_MIN: u32 = 2_000_000;
/// How many user ids there are to pick from.
const UID_COUNT: u32 = 1_000_000_000;
/// The agent's name at the collector.
const AGENT_ID: &str = "lab-agent";
/// Bytes of each log that are shown when a laboratory failed.
const LOG_TAIL_BYTES: usize = 6 * 1024;

/// What a laboratory is to hold.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The server.
    pub postgres: PostgresOptions,
    /// A second server.
    pub mariadb: Option<MariadbOptions>,
    /// The port of a test's own server in MariaDB's place.
    pub mysql_port: Option<u16>,
    /// The agent's configuration.
    pub agent: AgentOptions,
    /// Start without collector: the agent only spools.
    pub without_collector: bool,
    /// TOML put at the end of the collector's configuration.
    pub collector_toml: String,
    /// The protected account and all others are this one; random ones where absent. Clients of
    /// [`Who::Other`] are then those of a laboratory without agent.
    pub client_uid: Option<u32>,
    /// Leave all of it running when the laboratory is dropped.
    pub keep: bool,
}

/// Everything that one test, demo or measurement needs.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: clients' cgroup members first, the directory last.
    /// The agent; `None` before [`Lab::start_agent`].
    pub agent: Option<Agent>,
    /// The collector.
    pub collector: Option<Collector>,
    /// The server.
    pub postgres: Postgres,
    /// The second server, where one was asked for.
    pub mariadb: Option<Mariadb>,
    /// The cgroup that the hooks are attached to.
    pub cgroup: cgroup::Cgroup,
    /// The protected service account.
    pub service_uid: u32,
    /// A user id that no rule names.
    pub other_uid: u32,
    options: Options,
    finished: bool,
    server_ca_forgotten: bool,
    dir: tempfile::TempDir,
}

impl Lab {
    /// A laboratory with server, collector and agent, all ready.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let mut lab = Self::prepare(options)?;
        lab.start_collector()?;
        lab.start_agent()?;
        Ok(lab)
    }

    /// A laboratory whose server runs, with neither collector nor agent yet.
    pub fn prepare(mut options: Options) -> anyhow::Result<Self> {
        options.postgres.keep = options.keep;
        anyhow::ensure!(
            nix::unistd::geteuid().is_root(),
            "the laboratory needs root (user ids, cgroups and BPF): run it with sudo"
        );
        let dir = tempfile::Builder::new().prefix("tidegate-lab-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let name = dir.path().file_name().context("a temporary directory has a name")?;
        let cgroup = cgroup::Cgroup::create(&name.to_string_lossy(), options.keep)?;
        let picked = UID_MIN + random::below(UID_COUNT)?;
        let service_uid = options.client_uid.unwrap_or(picked);
        let picked = UID_MIN + UID_COUNT + random::below(UID_COUNT)?;
        let other_uid = options.client_uid.unwrap_or(picked);
        let postgres = Postgres::start(&dir.path().join("postgres"), &options.postgres)?;
        let mariadb = options.mariadb.as_ref();
        let mariadb = mariadb
            .map(|options| Mariadb::start(&dir.path().join("mariadb"), options))
            .transpose()?;
        client::make_home(&dir.path().join("home"), service_uid)?;
        client::make_home(&dir.path().join("home-other"), other_uid)?;
        Ok(Self {
            agent: None,
            collector: None,
            postgres,
            mariadb,
            cgroup,
            service_uid,
            other_uid,
            options,
            finished: false,
            server_ca_forgotten: false,
            dir,
        })
    }

    /// Starts the collector, or starts it again on its data.
    pub fn start_collector(&mut self) -> anyhow::Result<()> {
        if self.options.without_collector {
            return Ok(());
        }
        if let Some(collector) = &mut self.collector {
            return collector.serve();
        }
        let mut collector = Collector::init(&self.path("collector"), &self.options.collector_toml)?;
        collector.keep(self.options.keep);
        collector.serve()?;
        self.collector = Some(collector);
        Ok(())
    }

    /// Starts the agent, or starts it again on its state.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = &mut self.agent {
            return agent.run();
        }
        let site = agent::Site {
            id: AGENT_ID.to_owned(),
            dir: self.path("agent"),
            cgroup: self.cgroup.path().to_owned(),
            service_uid: self.service_uid,
            server_port: self.postgres.port(),
            server_ca: self.postgres.ca().filter(|_| !self.server_ca_forgotten),
            mariadb: match (&self.mariadb, self.options.mysql_port) {
                (Some(server), _) => Some((server.port(), server.ca())),
                (None, port) => port.map(|port| (port, None)),
            },
        };
        let mut agent = Agent::prepare(site, &self.options.agent)?;
        agent.keep(self.options.keep);
        if let Some(collector) = &self.collector {
            agent.enrol(&collector.enrol(AGENT_ID, &self.path("enrol.json"))?)?;
        }
        agent.run()?;
        self.agent = Some(agent);
        Ok(())
    }

    /// An agent that is started later is configured so.
    pub fn set_agent_options(&mut self, options: AgentOptions) {
        self.options.agent = options;
    }

    /// An agent that is started later is not told the server's certificate authority.
    pub fn forget_server_ca(&mut self) {
        self.server_ca_forgotten = true;
    }

    /// The agent, which must have been started.
    pub fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("this laboratory has no agent")
    }

    /// The MariaDB, which must have been asked for.
    pub fn mariadb(&self) -> anyhow::Result<&Mariadb> {
        self.mariadb.as_ref().context("this laboratory has no MariaDB")
    }

    /// The agent, to stop or kill it.
    pub fn agent_mut(&mut self) -> anyhow::Result<&mut Agent> {
        self.agent.as_mut().context("this laboratory has no agent")
    }

    /// The collector, which must have been started.
    pub fn collector(&self) -> anyhow::Result<&Collector> {
        self.collector.as_ref().context("this laboratory has no collector")
    }

    /// The collector, to stop or kill it.
    pub fn collector_mut(&mut self) -> anyhow::Result<&mut Collector> {
        self.collector.as_mut().context("this laboratory has no collector")
    }

    /// A path in the laboratory's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything that the collector holds, once it holds the outcome of a statement that is run
    /// now: whatever was asked before is then there too, since an agent's records come in order.
    pub fn evidence(&self) -> anyhow::Result<Evidence> {
        let mark = format!("SELECT 'mark-{:x}'", random::u64()?);
        let answer = self.sql(Who::Service, &[&mark])?;
        anyhow::ensure!(answer.ok(), "the marking statement failed: {answer}");
        let collector = self.collector()?;
        collector.wait_for_statement(&mark)?;
        collector.evidence()
    }

    /// Ends the test: the agent stops in good order, `verify` is green, and names a byte that was
    /// flipped in a copy of the log. Then takes everything down, and fails if it could not.
    pub fn finish(self) -> anyhow::Result<()> {
        self.finish_with(collector::VERIFY_GREEN)
    }

    /// The same after a use of `on_failure = "open"`: `verify` must say that there are gaps which the
    /// agent declared, and nothing worse.
    pub fn finish_with_declared_gaps(self) -> anyhow::Result<()> {
        self.finish_with(collector::VERIFY_GAPS)
    }

    fn finish_with(mut self, verdict: i32) -> anyhow::Result<()> {
        self.stop_agent()?;
        if let Some(collector) = &self.collector {
            collector.verify_says(verdict)?;
            collector.verify_names_a_flipped_byte(&self.path("flipped"))?;
        }
        self.down()?;
        self.finished = true;
        Ok(())
    }

    /// Takes everything down without any check.
    pub fn discard(mut self) -> anyhow::Result<()> {
        self.down()?;
        self.finished = true;
        Ok(())
    }

    /// Leaves everything running (for [`Options::keep`]), and says where it is.
    pub fn leave(mut self) -> PathBuf {
        self.finished = true;
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    fn stop_agent(&mut self) -> anyhow::Result<()> {
        if let Some(mut agent) = self.agent.take() {
            agent.stop()?;
            agent.detach()?;
        }
        Ok(())
    }

    fn down(&mut self) -> anyhow::Result<()> {
        if self.options.keep {
            return Ok(());
        }
        self.stop_agent()?;
        if let Some(mut collector) = self.collector.take() {
            collector.stop()?;
        }
        self.postgres.stop()?;
        if let Some(mariadb) = &mut self.mariadb {
            mariadb.stop()?;
        }
        self.cgroup.remove()
    }

    fn logs(&self) -> Vec<PathBuf> {
        ["postgres/server.log", "mariadb/server.log", "collector/serve.log", "agent/agent.log"]
            .iter()
            .map(|name| self.path(name))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for log in self.logs() {
            term::note(&format!("--- end of {}\n{}", log.display(), tail(&log)));
        }
        if let Err(error) = self.down() {
            term::note(&format!("taking the laboratory down: {error:#}"));
        }
    }
}

/// The last [`LOG_TAIL_BYTES`] of a file, as text.
pub fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}
