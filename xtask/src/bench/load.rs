//! The loads, and one measurement of one of them on one path.

use std::fmt;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::cpu;
use super::paths::{Path, Paths};
use crate::lab::client::{self, Answer};
use crate::lab::process::{Identity, wait_for};
use crate::lab::{Lab, places};

/// Rows of the bulk loads.
const BULK_ROWS: u32 = 1_000_000;
/// Share of transactions whose latency is logged, for medians.
const LOGGED_SHARE: &str = "0.1";
/// How long the collector may take to have everything.
const QUIET_MS_MAX: u64 = 300_000;
/// The collector is quiet when it used less CPU than this in one look.
const QUIET_CPU_SECONDS: f64 = 0.02;
/// Time between two looks at the collector.
const LOOK: Duration = Duration::from_millis(500);

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// `pgbench -S` with a query mode and a number of clients.
    Select(&'static str, u32),
    /// A connection for each statement, 16 clients.
    Churn,
    /// A SELECT of a million rows.
    Rows,
    /// A SELECT of a million rows of ten columns, two of which are protected on one path.
    Wide,
    /// `COPY .. TO STDOUT` of a million rows.
    CopyOut,
    /// `COPY .. FROM STDIN` of a million rows.
    CopyIn,
}

impl Load {
    /// In the order in which they are measured.
    pub const ALL: [Self; 11] = [
        Self::Select("simple", 1),
        Self::Select("simple", 16),
        Self::Select("extended", 1),
        Self::Select("extended", 16),
        Self::Select("prepared", 1),
        Self::Select("prepared", 16),
        Self::Churn,
        Self::Rows,
        Self::Wide,
        Self::CopyOut,
        Self::CopyIn,
    ];

    /// Its name in reports.
    pub fn name(self) -> String {
        match self {
            Self::Select(mode, 1) => format!("{mode}, 1 client"),
            Self::Select(mode, clients) => format!("{mode}, {clients} clients"),
            Self::Churn => "churn, 16 clients".to_owned(),
            Self::Rows => "SELECT of 1M rows".to_owned(),
            Self::Wide => "SELECT of 1M rows x 10".to_owned(),
            Self::CopyOut => "COPY out of 1M rows".to_owned(),
            Self::CopyIn => "COPY in of 1M rows".to_owned(),
        }
    }

    /// Whether bytes are counted instead of statements.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Rows | Self::Wide | Self::CopyOut | Self::CopyIn)
    }
}

/// One measurement.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Which round.
    pub round: u32,
    /// What was done.
    pub load: Load,
    /// Which way.
    pub path: Path,
    /// What came out; the reason where the path cannot do it.
    pub result: Result<Figures, String>,
}

/// What one measurement says.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Statements (or connections) a second; bytes a second for bulk.
    pub rate: f64,
    /// Median latency in microseconds, where statements were counted.
    pub p50_us: Option<f64>,
    /// CPU seconds of the path for 100,000 statements, or for a GB.
    pub cpu: f64,
    /// CPU seconds of the collector, by the same measure.
    pub collector_cpu: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} {:<22} {:<22}", self.round, self.load.name(), self.path.name())?;
        match &self.result {
            Ok(figures) => write!(
                f,
                "{:>14.0}/s  p50 {:>8.0} us  cpu {:>6.2}",
                figures.rate,
                figures.p50_us.unwrap_or(0.0),
                figures.cpu
            ),
            Err(why) => write!(f, "cannot: {why}"),
        }
    }
}

/// Makes pgbench's tables, the bulk table, and the file that COPY reads.
pub fn prepare(lab: &Lab, scale: &str) -> anyhow::Result<()> {
    let mut init = Command::new("/usr/bin/pgbench");
    init.args(["-i", "-q", "-s", scale, "-U", "app", "-h"]).arg(lab.postgres.socket());
    init.args(["-p", &lab.postgres.port().to_string(), "app"]);
    places::run(&mut init)?;
    lab.postgres.app(&format!(
        "CREATE TABLE bulk AS SELECT n, 'row number ' || n AS words, n * 1.5 AS half \
         FROM generate_series(1, {BULK_ROWS}) n; ANALYZE bulk; \
         CREATE TABLE wide AS SELECT n AS id, 'name ' || n AS name, to_char(n, 'FM000-00-0000') AS ssn, \
         to_char(4e15::bigint + n, 'FM0000000000000000') AS card, n * 7 AS a, n * 1.5 AS b, \
         'some words ' || n AS c, now() AS d, n % 2 = 0 AS e, md5(n::text) AS f \
         FROM generate_series(1, {BULK_ROWS}) n; ANALYZE wide; \
         CREATE UNLOGGED TABLE bulk_in (n int, words text, half numeric)"
    ))?;
    let rows = lab.postgres.app("COPY bulk TO STDOUT")?;
    fs::write(lab.path("bulk.tsv"), rows + "\n")?;
    Ok(())
}

/// Measures one load on one path.
pub fn measure(
    round: u32,
    load: Load,
    path: Path,
    paths: &Paths,
    lab: &Lab,
    seconds: u32,
) -> anyhow::Result<Sample> {
    let before = account(path, paths)?;
    let done = match load {
        Load::Select(mode, clients) => pgbench(lab, path, paths, seconds, &["-M", mode], clients),
        Load::Churn => pgbench(lab, path, paths, seconds, &["-C", "-M", "simple"], 16),
        Load::Rows => bulk(lab, path, paths, "SELECT * FROM bulk", None),
        Load::Wide => wide(lab, path, paths),
        Load::CopyOut => bulk(lab, path, paths, "COPY bulk TO STDOUT", None),
        Load::CopyIn => {
            let file = lab.path("bulk.tsv");
            bulk(lab, path, paths, "COPY bulk_in FROM STDIN", Some(&file))
        }
    };
    if load == Load::CopyIn {
        lab.postgres.app("TRUNCATE bulk_in")?;
    }
    if path.is_gate() {
        wait_until_quiet(paths)?;
    }
    let after = account(path, paths)?;
    let result = done.map(|done| {
        let per = if load.is_bulk() { 1e9 } else { 1e5 } / done.count.max(1.0);
        Figures {
            rate: done.rate,
            p50_us: done.p50_us,
            cpu: (after.0 - before.0) * per,
            collector_cpu: (after.1 - before.1) * per,
        }
    });
    let result = match result {
        Ok(figures) => Ok(figures),
        // A pooler that cannot do a query mode is a finding; anything else that fails is a fault.
        Err(error) if matches!(path, Path::BouncerSession | Path::BouncerTransaction) => {
            Err(format!("{error:#}").lines().next().unwrap_or_default().to_owned())
        }
        Err(error) => return Err(error),
    };
    Ok(Sample { round, load, path, result })
}

/// CPU seconds of the path and of the collector so far.
fn account(path: Path, paths: &Paths) -> anyhow::Result<(f64, f64)> {
    let collector = paths.collector().filter(|_| path.is_gate());
    Ok((
        cpu::seconds(&paths.pids(path)?)?,
        cpu::seconds(&collector.into_iter().collect::<Vec<_>>())?,
    ))
}

/// Waits until the collector has taken in what the last load left behind.
fn wait_until_quiet(paths: &Paths) -> anyhow::Result<()> {
    paths.collector().map_or(Ok(()), wait_until_quiet_of)
}

/// The same for the collector with that process.
pub fn wait_until_quiet_of(pid: u32) -> anyhow::Result<()> {
    wait_for("the collector has everything", Duration::from_millis(QUIET_MS_MAX), || {
        let before = cpu::seconds(&[pid])?;
        std::thread::sleep(LOOK);
        Ok((cpu::seconds(&[pid])? - before <= QUIET_CPU_SECONDS).then_some(()))
    })
}

/// What a load says of itself: statements or bytes, their rate, latency.
struct Done {
    count: f64,
    rate: f64,
    p50_us: Option<f64>,
}

/// A client program on a path: as the protected account in the guarded cgroup for the gate.
fn client(lab: &Lab, path: Path, paths: &Paths, program: &str) -> anyhow::Result<Command> {
    let (uid, home) = if path.is_gate() {
        (lab.service_uid, lab.path("home"))
    } else {
        (lab.other_uid, lab.path("home-other"))
    };
    let mut command = Command::new(places::postgres_programs()?.join(program));
    command.env_clear().env("LC_ALL", "C.UTF-8").env("HOME", &home).current_dir(home);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", paths.port(path)?.to_string());
    command.env("PGUSER", "app").env("PGDATABASE", "app").env("PGSSLMODE", "disable");
    Identity { uid: Some(uid), cgroup: paths.cgroup(path)?, ..Identity::default() }
        .apply(&mut command)?;
    Ok(command)
}

fn pgbench(
    lab: &Lab,
    path: Path,
    paths: &Paths,
    seconds: u32,
    mode: &[&str],
    clients: u32,
) -> anyhow::Result<Done> {
    let mut command = client(lab, path, paths, "pgbench")?;
    command.args(["-n", "-S", "-l", "--sampling-rate", LOGGED_SHARE, "--log-prefix", "latency"]);
    command.args(["-T", &seconds.to_string(), "-c", &clients.to_string(), "-j", "1"]).args(mode);
    let answer = client::run(&mut command, b"")?;
    let logs = latency_logs(lab, path)?;
    let mut latencies = Vec::new();
    for log in logs {
        let text = fs::read_to_string(&log)?;
        // client_id transaction_no time script_no time_epoch time_us (pgbench's manual page).
        let field = |line: &str| line.split(' ').nth(2).and_then(|us| us.parse::<f64>().ok());
        latencies.extend(text.lines().filter_map(field));
        fs::remove_file(log)?;
    }
    let done = parse(&answer)?;
    Ok(Done { p50_us: cpu::Spread::of(latencies).map(|spread| spread.median), ..done })
}

fn latency_logs(lab: &Lab, path: Path) -> anyhow::Result<Vec<PathBuf>> {
    let home = lab.path(if path.is_gate() { "home" } else { "home-other" });
    let mut logs = Vec::new();
    for entry in fs::read_dir(home)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("latency.") {
            logs.push(entry.path());
        }
    }
    Ok(logs)
}

/// Reads pgbench's summary.
fn parse(answer: &Answer) -> anyhow::Result<Done> {
    let number_behind = |what: &str| {
        let line = answer.stdout.lines().find_map(|line| line.strip_prefix(what))?;
        line.trim().split([' ', '/']).next()?.parse::<f64>().ok()
    };
    let failed = answer.stderr.lines().find(|line| line.contains("error:"));
    anyhow::ensure!(answer.ok(), "{}", failed.unwrap_or(&answer.stderr));
    let count = number_behind("number of transactions actually processed:");
    let count = count.with_context(|| format!("pgbench said: {answer}"))?;
    let rate = number_behind("tps =").with_context(|| format!("pgbench said: {answer}"))?;
    Ok(Done { count, rate, p50_us: None })
}

/// One bulk statement by psql; bytes are those of the COPY file, whatever the protocol adds.
fn bulk(
    lab: &Lab,
    path: Path,
    paths: &Paths,
    sql: &str,
    input: Option<&FilePath>,
) -> anyhow::Result<Done> {
    let bytes = fs::metadata(lab.path("bulk.tsv"))?.len();
    bulk_of(lab, path, paths, sql, input, bytes)
}

fn bulk_of(
    lab: &Lab,
    path: Path,
    paths: &Paths,
    sql: &str,
    input: Option<&FilePath>,
    bytes: u64,
) -> anyhow::Result<Done> {
    let mut command = client(lab, path, paths, "psql")?;
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "FETCH_COUNT=0", "-c", sql]);
    command.args(["-o", "/dev/null"]);
    let input = input.map(fs::read).transpose()?.unwrap_or_default();
    let start = Instant::now();
    let answer = client::run(&mut command, &input)?;
    let took = start.elapsed().as_secs_f64();
    anyhow::ensure!(answer.ok(), "{answer}");
    #[expect(clippy::cast_precision_loss, reason = "some 30 million, far below 2^52")]
    let count = bytes as f64;
    Ok(Done { count, rate: count / took, p50_us: None })
}

/// The wide table by psql; bytes are those of its text, whatever the masks make of them.
fn wide(lab: &Lab, path: Path, paths: &Paths) -> anyhow::Result<Done> {
    let size = "SELECT sum(length(w::text)) FROM wide w";
    let bytes = match lab.path("wide.bytes") {
        file if file.exists() => fs::read_to_string(file)?.parse()?,
        file => {
            let bytes = lab.postgres.app(size)?;
            fs::write(file, &bytes)?;
            bytes.parse()?
        }
    };
    bulk_of(lab, path, paths, "SELECT * FROM wide", None, bytes)
}

/// Memory that each of `count` idle connections takes in the path, in KiB; `None` for no path.
pub fn idle_memory_kib(
    path: Path,
    paths: &Paths,
    lab: &Lab,
    count: u32,
) -> anyhow::Result<Option<f64>> {
    let pids = paths.pids(path)?;
    if pids.is_empty() {
        return Ok(None);
    }
    let before = cpu::memory_kib(&pids)?;
    let script = lab.path("idle.sql");
    fs::write(&script, "SELECT 1;\n\\sleep 1000 s\n")?;
    let mut command = client(lab, path, paths, "pgbench")?;
    command.args(["-n", "-t", "1", "-c", &count.to_string(), "-f"]).arg(script);
    let mut child = command.stdout(std::process::Stdio::null()).spawn()?;
    // A pooler by transactions keeps fewer sessions than clients, so clients are counted elsewhere.
    let port = paths.listening_port(path)?;
    let wanted = usize::try_from(count)?;
    let there = wait_for("idle connections are there", Duration::from_secs(30), || {
        Ok((established(port)? >= wanted).then_some(()))
    });
    std::thread::sleep(Duration::from_secs(1));
    let after = cpu::memory_kib(&pids)?;
    child.kill()?;
    child.wait()?;
    there?;
    Ok(Some((after - before) / f64::from(count)))
}

/// Accepted connections on a local port, from the kernel's table.
fn established(port: u16) -> anyhow::Result<usize> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let wanted = format!(":{port:04X}");
    let is_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        // 01 is TCP_ESTABLISHED.
        local.ends_with(&wanted) && fields.nth(1) == Some("01")
    };
    Ok(table.lines().filter(is_ours).count())
}
