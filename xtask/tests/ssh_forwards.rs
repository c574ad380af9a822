//! Connections through SSH, either way: carried where a policy names them, each with its record.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use xtask::lab::Who;
use xtask::lab::client::run;
use xtask::lab::places::free_port;
use xtask::lab::process::wait_for;
use xtask::lab::sshd::{CLIENT_UID, Different, Site};

/// Permits forwards, but none to port 1.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env", Action::"exec"], resource == Target::"host");
permit (principal, action in [Action::"forward", Action::"agent_forward", Action::"x11"], resource == Target::"host");
forbid (principal, action == Action::"forward", resource == Target::"host")
when { context has about && context.about like "*:1" };
"#;

const START: Duration = Duration::from_secs(20);

/// Answers each line of each connection with the same line behind `echo`.
fn echoes(listener: TcpListener) -> u16 {
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(&stream, &stream));
        }
    });
    port
}

fn echo(from: impl std::io::Read, mut to: impl std::io::Write) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if to.write_all(format!("echo {line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn forwards_go_both_ways_over_ports_and_sockets() {
    let site = Site::start(POLICY).unwrap();
    let echoes = echoes(TcpListener::bind("127.0.0.1:0").unwrap());
    let (here, there) = (free_port().unwrap(), free_port().unwrap());
    let home = site.lab.path("home");
    let (far, near) = (site.dir.path().join("far.sock"), home.join("near.sock"));
    let listener = UnixListener::bind(&far).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            echo(&stream, &stream);
        }
    });
    let back = site.dir.path().join("back.sock");
    let mut ssh = site.client("/usr/bin/ssh", "-p").unwrap();
    ssh.args(["-N", "-o", "ExitOnForwardFailure=yes"]);
    ssh.args(["-L", &format!("{here}:127.0.0.1:{echoes}")]);
    ssh.args(["-R", &format!("{there}:127.0.0.1:{echoes}")]);
    ssh.arg("-L").arg(format!("{}:{}", near.display(), far.display()));
    ssh.arg("-R").arg(format!("{}:127.0.0.1:{echoes}", back.display()));
    let mut ssh = ssh.arg("root@127.0.0.1").stdin(Stdio::null()).spawn().unwrap();
    wait_for("the socket there", START, || Ok(back.exists().then_some(()))).unwrap();
    wait_for("the socket here", START, || Ok(near.exists().then_some(()))).unwrap();

    let ask = |mut stream: Box<dyn ReadWrite>, word: &str| {
        stream.write_all(format!("{word}\n").as_bytes()).unwrap();
        let mut answer = vec![0; word.len() + 6];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("echo {word}\n"));
    };
    for port in [here, there] {
        for word in ["one", "two"] {
            ask(Box::new(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()), word);
        }
    }
    for path in [&near, &back] {
        ask(Box::new(UnixStream::connect(path).unwrap()), "socket");
    }
    ssh.kill().unwrap();
    ssh.wait().unwrap();
    let said = site.ssh(&["-W", "127.0.0.1:1", "root@127.0.0.1"], b"").unwrap();
    assert!(!said.ok() && said.stderr.contains("administratively prohibited"), "{said}");

    let evidence = site.lab.evidence().unwrap();
    let count = |about: &str| {
        let allowed = |one: &&xtask::lab::evidence::Event| {
            one.via() == "forward" && one.verdict() == "allow" && one.text() == about
        };
        evidence.operations().filter(allowed).count()
    };
    assert_eq!(count(&format!("127.0.0.1:{echoes}")), 2);
    // Listening, and each connection.
    assert_eq!(count(&format!("localhost:{there}")), 3);
    assert_eq!(count(&far.display().to_string()), 1);
    assert_eq!(count(&back.display().to_string()), 2);
    let log = site.log().unwrap();
    let reached = log.matches(&format!("target 127.0.0.1 port {echoes}")).count();
    assert_eq!(reached, 2, "{log}");
    assert!(!log.contains("port 1,") && !log.contains("target 127.0.0.1 port 1\n"), "{log}");
    site.finish().unwrap();
}

trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}

#[test]
fn the_key_agent_is_lent_where_that_is_permitted() {
    let site = Site::start(POLICY).unwrap();
    let socket = site.lab.path("home").join("agent.sock");
    let mut agent = site.lab.command(Who::Service, Path::new("/usr/bin/ssh-agent")).unwrap();
    let mut agent = agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the agent", START, || Ok(socket.exists().then_some(()))).unwrap();
    let key = site.lab.path("home").join("key");
    xtask::lab::sshd::key(&key).unwrap();
    std::os::unix::fs::chown(&key, Some(CLIENT_UID), None).unwrap();
    let mut add = site.lab.command(Who::Service, Path::new("/usr/bin/ssh-add")).unwrap();
    let said = run(add.arg(&key).env("SSH_AUTH_SOCK", &socket), b"").unwrap();
    assert!(said.ok(), "{said}");
    let mut ssh = site.client("/usr/bin/ssh", "-p").unwrap();
    ssh.env("SSH_AUTH_SOCK", &socket).args(["-A", "root@127.0.0.1", "ssh-add -l && ssh-add -L"]);
    let said = run(&mut ssh, b"").unwrap();
    assert!(said.ok() && said.stdout.contains("(ED25519)"), "{said}");
    let evidence = site.lab.evidence().unwrap();
    let lent = evidence.operations().filter(|one| one.via() == "agent_forward");
    // The lending, and the two times that it was used.
    assert_eq!(lent.filter(|one| one.status() == "ok").count(), 3);
    agent.kill().unwrap();
    agent.wait().unwrap();
    site.finish().unwrap();
}

/// Greets a display as X's clients do, with the cookie that xauth has for it, and prints what the display says.
const DRAWS: &str = r"
import os, socket, struct, subprocess
display = os.environ['DISPLAY']
cookie = bytes.fromhex(subprocess.check_output(['xauth', 'list', display], text=True).split()[2])
x = socket.create_connection(('127.0.0.1', 6000 + int(display.split(':')[1].split('.')[0])))
name = b'MIT-MAGIC-COOKIE-1'
x.sendall(struct.pack('<BxHHHHxx', 0x6c, 11, 0, len(name), len(cookie)) + name + b'\0\0' + cookie)
print(x.recv(100).decode())
";

#[test]
fn a_display_is_lent_where_that_is_permitted() {
    let different = Different { sshd: "X11Forwarding yes".to_owned(), ..Different::default() };
    let site = Site::start_with(POLICY, &different).unwrap();
    // The client's display: it takes a greeting with the right cookie, and answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = i64::from(listener.local_addr().unwrap().port()) - 6000;
    let display = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut greeting = [0; 48];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(b"drawn").unwrap();
        greeting
    });
    let script = site.dir.path().join("draws.py");
    std::fs::write(&script, DRAWS).unwrap();
    let mut ssh = site.client("/usr/bin/ssh", "-p").unwrap();
    ssh.env("DISPLAY", format!("127.0.0.1:{number}"));
    ssh.args(["-Y", "root@127.0.0.1", &format!("/usr/bin/python3 {}", script.display())]);
    let said = run(&mut ssh, b"").unwrap();
    assert_eq!(said.stdout, "drawn\n", "{said}");
    assert!(display.join().unwrap().windows(18).any(|part| part == b"MIT-MAGIC-COOKIE-1"));
    let evidence = site.lab.evidence().unwrap();
    let lent = evidence.operations().filter(|one| one.via() == "x11" && one.status() == "ok");
    assert_eq!(lent.count(), 2);
    site.finish().unwrap();
}
