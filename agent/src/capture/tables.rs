//! The rule tables: two halves, of which the kernel reads one while the agent writes the other.
//!
//! Promises: a kernel program sees the old table or the new one, never a mixture, and a half is
//! written only when no program can still be reading it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use tidegate_agent_common::{
    Address, Destination, Header, Offsets, ROUTES_MAX, RULES_MAX, RouteKey, UID_ANY, UID_PROTECTED,
    UID_STRICT, UIDS_MAX, UidKey,
};

use super::{CaptureError, sys};

/// One protected destination and whom it is protected from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Comes back in the capture: the target's place in the configuration.
    pub id: u32,
    /// Network address.
    pub addr: IpAddr,
    /// Its prefix length in bits.
    pub prefix: u8,
    /// Port; 0 is any.
    pub port: u16,
    /// Real user ids that are led to the gate.
    pub uids: Vec<u32>,
    /// Whether it passes by the gate while the agent is silent.
    pub open_on_failure: bool,
    /// For how long after the last heartbeat, in milliseconds.
    pub open_ms_max: u64,
    /// Whether every user id is led to the gate, but for the exempt ones.
    pub everyone: bool,
    /// With `everyone`: user ids that may go there directly.
    pub exempt: Vec<u32>,
}

impl Rule {
    /// One destination, whole, for one user id: what it is led to stays closed while the agent is silent.
    pub fn closed(id: u32, addr: IpAddr, port: u16, uid: u32) -> Self {
        Self {
            id,
            addr,
            prefix: if addr.is_ipv4() { 32 } else { 128 },
            port,
            uids: vec![uid],
            open_on_failure: false,
            open_ms_max: 0,
            everyone: false,
            exempt: Vec::new(),
        }
    }
}

/// Who the gate is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate {
    pub port: u16,
    pub pid: u32,
    pub uid: u32,
}

/// The rules as the kernel reads them: by user id, port, network and prefix length.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compiled {
    routes: BTreeMap<(u32, u16, Address, u32), Destination>,
    /// With their `UID_*` bits.
    uids: BTreeMap<u32, u32>,
    everyone: bool,
}

/// Spreads the rules over the user ids, and refuses what does not fit. Where two rules name the
/// same destination for the same user id, the one with the lower id holds. Of the strict user ids
/// every TCP connection is led to the gate.
pub(super) fn compile(rules: &[Rule], strict: &[u32]) -> Result<Compiled, CaptureError> {
    let mut compiled = Compiled::default();
    for uid in strict {
        compiled.uids.insert(*uid, UID_PROTECTED | UID_STRICT);
    }
    for rule in rules {
        let row = destination(rule)?;
        for uid in &rule.uids {
            compiled.uids.entry(*uid).or_insert(UID_PROTECTED);
            compiled.add(*uid, row);
        }
        if rule.everyone {
            compiled.everyone = true;
            compiled.add(UID_ANY, row);
            for uid in rule.exempt.iter().filter(|uid| !rule.uids.contains(uid)) {
                compiled.add(*uid, row.exempt());
            }
        }
    }
    fits(compiled.routes.len(), ROUTES_MAX, "pairs of user id and destination")?;
    fits(compiled.uids.len(), UIDS_MAX, "protected user ids")?;
    Ok(compiled)
}

impl Compiled {
    fn add(&mut self, uid: u32, row: Destination) {
        let held = self.routes.entry((uid, row.port, row.net, row.bits)).or_insert(row);
        if row.rule < held.rule {
            *held = row;
        }
    }
}

fn fits(count: usize, max: u32, what: &str) -> Result<(), CaptureError> {
    if u32::try_from(count).is_ok_and(|count| count <= max) {
        return Ok(());
    }
    Err(CaptureError::Rules(format!(
        "{count} {what}, and at most {max} fit; join destinations to prefixes, or name fewer \
         principals"
    )))
}

fn destination(rule: &Rule) -> Result<Destination, CaptureError> {
    if rule.id >= RULES_MAX {
        return Err(CaptureError::Rules(format!(
            "rule id {} is not below {RULES_MAX}: too many targets",
            rule.id
        )));
    }
    let row = Destination::new(rule.id, rule.addr, rule.prefix, rule.port).map_err(|wrong| {
        CaptureError::Rules(format!(
            "{}/{} has a prefix longer than {} bits",
            rule.addr, wrong.prefix, wrong.max
        ))
    })?;
    Ok(if rule.open_on_failure {
        row.open_for(rule.open_ms_max.saturating_mul(1_000_000))
    } else {
        row
    })
}

/// The maps of the double buffer.
pub(super) struct Tables {
    active: Array<MapData, u32>,
    headers: Array<MapData, Header>,
    routes: LpmTrie<MapData, RouteKey, Destination>,
    uids: HashMap<MapData, UidKey, u32>,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        Ok(Self {
            active: take(ebpf, "ACTIVE")?,
            headers: take(ebpf, "HEADERS")?,
            routes: take(ebpf, "ROUTES")?,
            uids: take(ebpf, "UIDS")?,
        })
    }

    /// Writes the idle half, then turns the kernel to it with one byte.
    pub(super) fn replace(
        &mut self,
        gate: Gate,
        offsets: Offsets,
        compiled: &Compiled,
    ) -> Result<(), CaptureError> {
        // Programs that began before the last turn may still read the half that is idle now.
        sys::wait_for_running_programs();
        let active = self.active.get(&0, 0).map_err(at("ACTIVE"))?;
        let idle = u32::from(active != 1);
        self.clear(idle)?;
        for ((uid, ..), destination) in &compiled.routes {
            let port = u32::from(destination.port);
            for port in [port, RouteKey::PORT_HOST] {
                let key = key(idle, *uid, port, destination);
                self.routes.insert(&key, destination, 0).map_err(at("ROUTES"))?;
            }
        }
        for (uid, bits) in &compiled.uids {
            let key = UidKey { half: idle, uid: *uid };
            self.uids.insert(key, bits, 0).map_err(at("UIDS"))?;
        }
        let header = Header {
            gate_port: u32::from(gate.port),
            gate_pid: gate.pid,
            gate_uid: gate.uid,
            everyone: u32::from(compiled.everyone),
            offsets,
        };
        self.headers.set(idle, header, 0).map_err(at("HEADERS"))?;
        self.active.set(0, idle, 0).map_err(at("ACTIVE"))
    }

    fn clear(&mut self, half: u32) -> Result<(), CaptureError> {
        let keys: Result<Vec<_>, _> = self.uids.keys().collect();
        for key in keys.map_err(at("UIDS"))?.into_iter().filter(|key| key.half == half) {
            self.uids.remove(&key).map_err(at("UIDS"))?;
        }
        let keys: Result<Vec<_>, _> = self.routes.keys().collect();
        for key in keys.map_err(at("ROUTES"))?.into_iter().filter(|key| key.data().half == half) {
            self.routes.remove(&key).map_err(at("ROUTES"))?;
        }
        Ok(())
    }
}

fn key(half: u32, uid: u32, port: u32, destination: &Destination) -> Key<RouteKey> {
    let family = if destination.is_v4() { 4 } else { 6 };
    let addr = destination.net;
    Key::new(RouteKey::FIXED_BITS + destination.bits, RouteKey { half, uid, family, port, addr })
}

/// Takes a map out of the object, as the type that it must be.
pub(super) fn take<T>(ebpf: &mut Ebpf, map: &'static str) -> Result<T, CaptureError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let found =
        ebpf.take_map(map).ok_or_else(|| CaptureError::Object(format!("it has no map {map}")))?;
    T::try_from(found).map_err(at(map))
}

/// Says which map an error is about.
pub(super) fn at(map: &'static str) -> impl Fn(aya::maps::MapError) -> CaptureError {
    move |source| CaptureError::Map { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: u32, addr: &str, prefix: u8, port: u16, uids: &[u32]) -> Rule {
        let rule = Rule::closed(id, addr.parse().unwrap(), port, 0);
        Rule { prefix, uids: uids.to_vec(), ..rule }
    }

    #[test]
    fn each_uid_has_its_own_rules_and_the_lower_id_holds_where_two_are_the_same() {
        let rules = [
            rule(2, "10.0.0.0", 8, 5432, &[7, 8]),
            rule(1, "10.9.9.9", 8, 5432, &[7]),
            rule(3, "10.0.0.5", 32, 5432, &[8]),
        ];
        let compiled = compile(&rules, &[9]).unwrap();
        let found: Vec<_> =
            compiled.routes.iter().map(|(key, row)| (key.0, row.bits, row.rule)).collect();
        assert_eq!(found, [(7, 104, 1), (8, 104, 2), (8, 128, 3)]);
        let uids: Vec<_> = compiled.uids.into_iter().collect();
        assert_eq!(uids, [(7, UID_PROTECTED), (8, UID_PROTECTED), (9, UID_PROTECTED | UID_STRICT)]);
    }

    #[test]
    fn what_does_not_fit_is_refused_in_words() {
        let many_uids: Vec<_> = (0..=UIDS_MAX).collect();
        let uids: Vec<_> = (0..4096).collect();
        let too_many: Vec<_> = (0..17).map(|port| rule(0, "::1", 128, port, &uids)).collect();
        let rows = [
            (too_many, "69632 pairs"),
            (vec![rule(0, "::1", 128, 1, &many_uids)], "4097 protected user ids"),
            (vec![rule(RULES_MAX, "::1", 128, 1, &[])], "rule id 1024"),
            (vec![rule(0, "10.0.0.1", 33, 1, &[])], "10.0.0.1/33"),
        ];
        for (rules, expected) in rows {
            let error = compile(&rules, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_rule_for_everyone_has_its_exceptions() {
        let everyone = Rule { everyone: true, exempt: vec![7, 9], ..rule(1, "::1", 128, 5, &[7]) };
        let compiled = compile(&[everyone], &[]).unwrap();
        let found: Vec<_> =
            compiled.routes.iter().map(|(key, row)| (key.0, row.is_exempt())).collect();
        assert_eq!(found, [(7, false), (9, true), (UID_ANY, false)]);
        assert!(compiled.everyone);
        assert_eq!(compiled.uids.into_keys().collect::<Vec<_>>(), [7]);
    }
}
