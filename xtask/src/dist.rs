//! `cargo xtask dist`: Debian packages of agent and collector, with units, configuration, completions and man pages.
//!
//! Promises: what is in a package is listed in [`package`]; the same commit gives the same package, but for what the
//! compiler does. `--check` installs, upgrades, removes and purges both in a plain Debian of its own, up to a
//! first record at the collector, and fails at the first thing that is not as it should be.
//!
//! Packed by `dpkg-deb` and not by `cargo-deb` (docs/decisions/dpkg-deb.md). Only for the architecture that it runs on.

mod check;
mod package;

use std::path::PathBuf;

use crate::{run, setup};

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Try the packages in a plain Debian (needs root; about two minutes).
    #[arg(long)]
    check: bool,
    /// Pack programs that are not optimised, to try the packaging.
    #[arg(long)]
    debug: bool,
}

/// Runs `cargo xtask dist`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::ensure(setup::Purpose::Dist)?;
    let mut cargo = run::cargo();
    cargo.args(["build", "--package", "tidegate-agent", "--package", "tidegate-collector"]);
    if !args.debug {
        cargo.arg("--release");
    }
    run::run(&mut cargo)?;
    let programs = run::target().join(if args.debug { "debug" } else { "release" });
    let made = package::ALL
        .iter()
        .map(|package| package.make(&programs, env!("CARGO_PKG_VERSION")))
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    for file in &made {
        run::print(&file.display().to_string())?;
    }
    if args.check {
        check::run(&programs, &made)?;
    }
    Ok(())
}
