//! Certificates for the laboratory's servers, made with the `openssl` program.
//!
//! Limits: ECDSA P-256, valid for [`DAYS`] days; one authority (`ca.crt`) a directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::places;

/// How long the certificates are valid.
const DAYS: &str = "30";

/// Makes `ca.key` and `ca.crt` in `dir`.
pub fn authority(dir: &Path) -> anyhow::Result<()> {
    let config = dir.join("ca.cnf");
    fs::write(
        &config,
        "[req]\ndistinguished_name = dn\nx509_extensions = ext\nprompt = no\n[dn]\nCN = lab CA\n\
         [ext]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier = hash\n",
    )?;
    let mut openssl = new_key_request();
    openssl.arg("-x509").args(["-days", DAYS]).arg("-config").arg(config);
    openssl.arg("-keyout").arg(dir.join("ca.key")).arg("-out").arg(dir.join("ca.crt"));
    places::run(&mut openssl).map(drop)
}

/// Makes `<name>.key` and `<name>.crt` in `dir`, signed by the authority there, for `names` (as in
/// `subjectAltName`).
pub fn server(dir: &Path, name: &str, names: &str) -> anyhow::Result<()> {
    let config = dir.join(format!("{name}.cnf"));
    fs::write(
        &config,
        format!(
            "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = lab {name}\n\
             [ext]\nbasicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n\
             subjectAltName = {names}\n"
        ),
    )?;
    let request = dir.join(format!("{name}.csr"));
    let mut openssl = new_key_request();
    openssl.arg("-config").arg(&config).arg("-out").arg(&request);
    openssl.arg("-keyout").arg(dir.join(format!("{name}.key")));
    places::run(&mut openssl)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req", "-days", DAYS, "-extensions", "ext", "-set_serial"]);
    openssl.arg(format!("0x{:016x}", super::random::u64()? >> 1));
    openssl.arg("-in").arg(&request).arg("-extfile").arg(&config);
    openssl.arg("-CA").arg(dir.join("ca.crt")).arg("-CAkey").arg(dir.join("ca.key"));
    openssl.arg("-out").arg(dir.join(format!("{name}.crt")));
    places::run(&mut openssl).map(drop)
}

fn new_key_request() -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.arg("-nodes");
    openssl
}
