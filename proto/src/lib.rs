//! gRPC contracts, and the only conversions between domain types and messages.
//!
//! Promise: numbers in `audit/v1` and `uplink/v1` are append-only. The generated code keeps no
//! unknown fields, so nobody may decode a record and encode it again: the exact bytes travel.
//!
//! [`record`] makes messages, [`mod@write`] writes the bytes of a record straight from borrowed domain
//! types (a test holds the two equal), [`read`] helps those who show records to people, [`entry`]
//! makes the collector's leaves. [`limits`] says what is cut.

/// Messages of `audit/v1/audit.proto`.
pub mod audit {
    #[expect(missing_docs, clippy::pedantic, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("tidegate.audit.v1");
    }
}

/// Messages and services of `uplink/v1/uplink.proto`.
pub mod uplink {
    #[expect(
        missing_docs,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    pub mod v1 {
        tonic::include_proto!("tidegate.uplink.v1");
    }
}

pub mod entry;
mod file;
pub mod limits;
pub mod read;
pub mod record;
mod wire;
pub mod write;
