//! Programs that speak SSH, unmodified, as a service account: what they do works, and is recorded.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::lab::Who;
use xtask::lab::client::{Answer, run};
use xtask::lab::evidence::Evidence;
use xtask::lab::process::{Daemon, Identity, wait_for};
use xtask::lab::sshd::{Different, Site, key};

/// Commands, and files below one directory.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env", Action::"exec", Action::"shell", Action::"subsystem"],
    resource == Target::"host");
permit (principal, action in Action::"file", resource == Target::"host")
when { context has about && (context.about like "STORY*" || context.about like "/root/.ansible/*" || context.about == "/root/.ansible") };
"#;

struct Story {
    site: Site,
    dir: String,
}

impl Story {
    fn start(different: &Different) -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate-story-").tempdir().unwrap().keep();
        let dir = dir.to_str().unwrap().to_owned();
        let site = Site::start_with(&POLICY.replace("STORY", &dir), different).unwrap();
        Self { site, dir }
    }

    fn program(&self, program: &str) -> Command {
        self.site.lab.command(Who::Service, Path::new(program)).unwrap()
    }

    /// OpenSSH's client with its options, as one line.
    fn ssh(&self) -> String {
        format!("/usr/bin/ssh {} -p {}", self.site.options().join(" "), self.site.port)
    }

    fn python(&self, script: &[u8], known_hosts: &Path) -> Answer {
        let mut python = self.site.lab.python(Who::Service).unwrap();
        python.arg(self.site.port.to_string()).arg(known_hosts).arg(&self.dir);
        run(&mut python, script).unwrap()
    }

    fn home(&self, name: &str) -> std::path::PathBuf {
        self.site.lab.path("home").join(name)
    }

    fn finish(self) {
        self.site.finish().unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// How many operations with this effect were permitted.
fn effects(evidence: &Evidence, action: &str) -> usize {
    let has = |event: &&xtask::lab::evidence::Event| {
        let effects = event.json["effects"].as_array();
        event.verdict() == "allow"
            && effects.into_iter().flatten().any(|effect| effect["action"] == action)
    };
    evidence.operations().filter(has).count()
}

#[test]
fn rsync_and_git_carry_files_both_ways() {
    let story = Story::start(&Different::default());
    let ssh = story.ssh();
    let remote = format!("root@127.0.0.1:{}", story.dir);
    let tree = story.home("tree");
    fs::create_dir(&tree).unwrap();
    for number in 0..20 {
        fs::write(tree.join(format!("file {number}")), vec![b'x'; number * 10_000]).unwrap();
    }
    let rsync = |from: &str, to: &str| {
        let mut rsync = story.program("/usr/bin/rsync");
        run(rsync.args(["-a", "--no-owner", "--no-group", "-e", &ssh, from, to]), b"").unwrap()
    };
    for (from, to) in
        [("tree/", format!("{remote}/tree/")), (&format!("{remote}/tree/"), "back/".to_owned())]
    {
        let said = rsync(from, &to);
        assert!(said.ok(), "{said}");
    }
    for number in 0..20 {
        let back = fs::read(story.home("back").join(format!("file {number}"))).unwrap();
        assert_eq!(back.len(), number * 10_000);
    }
    let said = rsync("root@127.0.0.1:/etc/hostname", "stolen");
    assert!(!said.ok() && !story.home("stolen").exists(), "{said}");

    let git = |args: &[&str]| {
        let mut git = story.program("/usr/bin/env");
        git.args([
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "git",
            "-c",
            "user.name=batch",
            "-c",
            "user.email=batch@example",
        ]);
        run(git.env("GIT_SSH_COMMAND", &ssh).args(args), b"").unwrap()
    };
    let mut init = Command::new("git");
    init.args(["init", "-q", "--bare", "-b", "main"]).arg(format!("{}/repository", story.dir));
    assert!(init.status().unwrap().success());
    let url = format!("{remote}/repository");
    for args in [
        &["init", "-q", "-b", "main", "work"][..],
        &["-C", "work", "commit", "-q", "--allow-empty", "-m", "first"],
        &["-C", "work", "push", "-q", &url, "main"],
        &["clone", "-q", &url, "cloned"],
        &["-C", "cloned", "log", "-1", "--format=%s"],
    ] {
        let said = git(args);
        assert!(said.ok(), "{args:?}: {said}");
    }
    let said = git(&["clone", "-q", "root@127.0.0.1:/srv/other", "other"]);
    assert!(!said.ok() && said.stderr.contains("refused by tidegate"), "{said}");
    let evidence = story.site.lab.evidence().unwrap();
    assert!(effects(&evidence, "file_read") >= 2 && effects(&evidence, "file_write") >= 2);
    let pushed = evidence.operations().find(|one| one.text().starts_with("git-receive-pack"));
    assert_eq!(
        pushed.unwrap().text_of("command"),
        format!("git-receive-pack {}/repository", story.dir)
    );
    story.finish();
}

#[test]
fn openssh_renews_its_keys_compresses_and_keeps_alive() {
    let story = Story::start(&Different::default());
    let input: Vec<u8> =
        (0..16_000_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
    for options in [
        &["-o", "RekeyLimit=1M"][..],
        &["-C"],
        &["-c", "aes128-ctr", "-m", "hmac-sha2-256", "-o", "RekeyLimit=1M"],
        &["-c", "chacha20-poly1305@openssh.com"],
    ] {
        let said = story.site.ssh(&[options, &["root@127.0.0.1", "cat"]].concat(), &input).unwrap();
        assert!(said.ok() && said.stdout.as_bytes() == input, "{options:?}: {}", said.stderr);
    }
    let alive = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1", "root@127.0.0.1"];
    let said = story.site.ssh(&[&alive[..], &["sleep 3; echo there"]].concat(), b"").unwrap();
    assert_eq!(said.stdout, "there\n", "{said}");
    story.finish();
}

#[test]
fn scp_of_both_kinds_carries_files() {
    let story = Story::start(&Different::default());
    fs::write(story.home("file"), "carried\n").unwrap();
    for (kind, name) in [("-O", "old"), ("-s", "new")] {
        let there = format!("root@127.0.0.1:{}/{name}", story.dir);
        for (from, to) in [("file", there.as_str()), (&there, name)] {
            let mut scp = story.site.client("/usr/bin/scp", "-P").unwrap();
            let said = run(scp.args([kind, "-p", from, to]), b"").unwrap();
            assert!(said.ok(), "{kind} {from}: {said}");
        }
        assert_eq!(fs::read_to_string(story.home(name)).unwrap(), "carried\n");
        let mut scp = story.site.client("/usr/bin/scp", "-P").unwrap();
        let said = run(scp.args([kind, "root@127.0.0.1:/etc/hostname", "stolen"]), b"").unwrap();
        assert!(!said.ok() && !story.home("stolen").exists(), "{kind}: {said}");
    }
    story.finish();
}

#[test]
fn clients_without_host_certificates_work_where_the_gate_has_the_servers_key() {
    let ssh = r#"identity_file = "DIR/identity", known_hosts_file = "DIR/known_hosts", host_key_file = "DIR/host""#;
    let story = Story::start(&Different { ssh: ssh.to_owned(), ..Different::default() });
    let known_hosts = story.site.dir.path().join("known_hosts");
    let said = story.python(include_bytes!("clients/paramiko_story.py"), &known_hosts);
    assert_eq!(said.stdout, "done\n", "{said}");
    // libssh2 looks into the account's own file.
    let own = story.home(".ssh");
    fs::create_dir(&own).unwrap();
    fs::copy(&known_hosts, own.join("known_hosts")).unwrap();
    fs::write(story.home("up"), "from curl\n").unwrap();
    let url = format!("sftp://127.0.0.1:{}{}/curl", story.site.port, story.dir);
    for args in [&["-T", "up", &url][..], &["-o", "down", &url]] {
        let mut curl = story.program("/usr/bin/curl");
        let said = run(curl.args(["-sS", "-u", "root:"]).args(args), b"").unwrap();
        assert!(said.ok(), "{args:?}: {said}");
    }
    assert_eq!(fs::read_to_string(story.home("down")).unwrap(), "from curl\n");
    // OpenSSH's client goes on with the certificate.
    assert!(story.site.ssh(&["root@127.0.0.1", "echo x"], b"").unwrap().ok());
    let evidence = story.site.lab.evidence().unwrap();
    let put =
        evidence.finished(&format!("{}/paramiko (write create truncate)", story.dir)).unwrap();
    assert_eq!(put.json["carried"]["written"][0]["bytes"], 7000);
    story.finish();
}

#[test]
fn asyncssh_runs_several_things_at_once() {
    let story = Story::start(&Different::default());
    let said = story.python(include_bytes!("clients/asyncssh_story.py"), &story.site.trusted());
    assert_eq!(said.stdout, "done\n", "{said}");
    let evidence = story.site.lab.evidence().unwrap();
    let ended = evidence.finished("kill -TERM $$").unwrap();
    assert_eq!(ended.text_of("tags"), "signal TERM");
    story.finish();
}

#[test]
fn ansible_plays_its_book() {
    let story = Story::start(&Different::default());
    fs::write(story.home("book.yml"), include_str!("clients/playbook.yml")).unwrap();
    let inventory = format!(
        "host ansible_host=127.0.0.1 ansible_port={} ansible_user=root ansible_python_interpreter=/usr/bin/python3\n",
        story.site.port
    );
    fs::write(story.home("inventory"), inventory).unwrap();
    let mut ansible = story.site.lab.python(Who::Service).unwrap();
    ansible
        .args(["-i", "inventory", "book.yml"])
        .env("STORY_DIR", &story.dir)
        .env(
            "ANSIBLE_SSH_ARGS",
            format!(
                "-o ControlMaster=auto -o ControlPersist=1s {}",
                story.site.options().join(" ")
            ),
        )
        .env("ANSIBLE_NOCOLOR", "1");
    let start = "import sys\nfrom ansible.cli.playbook import main\nsys.argv[0] = 'ansible-playbook'\nmain()\n";
    let said = run(&mut ansible, start.as_bytes()).unwrap();
    assert!(said.ok() && said.stdout.contains("failed=0"), "{said}");
    assert!(fs::read_to_string(story.home("fetched/lines")).unwrap().starts_with("eins"));
    let evidence = story.site.lab.evidence().unwrap();
    let ran = story.site.commands().unwrap();
    let execs = evidence.operations().filter(|one| matches!(one.via(), "exec" | "subsystem"));
    assert_eq!(execs.count(), ran.len(), "{ran:#?}");
    assert!(effects(&evidence, "file_write") > 5);
    story.finish();
}

#[test]
fn the_gate_logs_in_by_a_certificate_or_an_agents_key_and_knows_a_certified_server() {
    let different = Different {
        sshd: "TrustedUserCAKeys DIR/user_ca\nHostCertificate DIR/host-cert.pub".to_owned(),
        ssh: r#"user_certificate = true, known_hosts_file = "DIR/known_hosts""#.to_owned(),
    };
    let story = Story::start(&different);
    let at = |name: &str| story.site.dir.path().join(name);
    let agent = story.site.lab.agent().unwrap();
    let mut trust = agent.program().unwrap();
    trust.args(["ssh", "trust", "--user-ca", "--config"]).arg(agent.config());
    fs::write(at("user_ca"), xtask::lab::places::run(&mut trust).unwrap()).unwrap();
    let said = story.site.ssh(&["root@127.0.0.1", "echo by certificate"], b"").unwrap();
    assert_eq!(said.stdout, "by certificate\n", "{said}");
    let log = story.site.log().unwrap();
    assert!(log.contains("Accepted certificate ID \"tidegate session "), "{log}");

    // The server's own key is not in the file any more, but the authority that certifies it.
    let authority = key(&at("authority")).unwrap();
    let mut sign = Command::new("/usr/bin/ssh-keygen");
    sign.args(["-q", "-h", "-I", "host", "-n", "127.0.0.1", "-s"])
        .arg(at("authority"))
        .arg(at("host.pub"));
    xtask::lab::places::run(&mut sign).unwrap();
    let port = story.site.port;
    fs::write(at("known_hosts"), format!("@cert-authority [127.0.0.1]:{port} {authority}"))
        .unwrap();
    let said = story.site.ssh(&["root@127.0.0.1", "echo certified"], b"").unwrap();
    assert_eq!(said.stdout, "certified\n", "{said}");
    let other = key(&at("other")).unwrap();
    fs::write(at("known_hosts"), format!("@cert-authority [127.0.0.1]:{port} {other}")).unwrap();
    let said = story.site.ssh(&["root@127.0.0.1", "echo x"], b"").unwrap();
    assert!(!said.ok() && said.stderr.contains("no @cert-authority line"), "{said}");
    fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {other}")).unwrap();
    let said = story.site.ssh(&["root@127.0.0.1", "echo x"], b"").unwrap();
    assert!(!said.ok() && said.stderr.contains("another than that in line 1"), "{said}");
    story.finish();
}

#[test]
fn the_gate_logs_in_by_the_key_of_an_agent() {
    let dir = tempfile::Builder::new().prefix("tidegate-keys-").tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut daemon = Command::new("/usr/bin/ssh-agent");
    daemon.args(["-D", "-a"]).arg(&socket);
    let mut daemon =
        Daemon::start("ssh-agent", &mut daemon, &Identity::default(), &dir.path().join("log"))
            .unwrap();
    wait_for("ssh-agent", std::time::Duration::from_secs(10), || Ok(socket.exists().then_some(())))
        .unwrap();
    let ssh =
        format!(r#"identity_agent = "{}", known_hosts_file = "DIR/known_hosts""#, socket.display());
    let story = Story::start(&Different { ssh, ..Different::default() });
    let said = story.site.ssh(&["root@127.0.0.1", "echo x"], b"").unwrap();
    assert!(!said.ok() && said.stderr.contains("it holds no key"), "{said}");
    let mut add = Command::new("/usr/bin/ssh-add");
    add.arg("-q").arg(story.site.dir.path().join("identity")).env("SSH_AUTH_SOCK", &socket);
    assert!(add.status().unwrap().success());
    let said = story.site.ssh(&["root@127.0.0.1", "echo by agent"], b"").unwrap();
    assert_eq!(said.stdout, "by agent\n", "{said}");
    story.finish();
    daemon.stop().unwrap();
}

#[test]
fn the_clients_own_password_or_answers_go_on_to_the_server_and_into_no_record() {
    let ssh = r#"client_password = true, known_hosts_file = "DIR/known_hosts", host_key_file = "DIR/host""#;
    let mut story = Story::start(&Different { ssh: ssh.to_owned(), ..Different::default() });
    story.site.sshd.stop().unwrap();
    let at = |name: &str| story.site.dir.path().join(name);
    let script = at("server.py");
    fs::write(&script, include_str!("clients/asyncssh_server.py")).unwrap();
    let mut server = Command::new("/usr/bin/python3");
    server.env("PYTHONPATH", xtask::lab::places::python_packages().unwrap());
    server.arg(&script).arg(story.site.port.to_string()).arg(at("host"));
    let mut server =
        Daemon::start("asyncssh", &mut server, &Identity::default(), &at("server.log")).unwrap();
    let listens = || Ok(fs::read_to_string(at("server.log"))?.contains("listens").then_some(()));
    wait_for("asyncssh's server", std::time::Duration::from_secs(20), listens).unwrap();
    let said = story.python(include_bytes!("clients/password_story.py"), &at("known_hosts"));
    assert_eq!(said.stdout, "done\n", "{said}");
    let evidence = story.site.lab.evidence().unwrap();
    let logins: Vec<&str> = evidence
        .operations()
        .filter(|one| one.via() == "login" && one.text().contains("user=batch"))
        .map(xtask::lab::evidence::Event::status)
        .collect();
    assert_eq!(logins, ["failed", "ok", "ok"]);
    let everything = evidence.events.iter().map(|event| event.json.to_string()).collect::<String>();
    for secret in ["horse", "4711", "blue"] {
        assert!(!everything.contains(secret), "{secret} is in a record");
    }
    server.stop().unwrap();
    story.finish();
}
