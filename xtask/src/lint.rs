//! `cargo xtask lint`: formatting, tidiness, clippy, documentation, spelling, dependencies.
//!
//! Promises: runs all steps whatever the others found, names each that failed at the end, and names
//! what was not run. Changes no file.
//!
//! Known gaps: `cargo deny` checks no advisories, which need a network.

use std::process::Command;
use std::time::Instant;

use crate::{ebpf, run, setup, tidy};

/// Arguments of `cargo xtask lint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Install the linters that take minutes to build, and run them too.
    #[arg(long)]
    all: bool,
}

/// What came out of one step.
enum Ended {
    Fine,
    Failed(anyhow::Error),
    NotRun(&'static str),
}

/// Runs `cargo xtask lint`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let all = args.all;
    setup::ensure(if all { setup::Purpose::LintAll } else { setup::Purpose::Lint })?;
    // Clippy builds the agent, and the agent embeds the kernel programs.
    ebpf::build()?;
    let steps: Vec<(&str, Ended)> = vec![
        step("fmt", || run::run(run::cargo().args(["fmt", "--all", "--check"]))),
        step("fmt agent-ebpf", || fmt_apart("agent-ebpf")),
        step("fmt fuzz", || fmt_apart("fuzz")),
        step("tidy", tidy::run),
        step("clippy", || run::run(&mut clippy())),
        step("doc", || run::run(&mut doc())),
        step("typos", || run::run(run::command("typos").arg("--color=never"))),
        optional("machete", "cargo-machete", || {
            run::run(run::command("cargo-machete").arg("--with-metadata"))
        }),
        optional("deny", "cargo-deny", || {
            let mut deny = run::command("cargo-deny");
            run::run(deny.args(["--all-features", "check", "bans", "licenses", "sources"]))
        }),
    ];
    let mut failed = Vec::new();
    run::say("");
    for (name, ended) in steps {
        match ended {
            Ended::Fine => run::say(&format!("lint: {name}: fine")),
            Ended::NotRun(why) => run::say(&format!("lint: {name}: not run: {why}")),
            Ended::Failed(error) => {
                run::say(&format!("lint: {name}: FAILED: {error:#}"));
                failed.push(name);
            }
        }
    }
    anyhow::ensure!(failed.is_empty(), "lint failed: {}", failed.join(", "));
    Ok(())
}

fn step(name: &'static str, work: impl FnOnce() -> anyhow::Result<()>) -> (&'static str, Ended) {
    let started = Instant::now();
    run::say(&format!("lint: {name} ..."));
    let ended = work();
    run::say(&format!("lint: {name} took {:.1} s", started.elapsed().as_secs_f32()));
    (name, ended.map_or_else(Ended::Failed, |()| Ended::Fine))
}

fn optional(
    name: &'static str,
    program: &str,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> (&'static str, Ended) {
    if run::find_program(program).is_none() {
        return (name, Ended::NotRun("not installed; `cargo xtask lint --all` installs it"));
    }
    step(name, work)
}

/// Packages outside the workspace.
fn fmt_apart(dir: &str) -> anyhow::Result<()> {
    let manifest = run::repository().join(dir).join("Cargo.toml");
    if !manifest.exists() {
        return Ok(());
    }
    let mut fmt = run::cargo();
    run::run(fmt.args(["fmt", "--check", "--manifest-path"]).arg(manifest))
}

fn clippy() -> Command {
    let mut clippy = run::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    clippy
}

fn doc() -> Command {
    let mut doc = run::cargo();
    doc.args(["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "-D warnings");
    doc
}
