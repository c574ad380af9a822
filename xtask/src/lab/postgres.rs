//! A private PostgreSQL: Debian's programs on a data directory of its own.
//!
//! Promises: listens on loopback and on a socket in its own directory only; runs as the user
//! `postgres`, never as root; accepts connections when [`Postgres::start`] returns; the machine's own
//! clusters are not touched. Role `app` owns database `app`; the superuser `postgres` comes in
//! through the unix socket alone. The empty cluster is made once and kept under `target/lab`.
//!
//! Limits: `fsync` is off unless asked for, so nothing is told here about the server's own durability.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use nix::unistd::User;

use super::process::{Daemon, Identity, wait_for};
use super::{certs, places, term};

/// The role that clients use.
pub const APP_PASSWORD: &str = "app-lab-password";
/// How long the server may take until it accepts connections.
const START_MS_MAX: u64 = 60_000;
/// Changes whenever what [`make_template`] does changes.
const TEMPLATE_VERSION: &str = "2";

/// How the server wants clients to prove who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// It takes their word.
    #[default]
    Trust,
    /// SCRAM-SHA-256.
    Scram,
    /// MD5 challenge.
    Md5,
    /// The password in the clear.
    Password,
}

impl Auth {
    const fn method(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Scram => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
        }
    }
}

/// Whether the server speaks TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tls {
    /// It answers no.
    #[default]
    Off,
    /// To whoever asks.
    Offered,
    /// It refuses TCP clients without.
    Required,
}

/// What the server writes to its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Log {
    /// Errors and the like, in `server.log`.
    #[default]
    Plain,
    /// Every statement with its parameters, one JSON object a line, in `log/server.json`.
    Statements,
}

/// How the server is to be.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Authentication over TCP.
    pub auth: Auth,
    /// TLS over TCP, with a certificate of a CA of its own for 127.0.0.1, ::1 and `db.lab.test`.
    pub tls: Tls,
    /// What it logs.
    pub log: Log,
    /// Sync its own writes (measurements); off is faster.
    pub fsync: bool,
    /// Survives the harness.
    pub keep: bool,
    /// More settings, `name = value`.
    pub settings: Vec<(String, String)>,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    programs: PathBuf,
    port: u16,
    options: PostgresOptions,
    user: (u32, u32),
    daemon: Option<Daemon>,
}

impl Postgres {
    /// Starts a fresh server in `dir`.
    pub fn start(dir: &Path, options: &PostgresOptions) -> anyhow::Result<Self> {
        let programs = places::postgres_programs()?;
        let user = account()?;
        let template = Self::template()?;
        fs::create_dir_all(dir)?;
        for part in ["socket", "log"] {
            fs::create_dir_all(dir.join(part))?;
            std::os::unix::fs::chown(dir.join(part), Some(user.0), Some(user.1))?;
        }
        let mut copy = Command::new("cp");
        copy.arg("-a").arg("--reflink=auto").arg(&template).arg(dir.join("data"));
        places::run(&mut copy)?;
        let mut server = Self {
            dir: dir.to_owned(),
            programs,
            port: places::free_port()?,
            options: options.clone(),
            user,
            daemon: None,
        };
        server.configure()?;
        server.run()?;
        if options.auth == Auth::Md5 {
            server.admin(&format!(
                "SET password_encryption = 'md5'; ALTER ROLE app PASSWORD '{APP_PASSWORD}'"
            ))?;
        }
        Ok(server)
    }

    /// The ready-made empty cluster, made on first use.
    pub fn template() -> anyhow::Result<PathBuf> {
        template(&places::postgres_programs()?, account()?)
    }

    /// Its TCP port on both loopback addresses.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The log of [`Log::Statements`].
    pub fn statement_log(&self) -> PathBuf {
        self.dir.join("log/server.json")
    }

    /// The certificate authority behind its certificate, where it speaks TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        (self.options.tls != Tls::Off).then(|| self.dir.join("ca.crt"))
    }

    /// What clients put behind the address in a connection string.
    pub fn dsn_tail(&self) -> String {
        match self.options.auth {
            Auth::Trust => String::new(),
            _ => format!(" password={APP_PASSWORD}"),
        }
    }

    /// PostgreSQL's own programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.daemon.as_ref().context("the server is not running")?.pid())
    }

    /// Runs SQL in database `postgres` as the superuser, past everything.
    pub fn admin(&self, sql: &str) -> anyhow::Result<String> {
        self.sql("postgres", "postgres", sql)
    }

    /// Runs SQL in database `app` as `app`, past everything.
    pub fn app(&self, sql: &str) -> anyhow::Result<String> {
        self.sql("app", "app", sql)
    }

    /// Runs a file of SQL in database `app` as `app`, past everything.
    pub fn app_file(&self, file: &Path) -> anyhow::Result<()> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "app", "-d", "app", "-f"]).arg(file);
        psql.arg("-h").arg(self.socket()).args(["-p", &self.port.to_string()]);
        places::run(&mut psql).map(drop)
    }

    /// Runs SQL through the unix socket; gives unaligned rows without headers.
    pub fn sql(&self, user: &str, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-c", sql])
            .arg("-h")
            .arg(self.socket())
            .args(["-p", &self.port.to_string()]);
        Ok(places::run(&mut psql)?.trim_end().to_owned())
    }

    /// Starts the server on its data, if it does not run.
    pub fn run(&mut self) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(self.dir.join("data")).env_clear().env("LC_ALL", "C.UTF-8");
        command.current_dir(&self.dir);
        let identity = Identity {
            uid: Some(self.user.0),
            gid: Some(self.user.1),
            cgroup: None,
            keep: self.options.keep,
        };
        let log = self.dir.join("server.log");
        self.daemon = Some(Daemon::start("postgres", &mut command, &identity, &log)?);
        wait_for("PostgreSQL accepts connections", Duration::from_millis(START_MS_MAX), || {
            let ended = self.daemon.as_mut().map(Daemon::ended).transpose()?.flatten();
            anyhow::ensure!(ended.is_none(), "PostgreSQL ended:\n{}", super::tail(&log));
            let ready = Command::new(self.programs.join("pg_isready"))
                .args(["-q", "-U", "postgres", "-p", &self.port.to_string(), "-h"])
                .arg(self.socket())
                .status()?;
            Ok(ready.success().then_some(()))
        })
    }

    /// Stops the server; its clients are disconnected.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.daemon.take() {
            // SIGINT is PostgreSQL's fast shutdown.
            Some(mut daemon) => daemon.stop_with(Signal::SIGINT).map(drop),
            None => Ok(()),
        }
    }

    fn configure(&self) -> anyhow::Result<()> {
        let mut conf = format!(
            "listen_addresses = '127.0.0.1,::1'\nport = {}\nunix_socket_directories = '{}'\n\
             max_connections = 120\nfsync = {}\n",
            self.port,
            self.socket().display(),
            if self.options.fsync { "on" } else { "off" },
        );
        if self.options.log == Log::Statements {
            writeln!(
                conf,
                "logging_collector = on\nlog_destination = 'jsonlog'\nlog_directory = '{}'\n\
                 log_filename = 'server.log'\nlog_rotation_age = 0\nlog_rotation_size = 0\n\
                 log_statement = all\nlog_parameter_max_length = -1\n\
                 log_parameter_max_length_on_error = 0\nlog_min_error_statement = error",
                self.dir.join("log").display()
            )?;
        }
        if self.options.tls != Tls::Off {
            certs::authority(&self.dir)?;
            certs::server(&self.dir, "server", "IP:127.0.0.1,IP:::1,DNS:db.lab.test")?;
            let key = self.dir.join("server.key");
            std::os::unix::fs::chown(&key, Some(self.user.0), Some(self.user.1))?;
            writeln!(
                conf,
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
                self.dir.join("server.crt").display(),
                key.display()
            )?;
        }
        for (name, value) in &self.options.settings {
            writeln!(conf, "{name} = {value}")?;
        }
        let data = self.dir.join("data");
        let mut file = File::options().append(true).open(data.join("postgresql.conf"))?;
        file.write_all(conf.as_bytes())?;
        let host = if self.options.tls == Tls::Required { "hostssl" } else { "host" };
        let method = self.options.auth.method();
        let hba = format!(
            "local all all trust\n{host} all all 127.0.0.1/32 {method}\n{host} all all ::1/128 {method}\n"
        );
        fs::write(data.join("pg_hba.conf"), hba)?;
        Ok(())
    }
}

/// User and group id of `postgres`.
fn account() -> anyhow::Result<(u32, u32)> {
    let account = User::from_name("postgres")?
        .context("no user `postgres` on this machine: run `cargo xtask setup`")?;
    Ok((account.uid.as_raw(), account.gid.as_raw()))
}

/// The empty cluster, made on first use. Others wait for whoever makes it.
fn template(programs: &Path, user: (u32, u32)) -> anyhow::Result<PathBuf> {
    let version = programs
        .parent()
        .and_then(Path::file_name)
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let cache = places::cache("initdb")?;
    let lock = File::create(cache.join("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow::anyhow!("locking the cluster template: {error}"))?;
    let ready = cache.join(format!("{version}-{TEMPLATE_VERSION}"));
    if !ready.exists() {
        term::note("making the PostgreSQL cluster that laboratories start from ...");
        let making = cache.join("making");
        let _ = fs::remove_dir_all(&making);
        make_template(programs, user, &making)?;
        fs::rename(&making, &ready)?;
    }
    Ok(ready)
}

fn make_template(programs: &Path, user: (u32, u32), into: &Path) -> anyhow::Result<()> {
    // Made elsewhere: the target directory may lie where `postgres` may not look.
    let dir = tempfile::Builder::new().prefix("tidegate-initdb-").tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(user.0), Some(user.1))?;
    let data = dir.path().join("data");
    let identity = Identity { uid: Some(user.0), gid: Some(user.1), ..Identity::default() };
    let mut initdb = Command::new(programs.join("initdb"));
    initdb
        .args(["-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync", "-D"])
        .arg(&data)
        .env("TZ", "UTC")
        .current_dir(dir.path());
    identity.apply(&mut initdb)?;
    places::run(&mut initdb)?;
    let mut single = Command::new(programs.join("postgres"));
    single
        .args(["--single", "-j", "-c", "password_encryption=scram-sha-256", "-D"])
        .arg(&data)
        .arg("postgres")
        .current_dir(dir.path());
    identity.apply(&mut single)?;
    let sql = format!(
        "CREATE ROLE app LOGIN PASSWORD '{APP_PASSWORD}';\n\nCREATE DATABASE app OWNER app;\n\n"
    );
    let answer = super::client::run(&mut single, sql.as_bytes())?;
    anyhow::ensure!(answer.ok(), "setting up the cluster template: {answer}");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(&data).arg(into);
    places::run(&mut copy).map(drop)
}
