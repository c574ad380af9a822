//! Certificates: the host's own CA towards clients, full verification towards servers.
//!
//! Promises: the CA's key never leaves `state_dir` and is readable by root only; a leaf names just
//! the address and names of the server that it stands for; a server is verified against the
//! target's CA file or the system's roots, with its name, or not spoken to.
//!
//! Limits: leaves are ECDSA P-256 (no hash is defined for `tls-server-end-point` with Ed25519, RFC
//! 5929 section 4.1), kept in a cache of [`LEAVES_MAX`], good for [`LEAF_DAYS`] days.
//!
//! Known gap: channel binding through the gate; the machine answers it with an error.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use crate::config::{ServerTls, TargetTls};
use crate::counted::Counted;
use crate::session::leg::Leg;

/// Name of the host CA's certificate below `state_dir`; clients that verify trust this file.
pub const CA_FILE: &str = "host-ca.crt";

/// Name of its key below `state_dir`.
const CA_KEY_FILE: &str = "host-ca.key";

/// How long the host CA is good for, in days.
const CA_DAYS: i64 = 3650;

/// How long a leaf is good for, in days.
const LEAF_DAYS: i64 = 90;

/// How long a leaf is used again, in seconds: well within its [`LEAF_DAYS`].
const LEAF_REUSED_SECONDS: u64 = 30 * 24 * 60 * 60;

/// Most leaves kept; beyond that the cache starts anew.
const LEAVES_MAX: usize = 1024;

/// ALPN protocol name of PostgreSQL (registered with IANA; required by direct TLS only).
const ALPN: &[u8] = b"postgresql";

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no usable certificate or key.
    #[error("{path}: {why}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// rustls refused a configuration.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The configured server name is no DNS name or address.
    #[error("tls.server_name: {0:?} is neither a DNS name nor an address")]
    ServerName(String),
    /// The handshake with the client failed.
    #[error("TLS handshake with the client: {0}")]
    Handshake(std::io::Error),
}

/// How a target's servers are verified.
pub struct ServerVerification {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl ServerVerification {
    /// Reads a target's settings; `None` where it speaks no TLS to its servers.
    ///
    /// `host` is the destination's host name, where the configuration names one.
    pub fn from_config(tls: &TargetTls, host: Option<&str>) -> Result<Option<Self>, TlsError> {
        if tls.server == ServerTls::Off {
            return Ok(None);
        }
        let roots = match &tls.ca_file {
            Some(path) => roots_from(path)?,
            None => system_roots(),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let wanted = tls.server_name.as_deref().or(host);
        let name = wanted
            .map(|name| {
                ServerName::try_from(name.to_owned())
                    .map_err(|_| TlsError::ServerName(name.to_owned()))
            })
            .transpose()?;
        Ok(Some(Self { config: Arc::new(config), name }))
    }

    /// The name that the server's certificate must bear: the configured one, or its address.
    pub fn name_for(&self, address: SocketAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.ip().into()))
    }

    /// A connector with this verification.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

/// How the servers of one target are verified.
#[derive(Default)]
pub struct Verifications {
    by_address: Option<Arc<ServerVerification>>,
    by_host: HashMap<String, Arc<ServerVerification>>,
}

impl Verifications {
    /// Reads a target's settings, for destinations given by address and for each of `hosts`.
    pub fn from_config(tls: &TargetTls, hosts: &[&str]) -> Result<Self, TlsError> {
        let by_address = ServerVerification::from_config(tls, None)?.map(Arc::new);
        let mut by_host = HashMap::new();
        for host in hosts {
            if let Some(verification) = ServerVerification::from_config(tls, Some(host))? {
                by_host.insert((*host).to_owned(), Arc::new(verification));
            }
        }
        Ok(Self { by_address, by_host })
    }

    /// For a server that is known by `host`, or by its address alone.
    pub fn of(&self, host: Option<&str>) -> Option<Arc<ServerVerification>> {
        host.and_then(|host| self.by_host.get(host)).or(self.by_address.as_ref()).cloned()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots_from(path: &Path) -> Result<RootCertStore, TlsError> {
    let content = |why: String| TlsError::Content { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| content(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| content(error.to_string()))?;
        roots.add(certificate).map_err(|error| content(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(content("holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// When a leaf was made, and how it is served.
type Leaf = (Instant, Arc<ServerConfig>);

/// The host's own CA, which answers clients that ask for TLS.
pub struct HostCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaves: Mutex<HashMap<Vec<String>, Leaf>>,
}

impl HostCa {
    /// Reads the CA below `state_dir`, or makes it there.
    pub fn open(state_dir: &Path, host: &str) -> Result<Self, TlsError> {
        let (crt, key) = (state_dir.join(CA_FILE), state_dir.join(CA_KEY_FILE));
        if !crt.exists() || !key.exists() {
            create_ca(&crt, &key, host)?;
        }
        let content = |path: &Path, why: String| TlsError::Content { path: path.to_owned(), why };
        let certificate = CertificateDer::from_pem_file(&crt)
            .map_err(|error| content(&crt, error.to_string()))?;
        let key_pem = fs::read_to_string(&key)
            .map_err(|source| TlsError::File { path: key.clone(), source })?;
        let key_pair =
            KeyPair::from_pem(&key_pem).map_err(|error| content(&key, error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key_pair)
            .map_err(|error| content(&crt, error.to_string()))?;
        Ok(Self { issuer, certificate, leaves: Mutex::default() })
    }

    /// Answers a client's ClientHello for the server at `address`, also known as `names`.
    pub async fn accept(
        &self,
        stream: Counted,
        address: IpAddr,
        names: &[String],
    ) -> Result<Leg, TlsError> {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = acceptor.await.map_err(TlsError::Handshake)?;
        let asked = start.client_hello().server_name().map(str::to_owned);
        let mut all: Vec<String> = names.iter().cloned().chain(asked).collect();
        all.push(address.to_string());
        all.sort();
        all.dedup();
        let config = self.leaf(all)?;
        let tls = start.into_stream(config).await.map_err(TlsError::Handshake)?;
        Ok(Leg::Tls(Box::new(tls.into())))
    }

    /// A server configuration with a leaf for exactly these names and addresses.
    fn leaf(&self, names: Vec<String>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, config)) = leaves.get(&names)
            && made.elapsed() < Duration::from_secs(LEAF_REUSED_SECONDS)
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.issue(&names)?);
        if leaves.len() >= LEAVES_MAX {
            leaves.clear();
        }
        leaves.insert(names, (Instant::now(), Arc::clone(&config)));
        Ok(config)
    }

    fn issue(&self, names: &[String]) -> Result<ServerConfig, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        let common = names.first().map_or("tidegate", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(LEAF_DAYS);
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

fn validity(days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    // An hour back, for clients whose clock is behind.
    (now - time::Duration::hours(1), now + time::Duration::days(days))
}

fn create_ca(crt: &Path, key: &Path, host: &str) -> Result<(), TlsError> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("Tidegate host CA of {host}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_DAYS);
    let certificate = params.self_signed(&pair)?;
    // The key first: a certificate without its key would be taken for a whole CA.
    write_new(key, &pair.serialize_pem(), 0o600)?;
    write_new(crt, &certificate.pem(), 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientTls;
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn handshake(trusted: &Path, name: &str) -> Result<(), String> {
        let dir = trusted.parent().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let ca = HostCa::open(&dir, "test").unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let stream = Counted::without_account(stream);
            let mut leg = ca.accept(stream, at.ip(), &["db.example".to_owned()]).await?;
            leg.write_all(b"hello").await.map_err(TlsError::Handshake)?;
            leg.shutdown().await.map_err(TlsError::Handshake)
        });
        let tls = TargetTls {
            server: ServerTls::VerifyFull,
            ca_file: Some(trusted.to_owned()),
            server_name: Some(name.to_owned()),
            client: ClientTls::Offer,
        };
        let verification = ServerVerification::from_config(&tls, None).unwrap().unwrap();
        let stream = TcpStream::connect(at).await.unwrap();
        let outcome =
            match verification.connector().connect(verification.name_for(at), stream).await {
                Ok(mut tls) => {
                    let mut text = String::new();
                    tls.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
                    assert_eq!(text, "hello");
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
        drop(server.await.unwrap());
        outcome
    }

    #[tokio::test]
    async fn a_leaf_stands_for_its_server_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        HostCa::open(dir.path(), "test").unwrap();
        let trusted = dir.path().join(CA_FILE);
        assert_eq!(handshake(&trusted, "db.example").await, Ok(()));
        assert_eq!(handshake(&trusted, "127.0.0.1").await, Ok(()));
        // An address that it was not issued for is no name that SNI could have added.
        let refused = handshake(&trusted, "127.0.0.2").await.unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }

    #[test]
    fn the_ca_is_made_once_and_its_key_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        HostCa::open(dir.path(), "test").unwrap();
        let first = fs::read(dir.path().join(CA_FILE)).unwrap();
        HostCa::open(dir.path(), "test").unwrap();
        assert_eq!(fs::read(dir.path().join(CA_FILE)).unwrap(), first);
        let mode = fs::metadata(dir.path().join(CA_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.pem");
        fs::write(&path, "nothing").unwrap();
        let tls = TargetTls {
            client: ClientTls::Offer,
            server: ServerTls::VerifyFull,
            ca_file: Some(path),
            server_name: None,
        };
        let error = ServerVerification::from_config(&tls, None).err().unwrap().to_string();
        assert!(error.contains("empty.pem") && error.contains("certificate"), "{error}");
    }
}
