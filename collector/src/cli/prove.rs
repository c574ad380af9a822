//! `verify`, and `export-tlog`: what needs public files only.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tidegate_ledger::policy::Policy;
use tidegate_ledger::verify::verify_bundle;
use tidegate_segment::os::OsFiles;
use tidegate_segment::scan;

use super::ConfigFile;
use crate::config::Config;
use crate::keys::Keys;
use crate::log::SEGMENTS;
use crate::log::notes::{self, NEWEST};
use crate::tlog::TileWriter;
use crate::verify::{self, Against};
use crate::{bundle, files};

/// `verify`
#[derive(Args)]
pub struct Verify {
    /// Configuration file of the collector
    #[arg(long, value_name = "FILE", required_unless_present_any = ["log", "bundle"])]
    config: Option<PathBuf>,
    /// Directory of the log, or of a copy
    #[arg(long, value_name = "DIR", requires = "keys", conflicts_with = "config")]
    log: Option<PathBuf>,
    /// Public keys, best kept elsewhere than the log
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Log key and witnesses (C2SP tlog-policy): asks that the quorum has signed
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A checkpoint, or a history of them, from elsewhere: a witness, an agent, your own safe
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Only what is found in these entries counts: FIRST..LAST
    #[arg(long, value_name = "A..B", value_parser = super::ask::parse_range)]
    range: Option<(u64, u64)>,
    /// One record: its seal, and its inclusion under the newest checkpoint
    #[arg(long, value_name = "INDEX", conflicts_with = "range")]
    record: Option<u64>,
    /// A bundle instead of a log
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "log", "range", "record"])]
    bundle: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// `export-tlog`
#[derive(Args)]
pub struct ExportTlog {
    #[command(flatten)]
    config: ConfigFile,
    /// Directory to write to, as C2SP tlog-tiles has it: `checkpoint`, `tile/..`, `tile/entries/..`
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `verify`.
pub fn verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let policy = match &arguments.policy {
        Some(file) => Some(
            files::read(file)?
                .parse::<Policy>()
                .with_context(|| format!("in {}", file.display()))?,
        ),
        None => None,
    };
    let mut against = Against { policy, checkpoints: Vec::new(), range: arguments.range };
    for file in &arguments.checkpoints {
        against.checkpoints.extend(notes::read_some(file)?);
    }
    let report = if let Some(dir) = &arguments.bundle {
        let (parts, own_keys, own_policy) = bundle::read(dir)?;
        let keys = arguments.keys.as_deref().map(Keys::read).transpose()?.unwrap_or(own_keys);
        if against.policy.is_none() && own_policy.quorum.is_some() {
            against.policy = Some(own_policy);
        }
        verify_bundle(against.trust(&keys)?, &parts)
    } else {
        let (log, keys) = log_and_keys(arguments)?;
        match arguments.record {
            Some(index) => {
                let empty = Policy::of(keys.verifier()?, Vec::new(), 0);
                let policy = against.policy.clone().unwrap_or(empty);
                let parts = bundle::make(&log, &keys, &policy, &BTreeSet::from([index]))?;
                verify_bundle(against.trust(&keys)?, &parts)
            }
            None => verify::verify_against(&log, &keys, &against)?,
        }
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.json {
        writeln!(out, "{}", verify::to_json(&report))?;
    } else {
        verify::write_text(&mut out, &report)?;
    }
    out.flush()?;
    Ok(ExitCode::from(report.exit_code()))
}

fn log_and_keys(arguments: &Verify) -> anyhow::Result<(PathBuf, Keys)> {
    let (log, keys) = match (&arguments.config, &arguments.log) {
        (_, Some(log)) => (log.clone(), arguments.keys.clone().context("--log needs --keys")?),
        (Some(config), None) => {
            let paths = Config::load(config)?.paths();
            (paths.log(), arguments.keys.clone().unwrap_or_else(|| paths.keys()))
        }
        (None, None) => anyhow::bail!("give --config, or --log and --keys, or --bundle"),
    };
    Ok((log, Keys::read(&keys)?))
}

/// Runs `export-tlog`.
pub fn export_tlog(arguments: &ExportTlog) -> anyhow::Result<()> {
    let log = Config::load(&arguments.config.config)?.paths().log();
    let note = newest(&log)?;
    let size = tidegate_ledger::checkpoint::read_unsigned(&note)?.size;
    let mut writer = TileWriter::open(&arguments.out, true)?;
    let segments = log.join(SEGMENTS);
    let files = OsFiles::read_only(&segments)
        .with_context(|| format!("cannot read {}", segments.display()))?;
    for frame in scan(files).context("while reading the log")? {
        let frame = frame.context("the log is damaged: run verify")?;
        if frame.index >= size {
            break;
        }
        if frame.index >= writer.size() {
            writer.push(&frame.payload)?;
        }
    }
    anyhow::ensure!(writer.size() == size, "the log is shorter than its checkpoint: run verify");
    writer.publish(&note)?;
    writeln!(io::stdout(), "wrote {size} entries to {}", arguments.out.display())?;
    Ok(())
}

/// The newest checkpoint, with the signatures of witnesses where they have signed it.
fn newest(log: &Path) -> anyhow::Result<String> {
    let note = files::read(&log.join(NEWEST))?;
    let cosigned = notes::newest_cosigned(log).into_iter().rev();
    Ok(cosigned.into_iter().find(|cosigned| cosigned.starts_with(&note)).unwrap_or(note))
}
