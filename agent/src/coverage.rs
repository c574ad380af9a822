//! The completeness ledger: what the kernel counted of each principal's sockets against what the gate
//! counted, so that "nothing else happened" can be shown.
//!
//! Promises: a connection that the kernel led to the gate and that the gate neither served nor refused
//! is a discrepancy within two looks; so is one that the gate counted and the kernel did not, an event
//! that was lost, and a time in which the agent did not look (stopped, or the host asleep).
//!
//! Limits: counts begin with this run of the agent; [`NAMES_MAX`] pairs.
//!
//! Known gaps: bytes are not counted by the kernel. Two opposite errors of the same number cancel out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tidegate_agent_common::{Tally, TallyKey};
use tidegate_journal::Pair;

use crate::capture::Counters;
use crate::config::Config;

/// Most pairs that the gate counts; the kernel has as many.
pub const NAMES_MAX: usize = 65_536;

/// Longest time between two looks, in nanoseconds; more is a time without an agent.
pub const LOOK_NS_MAX: u64 = 30_000_000_000;

/// Most times without a look that are remembered.
pub const SILENCES_MAX: usize = 8;

/// What the gate counted of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Served {
    sessions: u64,
    refused: u64,
}

impl Served {
    const fn all(self) -> u64 {
        self.sessions.saturating_add(self.refused)
    }
}

/// What the kernel says at one moment.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// By user id and rule.
    pub tallies: BTreeMap<TallyKey, Tally>,
    /// Of all.
    pub counters: Counters,
}

/// What one look shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// All pairs with any count.
    pub pairs: Vec<Pair>,
    /// What does not agree, in words.
    pub discrepancies: Vec<String>,
    /// Of these, what the look before did not show.
    pub fresh: Vec<String>,
    /// The last [`SILENCES_MAX`] times without a look, for as long as the agent runs.
    pub silences: Vec<String>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Coverage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begin: Kernel,
    served: BTreeMap<TallyKey, Served>,
    /// What the kernel had at the look before: by now the gate must have it all.
    before: BTreeMap<TallyKey, u64>,
    looked_ns: Option<u64>,
    silences: VecDeque<String>,
    last: Report,
}

impl Coverage {
    /// Counts from here on.
    pub fn begin(&self, kernel: Kernel) {
        let mut state = self.lock();
        state.begin = kernel;
        state.before.clear();
    }

    /// The gate opened a session.
    pub fn session(&self, owner: u32, rule: u32) {
        self.add(owner, rule, |served| served.sessions += 1);
    }

    /// The gate refused a connection.
    pub fn refused(&self, owner: u32, rule: u32) {
        self.add(owner, rule, |served| served.refused += 1);
    }

    /// Compares; `now_ns` is `CLOCK_BOOTTIME`.
    pub fn look(&self, config: &Config, kernel: &Kernel, now_ns: u64) -> Report {
        let mut state = self.lock();
        let mut discrepancies = state.silence(now_ns);
        discrepancies.extend(state.losses(&kernel.counters));
        let mut pairs = Vec::new();
        let keys: Vec<TallyKey> =
            kernel.tallies.keys().chain(state.served.keys()).copied().collect();
        for key in keys.into_iter().collect::<std::collections::BTreeSet<_>>() {
            let pair = state.pair(config, key, kernel);
            discrepancies.extend(state.compare(key, &pair));
            state.before.insert(key, pair.accepted);
            if pair
                != (Pair {
                    principal: pair.principal.clone(),
                    target: pair.target.clone(),
                    ..Pair::default()
                })
            {
                pairs.push(pair);
            }
        }
        let known = &state.last.discrepancies;
        let fresh = discrepancies.iter().filter(|one| !known.contains(one)).cloned().collect();
        let silences = state.silences.iter().cloned().collect();
        state.last = Report { pairs, discrepancies, fresh, silences };
        state.last.clone()
    }

    /// What the last look showed.
    pub fn last(&self) -> Report {
        self.lock().last.clone()
    }

    fn add(&self, owner: u32, rule: u32, count: impl FnOnce(&mut Served)) {
        let mut state = self.lock();
        let key = TallyKey { owner, rule };
        if state.served.len() < NAMES_MAX || state.served.contains_key(&key) {
            count(state.served.entry(key).or_default());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pair(&self, config: &Config, key: TallyKey, kernel: &Kernel) -> Pair {
        let now = kernel.tallies.get(&key).copied().unwrap_or_default();
        let begin = self.begin.tallies.get(&key).copied().unwrap_or_default();
        let served = self.served.get(&key).copied().unwrap_or_default();
        let principal = config.principal(key.owner);
        let target = usize::try_from(key.rule).ok().and_then(|rule| config.targets.get(rule));
        Pair {
            principal: principal
                .map_or_else(|| format!("uid {}", key.owner), |principal| principal.name.clone()),
            target: target.map(|target| target.name.0.clone()).unwrap_or_default(),
            redirected: now.redirected.saturating_sub(begin.redirected),
            accepted: now.accepted.saturating_sub(begin.accepted),
            refused: now.refused.saturating_sub(begin.refused),
            dropped: now.dropped.saturating_sub(begin.dropped),
            exempt: now.exempt.saturating_sub(begin.exempt),
            sessions: served.sessions,
            sessions_refused: served.refused,
        }
    }

    fn compare(&self, key: TallyKey, pair: &Pair) -> Option<String> {
        let served = self.served.get(&key).copied().unwrap_or_default().all();
        let due = self.before.get(&key).copied().unwrap_or_default();
        let (who, target) = (&pair.principal, &pair.target);
        if served < due {
            let missing = due - served;
            return Some(format!(
                "{missing} connections of {who} to \"{target}\" reached the gate and were neither \
                 served nor refused"
            ));
        }
        (served > pair.accepted).then(|| {
            let more = served - pair.accepted;
            format!("the gate counted {more} connections of {who} to \"{target}\" that the kernel did not")
        })
    }

    /// A time without a look.
    fn silence(&mut self, now_ns: u64) -> Vec<String> {
        let before = self.looked_ns.replace(now_ns);
        let silent_ns = before.map_or(0, |before| now_ns.saturating_sub(before));
        if silent_ns <= LOOK_NS_MAX {
            return Vec::new();
        }
        let said = format!("the agent did not look for {} s", silent_ns / 1_000_000_000);
        self.silences.push_back(said.clone());
        if self.silences.len() > SILENCES_MAX {
            self.silences.pop_front();
        }
        vec![said]
    }

    /// What the kernel itself says it lost.
    fn losses(&self, now: &Counters) -> Vec<String> {
        let begin = &self.begin.counters;
        let rows = [
            (now.events_lost, begin.events_lost, "events found no room and have no record"),
            (now.tally_lost, begin.tally_lost, "sockets could not be tallied"),
            (now.flow_lost, begin.flow_lost, "captures were lost, and their connections refused"),
        ];
        rows.into_iter()
            .filter(|(now, begin, _)| now > begin)
            .map(|(now, begin, what)| format!("{} {what}", now - begin))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TallyKey = TallyKey { owner: 991, rule: 0 };
    const SECOND: u64 = 1_000_000_000;

    fn config() -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.cedar"), "").unwrap();
        let text = "[agent]\nid = \"a\"\n[policy]\nfiles = [\"p.cedar\"]\n[[principals]]\nname = \
                    \"batch\"\nuid = 991\n[[targets]]\nname = \"db\"\nprotocol = \"postgres\"\n\
                    destinations = [\"10.0.0.5:5432\"]\n";
        let accounts = &crate::config::SystemAccounts;
        Config::parse(&dir.path().join("agent.toml"), text, accounts).unwrap()
    }

    fn accepted(count: u64) -> Kernel {
        let tally = Tally { redirected: count, accepted: count, ..Tally::default() };
        Kernel { tallies: BTreeMap::from([(KEY, tally)]), counters: Counters::default() }
    }

    #[test]
    fn what_agrees_is_whole_and_what_is_on_its_way_is_waited_for() {
        let (config, coverage) = (config(), Coverage::default());
        coverage.begin(accepted(5));
        coverage.session(KEY.owner, KEY.rule);
        coverage.refused(KEY.owner, KEY.rule);
        let report = coverage.look(&config, &accepted(8), 0);
        assert_eq!(report.discrepancies, Vec::<String>::new(), "one is on its way");
        let [pair] = report.pairs.as_slice() else { panic!("{report:?}") };
        assert_eq!((pair.principal.as_str(), pair.target.as_str()), ("batch", "db"));
        assert_eq!((pair.accepted, pair.sessions, pair.sessions_refused), (3, 1, 1));
        coverage.session(KEY.owner, KEY.rule);
        assert!(coverage.look(&config, &accepted(8), 10 * SECOND).discrepancies.is_empty());
    }

    #[test]
    fn every_discrepancy_is_said_once_as_fresh_and_stays_red() {
        type Plant = fn(&Coverage, &mut Kernel) -> u64;
        let rows: [(&str, Plant); 6] = [
            ("1 connections of batch to \"db\" reached the gate and were neither", |_, _| 10),
            ("the gate counted 1 connections of batch to \"db\"", |coverage, _| {
                coverage.session(KEY.owner, KEY.rule);
                coverage.session(KEY.owner, KEY.rule);
                10
            }),
            ("2 events found no room", |coverage, kernel| {
                coverage.session(KEY.owner, KEY.rule);
                kernel.counters.events_lost = 2;
                10
            }),
            ("3 sockets could not be tallied", |coverage, kernel| {
                coverage.session(KEY.owner, KEY.rule);
                kernel.counters.tally_lost = 3;
                10
            }),
            ("4 captures were lost", |coverage, kernel| {
                coverage.session(KEY.owner, KEY.rule);
                kernel.counters.flow_lost = 4;
                10
            }),
            ("the agent did not look for 31 s", |coverage, _| {
                coverage.session(KEY.owner, KEY.rule);
                31
            }),
        ];
        for (expected, plant) in rows {
            let (config, coverage) = (config(), Coverage::default());
            assert!(coverage.look(&config, &accepted(1), 0).discrepancies.is_empty());
            let mut kernel = accepted(1);
            let seconds = plant(&coverage, &mut kernel);
            let report = coverage.look(&config, &kernel, seconds * SECOND);
            let [said] = report.discrepancies.as_slice() else { panic!("{expected}: {report:?}") };
            assert!(said.starts_with(expected), "{said}");
            assert_eq!(report.fresh, report.discrepancies);
            let again = coverage.look(&config, &kernel, seconds * SECOND + SECOND);
            assert!(again.fresh.is_empty(), "{again:?}");
            let silences = usize::from(expected.contains("look"));
            assert_eq!(again.silences.len(), silences, "a time without a look stays known");
        }
    }
}
