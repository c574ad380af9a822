//! Where batches come from: the journal, or a test.

use std::future::Future;

use bytes::Bytes;
use tidegate_event::{ChainId, Seq};
use tidegate_journal::UplinkSource;

/// Records of one chain under one seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The chain.
    pub chain_id: ChainId,
    /// First record.
    pub first: Seq,
    /// Last record.
    pub last: Seq,
    /// Exact bytes of each.
    pub records: Vec<Bytes>,
    /// Exact bytes of the seal.
    pub seal: Bytes,
    /// Chain value of the last record.
    pub chain_value: [u8; 32],
}

/// A queue that keeps everything until it is acknowledged.
pub trait Source: Send + 'static {
    /// The oldest record that is still kept.
    fn oldest(&mut self) -> impl Future<Output = anyhow::Result<Option<(ChainId, Seq)>>> + Send;

    /// Goes to the batch that holds this record, or to the first one behind it.
    fn seek(
        &mut self,
        chain: ChainId,
        next: Seq,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// The next batch; waits for one. May be dropped while it waits: nothing is skipped then.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Batch>> + Send;

    /// Everything up to this record may go.
    fn acknowledge(&mut self, chain: ChainId, durable: Seq) -> anyhow::Result<()>;

    /// The collector showed this checkpoint: it goes into the next heartbeat.
    fn saw_checkpoint(&mut self, _note: &str) {}
}

impl Source for UplinkSource {
    async fn oldest(&mut self) -> anyhow::Result<Option<(ChainId, Seq)>> {
        Ok(UplinkSource::oldest(self).await?)
    }

    async fn seek(&mut self, chain: ChainId, next: Seq) -> anyhow::Result<()> {
        Ok(UplinkSource::seek(self, chain, next).await?)
    }

    async fn next(&mut self) -> anyhow::Result<Batch> {
        let batch = UplinkSource::next(self).await?;
        Ok(Batch {
            chain_id: batch.chain_id,
            first: batch.first,
            last: batch.last,
            records: batch.records,
            seal: batch.seal,
            chain_value: batch.chain_value,
        })
    }

    fn acknowledge(&mut self, chain: ChainId, durable: Seq) -> anyhow::Result<()> {
        Ok(UplinkSource::acknowledge(self, chain, durable)?)
    }

    fn saw_checkpoint(&mut self, note: &str) {
        UplinkSource::saw_checkpoint(self, note);
    }
}
