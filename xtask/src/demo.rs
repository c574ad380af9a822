//! `cargo xtask demo`: the main job, told as a story in the terminal.
//!
//! Promises: installs and builds what is missing, then shows on a private PostgreSQL, with plain
//! `psql` as a service account, what is let through, what is refused, what is recorded, and that the
//! record cannot be changed unseen. Each scene is checked: a scene that is not as told ends the demo
//! with an error. Commands are shown as they are run, output as it came.
//!
//! Everything runs in the debug profile, which builds in a fraction of the time; nothing here is a
//! measurement (`cargo xtask bench` is).

mod scenes;
mod story;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::process::{Daemon, Identity};
use crate::lab::{AgentOptions, Lab, Options, PostgresOptions, places, term};
use crate::{run, setup};
use story::Story;

/// How long the OTLP receiver may take to listen.
const RECEIVER_MS_MAX: u64 = 20_000;
/// The program that receives the OTLP feed, an example of the collector's package.
const RECEIVER: &str = "examples/otlp_receiver";

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Args {
    /// Leave server, collector and agent running, and say how to use and stop them.
    #[arg(long)]
    keep: bool,
    /// One JSON document on stdout instead of the story.
    #[arg(long)]
    json: bool,
}

/// Runs `cargo xtask demo`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let start = Instant::now();
    setup::ensure(setup::Purpose::Demo)?;
    let setup_seconds = start.elapsed().as_secs();
    build()?;
    let build_seconds = start.elapsed().as_secs() - setup_seconds;
    let mut story = Story::new(args.json);
    let told = tell(&mut story, args.keep);
    story.end(told.is_ok(), setup_seconds, build_seconds, start.elapsed().as_secs());
    told
}

fn build() -> anyhow::Result<()> {
    if std::env::var_os(places::BIN_DIR_ENV).is_some() {
        return Ok(());
    }
    term::note("building agent and collector (debug profile) ...");
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--package", "tidegate-agent", "--package", "tidegate-collector"])
        .args(["--bins", "--example", "otlp_receiver"])
        .stdout(Stdio::null());
    run::run(&mut cargo)
}

fn tell(story: &mut Story, keep: bool) -> anyhow::Result<()> {
    let receiver = Receiver::start(keep)?;
    let collector_toml = format!(
        "[[export]]\nname = \"demo\"\nprotocol = \"grpc\"\nendpoint = \"http://{}\"\n",
        receiver.address
    );
    let lab = Lab::start(Options {
        postgres: PostgresOptions::default(),
        agent: AgentOptions::default(),
        collector_toml,
        keep,
        ..Options::default()
    })?;
    scenes::all(story, &lab, &receiver)?;
    if keep {
        return scenes::leave_running(story, lab, receiver);
    }
    story.say("Everything is stopped and removed. `cargo xtask demo --keep` leaves it running.");
    lab.discard()
}

/// A receiver of the collector's OTLP feed.
struct Receiver {
    daemon: Daemon,
    address: String,
    records: tempfile::NamedTempFile,
}

impl Receiver {
    fn start(keep: bool) -> anyhow::Result<Self> {
        let records = tempfile::Builder::new().prefix("tidegate-otlp-").tempfile()?;
        let log = tempfile::Builder::new().prefix("tidegate-otlp-log-").tempfile()?;
        let mut command = Command::new(places::our_program(RECEIVER)?);
        command.args(["--grpc", "127.0.0.1:0", "--out"]).arg(records.path());
        let (daemon, address) = Daemon::start_until_line(
            "otlp_receiver",
            &mut command,
            &Identity { keep, ..Identity::default() },
            log.path(),
            "ready: grpc=",
            Duration::from_millis(RECEIVER_MS_MAX),
        )?;
        Ok(Self { daemon, address, records })
    }
}
