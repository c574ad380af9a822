//! Ports, names, and the way to the collector.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;

use super::{CONNECT_MS_MAX, Finding};
use crate::config::{Config, Destination, GATE_ADDRESSES};

/// Whether the gate's port is free, or held by the agent itself.
pub(super) fn gate(config: &Config, agent_runs: bool) -> Finding {
    const CHECK: &str = "gate port";
    let port = config.gate.port;
    if agent_runs {
        return Finding::ok(CHECK, format!("{port} is held by the running agent"));
    }
    for address in GATE_ADDRESSES {
        if let Err(error) = TcpListener::bind((address, port)) {
            return Finding::fail(
                CHECK,
                format!("{} can't be listened at: {error}", SocketAddr::new(address, port)),
                format!(
                    "see who holds it (ss -ltnp 'sport = :{port}'), or choose another gate.port"
                ),
            );
        }
    }
    Finding::ok(CHECK, format!("{port} is free on 127.0.0.1 and ::1"))
}

/// Whether each host name in the targets has addresses. One without is not guarded.
pub(super) fn names(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "host names";
    let mut findings = Vec::new();
    for target in &config.targets {
        for destination in &target.destinations {
            let Destination::Name { host, port } = destination else {
                continue;
            };
            findings.push(match (host.as_str(), *port).to_socket_addrs() {
                Ok(addresses) => {
                    let shown: Vec<String> =
                        addresses.map(|address| address.ip().to_string()).collect();
                    Finding::ok(CHECK, format!("{host} is {}", shown.join(", ")))
                }
                Err(error) => Finding::fail(
                    CHECK,
                    format!("{host} of target \"{}\" has no address: {error}", target.name),
                    "correct the name or the host's resolver; until then it is not guarded",
                ),
            });
        }
    }
    findings
}

/// What enrolment wrote; the other fields are the uplink's.
#[derive(Deserialize)]
struct Enrolment {
    address: String,
}

/// Whether the collector answers at its port.
pub(super) fn collector(config: &Config) -> Finding {
    const CHECK: &str = "collector";
    if !config.collector {
        return Finding::warn(
            CHECK,
            "none is configured; records stay in the spool until it is full",
            "add [collector] to the configuration and run `tidegate-agent enrol`",
        );
    }
    let file = config.enrolment_file();
    let enrol = "get enrol.json from `tidegate-collector enrol`, then `tidegate-agent enrol`";
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("not enrolled: {}: {error}", file.display()),
                enrol,
            );
        }
    };
    let address = match serde_json::from_str::<Enrolment>(&text) {
        Ok(Enrolment { address }) => address,
        Err(error) => {
            return Finding::fail(CHECK, format!("{}: {error}", file.display()), enrol);
        }
    };
    let plain = address.rsplit("//").next().unwrap_or(&address);
    let answer = plain.to_socket_addrs().and_then(|mut addresses| {
        let first = addresses.next().ok_or_else(|| std::io::Error::other("no address"))?;
        TcpStream::connect_timeout(&first, Duration::from_millis(CONNECT_MS_MAX))
    });
    match answer {
        Ok(_) => Finding::ok(CHECK, format!("{plain} takes connections")),
        Err(error) => Finding::warn(
            CHECK,
            format!("{plain} does not answer: {error}"),
            "start it, or open the way to it; until then records wait in the spool",
        ),
    }
}
