//! `cargo xtask bench`: what the gate costs, against other ways to go.
//!
//! Method (told in docs/BENCHMARKS.md too): one PostgreSQL on this machine, one path at a time, all
//! paths in turn, again and again (A B C A B C); ratios are made within a round, and the median of the
//! rounds is quoted with the least and the most. CPU is what the kernel accounted to a path's own
//! processes with their ended children; the gate's goes on until the collector has everything, so
//! that shipping the evidence is in it. The collector itself, which lives elsewhere in real life,
//! gets only what nobody else wants (`SCHED_IDLE`) and is accounted on its own. TLS is off, login is
//! `trust`, the server syncs. A machine that others keep busy refuses the run.
//!
//! Limits: client, path and server share one machine; CPU accounting counts in 10 ms; one client
//! latency on a shared machine is good to about 30 %.

mod cpu;
mod load;
mod mysql;
mod paths;
mod report;
mod ssh;

use std::time::Duration;

use anyhow::Context as _;

use crate::lab::{Auth, Lab, Log, Options, PostgresOptions, places, term};
use crate::{run, setup};
use load::{Load, Sample};
use paths::{Path, Paths};

/// The largest share of the machine that others may use.
const OTHERS_SHARE_MAX: f64 = 0.20;
/// pgbench's scale: 100,000 accounts each.
const SCALE: &str = "10";
/// Idle connections opened to measure their memory.
const IDLE_CONNECTIONS: u32 = 80;

/// Arguments of `cargo xtask bench`.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds; medians want at least five.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// One round of one second, and docs/BENCHMARKS.md is left alone: to see that it works.
    #[arg(long)]
    short: bool,
    /// Measure although others use the machine; the report says so.
    #[arg(long)]
    force: bool,
    /// Only the path of this name, or those whose name contains it (direct is always measured).
    #[arg(long)]
    path: Vec<String>,
    /// Only loads whose name contains this.
    #[arg(long)]
    load: Vec<String>,
    /// Only MariaDB's part, with sysbench; the rest of docs/BENCHMARKS.md stays.
    #[arg(long, conflicts_with_all = ["path", "load"])]
    mysql: bool,
    /// Only SSH's part, with OpenSSH; the rest of docs/BENCHMARKS.md stays.
    #[arg(long, conflicts_with_all = ["path", "load", "mysql"])]
    ssh: bool,
    /// Measure the programs as they are built now instead of building them for release first.
    #[arg(long)]
    no_build: bool,
}

/// Everything that was measured.
struct Run {
    rounds: u32,
    seconds: u32,
    paths: Vec<Path>,
    loads: Vec<Load>,
    samples: Vec<Sample>,
    memory: Vec<(Path, Option<f64>)>,
    sync_us: cpu::Spread,
    others_share: f64,
}

/// Runs `cargo xtask bench`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { rounds, seconds, short, force, path: wanted, load, mysql, ssh, no_build } = args;
    setup::ensure(setup::Purpose::Bench)?;
    places::take_optimised_programs();
    if !no_build {
        build()?;
    }
    let (rounds, seconds) = if short { (1, 1) } else { (rounds, seconds) };
    if mysql {
        return mysql::run(rounds, seconds, !short, force);
    }
    if ssh {
        return ssh::run(rounds, !short, force);
    }
    let mut run = Run {
        rounds,
        seconds,
        paths: Path::ALL.into_iter().filter(|path| is_wanted(*path, &wanted)).collect(),
        loads: Load::ALL.into_iter().filter(|one| contains_any(&one.name(), &load)).collect(),
        samples: Vec::new(),
        memory: Vec::new(),
        sync_us: cpu::Spread::default(),
        others_share: 0.0,
    };
    let mut lab = server()?;
    run.sync_us = cpu::sync_times_us(&lab.path("agent-default"))?;
    let mut paths = Paths::start(&mut lab, &run.paths)?;
    measure(&mut run, &mut paths, &lab, force)?;
    memory(&mut run, &paths, &lab);
    paths.stop()?;
    lab.discard()?;
    term::line(&report::terminal(&run));
    if short || !wanted.is_empty() || !load.is_empty() {
        return Ok(());
    }
    let file = places::repository().join("docs/BENCHMARKS.md");
    // MariaDB's part, which is measured by itself, stays.
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let kept = before.split_once(mysql::MARK).map(|(_, kept)| format!("{}{kept}", mysql::MARK));
    let text = report::markdown(&run) + &kept.unwrap_or_default();
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    term::note(&format!("wrote {}", file.display()));
    Ok(())
}

fn is_wanted(path: Path, wanted: &[String]) -> bool {
    let is_name = |part: &String| Path::ALL.iter().any(|path| path.name() == part);
    let by_part = |part: &String| {
        if is_name(part) { path.name() == part } else { path.name().contains(part.as_str()) }
    };
    path == Path::Direct || wanted.is_empty() || wanted.iter().any(by_part)
}

/// Whether the name contains one of the parts, or none is asked for.
fn contains_any(name: &str, parts: &[String]) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

fn build() -> anyhow::Result<()> {
    term::note("building for release (minutes when cold) ...");
    let mut cargo = run::cargo();
    cargo.args(["build", "--release", "--package", "tidegate-agent"]);
    cargo.args(["--package", "tidegate-collector", "--package", "xtask"]);
    cargo.args(["--bins", "--example", "relay"]);
    run::run(&mut cargo)
}

fn server() -> anyhow::Result<Lab> {
    let postgres = PostgresOptions {
        auth: Auth::Trust,
        log: Log::Plain,
        fsync: true,
        settings: vec![
            ("max_wal_size".to_owned(), "'4GB'".to_owned()),
            // The poolers keep theirs while the idle connections of another path are counted.
            ("max_connections".to_owned(), "300".to_owned()),
        ],
        ..PostgresOptions::default()
    };
    let lab = Lab::prepare(Options { postgres, ..Options::default() })?;
    load::prepare(&lab, SCALE)?;
    Ok(lab)
}

fn measure(run: &mut Run, paths: &mut Paths, lab: &Lab, force: bool) -> anyhow::Result<()> {
    let mut worst = 0.0_f64;
    for round in 1..=run.rounds {
        worst = worst.max(others(force)?);
        for load in run.loads.clone() {
            let path_list = run.paths.clone();
            for path in path_list {
                let sample = load::measure(round, load, path, paths, lab, run.seconds)
                    .with_context(|| format!("{} on {}", load.name(), path.name()))?;
                term::note(&sample.to_string());
                run.samples.push(sample);
            }
        }
    }
    run.others_share = worst;
    Ok(())
}

/// What others use of the machine; an error where that is too much.
fn others(force: bool) -> anyhow::Result<f64> {
    let others = cpu::others_share(Duration::from_secs(2))?;
    anyhow::ensure!(
        others <= OTHERS_SHARE_MAX || force,
        "others use {:.0} % of this machine (at most {:.0} %): wait, or say --force",
        others * 100.0,
        OTHERS_SHARE_MAX * 100.0
    );
    Ok(others)
}

fn memory(run: &mut Run, paths: &Paths, lab: &Lab) {
    for path in run.paths.clone() {
        let kib = load::idle_memory_kib(path, paths, lab, IDLE_CONNECTIONS);
        // What was measured in an hour is not thrown away for what fails at its end.
        let kib = kib.unwrap_or_else(|error| {
            term::note(&format!("idle connections on {}: {error:#}", path.name()));
            None
        });
        run.memory.push((path, kib));
    }
}
