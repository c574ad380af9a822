//! `cargo xtask`: every chore of the repository.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    bench, conformance, demo, dist, ebpf, lint, run, setup, soak, test, threats, tidy, vm,
};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what the chores need.
    Setup(setup::Args),
    /// Build the kernel programs.
    Ebpf,
    /// Show the main job end to end on a private PostgreSQL.
    Demo(demo::Args),
    /// Formatting, tidiness, clippy, documentation, spelling, dependencies.
    Lint(lint::Args),
    /// The repository's own rules: layers, lengths, module docs, links.
    Tidy,
    /// Every test, and what they need.
    Test(test::Args),
    /// The tests that need a kernel of their own.
    Vm(vm::Args),
    /// Another project's own test suite through Tidegate.
    Conformance(conformance::Args),
    /// Measure against other ways to go.
    Bench(bench::Args),
    /// The long proofs.
    Soak(soak::Args),
    /// Debian packages.
    Dist(dist::Args),
    /// Run the tests that docs/THREATS.md names, and write what came of each row.
    Threats,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Ebpf => setup::ensure(setup::Purpose::Ebpf).and_then(|()| ebpf::build()).map(drop),
        Command::Demo(args) => demo::run(args),
        Command::Lint(args) => lint::run(&args),
        Command::Tidy => tidy::run(),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(args),
        Command::Conformance(args) => conformance::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Soak(args) => soak::run(args),
        Command::Dist(args) => dist::run(&args),
        Command::Threats => threats::run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
