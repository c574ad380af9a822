//! `check`: is the configuration valid, and what would the agent do with it, in words.
//!
//! Promises: opens no socket, touches no kernel, writes nothing; it can be run on any host with the
//! files and the accounts. What it says comes from the same [`Config`] and the same compiled policy
//! that `run` takes.
//!
//! Known gaps: whether names resolve, servers answer and the kernel can is `doctor`'s to say.

mod masking;

use std::fmt::Write as _;

use tidegate_event::{Durability, Mode, OnFailure};

use crate::config::{ClientTls, Config, Destination, ServerTls, SshLogin, TargetConfig};

/// From here on a wide network deserves a warning: shorter IPv4 prefixes than this.
const PREFIX_V4_BITS_WIDE: u8 = 8;

/// The same for IPv6.
const PREFIX_V6_BITS_WIDE: u8 = 32;

/// What a valid configuration means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What the agent would do, line by line.
    pub words: Vec<String>,
    /// What a careful operator would want to know before.
    pub warnings: Vec<String>,
}

/// Puts `config` in words; `policy` is its compiled policy in words.
pub fn explain(config: &Config, policy: &[String]) -> Explained {
    let mut words = vec![format!(
        "Agent \"{}\" listens on 127.0.0.1 and ::1, port {}; it keeps its state in {}.",
        config.agent_id,
        config.gate.port,
        config.state_dir.display()
    )];
    words.push(match &config.capture.cgroup {
        Some(cgroup) => format!("It sees the processes below {} only.", cgroup.display()),
        None => "It sees all processes of the host.".to_owned(),
    });
    for target in &config.targets {
        words.push(String::new());
        words.extend(target_words(config, target));
    }
    words.push(String::new());
    words.extend(record_words(config));
    words.push(String::new());
    words.push("Policies (what no permit allows is refused):".to_owned());
    words.extend(policy.iter().map(|line| format!("  {line}")));
    Explained { words, warnings: warnings(config, policy) }
}

fn target_words(config: &Config, target: &TargetConfig) -> Vec<String> {
    let who: Vec<String> = config
        .principals
        .iter()
        .filter(|principal| target.principals.contains(&principal.name))
        .map(|principal| format!("{} (uid {})", principal.name, principal.uid))
        .collect();
    let to: Vec<String> = target.destinations.iter().map(Destination::to_string).collect();
    let mut words = vec![
        format!("Target \"{}\" ({}):", target.name, target.protocol.name()),
        format!("  Caught: TCP connections of {} to {}.", join_or(&who, "nobody"), to.join(", ")),
        "  Refused: their UDP to these addresses.".to_owned(),
    ];
    words.push(match target.mode {
        Mode::Enforce => "  Enforced: what the policy does not permit is refused.".to_owned(),
        Mode::Shadow => {
            "  Shadow: everything passes; what the policy does not permit is recorded as such."
                .to_owned()
        }
    });
    words.push(match target.on_failure {
        OnFailure::Closed => {
            "  When the agent is down or cannot record: connections are refused.".to_owned()
        }
        OnFailure::Open => format!(
            "  When the agent is down: from 5 to {} seconds after its last sign of life connections \
             pass, unchecked, then they are refused. What a living agent cannot record passes in \
             sessions that are open. Each use is recorded.",
            target.open_ms_max / 1000
        ),
    });
    words.push(tls_words(target));
    words.extend(masking::words(target));
    words
}

fn tls_words(target: &TargetConfig) -> String {
    if let Some(ssh) = &target.ssh {
        return format!(
            "  SSH: clients get a certificate of the host's own CA{}; the server's key must be in {}, and the gate logs in {}.",
            match &ssh.host_key_file {
                Some(_) => ", or the server's own key where they take no certificate",
                None => "",
            },
            ssh.known_hosts_file.display(),
            match &ssh.login {
                SshLogin::Key(file) => format!("with the key in {}", file.display()),
                SshLogin::Agent(socket) =>
                    format!("with a key of the agent at {}", socket.display()),
                SshLogin::Client => "with the client's own password or answers".to_owned(),
                SshLogin::Certificate =>
                    "with a certificate of the host's own CA for users".to_owned(),
            }
        );
    }
    let mut text = match target.tls.client {
        ClientTls::Offer => "  TLS: clients that ask get it, by the host's own CA; ".to_owned(),
        ClientTls::Refuse => "  TLS: clients that ask are told that there is none; ".to_owned(),
    };
    match target.tls.server {
        ServerTls::Off => text.push_str("towards the server never."),
        ServerTls::VerifyFull => {
            let roots = target
                .tls
                .ca_file
                .as_ref()
                .map_or_else(|| "the system's roots".to_owned(), |file| file.display().to_string());
            let name = target.tls.server_name.as_deref().unwrap_or("the destination's own name");
            // Writing to a String cannot fail.
            let _ = write!(text, "towards the server always, verified by {roots} for {name}.");
        }
    }
    text
}

fn record_words(config: &Config) -> Vec<String> {
    use crate::config::print_size as size;
    let floor = match config.policy.durability {
        Durability::Process => {
            "A statement that only reads leaves once its record is in the page cache (synced \
             within 10 ms); one that changes something, once its record is synced to disk."
        }
        Durability::Host => "A statement leaves once its record is synced to disk.",
        Durability::Collector => {
            "A statement leaves once the collector has acknowledged its record."
        }
    };
    let to = if config.collector {
        format!("Records go to the collector that {} names", config.enrolment_file().display())
    } else {
        "Records stay on this host".to_owned()
    };
    vec![
        format!("{floor} A policy's @durability may say otherwise for its statements."),
        format!(
            "{to}; up to {} wait in {}.",
            size(config.spool.bytes_max),
            config.spool_dir().display()
        ),
    ]
}

fn warnings(config: &Config, policy: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.targets.is_empty() {
        warnings.push("no target: nothing would be caught; add [[targets]]".to_owned());
    }
    if config.principals.is_empty() {
        warnings.push("no principal: nobody would be caught; add [[principals]]".to_owned());
    }
    if policy.is_empty() {
        warnings.push("no policy: everything would be refused; write a permit".to_owned());
    }
    if !config.collector {
        warnings.push(format!(
            "no collector: once the spool holds {}, targets are refused (or open, where they say \
             so); add [collector] and run `tidegate-agent enrol`",
            crate::config::print_size(config.spool.bytes_max)
        ));
    }
    for principal in &config.principals {
        if config.targets.iter().all(|target| !target.principals.contains(&principal.name)) {
            warnings.push(format!("principal \"{}\" has no target", principal.name));
        }
    }
    for target in &config.targets {
        target_warnings(target, &mut warnings);
    }
    if let Some(cgroup) = &config.capture.cgroup {
        warnings.push(format!(
            "processes outside {} are not seen: a principal started elsewhere goes unguarded",
            cgroup.display()
        ));
    }
    warnings
}

fn target_warnings(target: &TargetConfig, warnings: &mut Vec<String>) {
    let name = &target.name;
    if target.mode == Mode::Shadow {
        warnings.push(format!("target \"{name}\" is in shadow mode: nothing is refused"));
    }
    if target.on_failure == OnFailure::Open {
        warnings.push(format!(
            "target \"{name}\" is open on failure: whoever can stop the agent has {} seconds \
             without a check",
            target.open_ms_max / 1000
        ));
    }
    masking::warnings(target, warnings);
    let local = |destination: &Destination| match destination {
        Destination::Net { addr, .. } => addr.is_loopback(),
        Destination::Name { host, .. } => host == "localhost",
    };
    if target.tls.server == ServerTls::Off && !target.destinations.iter().all(local) {
        warnings.push(format!(
            "target \"{name}\" is reached in clear text; use tls.server = \"verify-full\""
        ));
    }
    for destination in &target.destinations {
        let Destination::Net { addr, prefix, .. } = destination else {
            continue;
        };
        let wide = match addr {
            std::net::IpAddr::V4(_) => PREFIX_V4_BITS_WIDE,
            std::net::IpAddr::V6(_) => PREFIX_V6_BITS_WIDE,
        };
        if *prefix < wide {
            warnings.push(format!(
                "target \"{name}\": {destination} is very wide; every server in it must speak {}",
                target.protocol.name()
            ));
        }
        let nameless =
            target.tls.server_name.is_none() && target.tls.server == ServerTls::VerifyFull;
        if nameless && !addr.is_loopback() {
            warnings.push(format!(
                "target \"{name}\": the certificate at {destination} must bear its IP address, or \
                 set tls.server_name"
            ));
        }
    }
}

fn join_or(list: &[String], none: &str) -> String {
    if list.is_empty() { none.to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::SystemAccounts;

    fn config(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.cedar"), "").unwrap();
        let head = "[agent]\nid = \"host-a\"\n[policy]\nfiles = [\"p.cedar\"]\n";
        let path: &Path = &dir.path().join("agent.toml");
        Config::parse(path, &format!("{head}{text}"), &SystemAccounts).unwrap()
    }

    const PEOPLE: &str = "[[principals]]\nname = \"batch\"\nuid = 61991\n";
    const TARGET: &str = "[[targets]]\nname = \"ledger\"\nprotocol = \"postgres\"\n\
                          destinations = [\"10.0.0.5:5432\"]\ntls.server_name = \"db\"\n";

    #[test]
    fn the_words_say_who_is_caught_and_what_is_refused() {
        let config = config(&format!("[collector]\n{PEOPLE}{TARGET}"));
        let explained = explain(&config, &["permit everything".to_owned()]);
        let words = explained.words.join("\n");
        for expected in [
            "Agent \"host-a\" listens on 127.0.0.1 and ::1, port 15432",
            "Caught: TCP connections of batch (uid 61991) to 10.0.0.5:5432.",
            "Enforced: what the policy does not permit is refused.",
            "When the agent is down or cannot record: connections are refused.",
            "towards the server always, verified by the system's roots for db.",
            "up to 4 GiB wait in /var/lib/tidegate/agent/spool.",
            "  permit everything",
        ] {
            assert!(words.contains(expected), "{expected} is not in:\n{words}");
        }
        assert_eq!(explained.warnings, Vec::<String>::new());
    }

    #[test]
    fn each_risky_setting_has_its_warning() {
        let collector = "[collector]\n";
        for (text, expected) in [
            (format!("{PEOPLE}{TARGET}"), "no collector: once the spool holds 4 GiB"),
            (collector.to_owned(), "no target: nothing would be caught"),
            (format!("{collector}{TARGET}"), "no principal: nobody would be caught"),
            (
                format!("{collector}{PEOPLE}{TARGET}mode = \"shadow\""),
                "target \"ledger\" is in sha",
            ),
            (
                format!("{collector}{PEOPLE}{TARGET}on_failure = \"open\"\nopen_seconds_max = 9"),
                "target \"ledger\" is open on failure: whoever can stop the agent has 9 seconds",
            ),
            (
                format!("{collector}{PEOPLE}{TARGET}").replace("tls.server_name = \"db\"\n", ""),
                "target \"ledger\": the certificate at 10.0.0.5:5432 must bear its IP address",
            ),
            (
                format!("{collector}{PEOPLE}{TARGET}")
                    .replace("server_name = \"db\"", "server = \"off\""),
                "target \"ledger\" is reached in clear text",
            ),
            (
                format!("{collector}{PEOPLE}{TARGET}").replace("10.0.0.5:", "0.0.0.0/0:"),
                "target \"ledger\": 0.0.0.0/0:5432 is very wide",
            ),
            (
                format!("{collector}[capture]\ncgroup = \"/sys/fs/cgroup/x\"\n{PEOPLE}{TARGET}"),
                "processes outside /sys/fs/cgroup/x are not seen",
            ),
            (
                format!(
                    "{collector}{PEOPLE}{TARGET}principals = [\"b\"]\n[[principals]]\nname = \"b\"\nuid = 7"
                ),
                "principal \"batch\" has no target",
            ),
        ] {
            let got = explain(&config(&text), &["x".to_owned()]).warnings;
            assert!(got.iter().any(|line| line.starts_with(expected)), "{text}\n{got:?}");
        }
        let none = explain(&config(&format!("{collector}{PEOPLE}{TARGET}")), &[]).warnings;
        assert_eq!(none, ["no policy: everything would be refused; write a permit"]);
    }
}
