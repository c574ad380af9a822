//! The agent's configuration: one TOML file, read once at start.
//!
//! Promises: a [`Config`] is valid as a whole. Unknown keys are refused, so that a misspelt key
//! never means its default; every default is a named constant here; every complaint bears file,
//! line and column and says what to do, and all complaints about a file's meaning come at once.
//!
//! Limits: named below. Host names in destinations are only checked for their form here; the agent
//! resolves them while it runs (`resolve`).
//!
//! Known gaps: complaints about a file's form (syntax, unknown keys, wrong types) stop at the first
//! one, as the TOML reader does. No reload: a change needs a restart of the agent.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tidegate_event::{Digest, Durability, Mode, OnFailure, Principal, Protocol, TargetName};

mod destination;
mod error;
pub mod masking;
mod raw;
mod reach;
mod size;
#[cfg(test)]
mod tests;
mod validate;

pub use destination::Destination;
pub use error::{ConfigError, ConfigErrors};
pub use masking::{CatalogueConfig, MaskingConfig, ProtectConfig};
pub use reach::{Earlier, Reach, StrictDefault};
pub use size::print as print_size;
pub use validate::{Accounts, SystemAccounts};

/// Where the agent keeps its keys, its enrolment and its spool.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/tidegate/agent";

/// Where the control socket lies.
pub const RUN_DIR_DEFAULT: &str = "/run/tidegate";

/// Name of the file below `state_dir` with the key behind hashes and tokens.
pub const MASK_KEY_FILE: &str = "mask.key";

/// Port of the gate on 127.0.0.1 and ::1.
pub const GATE_PORT_DEFAULT: u16 = 15432;

/// How long a stopping agent waits for open sessions.
pub const DRAIN_SECONDS_MAX_DEFAULT: u64 = 30;

/// The longest such wait that can be configured.
pub const DRAIN_SECONDS_LIMIT: u64 = 3600;

/// Where the kernel programs are pinned, so that they outlive the agent.
pub const PIN_DIR_DEFAULT: &str = "/sys/fs/bpf/tidegate";

/// What the spool may take of the disk.
pub const SPOOL_BYTES_MAX_DEFAULT: u64 = 4 << 30;

/// Size of one spool file.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Smallest spool file that can be configured; one record must fit many times over.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// Largest spool file that can be configured.
pub const SEGMENT_BYTES_LIMIT: u64 = 1 << 30;

/// The spool holds at least this many files: one being written, one being sent, the reserve.
pub const SPOOL_SEGMENTS_MIN: u64 = 4;

/// Longest time that a target may stay open after the agent's last sign of life.
pub const OPEN_SECONDS_LIMIT: u64 = 3600;

/// Shortest such time: the agent counts as dead only after 5 s without a sign of life.
pub const OPEN_SECONDS_MIN: u64 = 6;

/// Most targets.
pub const TARGETS_MAX: usize = 256;

/// Most destinations of one target.
pub const DESTINATIONS_MAX: usize = 256;

/// Most principals.
pub const PRINCIPALS_MAX: usize = 1024;

/// Longest name of an agent, a principal or a target, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Largest policy file, in bytes.
pub const POLICY_FILE_BYTES_MAX: u64 = 1 << 20;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// SHA-256 of that file.
    pub digest: Digest,
    /// Name of this agent in records and at the collector.
    pub agent_id: String,
    /// Keys, enrolment and spool.
    pub state_dir: PathBuf,
    /// The control socket's directory.
    pub run_dir: PathBuf,
    /// The listener.
    pub gate: GateConfig,
    /// The kernel programs.
    pub capture: CaptureConfig,
    /// The queue of records on disk.
    pub spool: SpoolConfig,
    /// Who may do what.
    pub policy: PolicyConfig,
    /// Whether records go to a collector; where it is stands in `state_dir/enrolment.json`.
    pub collector: bool,
    /// The protected service accounts.
    pub principals: Vec<Principal>,
    /// User ids of which every TCP connection is led to the gate.
    pub strict_uids: Vec<u32>,
    /// The protected systems; the place in this list is the id of the capture rule.
    pub targets: Vec<TargetConfig>,
}

/// The gate's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// Port on 127.0.0.1 and ::1.
    pub port: u16,
    /// How long a stopping agent waits for open sessions, in milliseconds.
    pub drain_ms_max: u64,
}

/// The kernel programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Processes below this cgroup are seen; `None` is the root of the cgroup2 mount.
    pub cgroup: Option<PathBuf>,
    /// Directory on a bpffs.
    pub pin_dir: PathBuf,
    /// What becomes of a strict account's connection to what is no target.
    pub strict_default: StrictDefault,
    /// What becomes of connections that were there before the hooks.
    pub earlier: Earlier,
}

/// The queue of records on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// What it may take of the disk, in bytes.
    pub bytes_max: u64,
    /// Size of one of its files, in bytes.
    pub segment_bytes: u64,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// The Cedar files, patterns resolved, in the order of their names.
    pub files: Vec<PathBuf>,
    /// No record of a statement is less durable than this.
    pub durability: Durability,
}

/// A protected system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetConfig {
    /// Its name in policies and records.
    pub name: TargetName,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub destinations: Vec<Destination>,
    /// Names of the principals whose connections are caught. Empty in the file means all; here
    /// they are always spelt out.
    pub principals: Vec<String>,
    /// Whom it is protected from beside them.
    pub reach: Reach,
    /// Whether decisions bind.
    pub mode: Mode,
    /// What happens when the agent cannot guard it.
    pub on_failure: OnFailure,
    /// With [`OnFailure::Open`]: for how long, in milliseconds; 0 with [`OnFailure::Closed`].
    pub open_ms_max: u64,
    /// TLS on both legs.
    pub tls: TargetTls,
    /// Its protected columns.
    pub protect: Vec<ProtectConfig>,
    /// How its results are masked.
    pub masking: MaskingConfig,
    /// How the agent learns what its databases hold; `None` where it does not.
    pub catalogue: Option<CatalogueConfig>,
    /// How its servers are verified and logged in to; set for [`Protocol::Ssh`] and for no other.
    pub ssh: Option<TargetSsh>,
}

/// The leg to a target's SSH servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSsh {
    /// How the gate logs in.
    pub login: SshLogin,
    /// The servers' host keys, in the form of `known_hosts`.
    pub known_hosts_file: PathBuf,
    /// The servers' own host key, for clients that take no certificate; `None` where these are refused.
    pub host_key_file: Option<PathBuf>,
}

/// How the gate logs in to an SSH server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshLogin {
    /// With this private key, in OpenSSH's form, without a passphrase.
    Key(PathBuf),
    /// With a key of the agent that listens at this socket (draft-ietf-sshm-ssh-agent).
    Agent(PathBuf),
    /// With a fresh key and a certificate of the host's own CA for users.
    Certificate,
    /// With the password, or the answers, that the client says.
    Client,
}

/// TLS on both legs of a target's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTls {
    /// Towards the client.
    pub client: ClientTls,
    /// Towards the server.
    pub server: ServerTls,
    /// Roots that sign the server's certificate; `None` means the system's.
    pub ca_file: Option<PathBuf>,
    /// Name that the server's certificate must bear; `None` means the destination's own name.
    pub server_name: Option<String>,
}

/// TLS between client and agent, on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientTls {
    /// A client that asks for TLS gets it, with a certificate of the host's own CA.
    Offer,
    /// A client that asks for TLS is told that there is none. The default, since this leg never leaves
    /// the host, and since a libpq client under TLS declares that it could bind its SCRAM login to the
    /// channel (RFC 5802, section 6, flag `y`), which a server that is under TLS too takes for an attack.
    #[default]
    Refuse,
}

/// TLS between agent and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerTls {
    /// Always, with chain and name verified.
    #[default]
    VerifyFull,
    /// Never.
    Off,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = read_capped(path, FILE_BYTES_MAX).map_err(|reason| {
            ConfigErrors::whole_file(path, reason, "give the path of a readable agent.toml")
        })?;
        Self::parse(path, &text, &SystemAccounts)
    }

    /// Checks `text`, which came from `path`; `accounts` says which user has which uid.
    pub fn parse(path: &Path, text: &str, accounts: &dyn Accounts) -> Result<Self, ConfigErrors> {
        let raw = raw::parse(path, text)?;
        let digest = Digest(Sha256::digest(text.as_bytes()).into());
        validate::validate(&raw, &validate::Context { path, text, digest, accounts })
    }

    /// The principal with this uid.
    pub fn principal(&self, uid: u32) -> Option<&Principal> {
        self.principals.iter().find(|principal| principal.uid == uid)
    }

    /// The uids whose connections to `target` are caught.
    pub fn uids_of(&self, target: &TargetConfig) -> Vec<u32> {
        let wanted = |principal: &&Principal| target.principals.contains(&principal.name);
        self.principals.iter().filter(wanted).map(|principal| principal.uid).collect()
    }

    /// Where the spool lies.
    pub fn spool_dir(&self) -> PathBuf {
        self.state_dir.join("spool")
    }

    /// Where enrolment puts the collector's address.
    pub fn enrolment_file(&self) -> PathBuf {
        self.state_dir.join("enrolment.json")
    }

    /// Where the key behind hashes and tokens lies.
    pub fn mask_key_file(&self) -> PathBuf {
        self.state_dir.join(MASK_KEY_FILE)
    }

    /// Where the control socket lies.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join(crate::control::SOCKET_NAME)
    }
}

/// Reads a text file of at most `bytes_max` bytes; the error is a reason in words.
pub(crate) fn read_capped(path: &Path, bytes_max: u64) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(format!("is longer than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}"))
}

/// The loopback addresses that the gate listens on.
pub const GATE_ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
