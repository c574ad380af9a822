//! What became of an operation.

use crate::Carried;

/// What became of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Rows returned or changed, as the server counts them in its command tags.
    pub rows: u64,
    /// Bytes of result data that went to the client.
    pub bytes_out: u64,
    /// Data that a COPY moved.
    pub copied: Option<Copied>,
    /// From the release of its bytes to its last answer, in nanoseconds.
    pub duration_ns: u64,
    /// Command tags, in order (`SELECT 1`, `INSERT 0 3`), joined by `; `.
    pub tags: String,
    /// What of the result was kept from the client; `None` where nothing was to be.
    pub masked: Option<Masked>,
    /// What its result was; `None` where it has none.
    pub result: Option<Box<Recorded>>,
    /// What was carried of the file that it opened; `None` for one that opened none.
    pub carried: Option<Box<Carried>>,
}

impl Outcome {
    /// That of an operation of which nothing is known but how it ended: no rows, no bytes, no time.
    pub const fn without_result(status: Status) -> Self {
        let tags = String::new();
        Self {
            status,
            rows: 0,
            bytes_out: 0,
            copied: None,
            duration_ns: 0,
            tags,
            masked: None,
            result: None,
            carried: None,
        }
    }
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// As the client was told it.
    pub name: String,
    /// OID of its type (PostgreSQL manual, `pg_type`).
    pub type_oid: u32,
    /// Whether its values are in binary format, not in text.
    pub binary: bool,
}

/// What a result was, as it went to the client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// BLAKE3 over it; `None` where it may show what is protected and nothing keys the digest.
    pub digest: Option<[u8; 32]>,
    /// The digest is keyed: the result may show what is protected.
    pub keyed: bool,
    /// Its length, in bytes, with the headers of its messages.
    pub bytes: u64,
    /// How many results the operation had whose columns were described beside their rows.
    pub results: u32,
    /// The columns of the first; empty where they were not described.
    pub columns: Vec<Column>,
    /// How many of its bytes are kept, from its beginning on.
    pub kept: u64,
    /// Why not all are, where a policy wants them kept.
    pub not_kept: Option<NotKept>,
}

/// Why rows that a policy wants kept are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotKept {
    /// They are more than may be kept.
    Limit,
    /// They may show what is protected.
    Protected,
    /// They could not be recorded.
    Unrecorded,
}

impl NotKept {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Protected => "protected",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// What kept bytes of a result are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Stream {
    /// Of a database's result.
    #[default]
    Rows,
    /// Standard output of what ran over SSH.
    Output,
    /// Its standard error.
    Errors,
    /// The terminal's size from there on, as `COLUMNSxROWS`.
    Size,
}

impl Stream {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "",
            Self::Output => "output",
            Self::Errors => "errors",
            Self::Size => "size",
        }
    }
}

/// What of a result was kept from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Masked {
    /// Columns of its results that were masked.
    pub columns: u32,
    /// Values that were masked, those that were NULL left out.
    pub values: u64,
    /// Values in which a detector found something.
    pub detected: u64,
    /// Whether it only would have been so: the protection is in shadow mode, and all passed.
    pub shadow: bool,
    /// Why the client got no whole result although the server did run the statement.
    pub stopped: Option<Stopped>,
}

/// Why a result did not reach the client whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stopped {
    /// It could not be masked.
    Withheld,
    /// It was more than the budget allows.
    Cut,
}

impl Stopped {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Withheld => "withheld",
            Self::Cut => "cut",
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The server said that it is done.
    Ok,
    /// The server said that it failed.
    Failed {
        /// SQLSTATE (PostgreSQL manual, appendix A).
        code: String,
        /// The server's message.
        message: String,
    },
    /// The portal still has rows; a later `Execute` goes on.
    Suspended,
    /// An earlier failure in the pipeline made the server skip it: it did not run.
    Skipped,
    /// The connection ended before the answer: whether it ran is not known.
    Lost,
}

impl Status {
    /// The name in records and queries.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed { .. } => "failed",
            Self::Suspended => "suspended",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
        }
    }
}

/// What a COPY moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Bytes from client to server.
    pub bytes_in: u64,
    /// Bytes from server to client.
    pub bytes_out: u64,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client closed it.
    Client,
    /// The server closed it.
    Server,
    /// The gate closed it, and why.
    Gate(String),
}
