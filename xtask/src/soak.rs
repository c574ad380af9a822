//! `cargo xtask soak`: the long proofs.
//!
//! - **kills**: the agent is killed (SIGKILL) at random moments under pgbench, 50 times. Whatever the
//!   server executed has its record, the chain verifies, the collector has everything once.
//! - **outage**: the collector is down for 10 minutes under load. Nothing is lost, nothing is there
//!   twice, the order is kept: the server's log agrees with the records line by line.
//! - **disk**: the simulated disks under segment, spool and journal run through many more schedules
//!   of torn writes, lost pages, errors and power cuts than an ordinary test run.
//! - **evidence**: 100 logs are spoilt in each of nine ways, by seed; both verifiers find and locate each, and
//!   raise no alarm over 100 clean ones.
//! - **walk**: 2,000 random sequences of socket operations under changing user ids; nothing that a
//!   protected account sends reaches the server past the gate.
//! - **restarts**: the agent's hooks are left by SIGKILL and taken over 200 times while clients connect
//!   without pause; nobody goes past, and nothing is left over.
//!
//! - **bulk**: 10 GB of rows and of COPY data pass the gate, masked, in the memory that a twentieth takes.
//!
//! Each has a short form (`--short`), which `cargo xtask test` runs too, and a seed, which is printed
//! and gives the same schedule again. docs/TESTING.md says when the long form last ran.
//!
//! Limits: the moments of the kills are random by the seed, what they meet is the machine's doing.

mod bulk;
mod kills;
mod outage;

use std::time::{Duration, Instant};

use crate::lab::{Log, Options, PostgresOptions, places, random, term};
use crate::{run, setup};

/// Kills in the long form.
const KILLS: u32 = 50;
/// Kills in the short form.
const KILLS_SHORT: u32 = 3;
/// How long the collector is away in the long form.
const OUTAGE: Duration = Duration::from_mins(10);
/// How long it is away in the short form.
const OUTAGE_SHORT: Duration = Duration::from_secs(10);
/// Schedules of the simulated disks in the long form.
const SCHEDULES: u32 = 20_000;
/// Schedules in the short form.
const SCHEDULES_SHORT: u32 = 500;
/// Spoilt logs of each kind in the long form.
const TRIALS: u32 = 100;
/// Spoilt logs of each kind in the short form.
const TRIALS_SHORT: u32 = 5;
/// Names how many there are.
const TRIALS_ENV: &str = "TIDEGATE_TRIALS";
/// Names the first seed.
const TRIALS_SEED_ENV: &str = "TIDEGATE_SEED";
/// Names how many schedules the tests of the simulated disks run.
const SCHEDULES_ENV: &str = "TIDEGATE_SCHEDULES";

/// Random walks in the long form.
const WALKS: u32 = 2_000;
/// Random walks in the short form.
const WALKS_SHORT: u32 = 100;
/// Names how many sequences the random walk has.
const WALKS_ENV: &str = "TIDEGATE_WALK_SEQUENCES";
/// Names its seed.
const WALK_SEED_ENV: &str = "TIDEGATE_WALK_SEED";
/// Restarts in the long form.
const RESTARTS: u32 = 200;
/// Restarts in the short form.
const RESTARTS_SHORT: u32 = 3;
/// Names how many restarts there are.
const RESTARTS_ENV: &str = "TIDEGATE_RESTARTS";

/// Arguments of `cargo xtask soak`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Args {
    /// Which proof; all of them where absent.
    #[arg(value_enum)]
    proof: Option<Proof>,
    /// The short form.
    #[arg(long)]
    short: bool,
    /// The seed; a random one where absent.
    #[arg(long)]
    seed: Option<u64>,
}

/// One long proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Proof {
    /// The agent is killed again and again under load.
    Kills,
    /// The collector is down for long under load.
    Outage,
    /// Simulated disks misbehave.
    Disk,
    /// Logs are spoilt.
    Evidence,
    /// Sockets are used in random ways under changing user ids.
    Walk,
    /// Hooks are left and taken over again and again under churn.
    Restarts,
    /// A large result passes, masked.
    Bulk,
}

/// Runs `cargo xtask soak`.
pub fn run(args: Args) -> anyhow::Result<()> {
    setup::ensure(setup::Purpose::Soak)?;
    places::build_our_programs()?;
    let seed = args.seed.map_or_else(random::u64, Ok)?;
    let all = [
        Proof::Kills,
        Proof::Outage,
        Proof::Disk,
        Proof::Evidence,
        Proof::Walk,
        Proof::Restarts,
        Proof::Bulk,
    ];
    for proof in all {
        if args.proof.is_none_or(|wanted| wanted == proof) {
            prove(proof, args.short, seed)?;
        }
    }
    Ok(())
}

/// Runs one proof, and says what it showed.
pub fn prove(proof: Proof, short: bool, seed: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let form = if short { "short" } else { "long" };
    term::note(&format!("soak: {proof:?}, {form} form, seed {seed} ..."));
    let shown = match proof {
        Proof::Kills => kills::prove(if short { KILLS_SHORT } else { KILLS }, seed)?,
        Proof::Outage => {
            let (away, rate) =
                if short { (OUTAGE_SHORT, outage::RATE_SHORT) } else { (OUTAGE, outage::RATE) };
            outage::prove(away, rate)?
        }
        Proof::Disk => disk(if short { SCHEDULES_SHORT } else { SCHEDULES })?,
        Proof::Evidence => evidence(if short { TRIALS_SHORT } else { TRIALS }, seed)?,
        Proof::Walk => {
            let count = if short { WALKS_SHORT } else { WALKS };
            capture("walk::", &[(WALKS_ENV, count.into()), (WALK_SEED_ENV, seed)])?;
            format!("{count} sequences of socket operations")
        }
        Proof::Restarts => {
            let count = if short { RESTARTS_SHORT } else { RESTARTS };
            capture("restarts::", &[(RESTARTS_ENV, count.into())])?;
            format!("{count} restarts")
        }
        Proof::Bulk => bulk::prove(if short { bulk::BYTES_SHORT } else { bulk::BYTES })?,
    };
    let seconds = start.elapsed().as_secs();
    term::line(&format!("soak: {proof:?}, {form} form, seed {seed}: {shown} ({seconds} s)"));
    Ok(())
}

fn disk(schedules: u32) -> anyhow::Result<String> {
    let mut cargo = run::cargo();
    cargo.args(["nextest", "run", "--profile", "soak", "--package", "tidegate-segment"]);
    cargo
        .args(["--package", "tidegate-spool", "--package", "tidegate-journal"])
        .env(SCHEDULES_ENV, schedules.to_string());
    run::run(&mut cargo)?;
    Ok(format!("{schedules} schedules of each simulated disk"))
}

fn evidence(trials: u32, seed: u64) -> anyhow::Result<String> {
    let mut cargo = run::cargo();
    cargo.args(["nextest", "run", "--profile", "soak", "--package", "tidegate-collector"]);
    cargo
        .args(["--test", "trials"])
        .env(TRIALS_ENV, trials.to_string())
        // So that seeds of many trials stay apart, and readable.
        .env(TRIALS_SEED_ENV, (seed % 1_000_000_000).to_string());
    run::run(&mut cargo)?;
    Ok(format!("{trials} spoilt logs of each kind found and located by both verifiers"))
}

/// Runs the capture's tests of this module in their long form; what they show is on the console.
fn capture(module: &str, settings: &[(&str, u64)]) -> anyhow::Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["nextest", "run", "--profile", "soak", "--package", "tidegate-agent"]);
    cargo.args(["--test", "capture", "--no-capture", module]);
    cargo.envs(settings.iter().map(|(name, value)| (name, value.to_string())));
    run::run(&mut cargo)
}

/// A laboratory whose server logs every statement.
fn options() -> Options {
    let postgres = PostgresOptions { log: Log::Statements, ..PostgresOptions::default() };
    Options { postgres, ..Options::default() }
}
