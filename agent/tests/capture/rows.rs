//! Rows of `docs/THREATS.md` that need more than a socket: other programs, other namespaces, other
//! ways into the kernel.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use tidegate_agent_common::EventKind;

use crate::deeds::{self, errno, ids, said};
use crate::guard::Scene;
use crate::lab::{Lab, addr, attempt, client, listen, raw_socket};
use crate::link::{HOST_SIDE, INNER_SIDE, Link};
use crate::uring;

#[test]
fn a_setuid_program_of_a_protected_account_is_led_to_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Root's, with the setuid bit: the kernel gives it the effective user id 0.
    let program = dir.path().join("bash");
    std::fs::copy("/bin/bash", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let client = client(uid, || {
        let script = format!("id -ru; exec 3<>/dev/tcp/127.0.0.1/{} && echo in", target.port());
        let output = Command::new(&program).arg("-pc").arg(script).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(scene.at_gate(), (uid, uid));
    assert_eq!(client.said(), format!("{uid}\nin\n"));
    scene.nobody_came();
}

#[test]
fn tracing_a_permitted_process_is_not_allowed_to_a_protected_account() {
    let scene = Scene::new();
    let (mut go, mut wait) = UnixStream::pair().unwrap();
    let permitted = client(scene.lab.other_uid, || {
        wait.read_exact(&mut [0]).unwrap();
        "untouched".to_owned()
    });
    let pid = permitted.pid;
    let tracer = client(scene.lab.uid, || {
        // SAFETY: attaching passes no memory.
        let done = unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) };
        format!("{done} {}", errno())
    });
    assert_eq!(tracer.said(), format!("-1 {}", libc::EPERM));
    go.write_all(b"x").unwrap();
    assert_eq!(permitted.said(), "untouched");
}

#[test]
fn io_uring_connects_lead_to_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let SocketAddr::V4(v4) = target else { panic!("an IPv4 server") };
    for polled in [false, true] {
        let client = client(uid, || {
            let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
            match uring::connect(socket.as_raw_fd(), v4, polled) {
                Ok(result) => {
                    format!("{result} {}", socket.peer_addr().unwrap().as_socket().unwrap())
                }
                Err(error) => error.to_string(),
            }
        });
        let pid = client.pid;
        let (stream, _) = scene.gate.accept().unwrap();
        let raw = crate::captured(&stream);
        assert_eq!((raw.owner, raw.uid, raw.pid), (uid, uid, pid), "polled: {polled}");
        assert_eq!(client.said(), format!("0 {target}"));
    }
    scene.nobody_came();
}

#[test]
fn a_protected_account_in_a_container_is_refused_and_others_pass() {
    let lab = Lab::new();
    let link = Link::new();
    let server = listen(HOST_SIDE, 0);
    let target = server.local_addr().unwrap();
    let kernel = lab.attach(&[lab.rule(7, HOST_SIDE, target.port())]);
    let _gate = lab.gate();
    let path = link.path();
    let inside = |uid| {
        client(0, || {
            let file = std::fs::File::open(&path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ids(uid, uid, uid);
            attempt(target)
        })
    };
    // No gate listens in the namespace: the connection is led to its loopback and refused.
    assert_eq!(inside(lab.uid).said(), "ConnectionRefused");
    assert_eq!(inside(lab.other_uid).said(), format!("peer {target}"));
    let (_stream, from) = server.accept().unwrap();
    assert_eq!(from.ip().to_string(), INNER_SIDE);
    assert_eq!(kernel.counters().unwrap().captured, 1);
}

#[test]
fn a_descriptor_carried_into_another_network_namespace_is_led_to_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let client = client(uid, || {
        let socket = raw_socket(libc::AF_INET, libc::SOCK_STREAM);
        deeds::own_namespaces();
        // Nested once more: root of a namespace within a namespace.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
        said(socket.connect(&target.into()))
    });
    assert_eq!(scene.at_gate(), (uid, uid));
    assert_eq!(client.said(), "ok");
}

#[test]
fn a_child_of_many_forks_is_led_to_the_gate() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    let client = client(uid, || {
        let port = target.port();
        let script = format!("(bash -c \"(exec 3<>/dev/tcp/127.0.0.1/{port} && echo in)\")");
        let output = Command::new("/bin/bash").arg("-c").arg(script).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert_eq!(scene.at_gate(), (uid, uid));
    assert_eq!(client.said(), "in\n");
}

/// What is named in `docs/THREATS.md` as open: the door is there, and what tells of it.
#[test]
fn a_process_that_became_root_is_not_caught_but_by_a_rule_for_everyone() {
    let scene = Scene::new();
    let (uid, target) = (scene.lab.uid, scene.target);
    // sudo, seen from the kernel: a protected account's process that now is root altogether.
    let as_root = || {
        client(0, || {
            ids(uid, 0, 0);
            ids(0, 0, 0);
            attempt(target)
        })
    };
    assert_eq!(as_root().said(), format!("peer {target}"));
    scene.server.accept().unwrap();
    let Scene { mut kernel, lab, gate, .. } = scene;
    let everyone =
        tidegate_agent::capture::Rule { everyone: true, ..lab.rule(7, "127.0.0.1", target.port()) };
    kernel.set_rules(&[everyone]).unwrap();
    let client = as_root();
    let (stream, _) = gate.accept().unwrap();
    assert_eq!(crate::captured(&stream).owner, 0);
    client.said();
}

#[test]
fn a_forwarder_of_another_account_is_not_caught_but_by_strictness() {
    let scene = Scene::new();
    let (uid, other, target) = (scene.lab.uid, scene.lab.other_uid, scene.target);
    let door = listen("127.0.0.1", 0);
    let place = door.local_addr().unwrap();
    let forwarder = client(other, || {
        let (mut from, _) = door.accept().unwrap();
        let mut to = TcpStream::connect(target).unwrap();
        said(std::io::copy(&mut from, &mut to))
    });
    let sender = client(uid, || said(TcpStream::connect(place).unwrap().write_all(b"past")));
    assert_eq!(sender.said(), "ok");
    let (mut served, _) = scene.server.accept().unwrap();
    let mut text = String::new();
    served.read_to_string(&mut text).unwrap();
    assert_eq!((forwarder.said().as_str(), text.as_str()), ("ok", "past"));
    // The strict account is led to the gate: `a_strict_account_is_led_to_the_gate_wherever_it_goes`.
}

#[test]
fn packet_and_vsock_sockets_pass_no_hook() {
    let mut scene = Scene::new();
    let uid = scene.lab.uid;
    let packet = client(0, || {
        deeds::with_capabilities(uid);
        let socket = deeds::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0);
        let own = std::fs::read_to_string("/proc/net/packet").unwrap();
        // Its effective user id is root's here, so that is what the kernel's list has.
        format!("{} {}", socket.is_ok(), own.lines().count() > 1)
    });
    assert_eq!(packet.said(), "true true");
    let without = client(uid, || {
        deeds::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0).err().unwrap_or(0).to_string()
    });
    assert_eq!(without.said(), libc::EPERM.to_string(), "needs CAP_NET_RAW");
    // A vsock leads out of a virtual machine; no TCP destination is reached by it.
    let vsock = client(uid, || {
        deeds::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).err().unwrap_or(0).to_string()
    });
    assert!([0, libc::EAFNOSUPPORT].contains(&vsock.said().parse().unwrap()));
    assert_eq!(scene.kernel.events(), []);
}

#[test]
fn a_second_name_for_the_host_is_led_to_the_gate_only_where_a_rule_has_it() {
    let lab = Lab::new();
    let server = listen("0.0.0.0", 0);
    let port = server.local_addr().unwrap().port();
    let mut kernel = lab.attach(&[lab.rule(7, "127.0.0.1", port)]);
    let (gate, _) = lab.gate();
    // All of 127.0.0.0/8 is this host; the rule names one address of it.
    let second = client(lab.uid, || attempt(addr("127.0.0.2", port)));
    assert_eq!(second.said(), format!("peer 127.0.0.2:{port}"));
    server.accept().unwrap();
    let wide = tidegate_agent::capture::Rule { prefix: 8, ..lab.rule(7, "127.0.0.0", port) };
    kernel.set_rules(&[wide]).unwrap();
    let led = client(lab.uid, || attempt(addr("127.0.0.2", port)));
    let (stream, _) = gate.accept().unwrap();
    assert_eq!(crate::captured(&stream).original(), addr("127.0.0.2", port));
    led.said();
    assert!(kernel.events().iter().all(|event| event.kind != EventKind::Dropped as u32));
}
