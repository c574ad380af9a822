//! One chain within the log: its links and its seals, record by record.
//!
//! Which record was changed? A record's bytes are bound by the next one's `prev` (or by the seal).
//! When record n does not hold the hash of n-1, either n-1 was changed, or n was (in its `prev`).
//! The link behind n decides: where n+1 or a seal confirms n, it was n-1; where that link is broken
//! as well, it was n. Where two neighbours were changed, the later one is named.

use tidegate_event::{ChainId, Seq};

use super::{CLOCK_STEP_NS_MIN, CLOCK_STEPS_MAX, Class, Spot, Verifier};
use crate::{Genesis, Hash, Header, ZERO, chain_value, seal};

/// What is known of one chain.
pub(super) struct ChainState {
    pub(super) genesis: Option<Genesis>,
    pub(super) first_spot: Spot,
    pub(super) last_spot: Spot,
    /// The next place.
    pub(super) next: u64,
    /// Chain value of the last record; `None` when that record was missing or unreadable.
    pub(super) head: Option<Hash>,
    /// The first place under no seal, and the chain values from there on.
    pub(super) sealed_next: u64,
    pub(super) unsealed: Vec<Option<Hash>>,
    pub(super) records: u64,
    pub(super) sealed: u64,
    pub(super) holes: Vec<Hole>,
    pub(super) suspect: Option<Suspect>,
    /// Wall clock minus boot clock at the last record, and how often it jumped.
    clocks: Option<i128>,
    clock_steps: u32,
    /// Whether some finding says that this chain's bytes were changed.
    pub(super) broken: bool,
}

/// Records that are not there.
pub(super) struct Hole {
    pub(super) from: u64,
    pub(super) to: u64,
    /// The record behind it.
    pub(super) spot: Spot,
}

/// A broken link, until the next one says which end was changed.
pub(super) struct Suspect {
    /// Place of the later record.
    seq: u64,
    before: Spot,
    at: Spot,
}

impl ChainState {
    fn new(spot: &Spot) -> Self {
        Self {
            genesis: None,
            first_spot: spot.clone(),
            last_spot: spot.clone(),
            next: 0,
            head: Some(ZERO),
            sealed_next: 0,
            unsealed: Vec::new(),
            records: 0,
            sealed: 0,
            holes: Vec::new(),
            suspect: None,
            clocks: None,
            clock_steps: 0,
            broken: false,
        }
    }
}

/// A finding about one record: class, place, sequence number, words.
type Said = (Class, Spot, u64, String);

impl Verifier {
    pub(super) fn record(&mut self, chain: ChainId, spot: &Spot, record: &[u8]) {
        let mut said = Vec::new();
        let state = self.chains.entry(chain).or_insert_with(|| ChainState::new(spot));
        let header = match Header::read(record) {
            Ok(header) if header.chain_id == chain => Some(header),
            Ok(header) => {
                let what = format!("a record of chain {} is filed under this one", header.chain_id);
                said.push((Class::Tampering, spot.clone(), state.next, what));
                None
            }
            Err(error) => {
                let what = format!("the record can't be read: {error}");
                said.push((Class::Tampering, spot.clone(), state.next, what));
                None
            }
        };
        let genesis = if let Some(header) = header {
            state.link(spot, &header, record, &mut said)
        } else {
            state.unreadable(spot);
            None
        };
        self.say(chain, said);
        if let Some(genesis) = genesis {
            self.check_key(spot, &genesis);
        }
        if let Some(header) = header {
            self.check_taken(&header, || chain_value(record));
            self.read_body(spot, &header, record);
        }
    }

    pub(super) fn seal(&mut self, chain: ChainId, spot: &Spot, bytes: &[u8]) {
        let Some(state) = self.chains.get_mut(&chain) else {
            let what = "a seal of a chain of which no record is here".to_owned();
            self.find(Class::Tampering, spot, Some(chain), None, what);
            return;
        };
        let mut said = Vec::new();
        state.seal(chain, spot, bytes, &mut said);
        self.say(chain, said);
    }

    pub(super) fn say(&mut self, chain: ChainId, said: Vec<Said>) {
        for (class, spot, seq, what) in said {
            if class == Class::Tampering
                && let Some(state) = self.chains.get_mut(&chain)
            {
                state.broken = true;
            }
            self.find(class, &spot, Some(chain), Some(Seq(seq)), what);
        }
    }
}

impl ChainState {
    /// Takes a record in its place; returns its Genesis, if it is one.
    fn link(
        &mut self,
        spot: &Spot,
        header: &Header,
        record: &[u8],
        said: &mut Vec<Said>,
    ) -> Option<Genesis> {
        let seq = header.seq.0;
        if seq < self.next {
            let what = format!("record {seq} is there again, where {} follows", self.next);
            said.push((Class::Tampering, spot.clone(), seq, what));
            return None;
        }
        if seq > self.next {
            self.skip(spot, seq, said);
        }
        let genesis = match Genesis::read(record) {
            Ok(genesis) => genesis,
            Err(error) => {
                said.push((Class::Tampering, spot.clone(), seq, error.to_string()));
                None
            }
        };
        match (seq, &genesis) {
            (0, None) => said.push((
                Class::Tampering,
                spot.clone(),
                seq,
                "the chain does not begin with a readable Genesis".to_owned(),
            )),
            (1.., Some(_)) => said.push((
                Class::Tampering,
                spot.clone(),
                seq,
                "a Genesis inside of a chain".to_owned(),
            )),
            (0, Some(_)) => self.genesis.clone_from(&genesis),
            (1.., None) => {}
        }
        let holds = self.head.is_none_or(|head| head == header.prev);
        self.judge(spot, seq, holds, said);
        self.check_clocks(spot, header, said);
        self.head = Some(chain_value(record));
        self.unsealed.push(self.head);
        self.records += 1;
        self.next = seq.saturating_add(1);
        self.last_spot = spot.clone();
        genesis.filter(|_| seq == 0)
    }

    /// The boot clock can't be set, so a jump of the wall clock against it is somebody's doing.
    fn check_clocks(&mut self, spot: &Spot, header: &Header, said: &mut Vec<Said>) {
        let apart = i128::from(header.wall_ns) - i128::from(header.boot_ns);
        let step = self.clocks.replace(apart).map_or(0, |before| apart - before);
        if step.unsigned_abs() < u128::from(CLOCK_STEP_NS_MIN)
            || self.clock_steps >= CLOCK_STEPS_MAX
        {
            return;
        }
        self.clock_steps += 1;
        let (seconds, way) =
            (step.unsigned_abs() / 1_000_000_000, if step < 0 { "back" } else { "on" });
        let what = format!("the host's clock was set {way} by {seconds} s before this record");
        said.push((Class::Notice, spot.clone(), header.seq.0, what));
    }

    /// A record that can't be read still takes its place.
    fn unreadable(&mut self, spot: &Spot) {
        self.suspect = None;
        self.head = None;
        self.unsealed.push(None);
        self.records += 1;
        self.next = self.next.saturating_add(1);
        self.last_spot = spot.clone();
    }

    /// Records up to `seq` are not there.
    fn skip(&mut self, spot: &Spot, seq: u64, said: &mut Vec<Said>) {
        self.settle(said);
        self.report_unsealed(said);
        self.holes.push(Hole { from: self.next, to: seq - 1, spot: spot.clone() });
        self.head = None;
        self.next = seq;
        self.sealed_next = seq;
        self.unsealed.clear();
    }

    /// Takes the state of the link into record `seq`, and settles the one before.
    fn judge(&mut self, spot: &Spot, seq: u64, holds: bool, said: &mut Vec<Said>) {
        if holds {
            self.settle(said);
            return;
        }
        match self.suspect.take() {
            Some(suspect) if suspect.seq.saturating_add(1) == seq => {
                said.push(changed(suspect.at, suspect.seq));
            }
            _ if seq == 0 => {
                let what = "the first record names a record before it".to_owned();
                said.push((Class::Tampering, spot.clone(), seq, what));
            }
            _ => {
                let before = self.last_spot.clone();
                self.suspect = Some(Suspect { seq, before, at: spot.clone() });
            }
        }
    }

    /// The later end of a broken link is confirmed, or nothing can confirm it: the earlier end
    /// is named.
    pub(super) fn settle(&mut self, said: &mut Vec<Said>) {
        if let Some(suspect) = self.suspect.take() {
            said.push(changed(suspect.before, suspect.seq.saturating_sub(1)));
        }
    }

    pub(super) fn report_unsealed(&self, said: &mut Vec<Said>) {
        if !self.unsealed.is_empty() {
            let (first, last) = (self.sealed_next, self.next.saturating_sub(1));
            let what = format!("records {first} to {last} are under no seal: nobody signed them");
            said.push((Class::Undecided, self.last_spot.clone(), last, what));
        }
    }

    fn seal(&mut self, chain: ChainId, spot: &Spot, bytes: &[u8], said: &mut Vec<Said>) {
        let last_record = self.next.saturating_sub(1);
        let facts = if let Some(genesis) = &self.genesis {
            seal::verify(bytes, &genesis.audit_key)
        } else {
            let what = "its Genesis is not in the log, so the seal's key is not known";
            said.push((Class::Undecided, spot.clone(), last_record, what.to_owned()));
            seal::read(bytes)
        };
        let facts = match facts {
            Ok(facts) if facts.chain_id == chain => facts,
            Ok(facts) => {
                let what = format!("a seal of chain {} is filed under this one", facts.chain_id);
                said.push((Class::Tampering, spot.clone(), last_record, what));
                return;
            }
            Err(error) => {
                said.push((Class::Tampering, spot.clone(), last_record, error.to_string()));
                return;
            }
        };
        let (first, last) = (facts.first.0, facts.last.0);
        if first != self.sealed_next || last >= self.next {
            let what = format!(
                "a seal over records {first} to {last}, and the log has {} to {last_record} here",
                self.sealed_next
            );
            said.push((Class::Tampering, spot.clone(), last, what));
            if first < self.sealed_next || last >= self.next {
                return;
            }
        }
        let covered = usize::try_from(last - self.sealed_next).unwrap_or(usize::MAX);
        let value = self.unsealed.get(covered).copied().flatten();
        let confirmed = value.is_none_or(|value| value == facts.chain_value);
        match self.suspect.take() {
            Some(suspect) if suspect.seq == last && !confirmed => {
                said.push(changed(suspect.at, suspect.seq));
            }
            suspect => {
                self.suspect = suspect;
                self.settle(said);
                if !confirmed {
                    let at =
                        if last == last_record { self.last_spot.clone() } else { spot.clone() };
                    said.push(changed(at, last));
                }
            }
        }
        if last == last_record {
            // The seal says what the agent had here, whatever the log has.
            self.head = Some(facts.chain_value);
        }
        let count = covered.saturating_add(1).min(self.unsealed.len());
        self.unsealed.drain(..count);
        self.sealed += facts.last.0 - self.sealed_next + 1;
        self.sealed_next = last.saturating_add(1);
    }
}

fn changed(spot: Spot, seq: u64) -> Said {
    let what = format!("record {seq} is not the one that its agent wrote: its bytes were changed");
    (Class::Tampering, spot, seq, what)
}
