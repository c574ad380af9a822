//! An agent of its own, attached to the laboratory's cgroup.
//!
//! Promises: hooks are attached and the gate listens when [`Agent::run`] returns. The gate's port,
//! state, run directory and pins are the laboratory's own. [`Agent::detach`] takes the hooks away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::process::{Daemon, Identity};
use super::{places, policies, random};

/// How long an agent may take until its hooks are attached.
const START_MS_MAX: u64 = 60_000;
/// The target's name in configuration, policies and records.
pub const TARGET: &str = "lab-db";
/// The MariaDB target's name.
pub const MARIADB_TARGET: &str = "lab-mariadb";
/// The protected account's name in configuration, policies and records.
pub const PRINCIPAL: &str = "batch";

/// How the agent is to be.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Cedar policies.
    pub policy: String,
    /// `enforce` or `shadow`.
    pub mode: &'static str,
    /// `closed` or `open`.
    pub on_failure: &'static str,
    /// How long a target with `open` may stay open, in seconds.
    pub open_seconds_max: u32,
    /// Floor of the durability of every statement.
    pub durability: &'static str,
    /// TLS to the server: `off` or `verify-full` (with the server's own CA).
    pub server_tls: &'static str,
    /// TLS to the MariaDB: `off` or `verify-full`.
    pub mariadb_server_tls: &'static str,
    /// TLS of the MariaDB target's clients: `offer` or `refuse`.
    pub mariadb_client_tls: &'static str,
    /// Bounds of the spool, as in agent.toml.
    pub spool_bytes_max: &'static str,
    /// Size of one spool segment, as in agent.toml.
    pub segment_bytes: &'static str,
    /// TOML put behind the target: its `[targets.masking]` and `[targets.catalogue]`, `[[protect]]`.
    pub toml: String,
    /// The same behind the MariaDB target.
    pub mariadb_toml: String,
    /// More lines of `[capture]`, of the principal and of the target.
    pub more: [&'static str; 3],
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            policy: policies::CAREFUL.to_owned(),
            mode: "enforce",
            on_failure: "closed",
            open_seconds_max: 60,
            durability: "process",
            server_tls: "off",
            mariadb_server_tls: "off",
            mariadb_client_tls: "offer",
            spool_bytes_max: "2 GiB",
            segment_bytes: "16 MiB",
            toml: String::new(),
            mariadb_toml: String::new(),
            more: [""; 3],
        }
    }
}

/// What the agent is told about where it lives.
#[derive(Debug)]
pub struct Site {
    /// Its name at the collector.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The cgroup that it guards and lives in.
    pub cgroup: PathBuf,
    /// The protected account.
    pub service_uid: u32,
    /// The server's port on loopback.
    pub server_port: u16,
    /// The server's CA, where the server has TLS.
    pub server_ca: Option<PathBuf>,
    /// The MariaDB's port on loopback, and its CA where it has TLS.
    pub mariadb: Option<(u16, Option<PathBuf>)>,
}

/// An agent's state, and its process while it runs.
#[derive(Debug)]
pub struct Agent {
    site: Site,
    program: PathBuf,
    gate_port: u16,
    pin_dir: PathBuf,
    daemon: Option<Daemon>,
    keep: bool,
}

impl Agent {
    /// Writes configuration and policies; starts nothing.
    pub fn prepare(site: Site, options: &AgentOptions) -> anyhow::Result<Self> {
        let agent = Self {
            program: places::our_program("tidegate-agent")?,
            gate_port: places::free_port()?,
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/tidegate-lab-{:016x}", random::u64()?)),
            site,
            daemon: None,
            keep: false,
        };
        fs::create_dir_all(agent.site.dir.join("policy"))?;
        agent.write_policy(&options.policy)?;
        fs::write(agent.config(), agent.toml(options))?;
        Ok(agent)
    }

    /// Runs until stopped, with the harness's end or without.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.site.dir.join("agent.toml")
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.site.dir.join("state")
    }

    /// The certificate authority behind what it shows to clients.
    pub fn host_ca(&self) -> PathBuf {
        self.state().join("host-ca.crt")
    }

    /// Where it listens on loopback.
    pub fn gate_port(&self) -> u16 {
        self.gate_port
    }

    /// Where its hooks are pinned.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// A command of the agent's program, inside the guarded cgroup.
    pub fn program(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        let cgroup = Some(self.site.cgroup.clone());
        Identity { cgroup, ..Identity::default() }.apply(&mut command)?;
        Ok(command)
    }

    /// Runs `tidegate-agent <name> --config ..` to its end.
    pub fn ask(&self, name: &str, more: &[&str]) -> anyhow::Result<String> {
        let mut command = self.program()?;
        command.arg(name).arg("--config").arg(self.config()).args(more);
        places::run(&mut command)
    }

    /// Enrols with the collector that made `file`.
    pub fn enrol(&self, file: &Path) -> anyhow::Result<()> {
        let file = file.to_string_lossy();
        self.ask("enrol", &["--file", &file]).map(drop)
    }

    /// Starts the agent, if it does not run.
    pub fn run(&mut self) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(self.config());
        let cgroup = Some(self.site.cgroup.clone());
        let (daemon, _) = Daemon::start_until_line(
            "tidegate-agent run",
            &mut command,
            &Identity { cgroup, keep: self.keep, ..Identity::default() },
            &self.site.dir.join("agent.log"),
            "ready:",
            Duration::from_millis(START_MS_MAX),
        )?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends it in good order; the hooks stay.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => {
                let status = daemon.stop()?;
                anyhow::ensure!(status.success(), "the agent ended with {status}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// SIGKILL; the hooks stay.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Takes the hooks away.
    pub fn detach(&self) -> anyhow::Result<()> {
        if self.pin_dir.exists() {
            self.ask("detach", &[])?;
        }
        anyhow::ensure!(!self.pin_dir.exists(), "{} is still there", self.pin_dir.display());
        Ok(())
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.daemon.as_ref().context("the agent is not running")?.pid())
    }

    /// The most memory that it ever held (`VmHWM`), in bytes.
    pub fn memory_bytes_max(&self) -> anyhow::Result<u64> {
        status_bytes(self.pid()?, "VmHWM:")
    }

    /// Lets the most begin anew from what it holds now (`clear_refs`, proc(5)).
    pub fn forget_memory_max(&self) -> anyhow::Result<()> {
        let file = format!("/proc/{}/clear_refs", self.pid()?);
        fs::write(&file, "5").with_context(|| format!("writing {file}"))
    }

    /// The memory that it holds now (`VmRSS`), in bytes.
    pub fn memory_bytes(&self) -> anyhow::Result<u64> {
        status_bytes(self.pid()?, "VmRSS:")
    }

    /// Replaces the policy file; the agent reads it when it starts.
    pub fn write_policy(&self, policy: &str) -> anyhow::Result<()> {
        fs::write(self.site.dir.join("policy/lab.cedar"), policy)?;
        Ok(())
    }

    fn toml(&self, options: &AgentOptions) -> String {
        let dir = self.site.dir.display();
        let port = self.site.server_port;
        let [more_capture, more_principal, more_target] = options.more;
        let ca = match &self.site.server_ca {
            Some(path) if options.server_tls == "verify-full" => {
                format!("ca_file = \"{}\"\n", path.display())
            }
            _ => String::new(),
        };
        format!(
            r#"[agent]
id = "{id}"
state_dir = "{dir}/state"
run_dir = "{dir}/run"

[gate]
port = {gate}

[capture]
cgroup = "{cgroup}"
pin_dir = "{pins}"
{more_capture}

[spool]
bytes_max = "{spool}"
segment_bytes = "{segment}"

[policy]
files = ["policy/*.cedar"]
durability = "{durability}"

[collector]

[[principals]]
name = "{PRINCIPAL}"
uid = {uid}
{more_principal}

[[targets]]
name = "{TARGET}"
protocol = "postgres"
destinations = ["127.0.0.1:{port}", "[::1]:{port}"]
principals = ["{PRINCIPAL}"]
mode = "{mode}"
on_failure = "{on_failure}"
{open_seconds}
{more_target}

[targets.tls]
client = "offer"
server = "{server_tls}"
{ca}{more}"#,
            id = self.site.id,
            gate = self.gate_port,
            cgroup = self.site.cgroup.display(),
            pins = self.pin_dir.display(),
            spool = options.spool_bytes_max,
            segment = options.segment_bytes,
            durability = options.durability,
            uid = self.site.service_uid,
            mode = options.mode,
            on_failure = options.on_failure,
            open_seconds = match options.on_failure {
                "open" => format!("open_seconds_max = {}", options.open_seconds_max),
                _ => String::new(),
            },
            server_tls = options.server_tls,
            more = options.toml,
        ) + &self.mariadb_toml(options)
    }

    fn mariadb_toml(&self, options: &AgentOptions) -> String {
        let Some((port, ca)) = &self.site.mariadb else {
            return String::new();
        };
        let server_tls = options.mariadb_server_tls;
        let ca = match ca {
            Some(path) if server_tls == "verify-full" => {
                format!("ca_file = \"{}\"\n", path.display())
            }
            _ => String::new(),
        };
        let (mode, client_tls) = (options.mode, options.mariadb_client_tls);
        format!(
            r#"
[[targets]]
name = "{MARIADB_TARGET}"
protocol = "mysql"
destinations = ["127.0.0.1:{port}"]
principals = ["{PRINCIPAL}"]
mode = "{mode}"

[targets.tls]
client = "{client_tls}"
server = "{server_tls}"
{ca}{more}"#,
            more = options.mariadb_toml,
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        drop(self.daemon.take());
        let _ = self.detach();
        // A broken agent must not leave hooks behind: without their pins they are gone.
        let _ = fs::remove_dir_all(&self.pin_dir);
    }
}

fn status_bytes(pid: u32, field: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no such field")?;
    Ok(kib.parse::<u64>()? * 1024)
}
