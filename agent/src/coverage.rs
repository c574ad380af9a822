//! The completeness ledger: what the kernel counted of each principal's sockets against what the gate
//! counted, so that "nothing else happened" can be shown.
//!
//! Promises: a connection that the kernel led to the gate and that the gate neither served nor refused
//! is a discrepancy within two looks; so is one that the gate counted and the kernel did not, a byte of an ended
//! session that the kernel counted on the client's socket and the gate did not read or write, an event
//! that was lost, and a time in which the agent did not look (stopped, or the host asleep).
//!
//! Limits: counts begin with this run of the agent; [`NAMES_MAX`] pairs. Bytes are compared when a session ends,
//! as TCP has them: under TLS, of the encrypted stream.
//!
//! Known gaps: of connections, two opposite errors of the same number cancel out; of bytes, they do not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    bytes: Bytes,
}

/// Bytes of the sessions of one pair that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bytes {
    ended: u64,
    read: u64,
    written: u64,
    kernel_in: u64,
    kernel_out: u64,
    /// Sums of the differences of single sessions, so that opposite ones do not cancel out.
    astray_in: u64,
    astray_out: u64,
    /// Sessions that ended without the kernel's count.
    unsettled: u64,
}

/// What kernel and gate counted of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// By the gate: read.
    pub read: u64,
    /// By the gate: written.
    pub written: u64,
    /// By the kernel: taken out of the socket.
    pub kernel_in: u64,
    /// By the kernel: put into it.
    pub kernel_out: u64,
}

/// The account of one session; dropped without [`Account::settle`] it is a discrepancy.
#[derive(Debug)]
pub struct Account {
    state: Arc<Mutex<State>>,
    key: TallyKey,
    settled: bool,
}

impl Account {
    /// The session's socket is let go.
    pub fn settle(mut self, settlement: Settlement) {
        self.settled = true;
        let Settlement { read, written, kernel_in, kernel_out } = settlement;
        let (astray_in, astray_out) = (kernel_in.abs_diff(read), kernel_out.abs_diff(written));
        if astray_in > 0 || astray_out > 0 {
            tracing::error!(
                owner = self.key.owner,
                read,
                kernel_in,
                written,
                kernel_out,
                "coverage: a session's bytes are not the same to kernel and gate"
            );
        }
        self.book(|bytes| {
            bytes.read = bytes.read.saturating_add(read);
            bytes.written = bytes.written.saturating_add(written);
            bytes.kernel_in = bytes.kernel_in.saturating_add(kernel_in);
            bytes.kernel_out = bytes.kernel_out.saturating_add(kernel_out);
            bytes.astray_in = bytes.astray_in.saturating_add(astray_in);
            bytes.astray_out = bytes.astray_out.saturating_add(astray_out);
        });
        #[cfg(test)]
        lock(&self.state).settled.push(settlement);
    }

    fn book(&self, book: impl FnOnce(&mut Bytes)) {
        if let Some(served) = lock(&self.state).entry(self.key) {
            book(&mut served.bytes);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let settled = self.settled;
        self.book(|bytes| {
            bytes.ended += 1;
            bytes.unsettled += u64::from(!settled);
        });
    }
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
    /// Events, tallies and captures that found no room in the kernel.
    pub kernel_lost: u64,
    /// The last [`SILENCES_MAX`] times without a look, for as long as the agent runs.
    pub silences: Vec<String>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Coverage {
    state: Arc<Mutex<State>>,
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
    #[cfg(test)]
    settled: Vec<Settlement>,
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

    /// Opens the account of a session's bytes.
    pub fn account(&self, owner: u32, rule: u32) -> Account {
        let key = TallyKey { owner, rule };
        Account { state: Arc::clone(&self.state), key, settled: false }
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
            discrepancies.extend(state.compare_bytes(key, &pair));
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
        let kernel_lost = state.lost(&kernel.counters);
        state.last = Report { pairs, discrepancies, fresh, kernel_lost, silences };
        state.last.clone()
    }

    /// What the last look showed.
    pub fn last(&self) -> Report {
        self.lock().last.clone()
    }

    /// Each settlement so far.
    #[cfg(test)]
    pub fn settled(&self) -> Vec<Settlement> {
        self.lock().settled.clone()
    }

    fn add(&self, owner: u32, rule: u32, count: impl FnOnce(&mut Served)) {
        if let Some(served) = self.lock().entry(TallyKey { owner, rule }) {
            count(served);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// The counts of a pair, made where there are none; `None` where there is no room.
    fn entry(&mut self, key: TallyKey) -> Option<&mut Served> {
        if self.served.len() >= NAMES_MAX && !self.served.contains_key(&key) {
            return None;
        }
        Some(self.served.entry(key).or_default())
    }

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
            sessions_ended: served.bytes.ended,
            kernel_bytes_in: served.bytes.kernel_in,
            kernel_bytes_out: served.bytes.kernel_out,
            bytes_in: served.bytes.read,
            bytes_out: served.bytes.written,
        }
    }

    fn compare_bytes(&self, key: TallyKey, pair: &Pair) -> impl Iterator<Item = String> {
        let bytes = self.served.get(&key).copied().unwrap_or_default().bytes;
        let (who, target) = (pair.principal.clone(), pair.target.clone());
        let rows = [
            (
                bytes.astray_in,
                "bytes that came from clients were read by somebody else than the gate",
            ),
            (
                bytes.astray_out,
                "bytes that went to clients were written by somebody else than the gate",
            ),
            (bytes.unsettled, "sessions ended without the kernel's count of their bytes"),
        ];
        rows.into_iter()
            .filter(|(count, _)| *count > 0)
            .map(move |(count, what)| format!("{who} to \"{target}\": {count} {what}"))
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

    fn lost(&self, now: &Counters) -> u64 {
        let all = |of: &Counters| of.events_lost + of.tally_lost + of.flow_lost;
        all(now).saturating_sub(all(&self.begin.counters))
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
        let rows: [(&str, Plant); 8] = [
            (
                "batch to \"db\": 1 bytes that came from clients were read by somebody",
                |coverage, _| {
                    coverage.session(KEY.owner, KEY.rule);
                    let settlement =
                        Settlement { read: 9, kernel_in: 10, written: 5, kernel_out: 5 };
                    coverage.account(KEY.owner, KEY.rule).settle(settlement);
                    10
                },
            ),
            ("batch to \"db\": 1 sessions ended without the kernel's count", |coverage, _| {
                coverage.session(KEY.owner, KEY.rule);
                drop(coverage.account(KEY.owner, KEY.rule));
                10
            }),
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
