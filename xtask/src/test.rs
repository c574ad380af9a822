//! `cargo xtask test`: every test, and what they need.
//!
//! Promises: nothing is skipped in silence. What can't run here fails, with what to do. The test
//! runner runs last, so that its own closing lines end the output.
//!
//! Limits: needs root, as the agent does: tests attach kernel programs and run clients as service
//! accounts.

use std::time::Instant;

use clap::Parser as _;

use crate::{ebpf, run, setup, vm};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the test machine out. The output says so.
    #[arg(long)]
    no_vm: bool,
    /// Further arguments for the test runner, such as a part of a test's name.
    #[arg(last = true)]
    runner: Vec<String>,
}

/// The test machine's default arguments.
#[derive(Debug, clap::Parser)]
struct Vm {
    #[command(flatten)]
    args: vm::Args,
}

/// Runs `cargo xtask test`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        run::is_root(),
        "the tests attach kernel programs and run clients as service accounts, so they need root. \
         To type: sudo --preserve-env=HOME,PATH,CARGO_HOME,RUSTUP_HOME cargo xtask test"
    );
    setup::ensure(setup::Purpose::Test)?;
    step("kernel programs", || ebpf::build().map(drop))?;
    step("programs", || run::run(&mut build()))?;
    if args.no_vm {
        run::say("test: test machine: NOT RUN, as asked (--no-vm)");
    } else {
        step("test machine", || vm::run(Vm::parse_from(["vm"]).args))?;
    }
    step("documentation tests", || {
        run::run(run::cargo().args(["test", "--quiet", "--workspace", "--doc"]))
    })?;
    let mut nextest = run::cargo();
    nextest.args(["nextest", "run", "--workspace", "--profile", "ci"]).args(&args.runner);
    run::run(&mut nextest)
}

/// The programs that the end-to-end tests start.
fn build() -> std::process::Command {
    let mut build = run::cargo();
    build.args(["build", "--package", "tidegate-agent", "--package", "tidegate-collector"]);
    build
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let started = Instant::now();
    run::say(&format!("test: {name} ..."));
    work()?;
    run::say(&format!("test: {name}: fine, took {:.1} s", started.elapsed().as_secs_f32()));
    Ok(())
}
