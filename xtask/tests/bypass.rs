//! Ways past the gate, with a real agent, server and collector: what the client gets, and which
//! record tells of it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xtask::lab::evidence::Event;
use xtask::lab::process::Identity;
use xtask::lab::{AgentOptions, Evidence, Kind, Lab, Options, Who};

/// Connects as it is, says a word to the server, becomes another user, and says it again.
const BECOME: &str = r#"
import os, socket, sys
uid, port = int(sys.argv[1]), int(sys.argv[2])
ssl_request = bytes([0, 0, 0, 8, 4, 210, 22, 47])
s = socket.create_connection(("127.0.0.1", port))
s.sendall(ssl_request)
s.recv(1)
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
s.settimeout(60)
try:
    s.sendall(ssl_request)
    print("answered", s.recv(1))
except OSError as error:
    print(error.strerror)
"#;

/// Connects, says so, and waits for what becomes of the connection.
const HOLD: &str = r#"
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
s.settimeout(60)
try:
    print("answered", s.recv(1))
except OSError as error:
    print(error.strerror)
"#;

/// Connects, sends a request, and prints the answer.
const ASK: &str = r#"
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.settimeout(60)
try:
    s.sendall(b"GET / HTTP/1.0\r\n\r\n")
    s.shutdown(socket.SHUT_WR)
    print(s.recv(100).decode())
except OSError as error:
    print(error.strerror)
"#;

fn options(more: [&'static str; 3]) -> Options {
    Options { agent: AgentOptions { more, ..AgentOptions::default() }, ..Options::default() }
}

fn python(command: &mut Command, script: &str, args: &[String]) -> Child {
    command.arg("-c").arg(script).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the findings of this kind say.
fn findings<'a>(evidence: &'a Evidence, kind: &'a str) -> Vec<&'a str> {
    let all = evidence.named("finding").map(Event::text);
    all.filter(|text| text.starts_with(kind)).collect()
}

#[test]
fn a_connection_that_a_protected_account_takes_over_is_ended_and_recorded() {
    let lab = Lab::start(Options::default()).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    let cgroup = Some(lab.cgroup.path().to_owned());
    Identity { cgroup, ..Identity::default() }.apply(&mut command).unwrap();
    let args = [lab.service_uid.to_string(), lab.postgres.port().to_string()];
    let child = python(&mut command, BECOME, &args);
    assert_eq!(said(child), "Software caused connection abort");
    let evidence = lab.evidence().unwrap();
    let found = findings(&evidence, "bypass");
    let [text] = found.as_slice() else { panic!("{found:?}") };
    assert!(text.starts_with("bypass ended 127.0.0.1:"), "{text}");
    let record = evidence.named("finding").find(|one| one.text() == *text).unwrap();
    assert_eq!((record.text_of("who"), record.text_of("target")), ("batch", "lab-db"));
    lab.finish().unwrap();
}

#[test]
fn a_connection_from_before_the_agent_is_ended_and_recorded() {
    let mut lab = Lab::prepare(Options::default()).unwrap();
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    let mut child = python(&mut command, HOLD, &[lab.postgres.port().to_string()]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Software caused connection abort\n");
    child.wait().unwrap();
    let evidence = lab.evidence().unwrap();
    let found = findings(&evidence, "earlier");
    let [text] = found.as_slice() else { panic!("{found:?}") };
    assert!(text.starts_with("earlier ended 127.0.0.1:"), "{text}");
    lab.finish().unwrap();
}

#[test]
fn a_connection_from_before_goes_on_where_the_configuration_keeps_it() {
    let mut lab = Lab::prepare(options(["earlier = \"keep\"", "", ""])).unwrap();
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    command.stdin(Stdio::piped());
    let script = HOLD.replace(
        "try:",
        "sys.stdin.readline()\ns.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))\ntry:",
    );
    command.arg("-c").arg(script).arg(lab.postgres.port().to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("answered"), "{rest}");
    child.wait().unwrap();
    let evidence = lab.evidence().unwrap();
    assert_eq!(findings(&evidence, "earlier passed 127.0.0.1:").len(), 1);
    assert_eq!(findings(&evidence, "bypass"), Vec::<&str>::new());
    lab.finish().unwrap();
}

#[test]
fn a_strict_account_reaches_no_other_place_and_the_record_names_it() {
    let lab = Lab::start(options(["", "strict = true", ""])).unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    let child = python(&mut command, ASK, &[port.to_string()]);
    let answer = said(child);
    // When the gate's close arrives: before the request, while it is written, before the half close.
    let closed =
        ["", "Connection reset by peer", "Broken pipe", "Transport endpoint is not connected"];
    assert!(closed.contains(&answer.as_str()), "{answer}");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "somebody came");
    let evidence = lab.evidence().unwrap();
    let refused: Vec<_> = evidence.of(Kind::SessionRefused).map(Event::text).collect();
    let expected = format!("127.0.0.1:{port} is no target, and principal batch is strict");
    assert_eq!(refused, [expected]);
    lab.finish().unwrap();
}

#[test]
fn a_strict_account_passes_unread_where_the_configuration_says_so() {
    let lab = Lab::start(options(["strict_default = \"pass\"", "strict = true", ""])).unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    let child = python(&mut command, ASK, &[port.to_string()]);
    let (mut stream, _) = elsewhere.accept().unwrap();
    let mut asked = String::new();
    stream.read_to_string(&mut asked).unwrap();
    assert_eq!(asked, "GET / HTTP/1.0\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    drop(stream);
    assert_eq!(said(child), "hello");
    let evidence = lab.evidence().unwrap();
    let found = findings(&evidence, "opaque");
    let [text] = found.as_slice() else { panic!("{found:?}") };
    let expected = format!("opaque passed 127.0.0.1:{port} begins with http, TLS server name none");
    assert!(text.starts_with(&expected), "{text}");
    let open = evidence.of(Kind::SessionOpen).find(|one| one.text().contains(&port.to_string()));
    let session = open.unwrap().session();
    let closed = evidence.of(Kind::SessionClose).filter(|one| one.session() == session);
    assert_eq!(closed.count(), 1);
    lab.finish().unwrap();
}

#[test]
fn a_target_for_everyone_is_reached_by_the_exempt_alone() {
    let lab =
        Lab::start(options(["", "", "enforce_for = \"everyone\"\nexempt = [\"0\"]"])).unwrap();
    let answer = lab.sql(Who::Other, &["SELECT 1"]).unwrap();
    assert!(!answer.ok(), "{answer}");
    assert_eq!(lab.sql(Who::Service, &["SELECT 1"]).unwrap().stdout, "1\n");
    let mut command = Command::new("/usr/bin/psql");
    let cgroup = Some(lab.cgroup.path().to_owned());
    Identity { cgroup, ..Identity::default() }.apply(&mut command).unwrap();
    let output = command.args(["-Atc", "SELECT 2", &lab.dsn()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "root is exempt");
    let evidence = lab.evidence().unwrap();
    let expected = format!("uid {} is no principal", lab.other_uid);
    assert!(evidence.of(Kind::SessionRefused).any(|one| one.text() == expected));
    assert_eq!(evidence.statements("SELECT 2").count(), 0);
    lab.finish().unwrap();
}

#[test]
fn a_databases_local_socket_is_an_open_door_on_record() {
    let mut lab = Lab::prepare(Options::default()).unwrap();
    let path = lab.path(".s.PGSQL.5432");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    let evidence = lab.evidence().unwrap();
    let shown = path.display().to_string();
    assert!(findings(&evidence, "local_socket open").iter().any(|text| text.contains(&shown)));
    let doctor = lab.agent().unwrap().program().unwrap();
    let doctor =
        { doctor }.arg("doctor").arg("--config").arg(lab.agent().unwrap().config()).output();
    let doctor = String::from_utf8(doctor.unwrap().stdout).unwrap();
    assert!(doctor.contains(&format!("{shown} to batch")), "{doctor}");
    lab.finish().unwrap();
}
