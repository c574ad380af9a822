//! The collector is away for long under load.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::conformance::{judge, serverlog};
use crate::lab::{Lab, Who, client};

/// Transactions of two statements a second, all clients together.
pub const RATE: u32 = 400;
/// The same in the short form, whose collector is built for debugging.
pub const RATE_SHORT: u32 = 50;
/// The load goes on for so long before and after the outage.
const AROUND: Duration = Duration::from_secs(3);
/// How much longer than its time pgbench may take.
const SLACK_MS: u64 = 120_000;

/// Takes the collector away for `outage` under so many transactions a second; gives what was shown.
pub fn prove(outage: Duration, rate: u32) -> anyhow::Result<String> {
    let mut lab = Lab::start(super::options())?;
    lab.postgres.app("CREATE TABLE soak (n int)")?;
    let script = lab.path("home").join("soak.sql");
    std::fs::write(
        &script,
        "\\set n random(1, 1000000)\nINSERT INTO soak VALUES (:n);\nSELECT :n + 1;\n",
    )?;
    std::os::unix::fs::chown(&script, Some(lab.service_uid), None)?;
    let seconds = outage.as_secs() + 2 * AROUND.as_secs();
    let mut pgbench = lab.command(Who::Service, Path::new("/usr/bin/pgbench"))?;
    let rate = rate.to_string();
    pgbench.args(["-n", "-c", "4", "-R", &rate, "-T", &seconds.to_string(), "-f", "soak.sql"]);
    pgbench.arg(lab.dsn()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let load = pgbench.spawn()?;
    std::thread::sleep(AROUND);
    lab.collector_mut()?.stop()?;
    std::thread::sleep(outage);
    lab.start_collector()?;
    let wait_ms = u64::try_from(AROUND.as_millis())? + SLACK_MS;
    let answer = client::finish(load, wait_ms)?;
    anyhow::ensure!(answer.ok(), "pgbench saw the outage: {answer}");
    let evidence = lab.evidence()?;
    evidence.is_in_order()?;
    let log = serverlog::read(&lab.postgres.statement_log())?;
    let verdict = judge::compare(&log, &evidence);
    anyhow::ensure!(
        verdict.faults.is_empty(),
        "log and records differ:\n{}",
        verdict.faults.join("\n")
    );
    lab.finish()?;
    Ok(format!(
        "collector away for {} s, {} lines of the server's log and {} records agree",
        outage.as_secs(),
        verdict.lines,
        verdict.records
    ))
}
