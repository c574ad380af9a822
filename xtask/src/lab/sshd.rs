//! A private sshd that lets root in with one key, behind an agent that has that key.
//!
//! Promises: it listens on loopback alone, on a port of its own; everything it has is in a directory of its own.
//! What it was asked to run is in [`Site::commands`], each as its shell gets it, and what its sftp-server did in
//! [`Site::files`]: the far side's own word.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::client::{Answer, run};
use super::policies::CAREFUL;
use super::process::{Daemon, Identity, wait_for};
use super::{AgentOptions, Lab, Options, Who, places};

/// An account that OpenSSH's client finds in passwd(5): `nobody`.
pub const CLIENT_UID: u32 = 65_534;

/// How long sshd, or a connection that others share, may take to be there.
const START: Duration = Duration::from_secs(20);

/// Writes what is asked to be run to `commands`, with a zero byte behind each, and runs it.
const JUDGE: &str = r#"#!/bin/sh
printf '%s\0' "${SSH_ORIGINAL_COMMAND-}" >>"$(dirname "$0")/commands"
if [ "${SSH_ORIGINAL_COMMAND+set}" ]; then exec /bin/bash -c "$SSH_ORIGINAL_COMMAND"; fi
exec /bin/bash -l
"#;

/// Has sftp-server tell what it does.
const SFTP_SERVER: &str = r#"#!/bin/sh
exec /usr/lib/openssh/sftp-server -l VERBOSE -e 2>>"$(dirname "$0")/files.log"
"#;

/// A laboratory with an sshd.
pub struct Site {
    /// The laboratory.
    pub lab: Lab,
    /// Where sshd listens.
    pub port: u16,
    /// What sshd has.
    pub dir: tempfile::TempDir,
    /// The server.
    pub sshd: Daemon,
}

/// What is different in a site.
#[derive(Debug, Clone, Default)]
pub struct Different {
    /// Lines for `sshd_config`.
    pub sshd: String,
    /// The target's `ssh` table, without its braces; where empty, the key and host key of the site. `DIR` stands for
    /// the site's directory, here and in `sshd`.
    pub ssh: String,
}

/// Makes a key pair; says the public half.
///
/// # Errors
///
/// Where ssh-keygen is missing, or can't write.
pub fn key(path: &Path) -> anyhow::Result<String> {
    let mut keygen = Command::new("/usr/bin/ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    places::run(&mut keygen)?;
    Ok(fs::read_to_string(path.with_extension("pub"))?)
}

fn script(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

impl Site {
    /// Under `policy`, beside the one that lets the laboratory's database be used.
    ///
    /// # Errors
    ///
    /// Where something does not start.
    pub fn start(policy: &str) -> anyhow::Result<Self> {
        Self::start_with(policy, &Different::default())
    }

    /// The same, with what is different.
    ///
    /// # Errors
    ///
    /// Where something does not start.
    pub fn start_with(policy: &str, different: &Different) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidegate-ssh-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let port = places::free_port()?;
        let place = dir.path().display().to_string();
        let in_place = |text: &str| text.replace("DIR", &place);
        let sshd = Self::sshd(dir.path(), port, &in_place(&different.sshd))?;
        let ssh = match different.ssh.as_str() {
            "" => r#"identity_file = "DIR/identity", known_hosts_file = "DIR/known_hosts""#,
            ssh => ssh,
        };
        let toml = format!(
            "\n[[targets]]\nname = \"host\"\nprotocol = \"ssh\"\ndestinations = [\"127.0.0.1:{port}\"]\n\
             ssh = {{ {} }}\n",
            in_place(ssh),
        );
        let policy = format!("{CAREFUL}{policy}");
        let agent = AgentOptions { policy, toml, ..AgentOptions::default() };
        let client_uid = Some(CLIENT_UID);
        let lab = Lab::start(Options { agent, client_uid, ..Options::default() })?;
        let site = Self { lab, port, dir, sshd };
        site.trust(&[])?;
        Ok(site)
    }

    fn sshd(dir: &Path, port: u16, more: &str) -> anyhow::Result<Daemon> {
        let at = |name: &str| dir.join(name);
        let host = key(&at("host"))?;
        fs::write(at("authorized"), key(&at("identity"))?)?;
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host}"))?;
        script(&at("judge"), JUDGE)?;
        script(&at("sftp-server"), SFTP_SERVER)?;
        fs::write(
            at("sshd_config"),
            format!(
                "{more}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}\n\
                 PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PasswordAuthentication no\nAcceptEnv LC_TIDEGATE\nLogLevel DEBUG\nMaxStartups 100\n\
                 MaxSessions 100\nForceCommand {judge}\nSubsystem sftp {sftp}\n",
                host = at("host").display(),
                keys = at("authorized").display(),
                judge = at("judge").display(),
                sftp = at("sftp-server").display(),
            ),
        )?;
        fs::create_dir_all("/run/sshd")?;
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-f"]).arg(at("sshd_config")).arg("-E").arg(at("sshd.log"));
        let sshd = Daemon::start("sshd", &mut sshd, &Identity::default(), &at("sshd.out"))?;
        wait_for("sshd listens", START, || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })?;
        Ok(sshd)
    }

    /// The file in which clients find the gate's CA.
    pub fn trusted(&self) -> PathBuf {
        self.dir.path().join("ssh_known_hosts")
    }

    /// Runs `ssh trust` on that file.
    ///
    /// # Errors
    ///
    /// Where the agent's program fails.
    pub fn trust(&self, more: &[&str]) -> anyhow::Result<()> {
        let agent = self.lab.agent()?;
        let mut trust = agent.program()?;
        trust.args(["ssh", "trust", "--config"]).arg(agent.config());
        places::run(trust.arg("--file").arg(self.trusted()).args(more)).map(|_| ())
    }

    /// One of OpenSSH's programs that insists on knowing the host; `port` is its option for the port.
    ///
    /// # Errors
    ///
    /// Where the account's home can't be made.
    pub fn client(&self, program: &str, port: &str) -> anyhow::Result<Command> {
        let mut client = self.lab.command(Who::Service, Path::new(program))?;
        client.args(self.options()).args([port, &self.port.to_string()]);
        Ok(client)
    }

    /// The options under which OpenSSH's clients insist on knowing the host.
    pub fn options(&self) -> Vec<String> {
        let trusted = format!("GlobalKnownHostsFile={}", self.trusted().display());
        let options = [
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            &trusted,
            "UserKnownHostsFile=/dev/null",
        ];
        let pairs = options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        ["-F", "none"].map(str::to_owned).into_iter().chain(pairs).collect()
    }

    /// Runs OpenSSH's client.
    ///
    /// # Errors
    ///
    /// Where it does not start.
    pub fn ssh(&self, args: &[&str], input: &[u8]) -> anyhow::Result<Answer> {
        run(self.client("/usr/bin/ssh", "-p")?.args(args), input)
    }

    /// sshd's own log.
    ///
    /// # Errors
    ///
    /// Where it can't be read.
    pub fn log(&self) -> anyhow::Result<String> {
        fs::read_to_string(self.dir.path().join("sshd.log")).context("sshd's log")
    }

    /// What its shell was given to run, in order; empty for a shell.
    ///
    /// # Errors
    ///
    /// Where it can't be read.
    pub fn commands(&self) -> anyhow::Result<Vec<String>> {
        let path = self.dir.path().join("commands");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let all = text.strip_suffix('\0').unwrap_or(&text);
        Ok(all.split('\0').map(str::to_owned).collect())
    }

    /// The lines of its sftp-servers.
    ///
    /// # Errors
    ///
    /// Where they can't be read.
    pub fn files(&self) -> anyhow::Result<Vec<String>> {
        let path = self.dir.path().join("files.log");
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Ends it all, and checks the log.
    ///
    /// # Errors
    ///
    /// Where the evidence is not whole.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.sshd.stop()?;
        self.lab.finish()
    }
}

/// A connection that others share (ssh_config(5), `ControlMaster`).
pub struct Shared<'a> {
    site: &'a Site,
    socket: PathBuf,
    master: Child,
}

impl<'a> Shared<'a> {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Where it is not there in time.
    pub fn start(site: &'a Site) -> anyhow::Result<Self> {
        let socket = site.lab.path("home").join("control");
        let mut master = site.client("/usr/bin/ssh", "-p")?;
        master.args(["-M", "-N", "-S"]).arg(&socket).arg("root@127.0.0.1");
        let master = master.stdin(Stdio::null()).spawn()?;
        wait_for("the shared connection", START, || Ok(socket.exists().then_some(())))?;
        Ok(Self { site, socket, master })
    }

    /// A client that runs `command` over it.
    ///
    /// # Errors
    ///
    /// Where the account's home can't be made.
    pub fn client(&self, command: &[u8]) -> anyhow::Result<Command> {
        let mut ssh = self.site.client("/usr/bin/ssh", "-p")?;
        // What begins with a dash is a command too.
        ssh.arg("-S").arg(&self.socket).args(["root@127.0.0.1", "--"]);
        ssh.arg(OsStr::from_bytes(command));
        Ok(ssh)
    }

    /// Runs `command` over it.
    ///
    /// # Errors
    ///
    /// Where the client does not start, or takes too long.
    pub fn run(&self, command: &[u8]) -> anyhow::Result<Answer> {
        run(&mut self.client(command)?, b"")
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// Where it has ended by itself.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.master.kill()?;
        self.master.wait()?;
        Ok(())
    }
}
