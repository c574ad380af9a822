//! What differs between targets, and every limit of the machine.

/// Whether the client's leg may use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// SSLRequest is answered with `S`, and the gate is the TLS server.
    #[default]
    Offer,
    /// SSLRequest is answered with `N`. The client's leg never leaves the host.
    Refuse,
}

/// Settings of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Whether the client's leg may use TLS.
    pub client_tls: ClientTls,
    /// Bounds of memory.
    pub limits: Limits,
}

/// Bounds of memory. Tests use smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest Query or Parse message that is read whole and analysed, in bytes. A longer one is
    /// asked as unknown with its head, and streamed if it is permitted.
    pub sql_message_bytes_max: usize,
    /// How much of a longer one is held while it is asked, in bytes.
    pub sql_head_bytes: usize,
    /// Longest Bind or FunctionCall that is held whole, in bytes. Of a longer one this much is
    /// held: the names and format codes must be in it.
    pub held_message_bytes_max: usize,
    /// Most replies that are waited for before the client is read on.
    pub replies_max: usize,
    /// Most memory for prepared statements, in bytes. One that does not fit is not remembered, and
    /// its executions are asked as unknown.
    pub statements_bytes_max: usize,
    /// The same for portals.
    pub portals_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sql_message_bytes_max: 8 * 1024 * 1024,
            sql_head_bytes: 64 * 1024,
            held_message_bytes_max: 256 * 1024,
            replies_max: 4096,
            statements_bytes_max: 32 * 1024 * 1024,
            portals_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Longest first packet (the server's own limit, `MAX_STARTUP_PACKET_LENGTH`).
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;
/// Longest message of the kinds that carry only names (`PQ_SMALL_MESSAGE_LIMIT`).
pub(crate) const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;
/// Longest message of any other kind (`PQ_LARGE_MESSAGE_LIMIT`).
pub(crate) const LARGE_MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;
/// Longest message of the authentication exchange (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub(crate) const AUTH_MESSAGE_BYTES_MAX: usize = 65_535;
/// Longest server message that is read whole before it passes, in bytes. Only an ErrorResponse
/// may be longer; its head is read then.
pub(crate) const SERVER_LOOK_BYTES_MAX: usize = 1024 * 1024;
/// Longest name of a user or database: the server cuts longer ones (`NAMEDATALEN - 1`), so that
/// the name decided on would not be the name used.
pub(crate) const DATABASE_NAME_BYTES_MAX: usize = 63;
/// Longest list of command tags in an outcome, in bytes.
pub(crate) const TAGS_BYTES_MAX: usize = 1024;
/// Most memory for cursors and statements that SQL names under an order, in bytes each. One that does
/// not fit is not remembered, and its rows are unresolved.
pub(crate) const TOLD_BYTES_MAX: usize = 256 * 1024;
/// Longest DataRow that is held whole to be masked, in bytes. Of a longer one this much is held.
pub(crate) const ROW_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a stopped result that are dropped before the server is asked to cancel it.
pub(crate) const CANCEL_AFTER_BYTES: u64 = 64 * 1024;
/// Longest NotificationResponse or NoticeResponse that is read whole, in bytes.
pub(crate) const NOTICE_BYTES_MAX: usize = 64 * 1024;
