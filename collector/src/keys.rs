//! The log's signing key, and the public keys that `verify` needs (`log/keys.json`).
//!
//! `keys.json` lies beside the log so that a copy of the directory can be verified; an auditor
//! gives `verify` a copy that was kept elsewhere.

use std::path::Path;

use anyhow::Context as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use serde::{Deserialize, Serialize};
use tidegate_ledger::SigningKey;
use tidegate_ledger::checkpoint::VerifierKey;

use crate::files;
use crate::state::State;

/// Version of `keys.json`.
pub const KEYS_VERSION: u32 = 1;

/// `keys.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Format version.
    pub v: u32,
    /// The log's verifier key, as C2SP signed-note has it.
    pub log_key: String,
    /// Every audit key that was ever enrolled.
    pub agents: Vec<AuditKey>,
}

/// One audit key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditKey {
    /// The agent.
    pub agent_id: String,
    /// Ed25519 public key in hexadecimal.
    #[serde(with = "hex_key")]
    pub audit_key: [u8; 32],
}

mod hex_key {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(key: &[u8; 32], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(key))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(input)?;
        let mut key = [0; 32];
        hex::decode_to_slice(&text, &mut key).map_err(D::Error::custom)?;
        Ok(key)
    }
}

impl Keys {
    /// Reads the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = files::read(path)?;
        let keys: Self =
            serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        anyhow::ensure!(
            keys.v == KEYS_VERSION,
            "{} has version {}; this program reads {KEYS_VERSION}",
            path.display(),
            keys.v
        );
        Ok(keys)
    }

    /// The log's key, parsed.
    pub fn verifier(&self) -> anyhow::Result<VerifierKey> {
        self.log_key.parse().map_err(|error| anyhow::anyhow!("log_key: {error}"))
    }
}

/// Writes `keys.json` from what is enrolled now.
pub fn publish(path: &Path, log_key: &VerifierKey, state: &State) -> anyhow::Result<()> {
    let agents = state.audit_keys()?;
    let agents = agents.into_iter().map(|(agent_id, audit_key)| AuditKey { agent_id, audit_key });
    let keys = Keys { v: KEYS_VERSION, log_key: log_key.to_string(), agents: agents.collect() };
    let mut text = serde_json::to_string_pretty(&keys)?;
    text.push('\n');
    files::replace(path, text.as_bytes(), files::PUBLIC)
}

/// A new signing key.
pub fn generate() -> anyhow::Result<SigningKey> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).context("no random numbers")?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Keeps a signing key as PKCS #8 PEM, for its owner only.
pub fn create(path: &Path, key: &SigningKey) -> anyhow::Result<()> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).context("cannot encode the log key")?;
    files::create(path, pem.as_bytes(), files::SECRET)
}

/// Reads the key of the collector's own chain, and makes it where there is none yet.
pub fn own(path: &Path) -> anyhow::Result<SigningKey> {
    if !path.exists() {
        create(path, &generate()?)?;
    }
    load(path)
}

/// Reads a signing key.
pub fn load(path: &Path) -> anyhow::Result<SigningKey> {
    let text = files::read(path)?;
    SigningKey::from_pkcs8_pem(&text)
        .map_err(|error| anyhow::anyhow!("{}: not an Ed25519 key: {error}", path.display()))
}

/// The public half with the log's origin as its name.
pub fn verifier(key: &SigningKey, origin: &str) -> anyhow::Result<VerifierKey> {
    VerifierKey::new(origin, key.verifying_key().to_bytes())
        .map_err(|error| anyhow::anyhow!("origin {origin:?}: {error}"))
}
