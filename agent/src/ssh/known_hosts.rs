//! Whether a server is the one that it should be, by a file of known hosts (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
//!
//! Promises: plain, hashed and pattern lines with negations and ports; `@cert-authority` lines, for which the certificate's
//! signature, type, time and names are verified, and no critical option is taken; `@revoked` lines go before all.
//! A key that no line has for this host is refused, and it is said whether the host has others.
//!
//! Limits: a line that does not read is passed over, but one that revokes is an error. DSA keys and keys in hardware are not
//! negotiated.

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::ssh_key::public::KeyData;
use russh::keys::ssh_key::{Algorithm, Certificate, EcdsaCurve, Fingerprint, HashAlg};
use sha1::Sha1;

/// The port that a line without one is for (RFC 4253 section 4).
const PORT: u16 = 22;

/// The types of key that are negotiated, the best first.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// Why a server is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The file can't be read.
    #[error("the file can't be read: {0}")]
    File(String),
    /// A line that revokes does not read.
    #[error("line {0} revokes a key and does not read")]
    Revokes(usize),
    /// No line is for this host.
    #[error("it has no key for {host} port {port}: add the server's, once you have verified it")]
    Host {
        /// The name looked for.
        host: String,
        /// The port looked for.
        port: u16,
    },
    /// The host has other keys.
    #[error(
        "the server's key is another than that in line {0}: it was changed, or this is another server"
    )]
    Other(usize),
    /// The key is revoked.
    #[error("line {0} revokes the server's key")]
    Revoked(usize),
    /// The certificate is of no use.
    #[error("the server's host certificate {0}")]
    Certificate(String),
}

/// The lines of a file that are for one host.
#[derive(Debug, Clone, Default)]
pub struct KnownHost {
    host: String,
    port: u16,
    /// Line and key.
    plain: Vec<(usize, KeyData)>,
    authorities: Vec<KeyData>,
    revoked: Vec<(usize, KeyData)>,
}

impl KnownHost {
    /// Reads what `path` says of `host` at `port`.
    pub fn read(path: &Path, host: &str, port: u16) -> Result<Self, Unknown> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Unknown::File(error.to_string()))?;
        Self::parse(&text, host, port)
    }

    fn parse(text: &str, host: &str, port: u16) -> Result<Self, Unknown> {
        let mut known = Self { host: host.to_owned(), port, ..Self::default() };
        let names = names(host, port);
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry: Entry = match line.parse() {
                Ok(entry) => entry,
                Err(_) if line.starts_with("@revoked") => return Err(Unknown::Revokes(number)),
                Err(_) => continue,
            };
            if !matches(entry.host_patterns(), &names) {
                continue;
            }
            let key = entry.public_key().key_data().clone();
            match entry.marker() {
                None => known.plain.push((number, key)),
                Some(Marker::CertAuthority) => known.authorities.push(key),
                Some(Marker::Revoked) => known.revoked.push((number, key)),
            }
        }
        if known.plain.is_empty() && known.authorities.is_empty() {
            return Err(Unknown::Host { host: host.to_owned(), port });
        }
        Ok(known)
    }

    /// The types of key to ask the server for: those that the file has for it first.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let has = |algorithm: &Algorithm| {
            self.plain.iter().any(|(_, key)| same_type(&key.algorithm(), algorithm))
        };
        let (known, others): (Vec<_>, Vec<_>) = ALGORITHMS.iter().cloned().partition(has);
        known.into_iter().chain(others).collect()
    }

    /// The types of certificate to ask it for; none where no authority is known.
    pub fn certificates(&self) -> Vec<Algorithm> {
        if self.authorities.is_empty() { Vec::new() } else { ALGORITHMS.to_vec() }
    }

    /// Whether the server's key is known.
    pub fn key(&self, key: &KeyData) -> Result<(), Unknown> {
        self.not_revoked(key)?;
        if self.plain.iter().any(|(_, known)| known == key) {
            return Ok(());
        }
        Err(match self.plain.first() {
            Some((line, _)) => Unknown::Other(*line),
            None => Unknown::Host { host: self.host.clone(), port: self.port },
        })
    }

    /// Whether the server's certificate is of an authority that is known, and for this host now, in seconds since 1970.
    pub fn certificate(&self, certificate: &Certificate, now: u64) -> Result<(), Unknown> {
        self.not_revoked(certificate.public_key())?;
        self.not_revoked(certificate.signature_key())?;
        let bad = |what: String| Err(Unknown::Certificate(what));
        if certificate.cert_type() != CertType::Host {
            return bad("is a user's".to_owned());
        }
        if !self.authorities.contains(certificate.signature_key()) {
            return bad("is of an authority that no @cert-authority line has for it".to_owned());
        }
        if now < certificate.valid_after() || now >= certificate.valid_before() {
            return bad("is not valid now: look at its time, and at the clock".to_owned());
        }
        let names = certificate.valid_principals();
        if !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(&self.host)) {
            return bad(format!("is for {}, not for {}", names.join(", "), self.host));
        }
        if !certificate.critical_options().is_empty() {
            return bad("has critical options, of which a host's has none".to_owned());
        }
        let known: Vec<Fingerprint> =
            self.authorities.iter().map(|key| key.fingerprint(HashAlg::Sha256)).collect();
        match certificate.validate_at(now, &known) {
            Ok(()) => Ok(()),
            Err(_) => bad("has a wrong signature".to_owned()),
        }
    }

    fn not_revoked(&self, key: &KeyData) -> Result<(), Unknown> {
        match self.revoked.iter().find(|(_, revoked)| revoked == key) {
            Some((line, _)) => Err(Unknown::Revoked(*line)),
            None => Ok(()),
        }
    }
}

/// RSA keys are one type, whatever they sign with.
fn same_type(one: &Algorithm, other: &Algorithm) -> bool {
    one == other || (one.clone().is_rsa() && other.clone().is_rsa())
}

/// The names under which a host may stand: with its port, and without where that is the usual one.
fn names(host: &str, port: u16) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    let with_port = format!("[{host}]:{port}");
    if port == PORT { vec![host, with_port] } else { vec![with_port] }
}

fn matches(patterns: &HostPatterns, names: &[String]) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => names.iter().any(|name| {
            let Ok(mut hmac) = Hmac::<Sha1>::new_from_slice(salt) else { return false };
            hmac.update(name.as_bytes());
            hmac.verify_slice(hash).is_ok()
        }),
        HostPatterns::Patterns(patterns) => {
            let hits = |pattern: &str| {
                let pattern = pattern.to_ascii_lowercase();
                names.iter().any(|name| wildcard(&pattern, name))
            };
            let is_negated = patterns.iter().filter_map(|one| one.strip_prefix('!')).any(hits);
            !is_negated && patterns.iter().filter(|one| !one.starts_with('!')).any(|one| hits(one))
        }
    }
}

/// Whether `name` is as `pattern` says, in which `*` is any text and `?` any character. A pattern without a port is for
/// every port only where it is nothing but wildcards, as OpenSSH has it.
fn wildcard(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(from) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    at = place + 1;
                    from = taken + 1;
                    star = Some((place, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::certificate::Builder;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
    }

    fn line(hosts: &str, seed: u8) -> String {
        format!("{hosts} {}\n", key(seed).public_key().to_openssh().unwrap())
    }

    fn known(text: &str, host: &str, port: u16) -> Result<KnownHost, Unknown> {
        KnownHost::parse(text, host, port)
    }

    #[test]
    fn lines_are_for_the_hosts_that_they_name() {
        for (hosts, host, port, expected) in [
            ("db", "db", 22, true),
            ("DB,web", "web", 22, true),
            ("db", "db", 2222, false),
            ("[db]:2222", "db", 2222, true),
            ("[db]:2222", "db", 22, false),
            ("*.bank.example", "ledger.bank.example", 22, true),
            ("*.bank.example,!ledger.bank.example", "ledger.bank.example", 22, false),
            ("192.0.2.?", "192.0.2.7", 22, true),
            ("192.0.2.?", "192.0.2.77", 22, false),
            ("[*.bank.example]:*", "a.bank.example", 2222, true),
            ("*", "anything", 2222, true),
            ("*,!db", "db", 22, false),
            ("*,!db", "web", 22, true),
        ] {
            let found = known(&line(hosts, 1), host, port);
            assert_eq!(found.is_ok(), expected, "{hosts} {host} {port}");
        }
    }

    #[test]
    fn hashed_names_are_read() {
        // printf %s '[ledger.bank.example]:2222' under ssh-keygen -H, with a salt of twenty bytes.
        let mut hmac = Hmac::<Sha1>::new_from_slice(&[7; 20]).unwrap();
        hmac.update(b"[ledger.bank.example]:2222");
        let hash: [u8; 20] = hmac.finalize().into_bytes().into();
        let hashed = HostPatterns::HashedName { salt: vec![7; 20], hash }.to_string();
        assert!(known(&line(&hashed, 1), "ledger.bank.example", 2222).is_ok());
        assert!(known(&line(&hashed, 1), "ledger.bank.example", 22).is_err());
    }

    #[test]
    fn a_key_is_known_other_or_revoked() {
        let text = format!("# ours\n{}{}{}", line("db", 1), line("db", 2), line("@revoked *", 3));
        let host = known(&text, "db", 22).unwrap();
        assert_eq!(host.key(key(1).public_key().key_data()), Ok(()));
        assert_eq!(host.key(key(2).public_key().key_data()), Ok(()));
        assert_eq!(host.key(key(3).public_key().key_data()), Err(Unknown::Revoked(4)));
        assert_eq!(host.key(key(4).public_key().key_data()), Err(Unknown::Other(2)));
        assert_eq!(host.algorithms()[0], Algorithm::Ed25519);
        assert!(host.certificates().is_empty());
        assert!(matches!(known(&text, "web", 22), Err(Unknown::Host { port: 22, .. })));
        assert!(matches!(known("@revoked * nonsense\n", "db", 22), Err(Unknown::Revokes(1))));
        assert!(known(&format!("nonsense\n{}", line("db", 1)), "db", 22).is_ok());
    }

    fn certificate(ca: u8, kind: CertType, names: &[&str], valid: (u64, u64)) -> Certificate {
        let subject = key(9);
        let (from, until) = valid;
        let mut builder = Builder::new([1; 16], subject.public_key(), from, until).unwrap();
        builder.cert_type(kind).unwrap();
        if names.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for name in names {
            builder.valid_principal(*name).unwrap();
        }
        builder.sign(&key(ca)).unwrap()
    }

    #[test]
    fn a_certificate_is_of_the_authority_for_the_host_and_now() {
        let host =
            known(&line("@cert-authority *.bank.example", 1), "db.bank.example", 22).unwrap();
        assert_eq!(host.certificates().len(), ALGORITHMS.len());
        let good = (100, 200);
        for (ca, kind, names, valid, expected) in [
            (1, CertType::Host, &["db.bank.example"][..], good, None),
            (1, CertType::Host, &["DB.bank.example"], good, None),
            (1, CertType::Host, &[], good, None),
            (1, CertType::Host, &["web.bank.example"], good, Some("is for web.bank.example")),
            (1, CertType::User, &["db.bank.example"], good, Some("is a user's")),
            (2, CertType::Host, &["db.bank.example"], good, Some("authority")),
            (1, CertType::Host, &["db.bank.example"], (100, 150), Some("not valid now")),
            (1, CertType::Host, &["db.bank.example"], (151, 200), Some("not valid now")),
        ] {
            let said = host.certificate(&certificate(ca, kind, names, valid), 150);
            let said = said.err().map(|error| error.to_string());
            let fits = match (&said, expected) {
                (None, None) => true,
                (Some(said), Some(expected)) => said.contains(expected),
                _ => false,
            };
            assert!(fits, "{names:?} {valid:?}: {said:?}, not {expected:?}");
        }
        let mut forged =
            certificate(1, CertType::Host, &["db.bank.example"], good).to_bytes().unwrap();
        let name = forged.windows(2).position(|two| two == b"db").unwrap();
        forged[name] = b'x';
        let forged = Certificate::from_bytes(&forged).unwrap();
        let text = line("@cert-authority *", 1);
        let host = known(&text, "xb.bank.example", 22).unwrap();
        let said = host.certificate(&forged, 150).unwrap_err().to_string();
        assert!(said.contains("wrong signature"), "{said}");
        let revoked = format!("{text}{}", line("@revoked *", 1));
        let host = known(&revoked, "db.bank.example", 22).unwrap();
        let named = certificate(1, CertType::Host, &["db.bank.example"], good);
        assert_eq!(host.certificate(&named, 150), Err(Unknown::Revoked(2)));
    }
}
