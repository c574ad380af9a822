//! Clients: unmodified programs, run as the protected service account or as somebody else.
//!
//! Promises: a client has a clean environment (HOME of its own, nothing of the harness's), sits in
//! the laboratory's cgroup, and is killed when it takes longer than [`CLIENT_MS_MAX`].

use std::fmt;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;

use super::process::Identity;
use super::{Lab, Who::Service, places};

/// Longest run of one client.
pub const CLIENT_MS_MAX: u64 = 240_000;
/// Longest run of a whole suite.
pub const SUITE_MS_MAX: u64 = 3_600_000;
/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whose client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The protected service account.
    Service,
    /// An account that no rule names.
    Other,
}

/// What a client said, and how it ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Answer {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {:?}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

impl Lab {
    /// A program to be run as `who`; add arguments, then [`run`] it.
    pub fn command(&self, who: Who, program: &Path) -> anyhow::Result<Command> {
        let (uid, home) = match who {
            Service => (self.service_uid, self.path("home")),
            Who::Other => (self.other_uid, self.path("home-other")),
        };
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &home)
            .env("LC_ALL", "C.UTF-8")
            .env("PGCONNECT_TIMEOUT", "30")
            .current_dir(&home);
        let cgroup = Some(self.cgroup.path().to_owned());
        Identity { uid: Some(uid), cgroup, ..Identity::default() }.apply(&mut command)?;
        Ok(command)
    }

    /// The connection string of the server as an unknowing client has it.
    pub fn dsn(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=app dbname=app{}",
            self.postgres.port(),
            self.postgres.dsn_tail()
        )
    }

    /// `psql` with `args`, reading `script` from its stdin.
    pub fn psql(&self, who: Who, args: &[&str], script: &str) -> anyhow::Result<Answer> {
        self.psql_at(who, &self.dsn(), args, script)
    }

    /// `psql` running each of `statements` in one session: bare rows, errors with SQLSTATE.
    pub fn sql(&self, who: Who, statements: &[&str]) -> anyhow::Result<Answer> {
        let commands = statements.iter().flat_map(|statement| ["-c", statement]);
        let args = ["-Atq", "-v", "VERBOSITY=verbose"].into_iter().chain(commands);
        self.psql(who, &args.collect::<Vec<_>>(), "")
    }

    /// Debian's Python with the packages that `cargo xtask setup` installed.
    pub fn python(&self, who: Who) -> anyhow::Result<Command> {
        let packages = self.path("python");
        if !packages.exists() {
            let mut cp = Command::new("cp");
            // A copy, since an account may not be let into the target directory.
            cp.arg("-r").arg(places::python_packages()?).arg(&packages);
            places::run(&mut cp)?;
        }
        let mut command = self.command(who, Path::new("/usr/bin/python3"))?;
        command.env("PYTHONPATH", &packages).arg("-");
        Ok(command)
    }

    /// Node.js with the packages that `cargo xtask setup` installed, reading a script from its stdin.
    pub fn node(&self, who: Who) -> anyhow::Result<Command> {
        let modules = self.path("node_modules");
        if !modules.exists() {
            let mut cp = Command::new("cp");
            cp.arg("-r").arg(crate::run::tools().join("node/node_modules")).arg(&modules);
            places::run(&mut cp)?;
        }
        let mut command = self.command(who, Path::new("/usr/bin/node"))?;
        command.env("NODE_PATH", &modules).arg("-");
        Ok(command)
    }

    /// [`Lab::psql`] with another connection string.
    pub fn psql_at(
        &self,
        who: Who,
        dsn: &str,
        args: &[&str],
        script: &str,
    ) -> anyhow::Result<Answer> {
        let mut command = self.command(who, Path::new("/usr/bin/psql"))?;
        command.args(["-X", "-d", dsn]).args(args);
        run(&mut command, script.as_bytes())
    }
}

/// Runs a client with `input` on its stdin, to its end.
pub fn run(command: &mut Command, input: &[u8]) -> anyhow::Result<Answer> {
    run_within(command, input, CLIENT_MS_MAX)
}

/// [`run`] with another limit.
pub fn run_within(command: &mut Command, input: &[u8], ms_max: u64) -> anyhow::Result<Answer> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let stdin = child.stdin.take().context("a client's stdin is piped")?;
    let input = input.to_owned();
    // A client that ends early does not read all of it: no error of ours.
    std::thread::spawn(move || {
        let mut stdin = stdin;
        let _ = stdin.write_all(&input);
    });
    finish(child, ms_max)
}

/// Waits for a client that was started with piped stdout and stderr.
pub fn finish(mut child: Child, ms_max: u64) -> anyhow::Result<Answer> {
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let wait = Duration::from_millis(ms_max);
    let Ok(out) = stdout.recv_timeout(wait) else {
        child.kill()?;
        child.wait()?;
        let said = stderr.recv().unwrap_or_default();
        anyhow::bail!("a client took longer than {ms_max} ms; its stderr:\n{said}");
    };
    let status = child.wait()?;
    Ok(Answer { code: status.code(), stdout: out, stderr: stderr.recv().unwrap_or_default() })
}

fn collect(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A home directory of one account.
pub fn make_home(path: &Path, uid: u32) -> anyhow::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
    Ok(())
}
