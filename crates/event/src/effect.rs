//! What a statement does, in the words that policies use.

use serde::{Deserialize, Serialize};

use crate::Lineage;

/// One action of the policy language. The names are those of the Cedar schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Open a session as a database user.
    Login,
    /// Read rows of a relation.
    Select,
    /// Add rows.
    Insert,
    /// Change rows.
    Update,
    /// Remove rows.
    Delete,
    /// Empty a relation.
    Truncate,
    /// Read in bulk through `COPY .. TO`.
    CopyTo,
    /// Write in bulk through `COPY .. FROM`.
    CopyFrom,
    /// Run a program or touch a file on the server: `COPY .. PROGRAM`, `COPY .. '/file'`,
    /// large-object and file functions.
    ServerFile,
    /// Create, alter or drop an object.
    Ddl,
    /// Change who may do what: GRANT, REVOKE, roles, ownership, policies.
    Grant,
    /// Call a function or procedure, named by the relation field.
    Execute,
    /// Change a setting of the session: SET, RESET, DISCARD.
    Set,
    /// Become somebody else: SET ROLE, SET SESSION AUTHORIZATION.
    SetRole,
    /// Begin, commit, roll back, savepoints, two-phase commit.
    Transaction,
    /// Take an explicit lock.
    Lock,
    /// Maintain: VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT, REFRESH.
    Maintain,
    /// Show a setting or a plan without running it.
    Show,
    /// Prepare, deallocate, declare, fetch, close: session objects with no effect of their own.
    Session,
    /// LISTEN, NOTIFY, UNLISTEN.
    Notify,
    /// Replication commands and walsender sessions.
    Replicate,
    /// Cancel a running statement.
    Cancel,
    /// Run a command over SSH.
    Exec,
    /// Run an account's shell over SSH.
    Shell,
    /// Start a subsystem of an SSH server.
    Subsystem,
    /// Set a variable of the environment of what runs over SSH.
    Env,
    /// Forward a connection over SSH. Denied unless a policy permits this very action.
    Forward,
    /// Forward the key agent over SSH. Denied unless a policy permits this very action.
    AgentForward,
    /// Forward the display over SSH. Denied unless a policy permits this very action.
    X11,
    /// Read a file over SSH.
    FileRead,
    /// Write, make or change a file over SSH, or a directory.
    FileWrite,
    /// Remove a file or directory over SSH, or take its name from it.
    FileRemove,
    /// List a directory over SSH, or ask what a file is.
    FileList,
    /// What could not be understood. Denied unless a policy permits this very action.
    Unknown,
}

impl Action {
    /// Every action, in the order of the schema.
    pub const ALL: [Self; 34] = [
        Self::Login,
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::CopyTo,
        Self::CopyFrom,
        Self::ServerFile,
        Self::Ddl,
        Self::Grant,
        Self::Execute,
        Self::Set,
        Self::SetRole,
        Self::Transaction,
        Self::Lock,
        Self::Maintain,
        Self::Show,
        Self::Session,
        Self::Notify,
        Self::Replicate,
        Self::Cancel,
        Self::Exec,
        Self::Shell,
        Self::Subsystem,
        Self::Env,
        Self::Forward,
        Self::AgentForward,
        Self::X11,
        Self::FileRead,
        Self::FileWrite,
        Self::FileRemove,
        Self::FileList,
        Self::Unknown,
    ];

    /// The name in policies, records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::CopyTo => "copy_to",
            Self::CopyFrom => "copy_from",
            Self::ServerFile => "server_file",
            Self::Ddl => "ddl",
            Self::Grant => "grant",
            Self::Execute => "execute",
            Self::Set => "set",
            Self::SetRole => "set_role",
            Self::Transaction => "transaction",
            Self::Lock => "lock",
            Self::Maintain => "maintain",
            Self::Show => "show",
            Self::Session => "session",
            Self::Notify => "notify",
            Self::Replicate => "replicate",
            Self::Cancel => "cancel",
            Self::Exec => "exec",
            Self::Shell => "shell",
            Self::Subsystem => "subsystem",
            Self::Env => "env",
            Self::Forward => "forward",
            Self::AgentForward => "agent_forward",
            Self::X11 => "x11",
            Self::FileRead => "file_read",
            Self::FileWrite => "file_write",
            Self::FileRemove => "file_remove",
            Self::FileList => "file_list",
            Self::Unknown => "unknown",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether it changes something beyond the session, so that its record waits for the disk by
    /// default (`host` durability). What is not known may change anything.
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::Select
                | Self::CopyTo
                | Self::Set
                | Self::Transaction
                | Self::Lock
                | Self::Show
                | Self::Session
                | Self::Cancel
                | Self::Env
                | Self::FileRead
                | Self::FileList
        )
    }
}

/// A relation or function as the statement names it. Case is as PostgreSQL folded it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation {
    /// Schema, where the statement names one.
    pub schema: Option<String>,
    /// Name within the schema.
    pub name: String,
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One thing that a statement does to one relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Effect {
    /// What it does.
    pub action: Action,
    /// To what; `None` for actions on the session or server.
    pub relation: Option<Relation>,
    /// For `update` and `delete`: `false` when no WHERE limits the rows. `true` for the rest.
    pub bounded: bool,
}

/// Kind of one statement, as its first keyword tells a person.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StatementKind(pub String);

/// Why a statement could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// In words for the person who reads the refusal.
    pub reason: String,
}

/// What the analyser found in one query string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Analysis {
    /// Kinds of its statements, in order; empty for an empty query string.
    pub kinds: Vec<StatementKind>,
    /// Everything that they do, sorted, each once.
    pub effects: Vec<Effect>,
    /// Set when some part could not be understood; `effects` then holds [`Action::Unknown`] too.
    pub unknown: Option<Unknown>,
    /// Fingerprint of the text without its literals: equal for statements of one shape.
    pub fingerprint: Option<u64>,
    /// Where its results come from.
    pub lineage: Lineage,
}
