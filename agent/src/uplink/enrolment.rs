//! Enrolment: the agent's keys, the one-time token, and what the collector answers.
//!
//! Promises: keys never leave this host (the collector gets a certificate request and a proof);
//! the collector is trusted by the CA of `enrol.json` alone; files are there whole or not at all,
//! and keys are readable by their owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use serde::{Deserialize, Serialize};
use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_proto::uplink::v1::EnrolRequest;
use tidegate_proto::uplink::v1::enrolment_client::EnrolmentClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::Config;

/// Signs the seals of this agent's chains.
pub const AUDIT_KEY: &str = "audit.key";
/// Transport key.
pub const AGENT_KEY: &str = "agent.key";
/// Transport certificate.
pub const AGENT_CERTIFICATE: &str = "agent.crt";
/// The collector's CA.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// Where the collector is.
pub const ENROLMENT: &str = "enrolment.json";

/// A connection has this long to come up, TLS included.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

const ENROL_VERSION: u32 = 1;
/// Mode of a file that only its owner reads.
pub(crate) const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER_MAX: Duration = Duration::from_secs(20);

/// What `tidegate-collector enrol` wrote.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolFile {
    v: u32,
    agent: String,
    address: String,
    server_name: String,
    origin: String,
    ca_pem: String,
    token: String,
}

/// `enrolment.json`: where the collector is, and what its log signs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Format version.
    pub v: u32,
    /// The name under which the agent is enrolled.
    pub agent: String,
    /// `host:port` of the uplink.
    pub address: String,
    /// Name in the collector's certificate.
    pub server_name: String,
    /// Origin of its log.
    pub origin: String,
    /// Verifier key of its log, as C2SP signed-note has it.
    pub log_key: String,
}

impl Enrolment {
    /// Reads what an enrolment left.
    pub fn load(state_dir: &Path) -> anyhow::Result<Self> {
        let path = state_dir.join(ENROLMENT);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "the agent is not enrolled: cannot read {}; get enrol.json from \
                 `tidegate-collector enrol`, then run `tidegate-agent enrol`",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    /// The log's key, parsed.
    pub fn log_key(&self) -> anyhow::Result<VerifierKey> {
        self.log_key.parse().map_err(|error| anyhow::anyhow!("{ENROLMENT}: log_key: {error}"))
    }
}

/// The key that signs this agent's seals; made at the first call.
pub fn audit_key(state_dir: &Path) -> anyhow::Result<SigningKey> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .with_context(|| format!("cannot make {}", state_dir.display()))?;
    let path = state_dir.join(AUDIT_KEY);
    match std::fs::read_to_string(&path) {
        Ok(pem) => SigningKey::from_pkcs8_pem(&pem)
            .map_err(|error| anyhow::anyhow!("{}: not an Ed25519 key: {error}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut secret = [0_u8; 32];
            getrandom::fill(&mut secret).context("no random numbers")?;
            let key = SigningKey::from_bytes(&secret);
            let pem = key.to_pkcs8_pem(LineEnding::LF).context("cannot encode the audit key")?;
            replace(&path, pem.as_bytes(), SECRET)?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Enrols the agent with the file that the collector's operator gave.
pub fn enrol(config: &Config, file: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(enrol_at(&config.state_dir, &config.agent_id, file))
}

/// Enrols `agent_id` with the files of this state directory.
pub async fn enrol_at(state_dir: &Path, agent_id: &str, file: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let told: EnrolFile =
        serde_json::from_str(&text).with_context(|| format!("in {}", file.display()))?;
    anyhow::ensure!(
        told.v == ENROL_VERSION,
        "{} has version {}; this program reads {ENROL_VERSION}",
        file.display(),
        told.v
    );
    anyhow::ensure!(
        told.agent == agent_id,
        "{} is for agent {:?}, and this one is {agent_id:?} (agent.id)",
        file.display(),
        told.agent
    );
    let audit_key = audit_key(state_dir)?;
    let transport_key = rcgen::KeyPair::generate().context("cannot make the transport key")?;
    let request = rcgen::CertificateParams::default()
        .serialize_request(&transport_key)
        .and_then(|request| request.pem())
        .context("cannot make the certificate request")?;
    let proof = tidegate_ledger::enrol::prove(&audit_key, &told.token);
    let channel = connect(&told.address, &told.server_name, &told.ca_pem, None).await?;
    let response = EnrolmentClient::new(channel)
        .enrol(EnrolRequest {
            token: told.token,
            agent_id: agent_id.to_owned(),
            csr_pem: request,
            audit_key: Bytes::copy_from_slice(audit_key.verifying_key().as_bytes()),
            audit_key_proof: Bytes::copy_from_slice(&proof),
        })
        .await
        .map_err(|status| anyhow::anyhow!("the collector says: {}", status.message()))?
        .into_inner();
    anyhow::ensure!(
        response.origin == told.origin,
        "the collector's log is {:?}, but {} names {:?}",
        response.origin,
        file.display(),
        told.origin
    );
    let enrolment = Enrolment {
        v: ENROL_VERSION,
        agent: agent_id.to_owned(),
        address: told.address,
        server_name: told.server_name,
        origin: told.origin,
        log_key: response.log_key,
    };
    enrolment.log_key()?;
    let transport_key = transport_key.serialize_pem();
    replace(&state_dir.join(AGENT_KEY), transport_key.as_bytes(), SECRET)?;
    replace(&state_dir.join(AGENT_CERTIFICATE), response.certificate_pem.as_bytes(), PUBLIC)?;
    replace(&state_dir.join(CA_CERTIFICATE), told.ca_pem.as_bytes(), PUBLIC)?;
    let text = format!("{}\n", serde_json::to_string_pretty(&enrolment)?);
    // Last: with it the agent is enrolled.
    replace(&state_dir.join(ENROLMENT), text.as_bytes(), PUBLIC)
}

/// Connects as the enrolled agent.
pub async fn connect_enrolled(state_dir: &Path, enrolment: &Enrolment) -> anyhow::Result<Channel> {
    let read = |name: &str| {
        let path = state_dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let identity = Identity::from_pem(read(AGENT_CERTIFICATE)?, read(AGENT_KEY)?);
    let ca = read(CA_CERTIFICATE)?;
    connect(&enrolment.address, &enrolment.server_name, &ca, Some(identity)).await
}

async fn connect(
    address: &str,
    server_name: &str,
    ca_pem: &str,
    identity: Option<Identity>,
) -> anyhow::Result<Channel> {
    // A second call finds the provider there already, which is what is wanted.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut tls = ClientTlsConfig::new()
        .domain_name(server_name)
        .ca_certificate(Certificate::from_pem(ca_pem));
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .with_context(|| format!("address {address:?}"))?
        .tls_config(tls)
        .context("TLS for the collector")?
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER_MAX)
        .keep_alive_while_idle(true);
    let connected = tokio::time::timeout(CONNECT_MAX, endpoint.connect()).await;
    let connected = connected.with_context(|| format!("{address} does not answer"))?;
    connected.with_context(|| format!("cannot connect to the collector at {address}"))
}

/// A new file in the place of the old one, synced first.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
