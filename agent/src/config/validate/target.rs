//! The targets.
//!
//! Promises: a connection of a principal fits one target only where two are written with the very
//! same destination; of overlapping networks the narrower one wins, as in the kernel's table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use tidegate_event::{Mode, OnFailure, Principal, Protocol, TargetName};
use tidegate_mask::Unresolved;

use super::Check;
use crate::config::destination::is_host_name;
use crate::config::masking::MaskingConfig;
use crate::config::raw::{RawSsh, RawTarget, RawTls};
use crate::config::{
    ClientTls, DESTINATIONS_MAX, Destination, GATE_ADDRESSES, GateConfig, OPEN_SECONDS_LIMIT,
    OPEN_SECONDS_MIN, ServerTls, SshLogin, TARGETS_MAX, TargetConfig, TargetSsh, TargetTls,
};

/// Which targets already have a destination: their names and principals.
type Taken = HashMap<Destination, Vec<(String, Vec<String>)>>;

impl Check<'_> {
    /// All targets.
    pub(super) fn targets(
        &mut self,
        raw: &[toml::Spanned<RawTarget>],
        principals: &[Principal],
        gate: &GateConfig,
    ) -> Vec<TargetConfig> {
        if let Some(first_too_many) = raw.get(TARGETS_MAX) {
            let what = format!("more than {TARGETS_MAX} targets");
            self.complain(first_too_many.span().start, what, "join systems of one owner in one");
        }
        let mut names = std::collections::HashSet::new();
        let mut taken = Taken::new();
        let mut targets = Vec::new();
        for raw in raw.iter().map(toml::Spanned::get_ref) {
            let name = self.name(&raw.name, "target");
            if !names.insert(name.clone()) {
                let what = format!("target \"{name}\" stands twice");
                self.complain(raw.name.span().start, what, "keep one of them");
            }
            let protocol = self.choice(
                Some(&raw.protocol),
                "protocol",
                &[
                    ("postgres", Protocol::Postgres),
                    ("mysql", Protocol::Mysql),
                    ("ssh", Protocol::Ssh),
                ],
                Protocol::Postgres,
            );
            let principals = self.principals_of(raw, principals);
            let destinations = self.destinations(raw, &principals, gate, &mut taken);
            let mode = self.choice(
                raw.mode.as_ref(),
                "mode",
                &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)],
                Mode::default(),
            );
            let reach = self.reach(raw);
            let (on_failure, open_ms_max) = self.on_failure(raw);
            let tls = self.tls(&raw.tls);
            let ssh = self.ssh(raw, protocol);
            let name = TargetName(name);
            targets.push(TargetConfig {
                name,
                protocol,
                destinations,
                principals,
                reach,
                mode,
                on_failure,
                open_ms_max,
                tls,
                protect: Vec::new(),
                masking: MaskingConfig { detectors: Vec::new(), unresolved: Unresolved::Clear },
                catalogue: None,
                ssh,
            });
        }
        targets
    }

    fn principals_of(&mut self, raw: &RawTarget, principals: &[Principal]) -> Vec<String> {
        let Some(list) = &raw.principals else {
            return principals.iter().map(|principal| principal.name.clone()).collect();
        };
        if list.get_ref().is_empty() {
            self.complain(
                list.span().start,
                "principals is empty, so nobody would be caught",
                "name some, or leave the key out to mean all",
            );
        }
        let mut names = Vec::new();
        for text in list.get_ref() {
            if principals.iter().all(|principal| &principal.name != text.get_ref()) {
                self.complain(
                    text.span().start,
                    format!("there is no valid principal \"{}\"", text.get_ref()),
                    "add a [[principals]] entry of that name, or correct it",
                );
            }
            if !names.contains(text.get_ref()) {
                names.push(text.get_ref().clone());
            }
        }
        names
    }

    fn destinations(
        &mut self,
        raw: &RawTarget,
        principals: &[String],
        gate: &GateConfig,
        taken: &mut Taken,
    ) -> Vec<Destination> {
        let list = raw.destinations.get_ref();
        let name = raw.name.get_ref();
        if list.is_empty() || list.len() > DESTINATIONS_MAX {
            self.complain(
                raw.destinations.span().start,
                format!("target \"{name}\" has {} destinations", list.len()),
                format!("give it 1 to {DESTINATIONS_MAX}"),
            );
        }
        let mut destinations = Vec::new();
        for text in list {
            let at = text.span().start;
            let destination = match Destination::parse(text.get_ref()) {
                Ok(destination) => destination,
                Err((what, todo)) => {
                    self.complain(at, what, todo);
                    continue;
                }
            };
            if covers_gate(&destination, gate.port) {
                self.complain(
                    at,
                    format!("destination \"{destination}\" covers the gate's own port"),
                    "choose another gate.port, or leave loopback out of the destination",
                );
            }
            let others = taken.entry(destination.clone()).or_default();
            let shares = |other: &[String]| principals.iter().any(|name| other.contains(name));
            if let Some((other, _)) = others.iter().find(|(_, other)| shares(other)) {
                let what =
                    format!("destination \"{destination}\" is in target \"{other}\" already");
                self.complain(at, what, "a connection has one target: keep one of them");
            }
            others.push((name.clone(), principals.to_vec()));
            destinations.push(destination);
        }
        destinations
    }

    fn on_failure(&mut self, raw: &RawTarget) -> (OnFailure, u64) {
        let on_failure = self.choice(
            raw.on_failure.as_ref(),
            "on_failure",
            &[("closed", OnFailure::Closed), ("open", OnFailure::Open)],
            OnFailure::default(),
        );
        let seconds = self.number(
            raw.open_seconds_max.as_ref(),
            "open_seconds_max",
            OPEN_SECONDS_MIN..=OPEN_SECONDS_LIMIT,
            0,
        );
        match (on_failure, &raw.open_seconds_max, &raw.on_failure) {
            (OnFailure::Open, None, Some(text)) => self.complain(
                text.span().start,
                "on_failure = \"open\" has no bound",
                format!(
                    "add open_seconds_max = {OPEN_SECONDS_MIN} to {OPEN_SECONDS_LIMIT}: for so long after the \
                     agent's last sign of life connections pass unrecorded"
                ),
            ),
            (OnFailure::Closed, Some(number), _) => self.complain(
                number.span().start,
                "open_seconds_max has no effect with on_failure = \"closed\"",
                "leave it out",
            ),
            _ => {}
        }
        (on_failure, seconds.saturating_mul(1000))
    }

    fn ssh(&mut self, raw: &RawTarget, protocol: Protocol) -> Option<TargetSsh> {
        let Some(ssh) = &raw.ssh else {
            if protocol == Protocol::Ssh {
                let what =
                    format!("target \"{}\" speaks ssh and has no ssh table", raw.name.get_ref());
                let todo = "add ssh = { identity_file = \"..\", known_hosts_file = \"..\" }";
                self.complain(raw.protocol.span().start, what, todo);
            }
            return None;
        };
        if protocol != Protocol::Ssh {
            let what = "ssh has no effect with another protocol";
            self.complain(ssh.span().start, what, "leave it out, or set protocol = \"ssh\"");
        }
        let login = self.ssh_login(ssh);
        let raw = ssh.get_ref();
        let known_hosts_file = self.beside_config(raw.known_hosts_file.get_ref());
        self.ssh_file("known_hosts_file", &raw.known_hosts_file, false);
        let host_key_file = raw.host_key_file.as_ref().map(|file| {
            self.ssh_file("host_key_file", file, true);
            self.beside_config(file.get_ref())
        });
        Some(TargetSsh { login: login?, known_hosts_file, host_key_file })
    }

    /// How the gate logs in: one way of four.
    fn ssh_login(&mut self, ssh: &toml::Spanned<RawSsh>) -> Option<SshLogin> {
        let raw = ssh.get_ref();
        let ways = usize::from(raw.identity_file.is_some())
            + usize::from(raw.identity_agent.is_some())
            + usize::from(raw.user_certificate)
            + usize::from(raw.client_password);
        if ways != 1 {
            let what = if ways == 0 {
                "ssh says no way to log in to the servers"
            } else {
                "ssh says more than one way to log in to the servers"
            };
            let todo = "name one of identity_file = \"..\", identity_agent = \"..\", user_certificate = true, client_password = true";
            self.complain(ssh.span().start, what, todo);
            return None;
        }
        if let Some(file) = &raw.identity_file {
            self.ssh_file("identity_file", file, true);
            return Some(SshLogin::Key(self.beside_config(file.get_ref())));
        }
        if let Some(socket) = &raw.identity_agent {
            // It may be started later, and again.
            return Some(SshLogin::Agent(self.beside_config(socket.get_ref())));
        }
        Some(if raw.user_certificate { SshLogin::Certificate } else { SshLogin::Client })
    }

    /// A file that is named in an ssh table must be there, and a secret one be its owner's alone.
    fn ssh_file(&mut self, key: &str, text: &toml::Spanned<String>, secret: bool) {
        let path = self.beside_config(text.get_ref());
        let (what, todo) = match std::fs::metadata(&path) {
            Err(error) => (format!("can't be opened: {error}"), "name a readable file"),
            Ok(meta) if secret && meta.permissions().mode() & 0o077 != 0 => {
                ("can be read by others than its owner".to_owned(), "chmod it to 0600")
            }
            Ok(_) => return,
        };
        let what = format!("ssh.{key} \"{}\" {what}", text.get_ref());
        self.complain(text.span().start, what, todo);
    }

    fn tls(&mut self, raw: &RawTls) -> TargetTls {
        let server = self.choice(
            raw.server.as_ref(),
            "tls.server",
            &[("verify-full", ServerTls::VerifyFull), ("off", ServerTls::Off)],
            ServerTls::default(),
        );
        let client = self.choice(
            raw.client.as_ref(),
            "tls.client",
            &[("offer", ClientTls::Offer), ("refuse", ClientTls::Refuse)],
            ClientTls::default(),
        );
        let unused = [("tls.ca_file", &raw.ca_file), ("tls.server_name", &raw.server_name)];
        for (key, text) in unused {
            if let (ServerTls::Off, Some(text)) = (server, text) {
                let what = format!("{key} has no effect with tls.server = \"off\"");
                self.complain(text.span().start, what, "leave it out, or use \"verify-full\"");
            }
        }
        let ca_file = raw.ca_file.as_ref().map(|text| {
            let path = self.beside_config(text.get_ref());
            if let Err(error) = std::fs::File::open(&path) {
                let what = format!("tls.ca_file \"{}\" can't be opened: {error}", text.get_ref());
                self.complain(text.span().start, what, "name a readable PEM file");
            }
            path
        });
        if let Some(text) = &raw.server_name {
            let name = text.get_ref();
            if !is_host_name(name) && name.parse::<IpAddr>().is_err() {
                self.complain(
                    text.span().start,
                    format!("tls.server_name \"{name}\" is no host name or address"),
                    "write the name that the server's certificate bears",
                );
            }
        }
        TargetTls {
            client,
            server,
            ca_file,
            server_name: raw.server_name.as_ref().map(|n| n.get_ref().clone()),
        }
    }
}

/// Whether connections to the gate itself would be caught. Every spelling of loopback counts.
fn covers_gate(destination: &Destination, port: u16) -> bool {
    let loopback = match destination {
        Destination::Net { .. } => {
            GATE_ADDRESSES.into_iter().any(|address| destination.contains(address))
        }
        Destination::Name { host, .. } => host == "localhost",
    };
    destination.port() == port && loopback
}
