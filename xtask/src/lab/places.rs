//! Where things are: the repository, the programs under test, PostgreSQL's own, free ports.
//!
//! Limits: a port is free when it is picked and not held until it is used; picks are random below the
//! kernel's range for outgoing connections, so that two laboratories rarely meet.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::random;
pub use crate::run::{repository, target};

/// Ports are picked from here ...
const PORT_MIN: u16 = 18_000;
/// ... up to here: the kernel's outgoing ports start at 32768.
const PORT_COUNT: u16 = 14_000;
/// How many picks may be taken before we give up.
const PORT_TRIES_MAX: u32 = 200;

/// Names the directory with `tidegate-agent` and `tidegate-collector`.
pub const BIN_DIR_ENV: &str = "TIDEGATE_BIN_DIR";

/// A directory under `target/lab` for what is kept between runs.
pub fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let dir = target().join("lab").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// Only `target/release` counts.
static OPTIMISED: AtomicBool = AtomicBool::new(false);

/// From now on, only programs built with optimisation count: for measurements.
pub fn take_optimised_programs() {
    OPTIMISED.store(true, Ordering::Relaxed);
}

/// A program of ours: from `TIDEGATE_BIN_DIR`, else the newest of `target/debug` and `target/release`.
pub fn our_program(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os(BIN_DIR_ENV) {
        let path = PathBuf::from(dir).join(name);
        anyhow::ensure!(path.exists(), "{BIN_DIR_ENV} is set, but {} is not there", path.display());
        return Ok(path);
    }
    let built = |profile: &str| {
        let path = target().join(profile).join(name);
        let when = path.metadata().and_then(|meta| meta.modified()).ok()?;
        Some((when, path))
    };
    let profiles: &[&str] =
        if OPTIMISED.load(Ordering::Relaxed) { &["release"] } else { &["debug", "release"] };
    let newest = profiles.iter().copied().filter_map(built).max();
    newest.map(|(_, path)| path).with_context(|| {
        format!("{name} is not built: run `cargo build -p {name}` (or set {BIN_DIR_ENV})")
    })
}

/// Builds the agent and the collector (debug profile), where `TIDEGATE_BIN_DIR` names none.
pub fn build_our_programs() -> anyhow::Result<()> {
    if std::env::var_os(BIN_DIR_ENV).is_some() {
        return Ok(());
    }
    let mut cargo = crate::run::cargo();
    cargo.args(["build", "--package", "tidegate-agent", "--package", "tidegate-collector"]);
    crate::run::run(&mut cargo)
}

/// The directory of PostgreSQL's own programs: the newest version that Debian's packages installed.
pub fn postgres_programs() -> anyhow::Result<PathBuf> {
    let base = Path::new("/usr/lib/postgresql");
    let version = |dir: &PathBuf| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = std::fs::read_dir(base)
        .with_context(|| format!("{} is missing: run `cargo xtask setup`", base.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|dir| dir.join("bin/postgres").exists())
        .max_by_key(version);
    newest
        .map(|dir| dir.join("bin"))
        .context("no PostgreSQL server is installed: run `cargo xtask setup`")
}

/// Where `cargo xtask setup` put Python's packages.
pub fn python_packages() -> anyhow::Result<PathBuf> {
    let lib = target().join("tools/venv/lib");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&lib).into_iter().flatten() {
        found.push(entry?.path().join("site-packages"));
    }
    let packages = found.into_iter().find(|path| path.join("psycopg").exists());
    packages.with_context(|| {
        format!("no psycopg under {}: run `cargo xtask setup test`", lib.display())
    })
}

/// A TCP port that nothing listens on, on neither loopback address.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..PORT_TRIES_MAX {
        let port = PORT_MIN + u16::try_from(random::below(u32::from(PORT_COUNT))?)?;
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        if four.is_ok() && six.is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free TCP port after {PORT_TRIES_MAX} picks")
}

/// Runs a chore to its end and gives its stdout; its stderr is in the error.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{command:?} ended with {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}
