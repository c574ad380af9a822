//! `cargo xtask conformance postgres`: PostgreSQL's own regression suite through the gate. For MariaDB's see
//! [`mysql`], for OpenSSH's [`ssh`]. `mysql-servers` runs our own tests against MySQL from Debian's sid, which changes every day and which no
//! ordinary test needs.
//!
//! Promises: agent and collector are built first, for either suite. The suite of Debian's source package
//! runs twice on private servers, directly and captured (under a policy that permits everything, also
//! what is not understood, with recording on). It fails when one test's result differs, when a line of
//! the server's own log has no record or a record no line (the rules stand in [`judge`]), or when more
//! than 1 % of the statements that the server's parser takes are unknown to the analyser. It lists the
//! unknown ones.
//!
//! Limits: the suite's version is the newest whose source can be fetched, which may be older than
//! the server's; both runs use the same. Tests that fail directly may fail through the gate.

pub(crate) mod judge;
mod mysql;
pub(crate) mod serverlog;
mod source;
mod ssh;
mod suite;

use std::fmt::Write as _;

use anyhow::Context as _;
use nix::unistd::User;

use crate::lab::{AgentOptions, Lab, Log, Options, PostgresOptions, Who, places, policies, term};
use crate::setup;
use judge::Verdict;
use suite::Outcome;

/// The share of valid statements that may be unknown to the analyser.
const UNKNOWN_SHARE_MAX: f64 = 0.01;

/// Arguments of `cargo xtask conformance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    suite: Suite,
}

/// Whose suite.
#[derive(Debug, clap::Subcommand)]
enum Suite {
    /// PostgreSQL's `pg_regress`, with its parallel schedule.
    Postgres(PostgresArgs),
    /// MariaDB's `mariadb-test`, its main tests that need no options.
    Mysql(mysql::Args),
    /// OpenSSH's regression tests in which a client speaks to a server.
    Ssh(ssh::Args),
    /// Our own tests against MySQL 9, fetched from Debian's sid when it is not there.
    MysqlServers,
}

#[derive(Debug, clap::Args)]
struct PostgresArgs {
    /// Only these tests, one after the other (many need `test_setup` and others before them).
    tests: Vec<String>,
    /// Only the direct run: to see what fails there.
    #[arg(long, conflicts_with = "no_direct")]
    only_direct: bool,
    /// Leave the direct run out; only the server's log is compared with the records.
    #[arg(long)]
    no_direct: bool,
}

/// Runs `cargo xtask conformance`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let purpose = match args.suite {
        Suite::MysqlServers => setup::Purpose::MysqlServers,
        Suite::Postgres(_) | Suite::Mysql(_) | Suite::Ssh(_) => setup::Purpose::Conformance,
    };
    setup::ensure(purpose)?;
    places::build_our_programs()?;
    match args.suite {
        Suite::MysqlServers => mysql_servers(),
        Suite::Postgres(args) => postgres(&args),
        Suite::Mysql(args) => mysql::run(&args),
        Suite::Ssh(args) => ssh::run(&args),
    }
}

fn mysql_servers() -> anyhow::Result<()> {
    let mut tests = crate::run::cargo();
    tests.args(["nextest", "run", "--package", "xtask", "--features", "mysql-servers"]);
    crate::run::run(tests.args(["--test", "mysql_servers"]))
}

fn postgres(args: &PostgresArgs) -> anyhow::Result<()> {
    let source = source::ready()?;
    let out = places::cache("conformance")?;
    let direct = if args.no_direct {
        None
    } else {
        term::note("running the suite directly ...");
        let lab = Lab::prepare(options()?)?;
        let outcome = suite::run(&lab, Who::Other, &source, &args.tests, &out.join("direct"))?;
        let lines = serverlog::read(&lab.postgres.statement_log())?;
        lab.discard()?;
        if args.only_direct {
            let count = lines.values().map(Vec::len).sum::<usize>();
            let (tests, failed) = (outcome.tests.len(), outcome.failed());
            term::line(&format!("directly: {tests} tests, {failed} failed; {count} statements"));
            return Ok(());
        }
        Some(outcome)
    };
    term::note("running the suite through the gate ...");
    let lab = Lab::start(options()?)?;
    let gated = suite::run(&lab, Who::Service, &source, &args.tests, &out.join("gated"))?;
    term::note("comparing the server's log with the records ...");
    let evidence = lab.evidence()?;
    let lines = serverlog::read(&lab.postgres.statement_log())?;
    std::fs::copy(lab.postgres.statement_log(), out.join("server.json"))?;
    std::fs::write(out.join("records.json"), join(&evidence.events))?;
    let verdict = judge::compare(&lines, &evidence);
    lab.finish()?;
    report(direct.as_ref(), &gated, &verdict, &out)
}

fn join(events: &[crate::lab::evidence::Event]) -> String {
    events.iter().fold(String::new(), |mut text, event| {
        let _ = writeln!(text, "{}", event.json);
        text
    })
}

/// The suite reads and writes files on the server's side, so client and server are one account.
fn options() -> anyhow::Result<Options> {
    let account = User::from_name("postgres")?.context("no user `postgres` on this machine")?;
    Ok(Options {
        postgres: PostgresOptions { log: Log::Statements, ..PostgresOptions::default() },
        agent: AgentOptions {
            policy: policies::PERMIT_ALL.to_owned(),
            spool_bytes_max: "8 GiB",
            ..AgentOptions::default()
        },
        client_uid: Some(account.uid.as_raw()),
        ..Options::default()
    })
}

fn report(
    direct: Option<&Outcome>,
    gated: &Outcome,
    verdict: &Verdict,
    out: &std::path::Path,
) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut faults = 0;
    if let Some(direct) = direct {
        let differing = direct.differing(gated);
        faults += differing.len();
        writeln!(
            text,
            "tests: {} directly ({} failed), {} through the gate ({} failed), {} differ",
            direct.tests.len(),
            direct.failed(),
            gated.tests.len(),
            gated.failed(),
            differing.len()
        )?;
        for line in differing {
            writeln!(text, "  {line}")?;
        }
    }
    writeln!(
        text,
        "server log: {} lines in {} sessions, {} records in {} sessions; {} sessions agree",
        verdict.lines,
        verdict.server_sessions,
        verdict.records,
        verdict.record_sessions,
        verdict.agreeing
    )?;
    faults += verdict.faults.len();
    for fault in &verdict.faults {
        writeln!(text, "  {fault}")?;
    }
    let share = verdict.unknown_share();
    writeln!(
        text,
        "unknown to the analyser: {} of {} valid statements ({:.3} %), and {} of {} that the \
         server's parser refuses too",
        verdict.unknown_valid.len(),
        verdict.valid,
        share * 100.0,
        verdict.unknown_refused,
        verdict.refused_by_parser
    )?;
    for (statement, why) in &verdict.unknown_valid {
        writeln!(text, "  {why}: {statement}")?;
    }
    let file = out.join("report.txt");
    std::fs::write(&file, &text)?;
    term::line(text.trim_end());
    term::note(&format!("written to {}; results beside it", file.display()));
    anyhow::ensure!(faults == 0, "{faults} differences");
    anyhow::ensure!(share <= UNKNOWN_SHARE_MAX, "{:.2} % are unknown", share * 100.0);
    Ok(())
}
