//! The host's own SSH certificate authority, and the key that answers clients.
//!
//! Promises: the CA's key never leaves `state_dir` and is readable by root only. The host key is made anew
//! at each start and never written.
//!
//! Limits: Ed25519 only. The certificate names no principal, which OpenSSH takes for every name: TCP
//! doesn't carry the name that was typed. It is good for [`CERTIFICATE_DAYS`] days from the start.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{Certificate, LineEnding};
use russh::server;

/// Name of the SSH CA's key below `state_dir`.
const CA_KEY_FILE: &str = "ssh-ca.key";

/// Name of its public half below `state_dir`, in the form of a `known_hosts` line.
pub const CA_FILE: &str = "ssh-ca.pub";

/// How long the host certificate is good for, in days.
const CERTIFICATE_DAYS: u64 = 3650;

/// Tolerance for a clock that was put back, in seconds.
const CLOCK_SECONDS: u64 = 3600;

/// Messages for one connection that may wait inside of it.
const EVENTS_MAX: usize = 1024;

/// Bytes that a side may send before it is told that more may come, for each channel.
pub const WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What can go wrong with the host's SSH keys.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key's file holds none.
    #[error(
        "{path} holds no SSH private key without a passphrase: {source}; move it away to get a new CA"
    )]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: russh::keys::ssh_key::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// A key or certificate could not be made.
    #[error("cannot make an SSH host certificate: {0}")]
    Issue(russh::keys::ssh_key::Error),
}

/// What answers SSH clients.
pub struct SshHost {
    config: Arc<server::Config>,
}

impl SshHost {
    /// Reads the CA below `state_dir` or makes it there, and issues a certificate for a fresh host key.
    pub fn open(state_dir: &Path, host: &str) -> Result<Self, HostError> {
        let ca = authority(state_dir)?;
        let key = fresh_key()?;
        let certificate = certify(&ca, &key, host).map_err(HostError::Issue)?;
        let config = server::Config {
            server_id: russh::SshId::Standard("SSH-2.0-Tidegate".into()),
            keys: vec![key],
            certificates: vec![certificate],
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            event_buffer_size: EVENTS_MAX,
            channel_buffer_size: EVENTS_MAX,
            window_size: WINDOW_BYTES,
            nodelay: true,
            ..server::Config::default()
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// How sessions are answered.
    pub fn config(&self) -> Arc<server::Config> {
        Arc::clone(&self.config)
    }
}

/// The line that makes every OpenSSH client of this host trust the gate, for the CA below `state_dir`.
pub fn trust_line(state_dir: &Path) -> Result<String, HostError> {
    let ca = authority(state_dir)?;
    let public = ca.public_key().to_openssh().map_err(HostError::Issue)?;
    Ok(format!("@cert-authority * {public}"))
}

fn authority(state_dir: &Path) -> Result<PrivateKey, HostError> {
    let path = state_dir.join(CA_KEY_FILE);
    let file = |source| HostError::File { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => PrivateKey::from_openssh(&text)
            .map_err(|source| HostError::Content { path: path.clone(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = fresh_key()?;
            key.set_comment("tidegate");
            let text = key.to_openssh(LineEnding::LF).map_err(HostError::Issue)?;
            let mut options = fs::OpenOptions::new();
            let mut out =
                options.write(true).create_new(true).mode(0o600).open(&path).map_err(file)?;
            out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(file)?;
            let public = key.public_key().to_openssh().map_err(HostError::Issue)?;
            fs::write(state_dir.join(CA_FILE), format!("{public}\n")).map_err(file)?;
            Ok(key)
        }
        Err(error) => Err(file(error)),
    }
}

fn fresh_key() -> Result<PrivateKey, HostError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(HostError::Random)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

fn certify(
    ca: &PrivateKey,
    key: &PrivateKey,
    host: &str,
) -> Result<Certificate, russh::keys::ssh_key::Error> {
    let now = SystemTime::now();
    let from = now - Duration::from_secs(CLOCK_SECONDS);
    let until = now + Duration::from_secs(CERTIFICATE_DAYS * 24 * 60 * 60);
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| russh::keys::ssh_key::Error::Crypto)?;
    let mut builder = Builder::new_with_validity_times(nonce, key.public_key(), from, until)?;
    builder.cert_type(CertType::Host)?.key_id(format!("tidegate gate of {host}"))?;
    builder.all_principals_valid()?;
    builder.sign(ca)
}
