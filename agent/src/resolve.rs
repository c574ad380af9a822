//! Which addresses a target's destinations mean now.
//!
//! Promises: a host name is asked again every [`RESOLVE_SECONDS`]; an address that the name has
//! once meant stays protected for [`KEPT_SECONDS`] more, so that a DNS change never opens a way
//! round; a change is recorded.
//!
//! Cannot: protect an address that the name means for others but not for this host's resolver
//! (`docs/THREATS.md`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tidegate_event::{OnFailure, Principal};

use crate::capture::Rule;
use crate::config::{Config, Destination, TargetConfig};

/// How often host names are asked again, in seconds.
pub const RESOLVE_SECONDS: u64 = 30;

/// How long an address stays protected after its name stopped meaning it, in seconds.
pub const KEPT_SECONDS: u64 = 24 * 60 * 60;

/// Longest address prefix of each family, in bits.
const PREFIX_V4: u8 = 32;
const PREFIX_V6: u8 = 128;

/// The addresses of all host names in a configuration.
#[derive(Default, Clone)]
pub struct Resolver {
    known: BTreeMap<String, BTreeMap<IpAddr, Instant>>,
}

impl Resolver {
    /// Asks for every host name in `config`; returns one sentence a change or failure.
    pub async fn refresh(&mut self, config: &Config) -> Vec<String> {
        let mut said = Vec::new();
        for host in hosts(config) {
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(found) => {
                    let found: Vec<IpAddr> =
                        found.map(|address| address.ip().to_canonical()).collect();
                    said.extend(self.learn(&host, &found, Instant::now()));
                }
                Err(error) => said.push(format!(
                    "{host} cannot be resolved ({error}); {} of its addresses stay protected",
                    self.known.get(&host).map_or(0, BTreeMap::len)
                )),
            }
        }
        said
    }

    fn learn(&mut self, host: &str, found: &[IpAddr], now: Instant) -> Option<String> {
        let known = self.known.entry(host.to_owned()).or_default();
        let before: Vec<IpAddr> = known.keys().copied().collect();
        for address in found {
            known.insert(*address, now);
        }
        known.retain(|_, seen| now.duration_since(*seen) < Duration::from_secs(KEPT_SECONDS));
        let after: Vec<IpAddr> = known.keys().copied().collect();
        (after != before).then(|| {
            let list: Vec<String> = after.iter().map(IpAddr::to_string).collect();
            format!("{host} means {}", list.join(", "))
        })
    }

    /// Host names of which no address is known.
    pub fn unresolved(&self, config: &Config) -> Vec<String> {
        let known = |host: &String| self.known.get(host).is_some_and(|known| !known.is_empty());
        hosts(config).into_iter().filter(|host| !known(host)).collect()
    }

    /// The kernel's rules for this configuration, each rule's id being its target's index.
    pub fn rules(&self, config: &Config) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (id, target) in (0_u32..).zip(&config.targets) {
            let uids = uids_of(target, &config.principals);
            for destination in &target.destinations {
                let mut add = |addr: IpAddr, prefix: u8, port: u16| {
                    rules.push(Rule {
                        id,
                        addr,
                        prefix,
                        port,
                        uids: uids.clone(),
                        open_on_failure: target.on_failure == OnFailure::Open,
                        open_ms_max: target.open_ms_max,
                        everyone: target.reach.everyone,
                        exempt: target.reach.exempt.clone(),
                    });
                };
                match destination {
                    Destination::Net { addr, prefix, port } => add(*addr, *prefix, *port),
                    Destination::Name { host, port } => {
                        for addr in self.known.get(host).into_iter().flatten().map(|(addr, _)| addr)
                        {
                            let prefix = if addr.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 };
                            add(*addr, prefix, *port);
                        }
                    }
                }
            }
        }
        rules
    }

    /// The host names of `target` that mean `address`.
    pub fn names_of(&self, target: &TargetConfig, address: IpAddr) -> Vec<String> {
        let named = target.destinations.iter().filter_map(|destination| match destination {
            Destination::Name { host, .. } => Some(host),
            Destination::Net { .. } => None,
        });
        named
            .filter(|host| self.known.get(*host).is_some_and(|known| known.contains_key(&address)))
            .cloned()
            .collect()
    }
}

fn uids_of(target: &TargetConfig, principals: &[Principal]) -> Vec<u32> {
    principals
        .iter()
        .filter(|principal| {
            target.principals.is_empty() || target.principals.contains(&principal.name)
        })
        .map(|principal| principal.uid)
        .collect()
}

fn hosts(config: &Config) -> Vec<String> {
    let mut hosts: Vec<String> = config
        .targets
        .iter()
        .flat_map(|target| &target.destinations)
        .filter_map(|destination| match destination {
            Destination::Name { host, .. } => Some(host.clone()),
            Destination::Net { .. } => None,
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_protected_after_its_name_moved_away() {
        let (one, two) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let start = Instant::now();
        let mut resolver = Resolver::default();
        assert_eq!(resolver.learn("db", &[one], start).unwrap(), "db means 10.0.0.1");
        assert_eq!(resolver.learn("db", &[one], start), None);
        let moved = resolver.learn("db", &[two], start + Duration::from_mins(1)).unwrap();
        assert_eq!(moved, "db means 10.0.0.1, 10.0.0.2");
        let later = start + Duration::from_secs(KEPT_SECONDS);
        assert_eq!(resolver.learn("db", &[two], later).unwrap(), "db means 10.0.0.2");
    }
}
