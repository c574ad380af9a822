//! `cargo xtask conformance ssh`: OpenSSH's own regression suite through the gate.
//!
//! Promises: the tests of Debian's `openssh-tests` in which a client speaks to a server ([`TESTS`]) run twice as an
//! account of their own, directly and captured under a policy that permits everything. It fails when one ends
//! otherwise through the gate than directly and [`DIFFERENT`] does not say why, when one that stands there ends as it does directly, and when
//! fewer than [`SAME_MIN`] end well both ways. What is left out stands in [`LEFT_OUT`] with its reason, and is printed.
//!
//! What is changed of the suite: `sshd -i` behind a ProxyCommand becomes the same `sshd -i` behind a port of
//! 127.0.0.1, since a pipe can't be captured; PAM is off; and `sftp -D` runs the server over ssh instead of beside the client.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::lab::process::Identity;
use crate::lab::{AgentOptions, Lab, Options, client, places, policies, term};

/// Where Debian puts the suite.
const SUITE: &str = "/usr/lib/openssh/regress";
/// Longest run of one test.
const TEST_MS_MAX: u64 = 400_000;
/// Fewer tests than this that end well both ways prove too little.
const SAME_MIN: usize = 36;

/// What is permitted.
const POLICY: &str = r#"
permit (principal, action, resource == Target::"suite");
permit (principal, action in [Action::"forward", Action::"agent_forward", Action::"x11", Action::"unknown"],
    resource == Target::"suite");
"#;

/// The tests in which a client speaks to a server.
#[rustfmt::skip]
const TESTS: &[&str] = &[
    "connect", "connect-uri", "exit-status", "exit-status-signal", "envpass", "transfer", "banner", "dhgex", "stderr-data",
    "stderr-after-eof", "broken-pipe", "try-ciphers", "yes-head", "login-timeout", "scp", "scp3", "scp-uri", "sftp",
    "sftp-cmds", "sftp-badcmds", "sftp-batch", "sftp-glob", "sftp-uri", "reconfigure", "dynamic-forward", "forwarding",
    "multiplex", "reexec", "localcommand", "forcecommand", "kextype", "host-expand", "forward-control",
    "allow-deny-users", "authinfo", "knownhosts", "channel-timeout",
    "connection-timeout", "keys-command", "principals-command", "connect-privsep",
];

/// Tests that end otherwise through the gate, and why that is so.
#[rustfmt::skip]
const DIFFERENT: &[(&str, &str)] = &[
    ("banner", "the server's own banner ends at the gate: it comes before anybody knows which account is asked for"),
    ("dhgex, kextype, try-ciphers", "the gate's SSH library lacks group exchange and groups 1 and 14 with SHA-1, sntrup761, CBC and UMAC"),
    ("multiplex", "of its steps, those that look for sshd's own words to a client that speaks no SSH, at a captured port"),
];

/// What is left out, and why.
#[rustfmt::skip]
const LEFT_OUT: &[(&str, &str)] = &[
    ("agent, key-options, agent-restrict", "they take the key away by which the gate logs in"),
    ("keytype, multipubkey, cert-file, limit-keytype, knownhosts-command", "several host keys, or which of the client's keys the server \
      takes: the gate has one host key, and logs in with its own"),
    ("rekey, cipher-speed", "minutes long; rekeying is in xtask/tests/ssh_clients.rs, speed in `cargo xtask bench --ssh`"),
    ("proxy-connect, hostkey-agent, percent, portnum, cfgmatch", "fail directly too, with the suite's servers behind a port"),
    ("cert-hostkey, cert-userkey, hostkey-rotate, brokenkeys, hostbased, sshfp-connect, krl", "the client's view of the server's \
      keys, or the server's of the client's: both end at the gate, which has its own"),
    ("proto-version, proto-mismatch, integrity", "bytes of the transport, which ends at the gate"),
    ("sftp-chroot, sftp-perm", "need root, or a server's options of their own"),
    ("keyscan, putty-*, conch-*, ssh-com-*, dropbear-*", "other programs than OpenSSH's client"),
    ("keygen-*, agent-*, sshsig, cfgparse, sshcfgparse, cfginclude, servcfginclude, cfgmatchlisten, addrmatch", "no client speaks \
      to a server"),
];

/// Arguments of `cargo xtask conformance ssh`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these tests.
    tests: Vec<String>,
}

/// How each test ended, and what it said.
type Outcome = BTreeMap<String, (Option<i32>, String)>;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let tests: Vec<String> = if args.tests.is_empty() {
        TESTS.iter().map(|test| (*test).to_owned()).collect()
    } else {
        args.tests.clone()
    };
    let out = places::cache("conformance-ssh")?;
    let (port, proxy) = (places::free_port()?, places::free_port()?);
    let place = tempfile::Builder::new().prefix("tidegate-suite-").tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let dir = place.path();
    let lab = Lab::prepare(Options::default())?;
    let (service, other) = (lab.service_uid, lab.other_uid);
    lab.discard()?;

    term::note(&format!("running {} tests directly ...", tests.len()));
    let suite = Site { dir: dir.join("direct"), uid: other, port, proxy };
    suite.make()?;
    let direct = suite.all(&tests, None, &out.join("direct"))?;

    term::note("running them through the gate ...");
    let suite = Site { dir: dir.join("gated"), uid: service, port, proxy };
    suite.make()?;
    let agent = AgentOptions {
        policy: format!("{}{POLICY}", policies::CAREFUL),
        toml: suite.target(),
        ..AgentOptions::default()
    };
    let lab = Lab::start(Options { agent, client_uid: Some(service), ..Options::default() })?;
    let cgroup = lab.cgroup.path().to_owned();
    let gated = suite.all(&tests, Some(&cgroup), &out.join("gated"))?;
    let evidence = lab.evidence()?;
    lab.finish()?;
    term::note(&format!("{} operations were recorded", evidence.operations().count()));
    report(&direct, &gated, &out, args.tests.is_empty())
}

/// A copy of the suite, and whose it is.
struct Site {
    dir: PathBuf,
    uid: u32,
    port: u16,
    proxy: u16,
}

impl Site {
    fn regress(&self) -> PathBuf {
        self.dir.join("regress")
    }

    fn own(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.uid)).with_context(|| path.display().to_string())
    }

    /// Copies the suite, changes what must be, and makes the keys that the gate needs before the suite does.
    fn make(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.dir.join("home"))?;
        places::run(Command::new("cp").arg("-r").arg(SUITE).arg(self.regress()))?;
        let path = self.regress().join("test-exec.sh");
        fs::write(&path, changed(&fs::read_to_string(&path)?)?)?;
        for entry in fs::read_dir(self.regress())? {
            let path = entry?.path();
            let is_sftp = path.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with("sftp") && name.ends_with(".sh")
            });
            if is_sftp {
                let text = fs::read_to_string(&path)?;
                fs::write(&path, text.replace("-D ${SFTPSERVER}", "-D $OBJ/over-ssh"))?;
            }
        }
        let over = self.regress().join("over-ssh");
        fs::write(&over, "#!/bin/sh\nexec ssh -q -F $OBJ/ssh_proxy -s somehost sftp\n")?;
        fs::set_permissions(&over, fs::Permissions::from_mode(0o755))?;
        fs::write(self.dir.join("inetd.py"), include_str!("ssh/inetd.py"))?;
        fs::write(self.dir.join("one.sh"), include_str!("ssh/one.sh"))?;
        let uid = self.uid;
        let home = self.dir.join("home");
        let account = format!("suite:x:{uid}:{uid}::{}:/bin/sh\n", home.display());
        let passwd = fs::read_to_string("/etc/passwd")?;
        fs::write(self.dir.join("passwd"), format!("{passwd}{account}"))?;
        let group = fs::read_to_string("/etc/group")?;
        fs::write(self.dir.join("group"), format!("{group}suite:x:{uid}:\n"))?;
        places::run(Command::new("chown").args(["-R", &format!("{uid}:{uid}")]).arg(&self.dir))?;
        let key = self.regress().join("ssh-ed25519");
        let mut keygen = Command::new("/usr/bin/ssh-keygen");
        places::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
        let public = key.with_extension("pub");
        self.own(&key)?;
        self.own(&public)?;
        let known = fs::read_to_string(&public)?;
        let lines = [self.port, self.proxy].map(|port| format!("[127.0.0.1]:{port} {known}"));
        fs::write(self.dir.join("known_hosts"), lines.concat())?;
        Ok(())
    }

    /// The target that the suite's servers are.
    fn target(&self) -> String {
        let at = |path: PathBuf| path.display().to_string();
        let key = at(self.regress().join("ssh-ed25519"));
        format!(
            "\n[[targets]]\nname = \"suite\"\nprotocol = \"ssh\"\n\
             destinations = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n\
             ssh = {{ identity_file = \"{key}\", known_hosts_file = \"{}\", host_key_file = \"{key}\" }}\n",
            self.port,
            self.proxy,
            at(self.dir.join("known_hosts")),
        )
    }

    fn all(&self, tests: &[String], cgroup: Option<&Path>, out: &Path) -> anyhow::Result<Outcome> {
        let _ = fs::remove_dir_all(out);
        fs::create_dir_all(out)?;
        let mut outcome = Outcome::new();
        for test in tests {
            let started = std::time::Instant::now();
            let mut one = Command::new("unshare");
            one.args(["-m", "sh"]).arg(self.dir.join("one.sh")).arg(&self.dir).args([
                &self.uid.to_string(),
                &self.port.to_string(),
                &self.proxy.to_string(),
                test,
            ]);
            Identity { cgroup: cgroup.map(Path::to_owned), ..Identity::default() }
                .apply(&mut one)?;
            let (code, said) = match client::run_within(&mut one, b"", TEST_MS_MAX) {
                Ok(answer) => (answer.code, format!("{}{}", answer.stdout, answer.stderr)),
                Err(error) => (None, format!("{error:#}")),
            };
            fs::write(out.join(test), &said)?;
            for log in ["ssh.log", "sshd.log", "regress.log", "failed-ssh.log", "failed-sshd.log"] {
                let from = self.regress().join(log);
                if code != Some(0) && from.exists() {
                    fs::copy(&from, out.join(format!("{test}.{log}")))?;
                }
                if log.starts_with("failed") {
                    let _ = fs::remove_file(from);
                }
            }
            let code_shown = code.map_or_else(|| "-".to_owned(), |code| code.to_string());
            term::line(&format!("  {test}: {code_shown} ({} s)", started.elapsed().as_secs()));
            outcome.insert(test.clone(), (code, said));
        }
        Ok(outcome)
    }
}

/// The suite's own start, with a port in place of the pipe.
fn changed(text: &str) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    let mut found = 0;
    for line in text.lines() {
        if line.trim_start().starts_with("echo proxycommand ${SUDO} env") {
            lines.push("\techo".to_owned());
            found += 1;
        } else if line == "\tcat $OBJ/ssh_config" {
            lines.push(
                "\tsed \"s/^\tPort.*/\tPort $TIDEGATE_PROXY_PORT/\" $OBJ/ssh_config".to_owned(),
            );
            found += 1;
        } else if line.trim_start().starts_with("UsePAM") {
            lines.push("\tUsePAM no".to_owned());
            found += 1;
        } else {
            lines.push(line.to_owned());
        }
    }
    anyhow::ensure!(
        found == 3,
        "the suite is another than the one that this knows: {found} of 3 places"
    );
    Ok(lines.join("\n") + "\n")
}

/// What a test printed last, on one line.
fn last(said: &str) -> &str {
    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn report(direct: &Outcome, gated: &Outcome, out: &Path, whole: bool) -> anyhow::Result<()> {
    let (mut same, mut fails_directly, mut wrong) = (0, Vec::new(), Vec::new());
    let known: BTreeMap<&str, &str> = DIFFERENT
        .iter()
        .flat_map(|(tests, why)| tests.split(", ").map(move |test| (test, *why)))
        .collect();
    for (test, (code, said)) in direct {
        let (gated_code, gated_said) = gated.get(test).context("a test did not run")?;
        let is_known = known.contains_key(test.as_str());
        match (code == &Some(0), gated_code == &Some(0)) {
            (true, true) => {
                same += 1;
                if is_known {
                    wrong.push(format!("{test}: ends well; it is no difference any more"));
                }
            }
            (false, false) => fails_directly.push(format!("{test}: {}", last(said))),
            _ if is_known => {}
            (true, false) => wrong.push(format!("{test}: {}", last(gated_said))),
            (false, true) => {
                wrong.push(format!("{test}: ends well through the gate alone: {}", last(said)));
            }
        }
    }
    for (test, why) in DIFFERENT {
        term::note(&format!("differs, known: {test}: {why}"));
    }
    for (test, why) in LEFT_OUT {
        term::note(&format!("left out: {test}: {why}"));
    }
    for line in &fails_directly {
        term::note(&format!("fails both ways: {line}"));
    }
    for line in &wrong {
        term::note(&format!("differs: {line}"));
    }
    term::line(&format!(
        "{} tests: {same} end well both ways, {} differ as known, {} fail directly too, {} differ; output is in {}",
        direct.len(),
        known.len(),
        fails_directly.len(),
        wrong.len(),
        out.display()
    ));
    anyhow::ensure!(wrong.is_empty(), "{} tests differ through the gate", wrong.len());
    anyhow::ensure!(!whole || same >= SAME_MIN, "only {same} tests end well both ways");
    Ok(())
}
