//! `cargo xtask conformance mysql`: MariaDB's own test suite through the gate.
//!
//! Promises: of Debian's `mariadb-test-data`, the tests of suite `main` that need neither options of their
//! own nor a restart, files, replication, or what differs from run to run ([`FORBIDDEN`]) run three times on
//! private servers: twice directly, and once captured under a policy that permits everything. Each run
//! records what `mariadb-test` prints. It fails when a test's output or exit code through the gate
//! differs from the direct ones (tests whose two direct runs differ are listed and left out), when fewer
//! than [`TESTS_MIN`] that end well directly could be compared, when the server's general log and the records
//! disagree, or when more than 1 % of the statements that the server takes are not understood. What is
//! unknown only since an earlier statement of its session hid SQL in it is counted apart.
//!
//! Limits: outputs are compared with each other, not with the suite's own expectation: those ask for options
//! of the suite's own server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::lab::mariadb::{agree, read_general_log};
use crate::lab::{AgentOptions, Lab, MariadbOptions, Options, Who, client, places, policies, term};

/// Where Debian puts the suite.
const SUITE: &str = "/usr/share/mysql/mysql-test";
/// The program that runs one test.
const PROGRAM: &str = "/usr/bin/mariadb-test";
/// Fewer tests than this prove too little.
const TESTS_MIN: usize = 80;
/// Longest run of one test.
const TEST_MS_MAX: u64 = 90_000;
/// The share of valid statements that the analyser may not understand.
const UNKNOWN_SHARE_MAX: f64 = 0.01;
/// The share that may be in doubt since an earlier statement of the session hid SQL in it: what it did to the
/// current database can't be told.
const DOUBT_SHARE_MAX: f64 = 0.25;
/// How the machine says so.
const DOUBT: &str = "an earlier statement may have changed the database";

/// What a test may not hold, in lower case: it needs files, programs or another server, or says what
/// differs from run to run.
const FORBIDDEN: [&str; 52] = [
    "--exec",
    "exec ",
    "$mysql",
    "restart",
    "master",
    "slave",
    "binlog",
    "debug",
    "sleep",
    "socket",
    "ssl",
    "processlist",
    "big_test",
    "outfile",
    "infile",
    "dumpfile",
    "load_file",
    "perl",
    "write_file",
    "remove_file",
    "shutdown",
    "kill",
    "cat_file",
    "uuid",
    "now(",
    "sysdate",
    "curtime",
    "rand(",
    "unix_timestamp",
    "performance_schema",
    "information_schema",
    "global",
    "mysql.",
    "show variables",
    "show status",
    "let $datadir",
    "mysqld_",
    "plugin",
    "install",
    "federated",
    "checksum",
    "analyze",
    "optimizer_trace",
    "memory_used",
    "flush ",
    "explain",
    "handler_",
    "innodb_",
    "show engine",
    "event",
    "reap",
    "send ",
];
/// What a test may include.
const INCLUDES: [&str; 8] = [
    "include/have_innodb.inc",
    "include/count_sessions.inc",
    "include/wait_until_count_sessions.inc",
    "include/have_sequence.inc",
    "include/have_utf8mb4.inc",
    "include/have_latin1.inc",
    "include/have_ucs2.inc",
    "include/have_utf16.inc",
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these tests.
    tests: Vec<String>,
    /// Send every statement as a prepared one.
    #[arg(long)]
    ps_protocol: bool,
}

/// Output and exit code of each test.
type Outcome = BTreeMap<String, (Option<i32>, Vec<u8>)>;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let tests = if args.tests.is_empty() { chosen()? } else { args.tests.clone() };
    let out = places::cache("conformance-mysql")?;
    let mut direct = Vec::new();
    for round in ["direct", "direct-again"] {
        term::note(&format!("running {} tests directly ...", tests.len()));
        let lab = Lab::prepare(options())?;
        direct.push(all(&lab, Who::Other, &tests, args.ps_protocol, &out.join(round))?);
        lab.discard()?;
    }
    term::note("running them through the gate ...");
    let lab = Lab::start(options())?;
    let gated = all(&lab, Who::Service, &tests, args.ps_protocol, &out.join("gated"))?;
    let evidence = lab.evidence()?;
    let log = fs::read(lab.mariadb()?.general_log())?;
    fs::write(out.join("general.log"), &log)?;
    fs::write(out.join("records.json"), super::join(&evidence.events))?;
    let log = read_general_log(&String::from_utf8_lossy(&log));
    let agreement = agree::compare(&evidence, &log, "");
    lab.finish()?;
    let unknown = Unknown::of(&evidence);
    let least = if args.tests.is_empty() { TESTS_MIN } else { 1 };
    report(&direct, &gated, &agreement, &unknown, &out, least)
}

fn options() -> Options {
    Options {
        mariadb: Some(MariadbOptions {
            arguments: vec!["--sql-mode=".to_owned(), "--log-bin-trust-function-creators=1".into()],
            ..MariadbOptions::default()
        }),
        agent: AgentOptions {
            policy: policies::PERMIT_ALL.to_owned(),
            spool_bytes_max: "8 GiB",
            ..AgentOptions::default()
        },
        ..Options::default()
    }
}

/// The tests that can be compared.
fn chosen() -> anyhow::Result<Vec<String>> {
    let dir = Path::new(SUITE).join("main");
    let mut tests = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("{} is missing", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "test") {
            continue;
        }
        let has = |extension: &str| path.with_extension(extension).exists();
        if ["opt", "cnf", "combinations", "inc"].into_iter().any(has) {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.with_file_name(format!("{stem}-master.opt")).exists() {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path)?).to_lowercase();
        let includes = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--source "))
            .chain(text.lines().filter_map(|line| line.trim().strip_prefix("source ")))
            .all(|file| INCLUDES.contains(&file.trim().trim_end_matches(';')));
        if includes && !FORBIDDEN.iter().any(|word| text.contains(word)) {
            tests.push(stem);
        }
    }
    tests.sort();
    Ok(tests)
}

fn all(
    lab: &Lab,
    who: Who,
    tests: &[String],
    prepared: bool,
    keep: &Path,
) -> anyhow::Result<Outcome> {
    let server = lab.mariadb()?;
    server.admin(
        "CREATE DATABASE mtr; CREATE PROCEDURE mtr.add_suppression(pattern text) DO 0; \
         CREATE DATABASE test",
    )?;
    let databases = "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN \
        ('mysql','information_schema','performance_schema','sys','mtr','app')";
    let home = lab.path(if who == Who::Service { "home" } else { "home-other" });
    let _ = fs::remove_dir_all(keep);
    fs::create_dir_all(keep)?;
    let mut outcome = Outcome::new();
    for test in tests {
        for database in server.admin(databases)?.lines() {
            server.admin(&format!("DROP DATABASE `{database}`"))?;
        }
        server.admin("CREATE DATABASE test")?;
        let result = home.join(format!("{test}.result"));
        let mut command = lab.command(who, Path::new(PROGRAM))?;
        command.current_dir(SUITE).env("MYSQL_TEST_DIR", SUITE).env("MYSQLTEST_VARDIR", &home);
        command.env("MYSQL_TMP_DIR", &home).env("MASTER_MYPORT", server.port().to_string());
        command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root"]);
        command.args(["--database=test", "--silent", "--record"]);
        command.args(prepared.then_some("--ps-protocol"));
        command.arg(format!("--port={}", server.port()));
        command.arg(format!("--basedir={SUITE}/")).arg(format!("--test-file=main/{test}.test"));
        command.arg(format!("--tmpdir={}", home.display()));
        command.arg(format!("--logdir={}", home.display()));
        command.arg(format!("--result-file={}", result.display()));
        let answer = client::run_within(&mut command, b"", TEST_MS_MAX)?;
        let output = fs::read(&result).unwrap_or_default();
        let port = server.port().to_string();
        let output = [&output[..], answer.stderr.replace(&port, "PORT").as_bytes()].concat();
        fs::write(keep.join(format!("{test}.result")), &output)?;
        outcome.insert(test.clone(), (answer.code, output));
    }
    Ok(outcome)
}

/// Valid statements that the analyser does not understand, and those in doubt for an earlier one's sake.
struct Unknown {
    valid: usize,
    found: Vec<String>,
    doubtful: usize,
    doubtful_sessions: BTreeSet<String>,
}

impl Unknown {
    fn of(evidence: &crate::lab::Evidence) -> Self {
        let doubtful_sessions = BTreeSet::new();
        let mut this = Self { valid: 0, found: Vec::new(), doubtful: 0, doubtful_sessions };
        for event in evidence.operations() {
            let is_text = matches!(event.via(), "query" | "parse");
            // ER_PARSE_ERROR, and what else the server's grammar refuses, come as 42000.
            if !is_text || event.text_of("code") == "42000" {
                continue;
            }
            this.valid += 1;
            if event.text_of("unknown") == DOUBT {
                this.doubtful += 1;
                this.doubtful_sessions.insert(event.session().to_owned());
            } else if !event.text_of("unknown").is_empty() {
                let text: String = event.text().chars().take(160).collect();
                let why = event.text_of("unknown");
                this.found.push(format!("{why}: {}", text.replace('\n', " ")));
            }
        }
        this
    }

    fn share(&self, of: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some ten thousands, far below 2^52")]
        let share = of as f64 / (self.valid.max(1) as f64);
        share
    }
}

fn report(
    direct: &[Outcome],
    gated: &Outcome,
    agreement: &agree::Agreement,
    unknown: &Unknown,
    out: &Path,
    least: usize,
) -> anyhow::Result<()> {
    let [first, second] = direct else {
        anyhow::bail!("two direct runs are needed");
    };
    let (mut compared, mut unsteady, mut differing) = (0_usize, Vec::new(), Vec::new());
    let mut passed = 0_usize;
    for (test, result) in first {
        if second.get(test) != Some(result) {
            unsteady.push(test.as_str());
            continue;
        }
        compared += 1;
        passed += usize::from(result.0 == Some(0));
        if gated.get(test) != Some(result) {
            differing.push(test.as_str());
        }
    }
    let mut text = String::new();
    writeln!(
        text,
        "tests: {compared} compared ({passed} of them end well directly), {} differ through the gate; \
         {} left out, as they differ from one direct run to the next",
        differing.len(),
        unsteady.len()
    )?;
    for test in &differing {
        writeln!(text, "  differs: {test}")?;
    }
    writeln!(text, "  left out: {}", unsteady.join(" "))?;
    writeln!(
        text,
        "general log: {} lines, {} records, {} differences",
        agreement.lines,
        agreement.records,
        agreement.differences.len()
    )?;
    for difference in &agreement.differences {
        writeln!(text, "  {difference}")?;
    }
    writeln!(
        text,
        "not understood: {} of {} valid statements ({:.2} %); in doubt behind statements that hide SQL: {} ({:.1} %), \
         in {} sessions",
        unknown.found.len(),
        unknown.valid,
        unknown.share(unknown.found.len()) * 100.0,
        unknown.doubtful,
        unknown.share(unknown.doubtful) * 100.0,
        unknown.doubtful_sessions.len()
    )?;
    for statement in &unknown.found {
        writeln!(text, "  {statement}")?;
    }
    let file: PathBuf = out.join("report.txt");
    fs::write(&file, &text)?;
    term::line(text.trim_end());
    term::note(&format!("written to {}; results beside it", file.display()));
    anyhow::ensure!(differing.is_empty(), "{} tests differ", differing.len());
    let faults = agreement.differences.len();
    anyhow::ensure!(faults == 0, "{faults} differences between log and records");
    // A test that ends early shows little.
    anyhow::ensure!(passed >= least, "only {passed} tests that end well could be compared");
    let share = unknown.share(unknown.found.len());
    anyhow::ensure!(share <= UNKNOWN_SHARE_MAX, "{:.2} % are not understood", share * 100.0);
    let doubt = unknown.share(unknown.doubtful);
    anyhow::ensure!(doubt <= DOUBT_SHARE_MAX, "{:.1} % are in doubt", doubt * 100.0);
    Ok(())
}
