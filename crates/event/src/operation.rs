//! One thing that a client asks of a target.

use std::sync::Arc;

use crate::{Action, Analysis, Effect, FileRequest, Relation};

/// One thing that a client asks: the unit of decision and of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Open a session.
    Login(Login),
    /// A statement, prepared or run.
    Statement(Statement),
    /// A fast-path function call (PostgreSQL manual, "Function Call").
    FunctionCall(FunctionCall),
    /// Cancel what another connection runs.
    Cancel(Cancel),
    /// A request on an SSH connection (RFC 4254).
    Ssh(SshRequest),
    /// A request on a file of an SSH server.
    File(FileRequest),
}

impl Operation {
    /// What it does, in the policy's words.
    pub fn effects(&self) -> Vec<Effect> {
        let one = |action| vec![Effect { action, relation: None, bounded: true }];
        match self {
            Self::Login(login) if login.replication => {
                [one(Action::Login), one(Action::Replicate)].concat()
            }
            Self::Login(_) => one(Action::Login),
            Self::Statement(statement) => statement.analysis.effects.clone(),
            Self::FunctionCall(_) => one(Action::Unknown),
            Self::Cancel(_) => one(Action::Cancel),
            Self::Ssh(request) => request.effects(),
            Self::File(request) => request.effects(),
        }
    }

    /// A short name for log lines and query output.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Login(_) => "login",
            Self::Statement(statement) => statement.via.name(),
            Self::FunctionCall(_) => "function_call",
            Self::Cancel(_) => "cancel",
            Self::Ssh(request) => request.kind.name(),
            Self::File(request) => request.kind.name(),
        }
    }
}

/// A request to open a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Database user that the client names.
    pub user: String,
    /// Database that it names, or the user's name when it names none.
    pub database: String,
    /// `application_name`, as the client says it.
    pub application: Option<String>,
    /// The other start-up parameters, in the client's order.
    pub options: Vec<(String, String)>,
    /// Whether it asks for a walsender (`replication` is set and not false).
    pub replication: bool,
    /// Whether the client's leg is under TLS.
    pub client_tls: bool,
}

/// How a statement came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// Simple query protocol (`Query`).
    Simple,
    /// `Parse`: prepared, not run.
    Parse,
    /// `Execute` of a portal, or of a prepared statement.
    Execute,
    /// More rows of a cursor that an `Execute` opened (MySQL's `COM_STMT_FETCH`).
    Fetch,
    /// A command of the protocol that is no SQL (MySQL's `COM_INIT_DB` and the like). The text is the
    /// command's name with its argument.
    Command,
}

impl Via {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simple => "query",
            Self::Parse => "parse",
            Self::Execute => "execute",
            Self::Fetch => "fetch",
            Self::Command => "command",
        }
    }
}

/// A statement with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// How it came.
    pub via: Via,
    /// Its text, or the text's beginning where [`Self::text_bytes`] is more.
    pub text: Arc<str>,
    /// Length of the whole text in bytes.
    pub text_bytes: u64,
    /// SHA-256 of the whole text, where the text was cut.
    pub text_sha256: Option<[u8; 32]>,
    /// Name of the prepared statement; empty for the unnamed one and for simple queries.
    pub prepared: String,
    /// Parameters of an `Execute`, in order.
    pub parameters: Vec<Parameter>,
    /// What it does.
    pub analysis: Arc<Analysis>,
}

/// One bound value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    /// SQL NULL.
    Null,
    /// In text format.
    Text(Vec<u8>),
    /// In binary format, with the type's OID where the client or server named it (0 otherwise).
    Binary {
        /// Type OID.
        type_oid: u32,
        /// The bytes as sent.
        value: Vec<u8>,
    },
    /// Longer than [`crate::limits::PARAMETER_BYTES_MAX`]: the beginning and the whole length.
    Cut {
        /// The first bytes.
        head: Vec<u8>,
        /// Whole length in bytes.
        bytes: u64,
    },
}

/// A call by function OID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionCall {
    /// `pg_proc.oid` of the function.
    pub oid: u32,
    /// Number of arguments.
    pub arguments: u16,
}

/// A cancel request. The key itself is a secret and never recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    /// Process id of the backend to be cancelled.
    pub backend_pid: u32,
}

/// What is asked of an SSH server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SshKind {
    /// Run a command (RFC 4254 section 6.5).
    Exec,
    /// Run the account's shell (section 6.5).
    Shell,
    /// Start a subsystem, such as `sftp` (section 6.5).
    Subsystem,
    /// Set a variable of the environment (section 6.4).
    Env,
    /// Reach another address through the server, or let it be reached (section 7).
    Forward,
    /// Lend the client's key agent to the server (`auth-agent-req@openssh.com`).
    AgentForward,
    /// Lend the client's display to the server (section 6.3).
    X11,
}

impl SshKind {
    /// The name in records and queries, which is the policy action's too.
    pub const fn name(self) -> &'static str {
        self.action().name()
    }

    /// The policy action that it asks.
    pub const fn action(self) -> Action {
        match self {
            Self::Exec => Action::Exec,
            Self::Shell => Action::Shell,
            Self::Subsystem => Action::Subsystem,
            Self::Env => Action::Env,
            Self::Forward => Action::Forward,
            Self::AgentForward => Action::AgentForward,
            Self::X11 => Action::X11,
        }
    }
}

/// One request on an SSH connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshRequest {
    /// What is asked.
    pub kind: SshKind,
    /// The channel, by the client's number; 0 for a request that concerns none.
    pub channel: u32,
    /// The command, the subsystem, the variable's name, or the address and port. A command that is no
    /// UTF-8 has its bad bytes replaced; [`Self::sha256`] is then that of the bytes.
    pub about: String,
    /// Length of the whole command in bytes, as it was sent.
    pub bytes: u64,
    /// SHA-256 of the command as it was sent, where `about` is not the same bytes.
    pub sha256: Option<[u8; 32]>,
    /// The terminal that was asked for before it, as `TERM columns x rows`; empty without one.
    pub terminal: String,
    /// The words of the command, the program first, where every common shell reads it as these; else empty.
    pub words: Vec<String>,
    /// The same in one spelling.
    pub command: Option<String>,
    /// Why it is not told, in words; empty where it is, or where there is no command.
    pub unclear: String,
    /// What the command carries, where its program is one that carries files.
    pub carries: Vec<Effect>,
}

impl SshRequest {
    /// What it does; the name without schema is what the policy can see as `context.about`.
    pub fn effects(&self) -> Vec<Effect> {
        let about = Relation { schema: None, name: self.about.clone() };
        let relation = (!self.about.is_empty()).then_some(about);
        // OpenSSH's server takes a zero byte at the end of a text, and leaves it out.
        let action = if self.about.contains('\0') { Action::Unknown } else { self.kind.action() };
        let own = Effect { action, relation, bounded: true };
        std::iter::once(own).chain(self.carries.iter().cloned()).collect()
    }
}
