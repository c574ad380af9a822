//! `init`: makes a data directory with its CA, keys and configuration. Refuses to overwrite.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::config::{self, Collector, Config, Log, Paths, Uplink};
use crate::state::State;
use crate::{clock, files, keys, pki};

/// What `init` is told.
pub struct Options<'a> {
    /// Where everything goes.
    pub data_dir: &'a Path,
    /// The log's origin line.
    pub origin: &'a str,
    /// Where the uplink will listen.
    pub listen: SocketAddr,
    /// Host names and addresses that agents may use; the first is the one that they are told.
    pub names: &'a [String],
}

const DIR_MODE: u32 = 0o700;

/// Makes it all. Fails where the directory holds anything already.
pub fn init(options: &Options<'_>) -> anyhow::Result<()> {
    config::check_origin(options.origin)?;
    let paths = Paths::new(options.data_dir);
    make_dirs(&paths)?;

    let names = certificate_names(options);
    let now_ns = clock::now_ns();
    let ca = pki::new_ca(options.origin, now_ns)?;
    let server = pki::new_server(&ca, &names, now_ns)?;
    files::create(&paths.ca_key(), ca.key.as_bytes(), files::SECRET)?;
    files::create(&paths.ca_certificate(), ca.certificate.as_bytes(), files::PUBLIC)?;
    files::create(&paths.server_key(), server.key.as_bytes(), files::SECRET)?;
    files::create(&paths.server_certificate(), server.certificate.as_bytes(), files::PUBLIC)?;

    let key = keys::generate()?;
    keys::create(&paths.log_key(), &key)?;
    let state = State::open(&paths.state())?;
    let own = keys::own(&paths.audit_key())?;
    state.own_key(&own.verifying_key().to_bytes())?;
    keys::publish(&paths.keys(), &keys::verifier(&key, options.origin)?, &state)?;

    let name = names.first().cloned().unwrap_or_else(|| "localhost".to_owned());
    let config = Config {
        collector: Collector { origin: options.origin.to_owned(), data_dir: ".".into() },
        uplink: Uplink { listen: options.listen, name },
        log: Log::default(),
        ui: None,
        witnesses: Vec::new(),
        approvers: Vec::new(),
        export: Vec::new(),
        digest: [0; 32],
    };
    let text = format!("{HEAD}{}{EXPORT_EXAMPLE}", toml::to_string(&config)?);
    files::create(&paths.dir.join("collector.toml"), text.as_bytes(), files::PUBLIC)
}

const HEAD: &str = "# Configuration of tidegate-collector. Unknown keys are refused.\n\n";
const EXPORT_EXAMPLE: &str = "
# The review pages; without TLS on loopback only (docs/REVIEWING.md).
# [ui]
# listen = \"127.0.0.1:7480\"

# Who signs each checkpoint too; `log.witness_quorum` says how many must have, without it all.
# [[witnesses]]
# name = \"audit\"
# url = \"http://witness.example:7450\"
# vkey = \"witness.example/audit+01234567+BA...\"

# A receiver of the OTLP feed; protocol is \"grpc\" or \"http\".
# [[export]]
# name = \"siem\"
# endpoint = \"https://otel.example:4317\"
# protocol = \"grpc\"
# headers = { authorization = \"Bearer ...\" }
# ca_file = \"receiver-ca.crt\"
";

fn make_dirs(paths: &Paths) -> anyhow::Result<()> {
    let dir = &paths.dir;
    let context = || format!("cannot make {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).with_context(context)?;
    let mut there = std::fs::read_dir(dir).with_context(context)?;
    anyhow::ensure!(
        there.next().is_none(),
        "{} is not empty: init never overwrites a log or its keys; choose another directory",
        dir.display()
    );
    for dir in [paths.log(), paths.dead_letters()] {
        std::fs::DirBuilder::new()
            .mode(DIR_MODE)
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
    }
    Ok(())
}

fn certificate_names(options: &Options<'_>) -> Vec<String> {
    let mut names = options.names.to_vec();
    let listens: IpAddr = options.listen.ip();
    let mut add = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    if !listens.is_unspecified() {
        add(listens.to_string());
    }
    for name in ["localhost", "127.0.0.1", "::1"] {
        add(name.to_owned());
    }
    names
}
