//! `ui`: one-time links to the review pages.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::clock;
use crate::config::{Config, is_plain_name};
use crate::query::parse_time;
use crate::state::State;
use crate::ui::looks::{self, LinkMade};
use crate::ui::roles::{Role, Scope};
use crate::ui::store::{Invitation, LINK_SECONDS, Store};

/// `ui`.
#[derive(Args)]
pub struct Ui {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a link for one person: good once, for ten minutes
    Link(Box<Link>),
}

#[derive(Args)]
struct Link {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What the person may do
    #[arg(long, value_enum)]
    role: Role,
    /// The person's name, as it will stand in the records of looks
    #[arg(long)]
    name: String,
    /// Show this target only
    #[arg(long)]
    target: Option<String>,
    /// Show this agent only
    #[arg(long)]
    agent: Option<String>,
    /// Show records from then on: 2026-10-01T00:00:00Z, or an age like 92d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show records before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A service account or database user that this person runs, and may not sign off; may be repeated
    #[arg(long = "operates", value_name = "NAME")]
    operates: Vec<String>,
}

/// Runs it.
pub fn run(ui: &Ui, out: &mut impl Write) -> anyhow::Result<()> {
    let Command::Link(link) = &ui.command;
    anyhow::ensure!(
        is_plain_name(&link.name),
        "name {:?}: at most 64 letters, digits, '.', '_' and '-'",
        link.name
    );
    let config = Config::load(&link.config)?;
    let base = crate::ui::base_url(&config)?;
    let now_ns = clock::now_ns();
    let time = |text: &Option<String>| {
        text.as_deref().map(|text| parse_time(text, clock::signed_ns(now_ns))).transpose()
    };
    let scope = Scope {
        target: link.target.clone(),
        agent: link.agent.clone(),
        since_ns: time(&link.since)?,
        until_ns: time(&link.until)?,
    };
    let invitation =
        Invitation { name: &link.name, role: link.role, scope: &scope, operates: &link.operates };
    let made = LinkMade {
        name: &link.name,
        role: link.role.name(),
        scope: &scope,
        operates: &link.operates,
    };
    looks::link_made(&State::open(&config.paths().state())?, &made)?;
    let token = Store::open(&config.paths().ui())?.invite(&invitation, now_ns)?;
    writeln!(out, "{base}/enter?token={token}")?;
    let minutes = LINK_SECONDS / 60;
    writeln!(out, "good once, for {minutes} minutes; {} as {}", link.name, link.role.name())?;
    Ok(())
}
