//! SSH: an unmodified OpenSSH client as a protected account, and Debian's own sshd behind the gate.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use xtask::lab::client::{Answer, run};
use xtask::lab::policies::CAREFUL;
use xtask::lab::process::{Daemon, Identity, wait_for};
use xtask::lab::{AgentOptions, Lab, Options, Who, places};

/// An account that OpenSSH's client finds in passwd(5): `nobody`.
const CLIENT_UID: u32 = 65_534;

/// How long sshd may take until it listens.
const START: Duration = Duration::from_secs(20);

/// Permits some commands, a variable and nothing else.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env"], resource == Target::"host");
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has about && (context.about like "echo *" || context.about == "cat") };
@reason("nobody deletes here")
forbid (principal, action == Action::"exec", resource == Target::"host")
when { context has about && context.about like "*rm *" };
permit (principal, action in [Action::"shell", Action::"subsystem"], resource == Target::"host");
"#;

/// A private sshd that lets root in with one key, and a laboratory whose agent has that key.
struct Site {
    lab: Lab,
    port: u16,
    dir: tempfile::TempDir,
    sshd: Daemon,
}

fn key(path: &Path) -> String {
    let mut keygen = Command::new("/usr/bin/ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    places::run(&mut keygen).unwrap();
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

impl Site {
    fn start(policy: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-ssh-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| dir.path().join(name);
        let port = places::free_port().unwrap();
        let host = key(&at("host"));
        fs::write(at("authorized"), key(&at("identity"))).unwrap();
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        fs::write(
            at("sshd_config"),
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}\n\
                 PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
                 AcceptEnv LC_TIDEGATE\nLogLevel DEBUG\nSubsystem sftp internal-sftp\n",
                host = at("host").display(),
                keys = at("authorized").display(),
            ),
        )
        .unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-f"]).arg(at("sshd_config")).arg("-E").arg(at("sshd.log"));
        let sshd = Daemon::start("sshd", &mut sshd, &Identity::default(), &at("sshd.out")).unwrap();
        wait_for("sshd listens", START, || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })
        .unwrap();
        let toml = format!(
            "\n[[targets]]\nname = \"host\"\nprotocol = \"ssh\"\ndestinations = [\"127.0.0.1:{port}\"]\n\
             ssh = {{ identity_file = \"{}\", known_hosts_file = \"{}\" }}\n",
            at("identity").display(),
            at("known_hosts").display(),
        );
        let agent =
            AgentOptions { policy: format!("{CAREFUL}{policy}"), toml, ..AgentOptions::default() };
        let lab = Lab::start(Options { agent, client_uid: Some(CLIENT_UID), ..Options::default() })
            .unwrap();
        let site = Self { lab, port, dir, sshd };
        site.trust(&[]);
        site
    }

    fn trusted(&self) -> PathBuf {
        self.dir.path().join("ssh_known_hosts")
    }

    fn trust(&self, more: &[&str]) {
        let agent = self.lab.agent().unwrap();
        let mut trust = agent.program().unwrap();
        trust.args(["ssh", "trust", "--config"]).arg(agent.config());
        places::run(trust.arg("--file").arg(self.trusted()).args(more)).unwrap();
    }

    /// One of OpenSSH's programs that insists on knowing the host; `port` is its option for the port.
    fn client(&self, program: &str, port: &str) -> Command {
        let mut client = self.lab.command(Who::Service, Path::new(program)).unwrap();
        client
            .args(["-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"])
            .arg("-o")
            .arg(format!("GlobalKnownHostsFile={}", self.trusted().display()))
            .args(["-o", "UserKnownHostsFile=/dev/null", port, &self.port.to_string()]);
        client
    }

    fn ssh(&self, args: &[&str], input: &[u8]) -> Answer {
        run(self.client("/usr/bin/ssh", "-p").args(args), input).unwrap()
    }

    /// What sshd says that it was asked to run.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("sshd.log")).unwrap()
    }

    fn finish(mut self) {
        self.sshd.stop().unwrap();
        self.lab.finish().unwrap();
    }
}

#[test]
fn a_command_runs_with_its_streams_and_status_and_is_recorded() {
    let site = Site::start(POLICY);
    let said = site.ssh(&["root@127.0.0.1", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!((said.code, said.stdout.as_str()), (Some(7), "out\n"), "{said}");
    assert_eq!(said.stderr, "err\n", "{said}");
    // Half-close: cat ends when its input does, and all of it comes back.
    let input: Vec<u8> = (0..8_000_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
    let said = site.ssh(&["root@127.0.0.1", "cat"], &input);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.as_bytes() == input, "{} bytes came back", said.stdout.len());
    let evidence = site.lab.evidence().unwrap();
    evidence.is_in_order().unwrap();
    let first = "echo out; echo err >&2; exit 7";
    assert_eq!(evidence.statements(first).count(), 1, "not recorded");
    assert!(evidence.finished("cat").is_some(), "no outcome");
    site.finish();
}

#[test]
fn a_refused_command_never_reaches_the_server_and_says_why() {
    let site = Site::start(POLICY);
    let said = site.ssh(&["root@127.0.0.1", "echo a; rm -f /nowhere"], b"");
    assert_eq!(said.code, Some(126), "{said}");
    assert!(said.stderr.contains("nobody deletes here"), "{said}");
    let said = site.ssh(&["root@127.0.0.1", "id"], b"");
    assert_ne!(said.code, Some(0), "{said}");
    assert!(!said.stdout.contains("uid="), "{said}");
    let log = site.log();
    assert!(!log.contains("rm -f /nowhere"), "it reached the server:\n{log}");
    let evidence = site.lab.evidence().unwrap();
    let refused: Vec<&str> = evidence
        .operations()
        .filter(|event| event.verdict() == "deny")
        .map(xtask::lab::evidence::Event::text)
        .collect();
    assert_eq!(refused, ["echo a; rm -f /nowhere", "id"]);
    site.finish();
}

#[test]
fn forwards_and_the_key_agent_are_refused_where_no_policy_names_them() {
    let site = Site::start(POLICY);
    let port = site.lab.postgres.port();
    let said = site.ssh(&["-W", &format!("127.0.0.1:{port}"), "root@127.0.0.1"], b"");
    assert_ne!(said.code, Some(0), "{said}");
    assert!(said.stderr.contains("administratively prohibited"), "{said}");
    let back = format!("0:127.0.0.1:{port}");
    let said =
        site.ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &back, "root@127.0.0.1", "echo x"], b"");
    assert_ne!(said.code, Some(0), "{said}");
    let evidence = site.lab.evidence().unwrap();
    assert!(evidence.statements(&format!("127.0.0.1:{port}")).count() >= 1, "not recorded");
    site.finish();
}

#[test]
fn files_go_by_sftp_and_scp_where_the_subsystem_is_permitted() {
    let site = Site::start(POLICY);
    let file = site.dir.path().join("carried");
    fs::write(&file, "carried over\n").unwrap();
    let from = format!("root@127.0.0.1:{}", file.display());
    let mut scp = site.client("/usr/bin/scp", "-P");
    let said = run(scp.arg(from).arg("got"), b"").unwrap();
    assert!(said.ok(), "{said}");
    let got = fs::read_to_string(site.lab.path("home").join("got")).unwrap();
    assert_eq!(got, "carried over\n");
    let mut sftp = site.client("/usr/bin/sftp", "-P");
    sftp.args(["-b", "-", "root@127.0.0.1"]);
    let said = run(&mut sftp, format!("ls -l {}\n", file.display()).as_bytes()).unwrap();
    assert!(said.ok() && said.stdout.contains("carried"), "{said}");
    let evidence = site.lab.evidence().unwrap();
    assert_eq!(evidence.statements("sftp").count(), 2);
    site.finish();
}

#[test]
fn a_shell_has_a_terminal_and_the_line_of_trust_can_be_taken_back() {
    let site = Site::start(POLICY);
    let said = site.ssh(&["-tt", "root@127.0.0.1"], b"tty; exit 3\n");
    assert_eq!(said.code, Some(3), "{said}");
    assert!(said.stdout.contains("/dev/pts/"), "{said}");
    site.trust(&["--undo"]);
    let said = site.ssh(&["root@127.0.0.1", "echo x"], b"");
    assert!(said.stderr.contains("Host key verification failed"), "{said}");
    site.finish();
}
