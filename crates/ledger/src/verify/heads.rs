//! Tree heads: those that the auditor brought, and those that agents saw and wrote into their chains.
//!
//! A log key that was stolen can sign another history; it cannot change what a witness signed, or
//! what an agent recorded under its own key. So each heartbeat's checkpoint is held against the
//! tree as it was at that size.

use tidegate_event::ChainId;

use super::{Class, Note, Spot, Verifier};
use crate::checkpoint;
use crate::cosignature::cosignatures;
use crate::seal::{self, SealFacts};
use crate::{Hash, Header};

/// A checkpoint that its log's key signed.
pub(super) struct Head {
    pub(super) from: String,
    pub(super) size: u64,
    pub(super) root: Hash,
    /// The policy's quorum signed it too.
    pub(super) witnessed: bool,
}

impl Verifier {
    pub(super) fn open_checkpoints(&mut self) {
        let notes = std::mem::take(&mut self.trust.checkpoints);
        let Some(key) = self.trust.log_key.clone() else {
            let what = "no log key is given, so no checkpoint can be checked".to_owned();
            self.find(Class::Undecided, &Spot::default(), None, None, what);
            return;
        };
        if notes.is_empty() {
            let what = "no checkpoint is given, so a log that was rewritten or cut as a whole \
                        can't be told from this one"
                .to_owned();
            self.find(Class::Undecided, &Spot::default(), None, None, what);
        }
        for Note { from, text } in notes {
            match checkpoint::open(&text, &key) {
                Ok(head) => {
                    let witnessed = self.is_witnessed(&from, &text);
                    self.heads.push(Head { from, size: head.size, root: head.root, witnessed });
                }
                Err(error) => {
                    let what = format!("checkpoint {from}: {error}");
                    self.find(Class::Tampering, &Spot::default(), None, None, what);
                }
            }
        }
        self.heads.sort_by_key(|head| std::cmp::Reverse(head.size));
        self.newest_head = self.heads.first().map_or(0, |head| head.size);
    }

    /// Whether the policy's quorum signed this note.
    fn is_witnessed(&mut self, from: &str, note: &str) -> bool {
        let Some(policy) = &self.trust.policy else { return false };
        match cosignatures(note, &policy.keys()) {
            Ok(found) => {
                let signed: Vec<usize> = found.iter().map(|found| found.witness).collect();
                policy.quorum.is_some() && policy.is_met(&signed)
            }
            Err(error) => {
                let what = format!("checkpoint {from}: {error}");
                self.find(Class::Tampering, &Spot::default(), None, None, what);
                false
            }
        }
    }

    /// Compares the checkpoints of the size that the log now has.
    pub(super) fn check_heads(&mut self) {
        let size = self.frontier.size();
        let mut root = None;
        while let Some(head) = self.heads.pop_if(|head| head.size <= size) {
            if self.tree_broken {
                continue;
            }
            let root = *root.get_or_insert_with(|| self.frontier.root());
            self.roots.insert(size, root);
            if head.root == root {
                self.checked += 1;
                self.bound_size = head.size;
                if head.witnessed {
                    self.witnessed_size = head.size;
                }
                continue;
            }
            // A checkpoint that only the log's key signed may be the thief's own.
            let good = if head.witnessed { self.witnessed_size } else { self.bound_size };
            let what = format!(
                "the first {size} entries are not those that checkpoint {} was signed over{}: the \
                 change lies in entries {} to {}",
                head.from,
                if head.witnessed { " and witnessed" } else { "" },
                good,
                size.saturating_sub(1)
            );
            let spot = Spot { index: size.checked_sub(1), file: None, offset: None };
            self.find(Class::Tampering, &spot, None, None, what);
        }
    }

    /// The checkpoint that an agent saw, out of its heartbeat.
    pub(super) fn check_seen(&mut self, spot: &Spot, header: &Header, note: &str) {
        let Some(key) = &self.trust.log_key else { return };
        let (chain, seq) = (Some(header.chain_id), Some(header.seq));
        let seen = match checkpoint::open(note, key) {
            Ok(seen) => seen,
            Err(error) => {
                let what = format!("the checkpoint in this heartbeat is none of this log: {error}");
                self.find(Class::Undecided, spot, chain, seq, what);
                return;
            }
        };
        let here = spot.index.unwrap_or(u64::MAX);
        let size = seen.size;
        if self.tree_broken || (here >= self.newest_head && size > self.newest_head) {
            // Behind the newest checkpoint that was given nothing is bound, which the report says.
            return;
        }
        let what = if size > here {
            format!(
                "the agent was shown a checkpoint over {size} entries before the log had so many: \
                 the log was set back"
            )
        } else {
            match self.roots.get(&size) {
                Some(root) if *root == seen.root => {
                    self.seen_heads += 1;
                    return;
                }
                Some(_) => format!(
                    "the agent was shown a checkpoint over other {size} entries than these, and the \
                     log's key signed it: the log was rewritten, or forked"
                ),
                None => format!(
                    "the agent was shown a checkpoint over {size} entries, which is not among those \
                     given: the log was set back, rewritten or forked, or its history was changed"
                ),
            }
        };
        self.find(Class::Tampering, spot, chain, seq, what);
    }

    /// What only the end can tell of the heads: those beyond the log, and the quorum.
    pub(super) fn check_tail(&mut self) {
        let size = self.frontier.size();
        for head in std::mem::take(&mut self.heads) {
            let what = format!(
                "the log has {size} entries, and checkpoint {} was signed over {}: its end is cut",
                head.from, head.size
            );
            let spot = Spot { index: Some(size), file: None, offset: None };
            self.find(Class::Tampering, &spot, None, None, what);
        }
        if self.tree_broken {
            let what = "entries are missing, so later checkpoints were not compared".to_owned();
            self.find(Class::Tampering, &Spot::default(), None, None, what);
        }
        if size > 0 {
            self.check_policy();
        }
    }

    /// Whether the quorum of witnesses was there.
    pub(super) fn check_policy(&mut self) {
        let Some(policy) = &self.trust.policy else { return };
        let what = if policy.quorum.is_none() {
            "the policy asks for no witness: whoever holds the log's key can rewrite what is behind \
             the agents' seals"
        } else if self.witnessed_size == 0 {
            "no checkpoint that the log matches was signed by the policy's quorum of witnesses"
        } else {
            return;
        };
        self.find(Class::Undecided, &Spot::default(), None, None, what.to_owned());
    }

    /// An agent's second history, as the collector kept it. Judged at the end: what was refused as a fork may
    /// have been taken later, after a new enrolment.
    pub(super) fn check_equivocation(
        &mut self,
        spot: &Spot,
        header: &Header,
        about: &Equivocation<'_>,
    ) {
        let key = self.chains.get(&about.chain).and_then(|state| state.genesis.as_ref());
        let pinned = self.trust.agents.iter().filter(|pin| pin.agent_id == about.agent);
        let mut keys: Vec<[u8; 32]> = pinned.map(|pin| pin.audit_key).collect();
        keys.extend(key.map(|genesis| genesis.audit_key));
        let sealed = keys.iter().find_map(|key| {
            seal::verify(about.seal, key).ok().filter(|facts| facts.chain_id == about.chain)
        });
        let Some(facts) = sealed else {
            let what = format!(
                "agent {:?} is said to have forked chain {}, but the seal that is kept is not its",
                about.agent, about.chain
            );
            self.find(Class::Undecided, spot, Some(header.chain_id), Some(header.seq), what);
            return;
        };
        let what = format!(
            "FORK: agent {:?} sealed another history of chain {} than this log holds, at or before \
             record {}: {}",
            about.agent, about.chain, about.seq, about.detail
        );
        self.forks.push(Fork { spot: spot.clone(), by: *header, facts, what, taken: false });
    }

    /// A record of a chain that was refused as a fork before.
    pub(super) fn check_taken(&mut self, header: &Header, value: impl FnOnce() -> Hash) {
        let this = |fork: &&mut Fork| {
            fork.facts.chain_id == header.chain_id && fork.facts.last == header.seq
        };
        let mut forks = self.forks.iter_mut().filter(this).peekable();
        if forks.peek().is_some() {
            let value = value();
            forks.for_each(|fork| fork.taken |= fork.facts.chain_value == value);
        }
    }

    pub(super) fn check_forks(&mut self) {
        for fork in std::mem::take(&mut self.forks).into_iter().filter(|fork| !fork.taken) {
            let by = &fork.by;
            self.find(Class::Tampering, &fork.spot, Some(by.chain_id), Some(by.seq), fork.what);
        }
    }
}

/// A second history, sealed by its agent.
pub(super) struct Fork {
    spot: Spot,
    by: Header,
    facts: SealFacts,
    what: String,
    taken: bool,
}

/// The fields of an `Equivocation`.
pub(super) struct Equivocation<'a> {
    pub(super) agent: &'a str,
    pub(super) chain: ChainId,
    pub(super) seq: u64,
    pub(super) seal: &'a [u8],
    pub(super) detail: &'a str,
}
