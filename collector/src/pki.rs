//! The uplink's own certificate authority.
//!
//! Promise: a client certificate's subject is what the collector says, never what the request
//! asked for. An agent's certificate is known by its SHA-256, so that dropping the row in
//! `state.db` revokes it at once.
//!
//! Known gaps: no renewal but a new enrolment; the CA key lies in a file.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest as _, Sha256};

/// How long the CA and the uplink's certificate are good. Agents trust this CA alone, and only
/// for this one server.
pub const CA_DAYS: u64 = 3650;
/// How long an agent's certificate is good.
pub const AGENT_DAYS: u64 = 1825;

const DAY_SECONDS: u64 = 86_400;
/// Clocks of hosts may be this far behind the collector's.
const BACKDATE_SECONDS: u64 = DAY_SECONDS;

/// A certificate and its key, as PEM.
pub struct Pair {
    /// Certificate.
    pub certificate: String,
    /// Private key, PKCS #8.
    pub key: String,
}

/// Makes a CA that may sign leaf certificates only.
pub fn new_ca(origin: &str, now_ns: u64) -> anyhow::Result<Pair> {
    let key = KeyPair::generate()?;
    let mut params = dated(CertificateParams::default(), now_ns, CA_DAYS);
    params.distinguished_name = named(&format!("Tidegate uplink CA of {origin}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes the uplink's certificate for these host names and addresses.
pub fn new_server(ca: &Pair, names: &[String], now_ns: u64) -> anyhow::Result<Pair> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(names.to_vec()).context("a name for the certificate")?;
    let mut params = dated(params, now_ns, CA_DAYS);
    params.distinguished_name = named("Tidegate collector");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer(ca)?)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate for an agent.
pub struct AgentCertificate {
    /// The certificate.
    pub pem: String,
    /// SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
    /// When it ends.
    pub expires_ns: u64,
}

/// Signs the key of a request, after checking that whoever asks holds it. Nothing else of the
/// request is used.
pub fn sign_agent(
    ca: &Pair,
    csr_pem: &str,
    agent_id: &str,
    now_ns: u64,
) -> anyhow::Result<AgentCertificate> {
    let mut request = CertificateSigningRequestParams::from_pem(csr_pem)?;
    let mut params = dated(CertificateParams::default(), now_ns, AGENT_DAYS);
    params.distinguished_name = named(agent_id);
    params.subject_alt_names = vec![SanType::URI(format!("tidegate:agent:{agent_id}").try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    request.params = params;
    let certificate = request.signed_by(&issuer(ca)?)?;
    Ok(AgentCertificate {
        pem: certificate.pem(),
        fingerprint: fingerprint(certificate.der()),
        expires_ns: now_ns.saturating_add(AGENT_DAYS * DAY_SECONDS * 1_000_000_000),
    })
}

/// SHA-256 of a certificate's DER form.
pub fn fingerprint(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

fn issuer(ca: &Pair) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&ca.key).context("the CA key")?;
    Issuer::from_ca_cert_pem(&ca.certificate, key).context("the CA certificate")
}

fn named(common_name: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn dated(mut params: CertificateParams, now_ns: u64, days: u64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now_seconds = now_ns / 1_000_000_000;
    let at = |seconds| epoch + std::time::Duration::from_secs(seconds);
    params.not_before = at(now_seconds.saturating_sub(BACKDATE_SECONDS));
    params.not_after = at(now_seconds + days * DAY_SECONDS);
    params
}
