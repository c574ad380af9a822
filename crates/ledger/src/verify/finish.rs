//! What only the whole log can tell: holes, chains that follow each other, the tail.

use std::collections::BTreeMap;

use tidegate_event::{ChainId, Seq};

use super::{ChainSummary, Class, Report, Spot, Verifier};
use crate::Previous;

impl Verifier {
    /// The verdict over everything that was fed.
    pub fn finish(mut self) -> Report {
        self.finish_chains();
        self.check_holes();
        self.check_succession();
        self.check_unseen_gaps();
        self.check_recovered();
        self.check_missing();
        self.check_forks();
        self.check_tail();
        let not_proven = self.not_proven();
        self.findings.sort_by_key(|finding| (finding.index, finding.offset));
        let chains = self.chains.iter().map(|(id, state)| ChainSummary {
            chain_id: *id,
            agent_id: state.genesis.as_ref().map(|genesis| genesis.agent_id.clone()),
            records: state.records,
            sealed: state.sealed,
        });
        Report {
            chains: chains.collect(),
            findings: self.findings,
            findings_left_out: self.findings_left_out,
            entries: self.frontier.size(),
            records: self.records,
            seals: self.seals,
            root: self.frontier.root(),
            checkpoints_checked: self.checked,
            bound_size: self.bound_size,
            witnessed_size: self.witnessed_size,
            seen_heads: self.seen_heads,
            not_proven,
        }
    }

    fn finish_chains(&mut self) {
        let mut all = Vec::new();
        for (id, state) in &mut self.chains {
            let mut said = Vec::new();
            state.settle(&mut said);
            state.report_unsealed(&mut said);
            all.push((*id, said));
        }
        for (id, said) in all {
            self.say(id, said);
        }
    }

    fn check_holes(&mut self) {
        let mut all = Vec::new();
        for (id, state) in &self.chains {
            for hole in &state.holes {
                all.push((*id, hole.from, hole.to, hole.spot.clone()));
            }
        }
        for (id, from, to, spot) in all {
            let (class, what) = match self.declared(id, from, to) {
                Some(reason) => {
                    (Class::Gap, format!("records {from} to {to} are missing, declared: {reason}"))
                }
                None => (
                    Class::Tampering,
                    format!("records {from} to {to} are missing, and no Gap record says why"),
                ),
            };
            self.find(class, &spot, Some(id), Some(Seq(from)), what);
        }
    }

    /// The reason that the same agent gave for a hole, if it gave one.
    fn declared(&mut self, chain: ChainId, from: u64, to: u64) -> Option<String> {
        let agent = |id: &ChainId| {
            self.chains.get(id)?.genesis.as_ref().map(|genesis| genesis.agent_id.as_str())
        };
        self.gaps
            .iter_mut()
            .find(|gap| {
                gap.chain == chain
                    && gap.from <= from
                    && to <= gap.to
                    && (gap.by == chain
                        || agent(&chain).is_none()
                        || agent(&gap.by) == agent(&chain))
            })
            .map(|gap| {
                gap.shown = true;
                gap.reason.clone()
            })
    }

    /// What agents declare lost where this log shows no hole: the log may not hold that chain, or not
    /// its end.
    fn check_unseen_gaps(&mut self) {
        for gap in std::mem::take(&mut self.gaps) {
            if gap.shown {
                continue;
            }
            let what = format!(
                "the agent declares that records {} to {} of chain {} are lost, and no hole here shows \
                 it: {}",
                gap.from, gap.to, gap.chain, gap.reason
            );
            self.find(Class::Gap, &gap.spot, Some(gap.by), None, what);
        }
    }

    /// Each chain but an agent's first names the one before it, and its end.
    fn check_succession(&mut self) {
        let mut by_start: Vec<_> = self
            .chains
            .iter()
            .filter_map(|(id, state)| {
                let genesis = state.genesis.as_ref()?;
                Some((state.first_spot.clone(), *id, genesis.agent_id.clone(), genesis.previous))
            })
            .collect();
        by_start.sort_by_key(|(spot, ..)| spot.index);
        let mut followed: BTreeMap<ChainId, ChainId> = BTreeMap::new();
        let mut latest: BTreeMap<String, ChainId> = BTreeMap::new();
        for (spot, id, agent, previous) in by_start {
            let earlier = latest.insert(agent, id);
            let Some(previous) = previous else {
                if let Some(earlier) = earlier {
                    let what = format!(
                        "the agent begins anew without naming its chain before ({earlier}): what it \
                         recorded behind that chain's end is not known"
                    );
                    self.find(Class::Gap, &spot, Some(id), Some(Seq(0)), what);
                }
                continue;
            };
            if let Some(other) = followed.insert(previous.chain_id, id) {
                let what = format!(
                    "chains {other} and this one both follow chain {}: the agent's state was \
                     copied or set back",
                    previous.chain_id
                );
                self.find(Class::Tampering, &spot, Some(id), Some(Seq(0)), what);
            }
            self.check_previous(&spot, id, &previous);
        }
    }

    fn check_previous(&mut self, spot: &Spot, id: ChainId, previous: &Previous) {
        let before = previous.chain_id;
        let Some(state) = self.chains.get(&before) else {
            let what = format!(
                "the chain before ({before}, {} records) is not in this log",
                previous.records
            );
            self.find(Class::Undecided, spot, Some(id), Some(Seq(0)), what);
            return;
        };
        let (records, head, broken) = (state.next, state.head, state.broken);
        let last_spot = state.last_spot.clone();
        if records < previous.records {
            let (from, to) = (records, previous.records - 1);
            let (class, what) = match self.declared(before, from, to) {
                Some(reason) => {
                    (Class::Gap, format!("records {from} to {to} are missing, declared: {reason}"))
                }
                None => (
                    Class::Tampering,
                    format!(
                        "records {from} to {to} are missing at its end: the agent's next chain counts them"
                    ),
                ),
            };
            self.find(class, &last_spot, Some(before), Some(Seq(from)), what);
        } else if records > previous.records {
            let what = format!(
                "has {records} records, and the agent's next chain counts {}",
                previous.records
            );
            self.find(Class::Tampering, &last_spot, Some(before), Some(Seq(records - 1)), what);
        } else if head.is_some_and(|head| head != previous.head) && !broken {
            let what =
                "its last record is not the one that the agent's next chain names".to_owned();
            self.find(Class::Tampering, &last_spot, Some(before), Some(Seq(records - 1)), what);
        }
    }

    /// An unclean end loses released records only when the kernel's page cache went with it, and
    /// then the boot id is another.
    fn check_recovered(&mut self) {
        for (ended, by) in std::mem::take(&mut self.recovered) {
            let genesis = |id| self.chains.get(id).and_then(|state| state.genesis.as_ref());
            let (Some(old), Some(new)) = (genesis(&ended), genesis(&by)) else {
                continue;
            };
            if old.boot_id == new.boot_id {
                continue;
            }
            let spot = self.chains.get(&by).map(|state| state.first_spot.clone());
            let what = format!(
                "the host went down without a clean end of the agent: records of chain {ended} at \
                 level \"process\" that were not synced yet (10 ms) may be missing"
            );
            self.find(Class::Gap, &spot.unwrap_or_default(), Some(by), None, what);
        }
    }

    /// What the collector missed once, and still does.
    fn check_missing(&mut self) {
        for (spot, agent, chain, from, to) in std::mem::take(&mut self.missing) {
            if self.chains.get(&chain).is_some_and(|state| state.next > to) {
                continue;
            }
            let what = format!(
                "agent {agent:?} went on at record {} of its chain, and records {from} to {to} never \
                 came here",
                to.saturating_add(1)
            );
            self.find(Class::Gap, &spot, Some(chain), Some(Seq(from)), what);
        }
    }

    fn not_proven(&self) -> Vec<String> {
        let mut list = self.general_not_proven();
        let size = self.frontier.size();
        if self.bound_size < size {
            list.push(format!(
                "That entries {} to {} are the only ones behind the last checkpoint: only the \
                 agents' seals bind them.",
                self.bound_size,
                size - 1
            ));
        }
        list
    }

    /// What no verdict proves.
    pub(super) fn general_not_proven(&self) -> Vec<String> {
        let mut list = vec![
            "That a host told the truth: whoever is root there can leave out or invent records \
             from then on."
                .to_owned(),
            "Anything about connections that the kernel hooks did not see.".to_owned(),
            "The times: they are the clocks of agents and collector. The order is by sequence \
             number and log index."
                .to_owned(),
            "That records which no collector has received yet still exist on their host."
                .to_owned(),
        ];
        if self.witnessed_size == 0 {
            list.push(
                "That everybody is shown the same log: no witness's signature was asked for or found. \
                 Compare checkpoints with those that others hold."
                    .to_owned(),
            );
        } else if self.witnessed_size < self.bound_size {
            list.push(format!(
                "That everybody is shown the same entries {} to {}: their checkpoints are signed by the \
                 log, and not by the quorum of witnesses.",
                self.witnessed_size,
                self.bound_size - 1
            ));
        }
        list
    }
}
