//! The host's own SSH certificate authority, and the key that answers clients.
//!
//! Promises: the CAs' keys never leave `state_dir` and are readable by root only. The host key is made anew
//! at each start and never written; where a target names its servers' own key, that one answers its clients, and is certified too. A user's
//! certificate is for one key that is made for one login, names one account, and is good for [`LOGIN_SECONDS`].
//!
//! Limits: CAs are Ed25519. The host's certificate names no principal, which OpenSSH takes for every name: TCP
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
use russh::{kex, mac, server};

/// Name of the SSH CA's key below `state_dir`.
const CA_KEY_FILE: &str = "ssh-ca.key";

/// Name of its public half below `state_dir`, in the form of a `known_hosts` line.
pub const CA_FILE: &str = "ssh-ca.pub";

/// Name of the key of the CA for users below `state_dir`.
const USER_CA_KEY_FILE: &str = "ssh-user-ca.key";

/// Name of its public half below `state_dir`, a line for the servers' `TrustedUserCAKeys`.
pub const USER_CA_FILE: &str = "ssh-user-ca.pub";

/// How long a user's certificate is good for, in seconds: long enough for one login.
const LOGIN_SECONDS: u64 = 300;

/// How long the host certificate is good for, in days.
const CERTIFICATE_DAYS: u64 = 3650;

/// Tolerance for a clock that was put back, in seconds.
const CLOCK_SECONDS: u64 = 3600;

/// Key exchanges of the library's choice that go before the NIST curves: the hybrid one and Curve25519 by both names.
const KEX_FIRST: usize = 3;

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
    /// The servers' own host key is of no use.
    #[error("host_key_file {path}: {source}")]
    HostKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: russh::keys::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// A key or certificate could not be made.
    #[error("cannot make an SSH host certificate: {0}")]
    Issue(russh::keys::ssh_key::Error),
}

/// What answers SSH clients, and certifies logins.
pub struct SshHost {
    ca: PrivateKey,
    host: String,
    state_dir: PathBuf,
    config: Arc<server::Config>,
}

impl SshHost {
    /// Reads the CA below `state_dir` or makes it there, and issues a certificate for a fresh host key.
    pub fn open(state_dir: &Path, host: &str) -> Result<Self, HostError> {
        let ca = authority(state_dir, CA_KEY_FILE, CA_FILE)?;
        let config = Arc::new(answering(&ca, fresh_key()?, host)?);
        Ok(Self { ca, host: host.to_owned(), state_dir: state_dir.to_owned(), config })
    }

    /// How sessions are answered; with the servers' own key where there is one.
    pub fn config(&self, host_key: Option<&Path>) -> Result<Arc<server::Config>, HostError> {
        let Some(path) = host_key else { return Ok(Arc::clone(&self.config)) };
        let key = russh::keys::load_secret_key(path, None)
            .map_err(|source| HostError::HostKey { path: path.to_owned(), source })?;
        Ok(Arc::new(answering(&self.ca, key, &self.host)?))
    }

    /// A fresh key, and a certificate for it by which servers that trust the CA for users let in `user`; `id`
    /// is what stands in their logs.
    pub fn user(&self, user: &str, id: &str) -> Result<(PrivateKey, Certificate), HostError> {
        let ca = authority(&self.state_dir, USER_CA_KEY_FILE, USER_CA_FILE)?;
        let key = fresh_key()?;
        let certificate = certify_user(&ca, &key, user, id).map_err(HostError::Issue)?;
        Ok((key, certificate))
    }
}

/// How a key with a certificate of `ca` answers.
fn answering(ca: &PrivateKey, key: PrivateKey, host: &str) -> Result<server::Config, HostError> {
    let certificate = certify(ca, &key, host).map_err(HostError::Issue)?;
    Ok(server::Config {
        server_id: russh::SshId::Standard("SSH-2.0-Tidegate".into()),
        keys: vec![key],
        certificates: vec![certificate],
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        event_buffer_size: EVENTS_MAX,
        channel_buffer_size: EVENTS_MAX,
        window_size: WINDOW_BYTES,
        nodelay: true,
        preferred: preferred(),
        ..server::Config::default()
    })
}

/// What is spoken on both legs: the SSH library's own choice, and behind it what OpenSSH's server takes by default and that
/// lacks (the NIST curves, HMAC with SHA-1), so that nothing fails only since the gate is there. No CBC, and no UMAC,
/// which the library has not.
pub fn preferred() -> russh::Preferred {
    let base = russh::Preferred::default();
    let curves = [kex::ECDH_SHA2_NISTP256, kex::ECDH_SHA2_NISTP384, kex::ECDH_SHA2_NISTP521];
    let (first, rest) = base.kex.split_at(base.kex.len().min(KEX_FIRST));
    russh::Preferred {
        kex: [first, &curves, rest].concat().into(),
        mac: [&base.mac[..], &[mac::HMAC_SHA1_ETM, mac::HMAC_SHA1]].concat().into(),
        ..base
    }
}

/// The line that makes every OpenSSH client of this host trust the gate, for the CA below `state_dir`.
pub fn trust_line(state_dir: &Path) -> Result<String, HostError> {
    let ca = authority(state_dir, CA_KEY_FILE, CA_FILE)?;
    let public = ca.public_key().to_openssh().map_err(HostError::Issue)?;
    Ok(format!("@cert-authority * {public}"))
}

/// The line for `TrustedUserCAKeys` of servers that shall let the gate in, for the CA below `state_dir`.
pub fn user_ca_line(state_dir: &Path) -> Result<String, HostError> {
    let ca = authority(state_dir, USER_CA_KEY_FILE, USER_CA_FILE)?;
    ca.public_key().to_openssh().map_err(HostError::Issue)
}

/// The CA whose key and public half have these names below `state_dir`; it is made where it is not there.
fn authority(state_dir: &Path, key: &str, public_half: &str) -> Result<PrivateKey, HostError> {
    let path = state_dir.join(key);
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
            fs::write(state_dir.join(public_half), format!("{public}\n")).map_err(file)?;
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

fn certify_user(
    ca: &PrivateKey,
    key: &PrivateKey,
    user: &str,
    id: &str,
) -> Result<Certificate, russh::keys::ssh_key::Error> {
    let now = SystemTime::now();
    let from = now - Duration::from_secs(LOGIN_SECONDS);
    let until = now + Duration::from_secs(LOGIN_SECONDS);
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| russh::keys::ssh_key::Error::Crypto)?;
    let mut builder = Builder::new_with_validity_times(nonce, key.public_key(), from, until)?;
    builder.cert_type(CertType::User)?.key_id(id)?.valid_principal(user)?;
    // What a session may be is the policy's affair, not the certificate's.
    for extension in [
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    ] {
        builder.extension(extension, "")?;
    }
    builder.sign(ca)
}
