//! A protected system, and how its owner wants it guarded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Name of a target in configuration, policies and records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetName(pub String);

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which machine reads the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// PostgreSQL v3.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// SSH (RFC 4251 to 4254).
    Ssh,
}

impl Protocol {
    /// The name in configuration and records (OpenTelemetry `db.system.name`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Mysql => "mysql",
            Self::Ssh => "ssh",
        }
    }
}

/// Whether decisions bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A denial refuses the operation.
    #[default]
    Enforce,
    /// A denial is recorded as *would be denied*, and the operation passes.
    Shadow,
}

/// What happens to a target's connections when the agent cannot guard them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are refused.
    #[default]
    Closed,
    /// They pass, for a bounded time, and each use is recorded.
    Open,
}

/// What must be true of a record before the operation's bytes leave (`docs/ARCHITECTURE.md`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written to the page cache; synced within 10 ms. Survives the agent's death.
    #[default]
    Process,
    /// Synced to the host's disk. Survives power loss.
    Host,
    /// Acknowledged by the collector after its own sync. Survives loss of the host.
    Collector,
}

impl Durability {
    /// The name in policies and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Host => "host",
            Self::Collector => "collector",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Process, Self::Host, Self::Collector].into_iter().find(|level| level.name() == name)
    }
}
