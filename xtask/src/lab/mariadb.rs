//! A private MariaDB or MySQL, on a data directory of its own.
//!
//! Promises: listens on 127.0.0.1 and on a socket in its own directory only; runs as the user `mysql`,
//! never as root; accepts connections when [`Mariadb::start`] returns; the machine's own server is not
//! touched. User `app` has all rights on database `app`, `app_ed25519` the same by another
//! authentication; `root` comes in through the unix socket alone. The empty data directory is made once and
//! kept under `target/lab`.
//!
//! Limits: nothing is told here about the server's own durability.

pub mod agree;
pub mod clients;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::unistd::User;

use super::process::{Daemon, Identity, wait_for};
use super::{AgentOptions, Lab, Options, certs, places, policies};
pub use server::Server;

/// The password of `app` and `app_ed25519`.
pub const APP_PASSWORD: &str = "app-lab-password";
/// The agent's own account, with its password beside `agent.toml`. It is read anew only after DDL through
/// the gate.
pub const CATALOGUE: &str = "[targets.catalogue]\nuser = \"tidegate\"\npassword_file = \
    \"mariadb.password\"\nrefresh_seconds = 3600\n";
/// What that account needs, on everything, as `docs/OPERATING.md` says.
pub const CATALOGUE_GRANTS: &str = "SHOW VIEW, REFERENCES, SELECT";
/// The password of that account.
const CATALOGUE_PASSWORD: &str = "known to the agent alone";
/// How long the server may take until it accepts connections.
const START_MS_MAX: u64 = 60_000;
/// The client, for what goes past everything.
const CLIENT: &str = "/usr/bin/mariadb";
/// How the server is to be.
#[derive(Debug, Clone, Default)]
pub struct MariadbOptions {
    /// Which server.
    pub server: Server,
    /// TLS, with a certificate of a CA of its own for 127.0.0.1.
    pub tls: bool,
    /// More arguments, `--name=value`.
    pub arguments: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Mariadb {
    dir: PathBuf,
    port: u16,
    options: MariadbOptions,
    user: (u32, u32),
    daemon: Option<Daemon>,
}

/// A laboratory whose MariaDB is masked as `protect` says, for the users that [`policies::MASKED`] names, behind a
/// collector that is told `collector_toml` too. `sql` makes the tables.
pub fn masked_lab(protect: &str, sql: &[&str], collector_toml: &str) -> anyhow::Result<Lab> {
    let agent = AgentOptions {
        policy: policies::MASKED.to_owned(),
        mariadb_toml: format!("{CATALOGUE}{protect}"),
        ..AgentOptions::default()
    };
    let mariadb = Some(MariadbOptions::default());
    let collector_toml = collector_toml.to_owned();
    let mut lab = Lab::prepare(Options { mariadb, agent, collector_toml, ..Options::default() })?;
    let server = lab.mariadb()?;
    for sql in sql {
        server.admin(sql)?;
    }
    let dir = lab.path("agent");
    server.add_catalogue_account("mysql_native_password", CATALOGUE_GRANTS, &dir)?;
    lab.start_collector()?;
    lab.start_agent()?;
    Ok(lab)
}

impl Mariadb {
    /// Starts a fresh server in `dir`.
    pub fn start(dir: &Path, options: &MariadbOptions) -> anyhow::Result<Self> {
        let user = account()?;
        let template = options.server.template(user)?;
        fs::create_dir_all(dir.join("run"))?;
        std::os::unix::fs::chown(dir.join("run"), Some(user.0), Some(user.1))?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg("--reflink=auto").arg(&template).arg(dir.join("data"));
        places::run(&mut copy)?;
        let port = places::free_port()?;
        let options = options.clone();
        let mut server = Self { dir: dir.to_owned(), port, options, user, daemon: None };
        if server.options.tls {
            certs::authority(dir)?;
            certs::server(dir, "server", "IP:127.0.0.1")?;
            std::os::unix::fs::chown(dir.join("server.key"), Some(user.0), Some(user.1))?;
        }
        server.run()?;
        server.admin(&server.options.server.accounts(APP_PASSWORD))?;
        Ok(server)
    }

    /// Its TCP port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Which server it is.
    pub const fn server(&self) -> Server {
        self.options.server
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/socket")
    }

    /// Its general query log.
    pub fn general_log(&self) -> PathBuf {
        self.dir.join("run/general.log")
    }

    /// The certificate authority behind its certificate, where it speaks TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.dir.join("ca.crt"))
    }

    /// Runs SQL as `root` through the socket, past everything; gives rows without headers.
    pub fn admin(&self, sql: &str) -> anyhow::Result<String> {
        let mut client = Command::new(CLIENT);
        client.args(["--no-defaults", "-NB", "-uroot", "-e", sql]).arg("-S").arg(self.socket());
        Ok(places::run(&mut client)?.trim_end().to_owned())
    }

    /// A login of `app` by its own password through the socket, past everything; gives who it is then.
    pub fn knows(&self, password: &str) -> anyhow::Result<String> {
        let mut client = Command::new(CLIENT);
        client.args(["--no-defaults", "-NB", "-uapp", "-e", "SELECT current_user()"]);
        client.arg(format!("-p{password}")).arg("-S").arg(self.socket());
        Ok(places::run(&mut client)?.trim_end().to_owned())
    }

    /// Makes the agent's own account, by that plugin and with these grants, and writes its password for the
    /// agent that will live in `dir`.
    pub fn add_catalogue_account(
        &self,
        plugin: &str,
        grants: &str,
        dir: &Path,
    ) -> anyhow::Result<()> {
        self.admin(&format!(
            "CREATE USER tidegate@'%' IDENTIFIED VIA {plugin} USING PASSWORD('{CATALOGUE_PASSWORD}'); \
             GRANT {grants} ON *.* TO tidegate@'%'"
        ))?;
        fs::create_dir_all(dir)?;
        Ok(fs::write(dir.join("mariadb.password"), format!("{CATALOGUE_PASSWORD}\n"))?)
    }

    /// Starts the server on its data, if it does not run.
    pub fn run(&mut self) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = self.options.server.command();
        command.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--local-infile=1",
            "--general-log=1",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M",
        ]);
        command.args(self.options.server.settings());
        command.arg(format!("--port={}", self.port));
        for (name, at) in [
            ("datadir", self.dir.join("data")),
            ("socket", self.socket()),
            ("pid-file", self.dir.join("run/pid")),
            ("general-log-file", self.general_log()),
        ] {
            command.arg(format!("--{name}={}", at.display()));
        }
        if self.options.tls {
            for (name, file) in [("ca", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")] {
                command.arg(format!("--ssl-{name}={}", self.dir.join(file).display()));
            }
        }
        command.args(&self.options.arguments);
        command.current_dir(&self.dir);
        let (uid, gid) = (Some(self.user.0), Some(self.user.1));
        let identity = Identity { uid, gid, ..Identity::default() };
        let log = self.dir.join("server.log");
        self.daemon = Some(Daemon::start("mariadbd", &mut command, &identity, &log)?);
        wait_for("MariaDB accepts connections", Duration::from_millis(START_MS_MAX), || {
            let ended = self.daemon.as_mut().map(Daemon::ended).transpose()?.flatten();
            anyhow::ensure!(ended.is_none(), "MariaDB ended:\n{}", super::tail(&log));
            Ok(self.admin("SELECT 1").is_ok().then_some(()))
        })
    }

    /// Stops the server.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.stop().map(drop))
    }
}

/// User and group id of `mysql`.
fn account() -> anyhow::Result<(u32, u32)> {
    let account = User::from_name("mysql")?
        .context("no user `mysql` on this machine: run `cargo xtask setup`")?;
    Ok((account.uid.as_raw(), account.gid.as_raw()))
}

/// One line of the general query log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The connection's number.
    pub connection: u64,
    /// `Connect`, `Query`, `Prepare`, `Execute`, `Init DB`, `Quit`, ...
    pub command: String,
    /// What stands behind it.
    pub argument: String,
}

/// Reads a general query log. An argument of several lines goes on up to the next entry.
pub fn read_general_log(text: &str) -> Vec<Logged> {
    let mut entries: Vec<Logged> = Vec::new();
    for line in text.lines() {
        match entry(line) {
            Some(entry) => entries.push(entry),
            None => {
                if let Some(last) = entries.last_mut() {
                    last.argument.push('\n');
                    last.argument.push_str(line);
                }
            }
        }
    }
    entries
}

/// `[YYMMDD HH:MM:SS]\t<number> <command>\t<argument>`, the number with blanks before it; MySQL puts a time in
/// ISO 8601 before each.
fn entry(line: &str) -> Option<Logged> {
    let (time, rest) = line.split_once('\t')?;
    let is_time = time.is_empty()
        || time.chars().all(|letter| {
            letter.is_ascii_digit() || matches!(letter, ' ' | ':' | '-' | '.' | 'T' | 'Z')
        });
    let rest = rest.strip_prefix('\t').unwrap_or(rest).trim_start();
    let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
    let connection = rest.get(..digits)?.parse().ok().filter(|_| is_time)?;
    let (command, argument) = rest.get(digits + 1..)?.split_once('\t')?;
    let known =
        ["Query", "Prepare", "Execute", "Connect", "Quit", "Init DB", "Close stmt", "Field List"];
    let others = [
        "Reset stmt",
        "Long Data",
        "Fetch",
        "Ping",
        "Statistics",
        "Change user",
        "Set option",
        "Reset connection",
        "Kill",
        "Bulk_execute",
        "Refresh",
        "Debug",
        "Shutdown",
        "Processlist",
    ];
    let command = command.trim();
    let is_known = known.contains(&command) || others.contains(&command);
    is_known.then(|| Logged {
        connection,
        command: command.to_owned(),
        argument: argument.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_several_lines_are_whole() {
        let log = "/usr/sbin/mariadbd, Version: 10.11\nTcp port: 1  Unix socket: x\nTime\t\t    Id Command\tArgument\n\
                   261126  4:12:33\t     4 Connect\tapp@127.0.0.1 on app using TCP/IP\n\t\t     4 Query\tSELECT 1,\n\
                   \t2\n\t\t     4 Quit\t\n";
        let read = read_general_log(log);
        let commands: Vec<_> = read.iter().map(|entry| entry.command.as_str()).collect();
        assert_eq!(commands, ["Connect", "Query", "Quit"]);
        assert_eq!(read.get(1).map(|entry| entry.argument.as_str()), Some("SELECT 1,\n\t2"));
    }
}
