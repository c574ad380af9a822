//! Reads the spool at the start: where the chain before ended, and what of it has no seal yet.
//!
//! Promise: the records in the spool are taken only as one chain each; anything else is an error
//! that names the record, since the spool's own checksums did not catch it.
//!
//! Cannot do: see records that were acknowledged and let go. The spool keeps the newest
//! acknowledged batch, so that the chain's last record is always there.

use tidegate_event::{ChainId, Seq};
use tidegate_ledger::seal::{self, SealFacts};
use tidegate_ledger::{Chain, Genesis, Hash, Header, Previous, SigningKey, ZERO};
use tidegate_spool::{Files, Kind, Spool, SpoolError};

use crate::{JournalError, SEAL_RECORDS_MAX};

/// The chain that the spool ends with.
pub(crate) struct Tail {
    chain: Chain,
    /// The first record under no seal.
    sealed_next: u64,
    /// Chain values from there on, with the records' times.
    unsealed: Vec<(Hash, u64, u64)>,
    /// Whether something in the spool shows that our key seals this chain.
    key_shown: Option<bool>,
}

impl Tail {
    /// Reads what the spool holds; `None` when it holds no record.
    pub(crate) fn read<F: Files>(
        spool: &Spool<F>,
        from: u64,
        key: &SigningKey,
    ) -> Result<Option<Self>, JournalError> {
        let public = key.verifying_key().to_bytes();
        let mut reader = spool.reader_written_from(from);
        let mut tail: Option<Self> = None;
        while let Some(frame) =
            reader.next().map_err(|error| SpoolError::of_log(spool.dir(), error))?
        {
            match Kind::of(frame.kind) {
                Some(Kind::Record) => {
                    let header = Header::read(&frame.payload).map_err(|error| {
                        let chain = tail.as_ref().map(|tail| tail.chain.id());
                        broken(chain, Seq(0), &error.to_string())
                    })?;
                    if tail.as_ref().is_none_or(|tail| tail.chain.id() != header.chain_id) {
                        tail = Some(Self::begin(&header));
                    }
                    if let Some(tail) = &mut tail {
                        tail.record(&header, &frame.payload, &public)?;
                    }
                }
                Some(Kind::Seal) => {
                    if let Some(tail) = &mut tail {
                        tail.seal(&frame.payload, &public);
                    }
                }
                None => {}
            }
        }
        Ok(tail)
    }

    /// A chain whose records before this one are gone, acknowledged.
    const fn begin(first: &Header) -> Self {
        let prev = if first.seq.0 == 0 { ZERO } else { first.prev };
        Self {
            chain: Chain::resume(first.chain_id, first.seq, prev),
            sealed_next: first.seq.0,
            unsealed: Vec::new(),
            key_shown: None,
        }
    }

    fn record(
        &mut self,
        header: &Header,
        record: &[u8],
        public: &[u8; 32],
    ) -> Result<(), JournalError> {
        self.chain
            .link(record)
            .map_err(|error| broken(Some(header.chain_id), header.seq, &error.to_string()))?;
        if header.seq == Seq(0)
            && let Ok(Some(genesis)) = Genesis::read(record)
        {
            self.key_shown = Some(genesis.audit_key == *public);
        }
        self.unsealed.push((self.chain.head(), header.wall_ns, header.boot_ns));
        Ok(())
    }

    /// A seal of records that are gone says nothing; the others move the mark.
    fn seal(&mut self, bytes: &[u8], public: &[u8; 32]) {
        let Ok(facts) = seal::read(bytes) else { return };
        if facts.chain_id != self.chain.id() {
            return;
        }
        self.key_shown = Some(seal::verify(bytes, public).is_ok());
        if facts.last.0 >= self.sealed_next && facts.last.0 < self.chain.records() {
            let count = usize::try_from(facts.last.0 + 1 - self.sealed_next).unwrap_or(usize::MAX);
            self.unsealed.drain(..count.min(self.unsealed.len()));
            self.sealed_next = facts.last.0 + 1;
        }
    }

    /// The end of this chain, for the next one's Genesis.
    pub(crate) const fn end(&self) -> Previous {
        Previous {
            chain_id: self.chain.id(),
            head: self.chain.head(),
            records: self.chain.records(),
        }
    }

    pub(crate) fn unsealed_records(&self) -> u64 {
        self.chain.records() - self.sealed_next
    }

    /// Seals for what has none.
    pub(crate) fn seals(&self, key: &SigningKey) -> Result<Vec<Vec<u8>>, JournalError> {
        if self.key_shown == Some(false) {
            return Err(JournalError::OtherKey { chain_id: self.chain.id() });
        }
        let run = usize::try_from(SEAL_RECORDS_MAX).unwrap_or(usize::MAX);
        let mut first = self.sealed_next;
        let seals = self.unsealed.chunks(run).filter_map(|records| {
            let (chain_value, wall_ns, boot_ns) = *records.last()?;
            let last = first + u64::try_from(records.len()).ok()? - 1;
            let facts = SealFacts {
                chain_id: self.chain.id(),
                first: Seq(first),
                last: Seq(last),
                chain_value,
                wall_ns,
                boot_ns,
            };
            first = last + 1;
            Some(seal::sign(key, &facts))
        });
        Ok(seals.collect())
    }
}

fn broken(chain: Option<ChainId>, seq: Seq, what: &str) -> JournalError {
    let chain_id = chain.unwrap_or(ChainId([0; 32]));
    JournalError::Broken { chain_id, seq, what: what.to_owned() }
}
