//! How far an answer is proven: received, sealed by its agent, under a signed checkpoint, witnessed.
//!
//! Promise: a word is said only where the signature behind it was checked just now.
//! Cannot do: replace `verify`, which walks the log; this says which checkpoint will prove it.

use std::path::Path;

use serde::Serialize;
use tidegate_ledger::checkpoint::{self, VerifierKey};
use tidegate_ledger::cosignature::cosignatures;
use tidegate_ledger::policy::Policy;

use super::Answer;
use crate::files;
use crate::log::notes::{self, NEWEST};

/// The state of one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// `received`, `sealed`, `signed` or `witnessed`.
    pub state: &'static str,
    /// Size of the signed checkpoint over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_size: Option<u64>,
    /// Size of the checkpoint over it that the quorum of witnesses signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnessed_size: Option<u64>,
}

/// The newest checkpoints.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proofs {
    signed: u64,
    witnessed: u64,
}

impl Proofs {
    /// Reads the newest checkpoints of a log.
    pub fn of(log: &Path, key: &VerifierKey, policy: &Policy) -> Self {
        let note = files::read(&log.join(NEWEST)).unwrap_or_default();
        let signed = checkpoint::open(&note, key).map_or(0, |head| head.size);
        let keys = policy.keys();
        let witnessed = notes::newest_cosigned(log).into_iter().rev().find_map(|note| {
            let head = checkpoint::open(&note, key).ok()?;
            let found = cosignatures(&note, &keys).ok()?;
            let by: Vec<usize> = found.iter().map(|found| found.witness).collect();
            (policy.quorum.is_some() && policy.is_met(&by)).then_some(head.size)
        });
        Self { signed, witnessed: witnessed.unwrap_or(0) }
    }

    /// Size of the newest checkpoint that the quorum of witnesses signed; 0 where there is none.
    pub const fn witnessed(&self) -> u64 {
        self.witnessed
    }

    /// Says of each answer how far it is proven.
    pub fn mark(&self, answers: &mut [Answer]) {
        for answer in answers {
            let over = |size: u64| Some(size).filter(|size| answer.index < *size);
            let (checkpoint_size, witnessed_size) = (over(self.signed), over(self.witnessed));
            let state = match (witnessed_size, checkpoint_size, answer.seal_index) {
                (Some(_), ..) => "witnessed",
                (None, Some(_), _) => "signed",
                (None, None, Some(_)) => "sealed",
                (None, None, None) => "received",
            };
            answer.proof = Some(Proof { state, checkpoint_size, witnessed_size });
        }
    }
}
