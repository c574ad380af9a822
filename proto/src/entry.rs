//! The collector's leaves: an agent's exact bytes in an envelope.

use tidegate_event::ChainId;

use crate::audit::v1::collector_entry::Kind;
use crate::wire::{bytes, fixed64, uint};

/// Bytes of a `CollectorEntry`, made without copying the record twice.
pub fn encode(kind: Kind, chain_id: &ChainId, received_ns: u64, record: &[u8]) -> Vec<u8> {
    let mut buf = Vec::with_capacity(record.len() + 64);
    uint(
        &mut buf,
        1,
        match kind {
            Kind::Unspecified => 0,
            Kind::Record => 1,
            Kind::Seal => 2,
        },
    );
    bytes(&mut buf, 2, chain_id.as_bytes());
    fixed64(&mut buf, 3, received_ns);
    bytes(&mut buf, 4, record);
    buf
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::audit::v1::CollectorEntry;

    #[test]
    fn an_entry_has_the_bytes_that_prost_writes() {
        for (kind, received_ns, record) in
            [(Kind::Record, 7, b"record".as_slice()), (Kind::Seal, 0, b"")]
        {
            let message = CollectorEntry {
                kind: kind.into(),
                chain_id: vec![3; 32].into(),
                received_ns,
                bytes: record.to_vec().into(),
            };
            let ours = encode(kind, &ChainId([3; 32]), received_ns, record);
            assert_eq!(ours, message.encode_to_vec());
        }
    }
}
