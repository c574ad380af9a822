//! The agent is killed at random moments under load.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::lab::evidence::Event;
use crate::lab::random::Seeded;
use crate::lab::{Evidence, Lab, Who, client, term};

/// Clients of each load.
const CLIENTS: &str = "8";
/// The agent lives at least this long under load.
const LIFE_MS_MIN: u64 = 150;
/// And at most this much longer.
const LIFE_MS_SPREAD: u64 = 1500;
/// How long a load may go on once its agent is dead.
const LOAD_MS_MAX: u64 = 60_000;
/// Every statement is another one, so that none can stand for another.
const SCRIPT: &str = "\\set n random(1, 1000000000000000000)\n\
    INSERT INTO soak VALUES (:client_id, :n);\nSELECT :n + 1;\n";

/// A statement with its parameters.
type Key = (String, Vec<String>);

/// Kills the agent `times` times; gives what was shown.
pub fn prove(times: u32, seed: u64) -> anyhow::Result<String> {
    let mut lab = Lab::start(super::options())?;
    lab.postgres.app("CREATE TABLE soak (client int, n bigint)")?;
    let script = lab.path("home").join("soak.sql");
    std::fs::write(&script, SCRIPT)?;
    std::os::unix::fs::chown(&script, Some(lab.service_uid), None)?;
    let mut seeded = Seeded::new(seed);
    for kill in 1..=times {
        let mode = match seeded.below(3) {
            0 => "simple",
            1 => "extended",
            _ => "prepared",
        };
        let life = Duration::from_millis(LIFE_MS_MIN + seeded.below(LIFE_MS_SPREAD));
        under_load(&mut lab, mode, life).with_context(|| format!("kill {kill}, seed {seed}"))?;
        term::note(&format!("kill {kill} of {times}: {mode}, after {} ms", life.as_millis()));
        lab.start_agent().with_context(|| format!("after kill {kill}, seed {seed}"))?;
    }
    let evidence = lab.evidence()?;
    evidence.is_in_order()?;
    let executed = executed(&lab)?;
    let recorded = recorded(&evidence);
    for (key, count) in &executed {
        let records = recorded.get(key).copied().unwrap_or(0);
        anyhow::ensure!(
            records >= *count,
            "the server executed {key:?} {count} times, and there are {records} records (seed {seed})"
        );
    }
    let (statements, records) =
        (executed.values().sum::<usize>(), recorded.values().sum::<usize>());
    lab.finish()?;
    Ok(format!("{times} kills, {statements} statements executed, all among {records} records"))
}

fn under_load(lab: &mut Lab, mode: &str, life: Duration) -> anyhow::Result<()> {
    let mut pgbench = lab.command(Who::Service, Path::new("/usr/bin/pgbench"))?;
    pgbench.args(["-n", "-T", "60", "-c", CLIENTS, "-M", mode, "-f", "soak.sql"]).arg(lab.dsn());
    pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = pgbench.spawn()?;
    std::thread::sleep(life);
    lab.agent_mut()?.kill()?;
    // Its connections break: pgbench ends with an error, as it must.
    client::finish(child, LOAD_MS_MAX).map(drop)
}

/// What the server's log says it executed for pgbench.
fn executed(lab: &Lab) -> anyhow::Result<BTreeMap<Key, usize>> {
    let text = std::fs::read_to_string(lab.postgres.statement_log())?;
    let mut executed = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).context("a line of the server's log")?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let message = field("message");
        let text = message.strip_prefix("statement: ").or_else(|| {
            message.strip_prefix("execute ").and_then(|rest| Some(rest.split_once(": ")?.1))
        });
        if let Some(text) = text.filter(|_| field("application_name") == "pgbench") {
            *executed.entry((text.to_owned(), parameters(field("detail")))).or_insert(0) += 1;
        }
    }
    Ok(executed)
}

/// The values of `parameters: $1 = '5', $2 = '77'`; pgbench's are plain numbers.
fn parameters(detail: &str) -> Vec<String> {
    let Some(list) = detail.strip_prefix("parameters: ") else {
        return Vec::new();
    };
    let value =
        |part: &str| part.split_once(" = ").map(|(_, value)| value.trim_matches('\'').to_owned());
    list.split(", ").filter_map(value).collect()
}

fn recorded(evidence: &Evidence) -> BTreeMap<Key, usize> {
    let mut recorded = BTreeMap::new();
    let runs = |event: &&Event| matches!(event.via(), "query" | "execute");
    for event in evidence.operations().filter(runs) {
        let text_of =
            |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parameters = event.parameters().iter().map(text_of).collect();
        *recorded.entry((event.text().to_owned(), parameters)).or_insert(0) += 1;
    }
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_the_detail() {
        assert_eq!(parameters("parameters: $1 = '5', $2 = '77'"), ["5", "77"]);
        assert_eq!(parameters(""), Vec::<String>::new());
    }
}
