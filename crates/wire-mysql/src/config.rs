//! What differs between targets, and every limit of the machine.

/// Whether the client's leg may use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// The greeting offers TLS, and the gate is the TLS server.
    #[default]
    Offer,
    /// The greeting does not offer it. The client's leg never leaves the host.
    Refuse,
}

/// Whether TLS is spoken to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerTls {
    /// It is not.
    #[default]
    Off,
    /// It is, and the driver verifies the server; one that does not offer it is not used.
    Require,
}

/// Settings of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// Whether the client's leg may use TLS.
    pub client_tls: ClientTls,
    /// Whether TLS is spoken to the server.
    pub server_tls: ServerTls,
    /// Bounds of memory.
    pub limits: Limits,
}

/// Bounds of memory. Tests use smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest COM_QUERY or COM_STMT_PREPARE that is read whole and analysed, in bytes; below 16 MiB - 1,
    /// where packets are split. A longer one is asked as unknown with its head, and streamed if it is
    /// permitted.
    pub sql_message_bytes_max: usize,
    /// How much of a longer one is held while it is asked, in bytes.
    pub sql_head_bytes: usize,
    /// How much of a COM_STMT_EXECUTE is held while it is asked, in bytes. Parameters behind that are
    /// not recorded.
    pub held_message_bytes_max: usize,
    /// Most memory for prepared statements, in bytes. One that does not fit is not remembered, and
    /// its executions are asked as unknown.
    pub statements_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sql_message_bytes_max: 8 * 1024 * 1024,
            sql_head_bytes: 64 * 1024,
            held_message_bytes_max: 256 * 1024,
            statements_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// Longest packet of the handshake and of the authentication exchange, in bytes.
pub(crate) const AUTH_PACKET_BYTES_MAX: usize = 64 * 1024;
/// Longest command that carries only names and numbers, in bytes.
pub(crate) const SMALL_COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Longest server packet that is read whole before it passes, in bytes: all but rows.
pub(crate) const SERVER_LOOK_BYTES_MAX: usize = 1024 * 1024;
/// Most columns of a result (4,096 in the manual, "Limits on Table Column Count"), with room.
pub(crate) const COLUMNS_MAX: u64 = 16_384;
/// Most bytes of a result's head that are held back until its columns have a plan.
pub(crate) const HEAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rewritten rows go to the client when there are so many bytes of them.
pub(crate) const ROWS_OUT_BYTES: usize = 64 * 1024;
/// Longest name of a user or database, in bytes (64 or 80 characters of at most 4 bytes).
pub(crate) const DATABASE_NAME_BYTES_MAX: usize = 320;
/// Most connection attributes that are recorded.
pub(crate) const ATTRIBUTES_MAX: usize = 64;
/// Longest list of results in an outcome, in bytes.
pub(crate) const TAGS_BYTES_MAX: usize = 1024;
/// Longest message of an ERR packet of ours, in bytes (`MYSQL_ERRMSG_SIZE` is 512).
pub(crate) const ERROR_MESSAGE_BYTES_MAX: usize = 500;
/// Longest part of a statement's parameter that came by COM_STMT_SEND_LONG_DATA that is kept, in bytes.
pub(crate) const LONG_DATA_HEAD_BYTES: usize = tidegate_event::limits::PARAMETER_BYTES_MAX;
