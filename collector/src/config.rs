//! `collector.toml`: unknown keys are refused, every default is a named constant.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::approvals::{Approver, check_roster};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_ledger::cosignature::WitnessKey;
use tidegate_ledger::policy::{self, Policy};

/// Port of the uplink where none is given.
pub const UPLINK_PORT: u16 = 7443;
/// Size of one segment of the log.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Records in one OTLP request.
pub const EXPORT_RECORDS_MAX: usize = 512;
/// How long one request, or one syslog connection, may take.
pub const EXPORT_TIMEOUT_SECONDS: u64 = 10;
/// Longest syslog message where nothing else is said: what RFC 5425 section 4.3.1 asks of every receiver.
pub const SYSLOG_BYTES_MAX: usize = 8192;
/// Shortest such limit: below it the texts of a message have no room.
pub const SYSLOG_BYTES_MIN: usize = 2048;

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the log is called and where it is.
    pub collector: Collector,
    /// Where agents connect.
    pub uplink: Uplink,
    /// How the log is kept.
    #[serde(default)]
    pub log: Log,
    /// The review pages; without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ui: Option<Ui>,
    /// Who is asked to sign each checkpoint too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<Witness>,
    /// Who may answer requests for approval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<Approver>,
    /// Receivers of the feed: OTLP or syslog.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<Export>,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub digest: [u8; 32],
}

/// `[collector]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collector {
    /// Origin line of the log's checkpoints: a URL without scheme, never to be used twice.
    pub origin: String,
    /// Where everything is; relative to the file's own directory.
    pub data_dir: PathBuf,
}

/// `[uplink]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Host name or address that agents are told to connect to; must be in the certificate.
    pub name: String,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Size of one segment.
    pub segment_bytes: u64,
    /// Write the entries as C2SP bundles too, below `tlog/`: doubles the log on the disk.
    pub entry_bundles: bool,
    /// How many witnesses must have signed; without it, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness_quorum: Option<usize>,
}

impl Default for Log {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, entry_bundles: false, witness_quorum: None }
    }
}

/// `[[witnesses]]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its name in our policy.
    pub name: String,
    /// Where it is asked: the submission prefix of C2SP tlog-witness.
    pub url: String,
    /// Its verifier key.
    pub vkey: String,
    /// CA of its certificate; without it, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Witness {
    /// The key, parsed.
    pub fn key(&self) -> anyhow::Result<WitnessKey> {
        self.vkey.parse().map_err(|error| anyhow::anyhow!("witness {:?}: {error}", self.name))
    }
}

/// `[ui]`
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ui {
    /// Address and port of the review pages.
    pub listen: SocketAddr,
    /// Whether they are served over TLS, with the uplink's certificate. Unset: everywhere but on
    /// loopback. `false` is for loopback only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
}

impl Ui {
    /// Whether TLS is spoken.
    pub fn over_tls(&self) -> bool {
        self.tls.unwrap_or(!self.listen.ip().is_loopback())
    }
}

/// How an export speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP with binary protobuf.
    Http,
    /// Syslog over TCP or TLS.
    Syslog,
}

/// What a syslog message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// An OCSF event in JSON.
    #[default]
    Ocsf,
    /// A line of the Common Event Format.
    Cef,
}

/// `[[export]]`
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Names its cursor and dead-letter file.
    pub name: String,
    /// `http://host:4317`, or with `https`; for HTTP, `/v1/logs` is added where there is no path. For syslog
    /// `tcp://host:514` or `tls://host:6514`.
    pub endpoint: String,
    /// Which protocol.
    pub protocol: ExportProtocol,
    /// For syslog: what a message holds.
    #[serde(default)]
    pub format: SyslogFormat,
    /// For syslog: longest message, in bytes.
    #[serde(default = "syslog_bytes_max")]
    pub message_bytes_max: usize,
    /// Sent with each request; may hold credentials, so never logged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// CA of the receiver; without it, those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Records in one request.
    #[serde(default = "export_records_max")]
    pub records_max: usize,
    /// How long one request may take.
    #[serde(default = "export_timeout_seconds")]
    pub timeout_seconds: u64,
}

impl Export {
    fn check(&self) -> anyhow::Result<()> {
        let syslog = self.protocol == ExportProtocol::Syslog;
        let schemes = if syslog { ["tcp://", "tls://"] } else { ["http://", "https://"] };
        anyhow::ensure!(
            schemes.iter().any(|scheme| self.endpoint.starts_with(scheme)),
            "export.endpoint = {:?}: must begin with {} or {}",
            self.endpoint,
            schemes[0],
            schemes[1]
        );
        anyhow::ensure!(
            !syslog || self.headers.is_empty(),
            "export.headers: syslog has none; remove them from export {:?}",
            self.name
        );
        anyhow::ensure!(
            self.message_bytes_max >= SYSLOG_BYTES_MIN,
            "export.message_bytes_max = {}: at least {SYSLOG_BYTES_MIN}",
            self.message_bytes_max
        );
        Ok(())
    }
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

fn export_records_max() -> usize {
    EXPORT_RECORDS_MAX
}

fn syslog_bytes_max() -> usize {
    SYSLOG_BYTES_MAX
}

fn export_timeout_seconds() -> u64 {
    EXPORT_TIMEOUT_SECONDS
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = crate::files::read(path)?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        config.digest = Sha256::digest(text.as_bytes()).into();
        let base = path.parent().unwrap_or(Path::new("."));
        // Collected anew, so that "." leaves no trace in messages.
        config.collector.data_dir = base.join(&config.collector.data_dir).components().collect();
        for export in &mut config.export {
            export.ca_file = export.ca_file.take().map(|file| base.join(file));
        }
        for witness in &mut config.witnesses {
            witness.ca_file = witness.ca_file.take().map(|file| base.join(file));
        }
        config.check().with_context(|| format!("in {}", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        check_origin(&self.collector.origin)?;
        check_roster(&self.approvers)?;
        if let Some(ui) = &self.ui {
            anyhow::ensure!(
                ui.over_tls() || ui.listen.ip().is_loopback(),
                "ui.tls = false with ui.listen = {}: without TLS the pages are for loopback only",
                ui.listen
            );
        }
        let mut names = std::collections::BTreeSet::new();
        for export in &self.export {
            anyhow::ensure!(
                is_plain_name(&export.name),
                "export.name = {:?}: use letters, digits, '.', '_' and '-'",
                export.name
            );
            anyhow::ensure!(names.insert(&export.name), "two exports are named {:?}", export.name);
            anyhow::ensure!(export.records_max > 0, "export.records_max must be at least 1");
            export.check()?;
        }
        for witness in &self.witnesses {
            let known = ["http://", "https://"].iter().any(|s| witness.url.starts_with(s));
            anyhow::ensure!(known, "witness.url = {:?}: http:// or https://", witness.url);
            anyhow::ensure!(is_plain_name(&witness.name), "witness.name = {:?}", witness.name);
            witness.key()?;
        }
        let quorum = self.quorum();
        anyhow::ensure!(
            quorum <= self.witnesses.len(),
            "log.witness_quorum = {quorum}, and there are {} witnesses",
            self.witnesses.len()
        );
        Ok(())
    }

    /// How many witnesses must have signed.
    pub fn quorum(&self) -> usize {
        self.log.witness_quorum.unwrap_or(self.witnesses.len())
    }

    /// Log and witnesses as a C2SP tlog-policy.
    pub fn policy(&self, log: VerifierKey) -> anyhow::Result<Policy> {
        let mut witnesses = Vec::new();
        for witness in &self.witnesses {
            let (name, key) = (witness.name.clone(), witness.key()?);
            witnesses.push(policy::Witness { name, key, url: Some(witness.url.clone()) });
        }
        let policy = Policy::of(log, witnesses, self.quorum());
        // Read again, so that what is published is one by the format's own rules.
        policy.to_string().parse().map_err(|error| anyhow::anyhow!("witnesses: {error}"))
    }

    /// Paths below the data directory.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.collector.data_dir)
    }
}

/// An origin is one line without spaces and without `+`, since it is a key's name in signed notes.
pub fn check_origin(origin: &str) -> anyhow::Result<()> {
    let fine = !origin.is_empty()
        && origin.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '+');
    anyhow::ensure!(fine, "origin {origin:?}: use one word like audit.example/2026, without '+'");
    Ok(())
}

/// Whether this can name an agent or an export: it becomes part of certificates and file names.
pub fn is_plain_name(name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 64;
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Where things are below the data directory.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The data directory itself.
    pub dir: PathBuf,
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        impl Paths { $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.dir.join($file) })* }
    };
}

paths! {
    /// CA certificate of the uplink.
    ca_certificate = "ca.crt";
    /// CA key.
    ca_key = "ca.key";
    /// The uplink's certificate.
    server_certificate = "server.crt";
    /// The uplink's key.
    server_key = "server.key";
    /// The log's signing key.
    log_key = "log.key";
    /// The log: segments, checkpoint, checkpoint history, public keys.
    log = "log";
    /// Public keys that `verify` needs.
    keys = "log/keys.json";
    /// Log key, witnesses and quorum, as C2SP tlog-policy.
    policy = "log/policy.txt";
    /// The log as C2SP tlog-tiles.
    tlog = "tlog";
    /// What others hold that this log must be able to keep: see `seen`.
    seen = "seen.jsonl";
    /// Signs the collector's own chain.
    audit_key = "audit.key";
    /// Agents, tokens, export cursors.
    state = "state.db";
    /// The index.
    index = "index.db";
    /// Held by the one process that may write.
    lock = "lock";
    /// Where the uplink really listens, while `serve` runs.
    uplink_address = "uplink.addr";
    /// Links and sessions of the review pages.
    ui = "ui.db";
    /// Where the review pages really listen, while `serve` runs.
    ui_address = "ui.addr";
    /// What receivers refused for good.
    dead_letters = "dead-letters";
}

impl Paths {
    /// Paths below `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }
}
