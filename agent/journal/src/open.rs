//! The start of a run: what the last one left, and the new chain's first records.
//!
//! Order: open the spool (it cuts a torn tail), find the old chain's end, seal its unsealed tail,
//! write the new Genesis with the old end in it, write Recovered after an unclean end, sync, start
//! the thread. A crash in between is found by the next start like any other.

use std::path::Path;
use std::sync::Arc;

use tidegate_event::ChainId;
use tidegate_ledger::{Previous, chain_id};
use tidegate_proto::audit::v1::{self, audit_record::Body};
use tidegate_spool::{Files, Kind, OsFiles, Spool};

use crate::commit::SyncThread;
use crate::recovery::Tail;
use crate::writer::{About, Shared};
use crate::{Clock, Journal, JournalError, Options};

/// What the last run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The new chain.
    pub chain_id: ChainId,
    /// The chain before, if there was one.
    pub previous: Option<PreviousChain>,
    /// Whether the last run ended in order (or there was none).
    pub clean: bool,
    /// Bytes cut from the spool's tail.
    pub torn_bytes: u64,
    /// Records that were whole but under no seal.
    pub unsealed_records: u64,
}

/// The chain of the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousChain {
    /// Its id.
    pub chain_id: ChainId,
    /// How many records it has.
    pub records: u64,
}

impl Journal<OsFiles> {
    /// Opens the journal over the spool in `dir`, and begins a chain.
    pub fn open(
        dir: &Path,
        mut spool_options: tidegate_spool::Options,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovered), JournalError> {
        if spool_options.owner == [0; 32] {
            fill_random(&mut spool_options.owner)?;
        }
        let (spool, found) = Spool::open(dir, spool_options)?;
        Self::begin(spool, &found, options, clock)
    }
}

impl<F: Files> Journal<F> {
    /// Opens the journal over files of the caller's, such as a simulated disk.
    pub fn with_files(
        files: F,
        spool_options: tidegate_spool::Options,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovered), JournalError> {
        let (spool, found) = Spool::with_files(files, spool_options)?;
        Self::begin(spool, &found, options, clock)
    }

    fn begin(
        spool: Spool<F>,
        found: &tidegate_spool::Recovery,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovered), JournalError> {
        let tail = Tail::read(&spool, found.acknowledged, &options.audit_key)?;
        if let Some(tail) = &tail {
            for seal in tail.seals(&options.audit_key)? {
                spool.append_reserved(Kind::Seal, &seal)?;
            }
        }
        let previous = tail.as_ref().map(Tail::end);
        let mut nonce = [0; 16];
        fill_random(&mut nonce)?;
        let public = options.audit_key.verifying_key().to_bytes();
        let id = chain_id(&options.agent_id, &options.boot_id, &public, &nonce);
        let recovered = Recovered {
            chain_id: id,
            previous: previous
                .map(|end| PreviousChain { chain_id: end.chain_id, records: end.records }),
            clean: found.created || (found.clean && found.torn.is_none()),
            torn_bytes: found.lost_bytes,
            unsealed_records: tail.as_ref().map_or(0, Tail::unsealed_records),
        };
        let body = genesis(&options, &public, &nonce, previous.as_ref());
        let shared = Arc::new(Shared::new(spool, id, options.audit_key, clock));
        shared.append_message(About::AGENT, &body, false)?;
        if let (Some(before), false) = (&recovered.previous, recovered.clean) {
            let body = Body::Recovered(v1::Recovered {
                chain_id: before.chain_id.0.to_vec().into(),
                records: before.records,
                torn_bytes: recovered.torn_bytes,
                unsealed_records: recovered.unsealed_records,
            });
            shared.append_message(About::AGENT, &body, false)?;
        }
        shared.commit()?;
        let thread = Arc::new(SyncThread::start(&shared)?);
        Ok((Self { shared, thread }, recovered))
    }
}

fn genesis(
    options: &Options,
    public: &[u8; 32],
    nonce: &[u8; 16],
    previous: Option<&Previous>,
) -> Body {
    Body::Genesis(v1::Genesis {
        agent_id: options.agent_id.clone(),
        boot_id: options.boot_id.to_vec().into(),
        nonce: nonce.to_vec().into(),
        audit_key: public.to_vec().into(),
        agent_version: options.agent_version.clone(),
        agent_digest: options.agent_digest.0.to_vec().into(),
        policy_digest: options.policy_digest.0.to_vec().into(),
        ebpf_digest: options.ebpf_digest.0.to_vec().into(),
        prev_chain_id: previous.map(|end| end.chain_id.0.to_vec().into()).unwrap_or_default(),
        prev_chain_head: previous.map(|end| end.head.to_vec().into()).unwrap_or_default(),
        prev_chain_records: previous.map_or(0, |end| end.records),
        host: options.host.clone(),
    })
}

fn fill_random(bytes: &mut [u8]) -> Result<(), JournalError> {
    getrandom::fill(bytes)
        .map_err(|error| JournalError::System(format!("no random bytes: {error}")))
}
