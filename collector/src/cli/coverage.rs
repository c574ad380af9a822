//! `coverage`: whether a period is accounted for. Like every question, an act that is recorded first.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::ConfigFile;
use crate::acts::Act;
use crate::config::Config;
use crate::coverage::{Question, ask, write_text};
use crate::query::parse_time;
use crate::state::State;
use crate::{clock, index};

/// `coverage`
#[derive(Args)]
pub struct Coverage {
    #[command(flatten)]
    config: ConfigFile,
    /// From then on: 2026-11-21T02:15:00Z, or an age like 15m, 2h, 7d
    #[arg(long, value_name = "TIME", default_value = "1d")]
    from: String,
    /// Until then; now where it is left out
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this agent, or host
    #[arg(long)]
    host: Option<String>,
    /// Only this service account
    #[arg(long)]
    principal: Option<String>,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub fn run(asked: &Coverage) -> anyhow::Result<ExitCode> {
    let now_ns = clock::signed_ns(clock::now_ns());
    let to = asked.to.as_deref().map(|to| parse_time(to, now_ns)).transpose()?;
    let question = Question {
        from_ns: parse_time(&asked.from, now_ns)?,
        to_ns: to.unwrap_or(now_ns),
        host: asked.host.clone(),
        principal: asked.principal.clone(),
        target: asked.target.clone(),
    };
    anyhow::ensure!(question.from_ns < question.to_ns, "the period ends before it begins");
    let paths = Config::load(&asked.config.config)?.paths();
    let state = State::open(&paths.state())?;
    let detail = format!("coverage {}", serde_json::to_string(&question)?);
    state.act(&Act::new("asked", detail))?;
    let report = ask(&index::open_for_reading(&paths.index())?, &state.agents()?, &question)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if asked.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write_text(&mut out, &report)?;
    }
    out.flush()?;
    Ok(ExitCode::from(report.verdict.exit_code()))
}
