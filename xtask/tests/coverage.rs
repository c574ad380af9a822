//! Completeness, with a real agent and collector: a period is whole, or what was done to it turns it red; and who
//! watches the watcher.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::lab::evidence::Event;
use xtask::lab::process::wait_for;
use xtask::lab::{Lab, Options, Who};

/// Two heartbeats and some, on a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// Connects, says from where, and at each line does what it says: sends that many bytes, or ends.
const TALK: &str = r#"
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(s.getsockname()[1], flush=True)
for line in sys.stdin:
    s.sendall(b"x" * int(line))
    print("sent", flush=True)
s.close()
"#;

/// Takes a descriptor out of another process (pidfd_getfd(2)), and reads from it what it holds.
const STEAL: &str = r"
import ctypes, os, socket, sys
pid, fd = int(sys.argv[1]), int(sys.argv[2])
pidfd_getfd = 438
copy = ctypes.CDLL(None).syscall(pidfd_getfd, os.pidfd_open(pid), fd, 0)
print(len(socket.socket(fileno=copy).recv(100)))
";

fn agent_pid(lab: &Lab) -> Pid {
    Pid::from_raw(lab.agent().unwrap().pid().unwrap().cast_signed())
}

/// Waits for records of this kind whose text begins so.
fn told(lab: &Lab, kind: &str, begins: &str) -> Event {
    let found = wait_for(begins, SOON, || {
        let all = lab.collector()?.query(&["--kind", kind])?;
        Ok(all.events.into_iter().find(|one| one.text().starts_with(begins)))
    });
    found.unwrap()
}

/// The times of all heartbeats, once there are so many.
fn heartbeats(lab: &Lab, count: usize) -> Vec<String> {
    let found = wait_for("heartbeats", SOON, || {
        let all = lab.collector()?.query(&["--kind", "heartbeat"])?.events;
        let times: Vec<_> = all.iter().map(|one| one.text_of("time").to_owned()).collect();
        Ok((times.len() >= count).then_some(times))
    });
    found.unwrap()
}

/// What `coverage` says of the time from the first heartbeat to now.
fn coverage(lab: &Lab) -> (i32, String) {
    let first = behind(&heartbeats(lab, 1)[0]);
    lab.collector().unwrap().coverage(&["--from", &first]).unwrap()
}

/// The last nanosecond of a time that is shown to the microsecond.
fn behind(time: &str) -> String {
    time.replace('Z', "999Z")
}

/// A client of the service account that holds a connection through the gate, and its port.
fn talker(lab: &Lab) -> (Child, BufReader<std::process::ChildStdout>, u16) {
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    command.arg("-c").arg(TALK).arg(lab.postgres.port().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    (child, out, line.trim().parse().unwrap())
}

/// The agent's descriptor of the connection from that port.
fn descriptor(lab: &Lab, pid: Pid, port: u16) -> String {
    let gate = SocketAddr::from(([127, 0, 0, 1], lab.agent().unwrap().gate_port()));
    let found = wait_for("the gate has accepted", SOON, || {
        let inode = inode(&std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?, gate, port);
        let Some(inode) = inode else { return Ok(None) };
        let wanted = PathBuf::from(format!("socket:[{inode}]"));
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?.path();
            if std::fs::read_link(&entry).is_ok_and(|link| link == wanted) {
                return Ok(entry.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    });
    found.unwrap()
}

/// The number of the socket from there to that port of this host, in the kernel's list (proc(5)).
fn inode(list: &str, local: SocketAddr, port: u16) -> Option<String> {
    let ends = (format!("0100007F:{:04X}", local.port()), format!("0100007F:{port:04X}"));
    list.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields.get(1..3)? == [ends.0.as_str(), ends.1.as_str()];
        is_it.then(|| fields.get(9).map(ToString::to_string)).flatten()
    })
}

#[test]
fn a_byte_that_the_gate_did_not_read_and_a_hook_that_was_taken_away_turn_a_whole_period_red() {
    let lab = Lab::start(Options::default()).unwrap();
    let pid = agent_pid(&lab);
    assert_eq!(lab.sql(Who::Service, &["SELECT 1"]).unwrap().stdout, "1\n");
    let before = heartbeats(&lab, 1);
    let times = heartbeats(&lab, before.len() + 1);
    let (from, to) = (behind(&times[0]), times.last().unwrap());
    let whole = lab.collector().unwrap().coverage(&["--from", &from, "--to", to]).unwrap();
    // Other laboratories on this host may have local sockets, which are open doors.
    assert!(matches!(whole.0, 0 | 10), "{}", whole.1);
    assert!(
        whole.1.contains("batch to lab-db: 1 sessions (1 ended), 1 connections to the kernel, 1")
    );

    // By root, behind the agent's back.
    std::fs::remove_file(lab.agent().unwrap().pin_dir().join("link_tg_sendmsg6")).unwrap();
    let (mut client, mut out, port) = talker(&lab);
    let fd = descriptor(&lab, pid, port);
    kill(pid, Signal::SIGSTOP).unwrap();
    client.stdin.as_mut().unwrap().write_all(b"3\n").unwrap();
    out.read_line(&mut String::new()).unwrap();
    let mut thief = Command::new("/usr/bin/python3");
    let stolen = thief.args(["-c", STEAL, &pid.to_string(), &fd]).output().unwrap();
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(String::from_utf8_lossy(&stolen.stdout), "3\n");
    drop(client.stdin.take());
    client.wait().unwrap();
    let said = "batch to \"lab-db\": 3 bytes that came from clients were read by somebody else";
    told(&lab, "finding", &format!("coverage open  {said}"));
    told(&lab, "finding", "hooks open  a hook was taken away: cgroup/sendmsg6: its pin is gone");
    let (code, said) = coverage(&lab);
    assert_eq!(code, 20, "{said}");
    assert!(
        said.contains("batch to \"lab-db\": 3 bytes from the client are not the same"),
        "{said}"
    );
    assert!(said.contains("a hook was taken away: cgroup/sendmsg6"), "{said}");
    lab.finish().unwrap();
}

#[test]
fn a_paused_agent_is_told_by_the_collector_and_says_for_how_long_it_did_not_look() {
    let lab = Lab::start(Options::default()).unwrap();
    assert_eq!(lab.sql(Who::Service, &["SELECT 1"]).unwrap().stdout, "1\n");
    heartbeats(&lab, 1);
    let agent = agent_pid(&lab);
    kill(agent, Signal::SIGSTOP).unwrap();
    let began = told(&lab, "silence", "began agent lab-agent: no heartbeat for ");
    let (_, rest) = began.text().split_once(" for ").unwrap();
    let (seconds, _) = rest.split_once(' ').unwrap();
    assert!(seconds.parse::<u32>().unwrap() <= 30, "{rest}");
    // Longer than the agent itself may go without a look.
    std::thread::sleep(Duration::from_secs(10));
    kill(agent, Signal::SIGCONT).unwrap();
    told(&lab, "silence", "ended agent lab-agent: no heartbeat for ");
    let status = || lab.agent().unwrap().ask("status", &[]);
    let shown = wait_for("status says so", SOON, || {
        Ok(status()?.contains("did not look for").then_some(()))
    });
    shown.unwrap();
    assert!(status().unwrap().contains("batch to lab-db: 1 led to the gate, 1 arrived, 1 served"));
    told(&lab, "finding", "coverage open  the agent did not look for ");
    let (code, said) = coverage(&lab);
    assert_eq!(code, 20, "{said}");
    assert!(said.contains(": no heartbeat for "), "{said}");
    lab.finish().unwrap();
}
