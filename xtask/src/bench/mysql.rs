//! `cargo xtask bench --mysql`: sysbench on MariaDB, directly, through haproxy, through our own relay, and
//! through the gate.
//!
//! Method: that of the whole bench (see [`super`]). sysbench 1.0 has its own prepared statements on, which is
//! its default: binary executions, binary rows. The server's general log is off, its tables fit into memory.
//!
//! Limits: those of the whole bench.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::Context as _;

use super::cpu::{self, Spread};
use super::paths::{self, Gate};
use crate::lab::agent::{AgentOptions, Site};
use crate::lab::client;
use crate::lab::mariadb::APP_PASSWORD;
use crate::lab::process::{Daemon, Identity};
use crate::lab::{Lab, MariadbOptions, Options, places, term};

/// What separates this part of docs/BENCHMARKS.md from PostgreSQL's.
pub(super) const MARK: &str = "\n# MariaDB\n";

/// Rows of sysbench's table.
const ROWS: u32 = 100_000;
/// Least throughput at 16 threads, of haproxy's.
const RATE_OF_HAPROXY_MIN: f64 = 0.75;

/// One way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Relay,
    Haproxy,
    Gate,
}

impl Path {
    const ALL: [Self; 4] = [Self::Direct, Self::Relay, Self::Haproxy, Self::Gate];

    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "plain relay",
            Self::Haproxy => "haproxy tcp",
            Self::Gate => "tidegate",
        }
    }
}

/// sysbench's script, and how many threads run it.
type Load = (&'static str, u32);

const LOADS: [Load; 4] = [
    ("oltp_point_select", 1),
    ("oltp_point_select", 16),
    ("oltp_read_only", 1),
    ("oltp_read_only", 16),
];

struct Sample {
    round: u32,
    load: Load,
    path: Path,
    /// Queries a second.
    rate: f64,
    /// Median latency of an event, in milliseconds.
    p50_ms: f64,
    /// CPU seconds of the path for 100,000 queries.
    cpu: f64,
}

struct Bench {
    lab: Lab,
    relay: (Daemon, u16),
    haproxy: (Daemon, u16),
    gate: Gate,
    collector: u32,
}

/// Measures, and writes the part of docs/BENCHMARKS.md.
pub(super) fn run(rounds: u32, seconds: u32, write: bool, force: bool) -> anyhow::Result<()> {
    let mut bench = Bench::start()?;
    let (mut samples, mut worst) = (Vec::new(), 0.0_f64);
    for round in 1..=rounds {
        worst = worst.max(super::others(force)?);
        for load in LOADS {
            for path in Path::ALL {
                let sample = bench.measure(round, load, path, seconds)?;
                term::note(&format!(
                    "round {round} {:<20} {:>2} threads {:<12} {:>9.0}/s  p50 {:>6.2} ms  cpu {:>5.2}",
                    load.0,
                    load.1,
                    path.name(),
                    sample.rate,
                    sample.p50_ms,
                    sample.cpu
                ));
                samples.push(sample);
            }
        }
    }
    bench.stop()?;
    let text = report(&samples, rounds, seconds, worst);
    term::line(&text);
    if !write {
        return Ok(());
    }
    let file = places::repository().join("docs/BENCHMARKS.md");
    let whole = fs::read_to_string(&file)?;
    let head = whole.split(MARK).next().unwrap_or_default().trim_end();
    fs::write(&file, format!("{head}\n{MARK}\n{text}{}", super::ssh::behind(&whole)))?;
    term::note(&format!("wrote {}", file.display()));
    Ok(())
}

impl Bench {
    fn start() -> anyhow::Result<Self> {
        let arguments = ["--general-log=0", "--innodb-buffer-pool-size=256M"].map(str::to_owned);
        let mariadb = MariadbOptions { arguments: arguments.to_vec(), ..MariadbOptions::default() };
        let mut lab = Lab::prepare(Options { mariadb: Some(mariadb), ..Options::default() })?;
        let port = lab.mariadb()?.port();
        lab.start_collector()?;
        let collector = lab.collector()?.pid().context("the collector does not run")?;
        paths::give_way(collector)?;
        let relay = paths::relay(&lab, port)?;
        let haproxy = paths::haproxy(&lab, port)?;
        let gate = paths::gate_with(&lab, "mariadb", &AgentOptions::default(), |site| Site {
            mariadb: Some((port, None)),
            ..site
        })?;
        let bench = Self { lab, relay, haproxy, gate, collector };
        let mut prepare = bench.sysbench("oltp_point_select", Path::Direct)?;
        places::run(prepare.arg("prepare"))?;
        Ok(bench)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.gate.stop()?;
        self.lab.discard()
    }

    fn sysbench(&self, script: &str, path: Path) -> anyhow::Result<Command> {
        let port = match path {
            Path::Direct | Path::Gate => self.lab.mariadb()?.port(),
            Path::Relay => self.relay.1,
            Path::Haproxy => self.haproxy.1,
        };
        let gate = path == Path::Gate;
        let uid = if gate { self.lab.service_uid } else { self.lab.other_uid };
        let home = self.lab.path(if gate { "home" } else { "home-other" });
        let mut command = Command::new("/usr/bin/sysbench");
        command.env_clear().env("LC_ALL", "C.UTF-8").env("HOME", &home).current_dir(home);
        let cgroup = gate.then(|| self.gate.cgroup().to_owned());
        Identity { uid: Some(uid), cgroup, ..Identity::default() }.apply(&mut command)?;
        command.args([script, "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=app"]);
        command.args(["--mysql-db=app", "--tables=1", "--percentile=50", "--mysql-ssl=off"]);
        command.arg(format!("--mysql-password={APP_PASSWORD}"));
        command.arg(format!("--mysql-port={port}")).arg(format!("--table-size={ROWS}"));
        Ok(command)
    }

    fn pids(&self, path: Path) -> anyhow::Result<Vec<u32>> {
        Ok(match path {
            Path::Direct => Vec::new(),
            Path::Relay => vec![self.relay.0.pid()],
            Path::Haproxy => vec![self.haproxy.0.pid()],
            Path::Gate => vec![self.gate.pid()?],
        })
    }

    fn measure(
        &mut self,
        round: u32,
        load: Load,
        path: Path,
        seconds: u32,
    ) -> anyhow::Result<Sample> {
        let pids = self.pids(path)?;
        let before = cpu::seconds(&pids)?;
        let mut command = self.sysbench(load.0, path)?;
        command.arg(format!("--threads={}", load.1)).arg(format!("--time={seconds}")).arg("run");
        let answer = client::run(&mut command, b"")?;
        anyhow::ensure!(answer.ok(), "sysbench on {}: {answer}", path.name());
        if path == Path::Gate {
            super::load::wait_until_quiet_of(self.collector)?;
        }
        let cpu = cpu::seconds(&pids)? - before;
        let (count, rate) =
            queries(&answer.stdout).with_context(|| format!("sysbench said: {}", answer.stdout))?;
        let p50_ms = median_ms(&answer.stdout).context("sysbench tells no median")?;
        Ok(Sample { round, load, path, rate, p50_ms, cpu: cpu * 1e5 / count.max(1.0) })
    }
}

/// `queries: 123 (456.78 per sec.)`.
fn queries(said: &str) -> Option<(f64, f64)> {
    let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix("queries:"))?;
    let (count, rest) = line.trim().split_once('(')?;
    let rate = rest.split_whitespace().next()?;
    Some((count.trim().parse().ok()?, rate.parse().ok()?))
}

fn median_ms(said: &str) -> Option<f64> {
    let line =
        said.lines().map(str::trim).find_map(|line| line.strip_prefix("50th percentile:"))?;
    line.trim().parse().ok()
}

fn report(samples: &[Sample], rounds: u32, seconds: u32, others: f64) -> String {
    let version = |program: &str, args: &[&str]| {
        let said = places::run(Command::new(program).args(args)).unwrap_or_default();
        said.lines().next().unwrap_or_default().trim().to_owned()
    };
    let mut text = format!(
        "Written by `cargo xtask bench --mysql`. sysbench's own scripts, prepared statements on (its default), one table of {ROWS}\n\
         rows in memory, TLS off; otherwise the method above.\n\n| | |\n| --- | --- |\n| server | {} |\n| sysbench | {} |\n\
         | rounds, seconds each | {rounds}, {seconds} |\n| used by others, most of any round | {:.0} % |\n\n",
        version("/usr/sbin/mariadbd", &["--version"]),
        version("/usr/bin/sysbench", &["--version"]),
        others * 100.0
    );
    for load in LOADS {
        let threads =
            if load.1 == 1 { "1 thread".to_owned() } else { format!("{} threads", load.1) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "## {}, {threads}\n\n| path | queries a second | rate / direct | rate / haproxy | p50 / direct | CPU s / 100k \
             queries | CPU / haproxy |\n| --- | --- | --- | --- | --- | --- | --- |",
            load.0
        );
        for path in Path::ALL {
            let own = |pick: fn(&Sample) -> f64| {
                show(Spread::of(of(samples, load, path).map(pick).collect()))
            };
            let over =
                |other, pick: fn(&Sample) -> f64| show(ratio(samples, load, path, other, pick));
            let cells = [
                path.name().to_owned(),
                own(|one| one.rate),
                over(Path::Direct, |one| one.rate),
                over(Path::Haproxy, |one| one.rate),
                over(Path::Direct, |one| one.p50_ms),
                if path == Path::Direct { "-".to_owned() } else { own(|one| one.cpu) },
                over(Path::Haproxy, |one| one.cpu),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        if load.1 == 16 {
            let rate = ratio(samples, load, Path::Gate, Path::Haproxy, |one| one.rate);
            let holds = rate.is_some_and(|rate| rate.median >= RATE_OF_HAPROXY_MIN);
            let _ = writeln!(
                text,
                "\nFloor: {RATE_OF_HAPROXY_MIN} of haproxy's rate: {}.",
                if holds { "holds" } else { "MISSED" }
            );
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn of(samples: &[Sample], load: Load, path: Path) -> impl Iterator<Item = &Sample> {
    samples.iter().filter(move |one| one.load == load && one.path == path)
}

/// The ratio of two paths, made round by round.
fn ratio(
    samples: &[Sample],
    load: Load,
    path: Path,
    other: Path,
    pick: fn(&Sample) -> f64,
) -> Option<Spread> {
    let ratios = of(samples, load, path).filter_map(|one| {
        let base = of(samples, load, other).find(|base| base.round == one.round)?;
        let (one, base) = (pick(one), pick(base));
        (base > 0.0 && one > 0.0).then(|| one / base)
    });
    Spread::of(ratios.collect())
}

fn show(spread: Option<Spread>) -> String {
    super::report::show(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysbench_is_read() {
        let said = "SQL statistics:\n    queries:                             12345  (4115.00 per sec.)\n\
                    Latency (ms):\n         50th percentile:                        0.24\n";
        assert_eq!(queries(said), Some((12345.0, 4115.0)));
        assert_eq!(median_ms(said), Some(0.24));
        assert_eq!(queries("nothing"), None);
    }

    #[test]
    fn ratios_are_made_within_a_round_and_the_floor_is_said() {
        let sample = |round, path, rate| Sample {
            round,
            load: ("oltp_point_select", 16),
            path,
            rate,
            p50_ms: 1.0,
            cpu: 1.0,
        };
        let mut samples = vec![
            sample(1, Path::Haproxy, 100.0),
            sample(1, Path::Gate, 80.0),
            sample(2, Path::Haproxy, 1000.0),
            sample(2, Path::Gate, 900.0),
        ];
        let text = report(&samples, 2, 1, 0.0);
        assert!(text.contains("0.85 [0.80 to 0.90]") && text.contains("rate: holds"), "{text}");
        samples.truncate(1);
        assert!(report(&samples, 1, 1, 0.0).contains("rate: MISSED"));
    }
}
