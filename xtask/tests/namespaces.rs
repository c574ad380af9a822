//! Containers: a protected account in a network namespace of its own, in a user namespace too, is led to a gate there.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xtask::lab::client::run;
use xtask::lab::process::{Identity, wait_for};
use xtask::lab::{AgentOptions, Answer, Lab, Options};

#[path = "../../agent/tests/capture/link.rs"]
mod link;

use link::{HOST_SIDE, INNER_SIDE, Link};

/// Longest wait for the gate and for its records.
const SOON: Duration = Duration::from_secs(30);

/// A container of the service account's.
struct Container(Link);

impl Container {
    /// A program of the service account's inside, in the guarded cgroup; `wrap` stands before it.
    fn command(&self, lab: &Lab, wrap: &[&str], program: &str) -> Command {
        let uid = lab.service_uid.to_string();
        let mut command = Command::new("/usr/bin/nsenter");
        command.arg(format!("--net={}", self.0.path()));
        command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
        command.args(wrap).arg(program).current_dir(lab.path("home"));
        let cgroup = Some(lab.cgroup.path().to_owned());
        Identity { cgroup, ..Identity::default() }.apply(&mut command).unwrap();
        command
    }

    /// A process that stays inside until its input ends.
    fn holder(&self, lab: &Lab) -> Child {
        let mut command = self.command(lab, &[], "cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }
}

/// Hands every connection on to the server, so that it is reached at the link's address; the other ends' addresses
/// are told.
fn relay(to: u16) -> (SocketAddr, std::sync::mpsc::Receiver<SocketAddr>) {
    let listener = TcpListener::bind((HOST_SIDE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(from) = client.peer_addr() else { continue };
            if tell.send(from).is_err() {
                return;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut to);
                    _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (at, told)
}

/// Waits for a finding about namespaces with this outcome.
fn told(lab: &Lab, outcome: &str) {
    let begins = format!("namespace {outcome} ");
    let found = wait_for(&begins, SOON, || {
        let all = lab.collector()?.query(&["--kind", "finding"])?;
        Ok(all.events.iter().any(|one| one.text().starts_with(&begins)).then_some(()))
    });
    found.unwrap();
}

#[test]
fn a_protected_account_in_a_container_is_led_to_a_gate_there() {
    let container = Container(Link::new());
    let mut lab = Lab::prepare(Options::default()).unwrap();
    let (at, came) = relay(lab.postgres.port());
    let toml = format!(
        "[[targets]]\nname = \"inner-db\"\nprotocol = \"postgres\"\ndestinations = [\"{at}\"]\n\
         principals = [\"batch\"]\n[targets.tls]\nclient = \"offer\"\nserver = \"off\"\n"
    );
    lab.set_agent_options(AgentOptions { toml, ..AgentOptions::default() });
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    let mut holder = container.holder(&lab);
    told(&lab, "joined");
    let dsn = lab.dsn().replace("127.0.0.1", HOST_SIDE);
    let dsn = dsn.replace(&lab.postgres.port().to_string(), &at.port().to_string());
    let ask = |wrap: &[&str], text: &str| -> Answer {
        let mut psql = container.command(&lab, wrap, "psql");
        run(psql.args(["-XAtq", "-d", &dsn, "-c", text]), b"").unwrap()
    };
    // As Docker does it; and as root of a user namespace of its own, as rootless runtimes do.
    let rootless: &[&str] = &["unshare", "--user", "--map-root-user"];
    for (wrap, text) in [(&[][..], "SELECT 'plain'"), (rootless, "SELECT 'rootless'")] {
        let answer = ask(wrap, text);
        assert!(answer.ok(), "{answer}");
        // The gate dials from inside, as the client would have.
        assert_eq!(came.recv_timeout(SOON).unwrap().ip().to_string(), INNER_SIDE);
        lab.collector().unwrap().wait_for_statement(text).unwrap();
        let all =
            lab.collector().unwrap().query(&["--target", "inner-db", "--text", text]).unwrap();
        let [one] = all.events.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.text_of("who"), one.verdict()), ("batch", "allow"));
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
    told(&lab, "left");
    lab.finish().unwrap();
}
