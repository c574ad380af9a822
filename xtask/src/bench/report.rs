//! What the bench says: ratios within a round, medians over rounds, goals.
//!
//! Promise: every number that is quoted is one that was measured in this run; what a path cannot do
//! is a dash with its reason.

mod goals;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Run;
use super::cpu::Spread;
use super::load::{Figures, Load, Sample};
use super::paths::Path;
use crate::lab::places;

/// Why `docs/BENCHMARKS.md` is not edited by hand.
const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; do not edit. Ratios compare paths within one run on one machine; absolute
numbers say little about another one.

## Method

One PostgreSQL, one path to it at a time, all paths in turn, again and again. A ratio is made within a
round; the table quotes the median of the rounds and, in brackets, the least and the most. CPU seconds are
the kernel's account of the path's own processes, for 100,000 statements (connections for churn, a GB for
bulk). Tidegate's go on until the collector has everything, so shipping the evidence is in them; the
collector's own stand apart, since it lives on another machine in real life (here it shares this one, at
`SCHED_IDLE`, so it gets what nobody else wants). TLS is off, login is `trust`, the server syncs.
*tidegate* records at the default levels; *tidegate host level* waits for the disk before every statement.
";

/// The report for the terminal.
pub fn terminal(run: &Run) -> String {
    format!("{}\n{}", tables(run), goals::table(run))
}

/// The report for docs/BENCHMARKS.md.
pub fn markdown(run: &Run) -> String {
    format!("{HEAD}\n{}\n{}\n{}", machine(run), goals::table(run), tables(run))
}

fn machine(run: &Run) -> String {
    let first = |path: &str, prefix: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(prefix)).map(str::to_owned);
        let value = line.as_deref().and_then(|line| line.split(':').nth(1)).map(str::trim);
        value.map(str::to_owned).unwrap_or_default()
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let version = |command: &str, args: &[&str]| {
        let said = places::run(std::process::Command::new(command).args(args)).unwrap_or_default();
        said.lines().next().unwrap_or_default().to_owned()
    };
    format!(
        "## This run\n\n| | |\n| --- | --- |\n| processor | {processors} x {} |\n| kernel | {release} |\n\
         | server | {} |\n| haproxy | {} |\n| pgbouncer | {} |\n| rounds, seconds each | {}, {} |\n\
         | fdatasync of 1 KiB, median [least to most] | {:.0} us [{:.0} to {:.0}] |\n\
         | used by others, most of any round | {:.0} % |\n",
        first("/proc/cpuinfo", "model name"),
        version("/usr/bin/psql", &["--version"]).replace("psql", "PostgreSQL"),
        version("/usr/sbin/haproxy", &["-v"]),
        version("/usr/sbin/pgbouncer", &["--version"]),
        run.rounds,
        run.seconds,
        run.sync_us.median,
        run.sync_us.least,
        run.sync_us.most,
        run.others_share * 100.0,
    )
}

fn tables(run: &Run) -> String {
    let mut text = String::new();
    for load in run.loads.iter().copied() {
        let unit = if load.is_bulk() { "MB/s" } else { "per second" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "## {}\n\n| path | {unit} | rate / direct | p50 / direct | CPU s | CPU / pgbouncer \
             transaction | CPU / haproxy | CPU / relay | collector CPU s |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            load.name()
        );
        for path in &run.paths {
            let _ = writeln!(text, "{}", row(run, load, *path));
        }
        text.push('\n');
    }
    text + &memory(run) + &cannot(run)
}

fn row(run: &Run, load: Load, path: Path) -> String {
    let rate = |figures: &Figures| {
        if load.is_bulk() { figures.rate / 1e6 } else { figures.rate }
    };
    let own = |pick: &dyn Fn(&Figures) -> f64| {
        show(Spread::of(figures(run, load, path).map(|(_, one)| pick(one)).collect()))
    };
    let over = |other, pick: fn(&Figures) -> Option<f64>| show(ratio(run, load, path, other, pick));
    let cpu = |figures: &Figures| Some(figures.cpu);
    let collector = if path.is_gate() { own(&|f| f.collector_cpu) } else { "-".to_owned() };
    [
        path.name().to_owned(),
        own(&rate),
        over(Path::Direct, |f| Some(f.rate)),
        over(Path::Direct, |f| f.p50_us),
        if path == Path::Direct { "-".to_owned() } else { own(&|f| f.cpu) },
        over(Path::BouncerTransaction, cpu),
        over(Path::Haproxy, cpu),
        over(Path::Relay, cpu),
        collector,
    ]
    .iter()
    .fold("|".to_owned(), |line, cell| line + " " + cell + " |")
}

/// Measurements of a load on a path, by round.
fn figures(run: &Run, load: Load, path: Path) -> impl Iterator<Item = (u32, &Figures)> {
    let is_it = move |sample: &&Sample| sample.load == load && sample.path == path;
    run.samples.iter().filter(is_it).filter_map(|s| Some((s.round, s.result.as_ref().ok()?)))
}

/// The ratio of two paths, made round by round.
fn ratio(
    run: &Run,
    load: Load,
    path: Path,
    other: Path,
    pick: fn(&Figures) -> Option<f64>,
) -> Option<Spread> {
    let ratios = figures(run, load, path).filter_map(|(round, one)| {
        let (_, base) = figures(run, load, other).find(|(at, _)| *at == round)?;
        let (one, base) = (pick(one)?, pick(base)?);
        (base > 0.0 && one > 0.0).then(|| one / base)
    });
    Spread::of(ratios.collect())
}

/// Median, least and most.
pub(super) fn show(spread: Option<Spread>) -> String {
    let number = |value: f64| match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    match spread {
        Some(spread) => format!(
            "{} [{} to {}]",
            number(spread.median),
            number(spread.least),
            number(spread.most)
        ),
        None => "-".to_owned(),
    }
}

fn memory(run: &Run) -> String {
    let mut text = "## Memory of an idle connection\n\n| path | kB |\n| --- | --- |\n".to_owned();
    for (path, kib) in &run.memory {
        if let Some(kib) = kib {
            let _ = writeln!(text, "| {} | {kib:.1} |", path.name());
        }
    }
    text + "\n"
}

fn cannot(run: &Run) -> String {
    let reasons = run.samples.iter().filter_map(|sample| {
        let why = sample.result.as_ref().err()?;
        Some(format!("- {} on {}: {why}\n", sample.load.name(), sample.path.name()))
    });
    let reasons = reasons.collect::<BTreeSet<_>>();
    if reasons.is_empty() {
        return String::new();
    }
    reasons.into_iter().fold("## Not measured\n\n".to_owned(), |text, reason| text + &reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, path: Path, rate: f64) -> Sample {
        let figures = Figures { rate, p50_us: None, cpu: 0.0, collector_cpu: 0.0 };
        Sample { round, load: Load::Churn, path, result: Ok(figures) }
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        let run = Run {
            rounds: 3,
            seconds: 1,
            loads: Load::ALL.to_vec(),
            paths: vec![Path::Direct, Path::Gate],
            samples: vec![
                sample(1, Path::Direct, 100.0),
                sample(1, Path::Gate, 50.0),
                sample(2, Path::Direct, 1000.0),
                sample(2, Path::Gate, 600.0),
                sample(3, Path::Direct, 10.0),
                sample(3, Path::Gate, 7.0),
            ],
            memory: Vec::new(),
            sync_us: Spread::default(),
            others_share: 0.0,
        };
        let spread = ratio(&run, Load::Churn, Path::Gate, Path::Direct, |f| Some(f.rate)).unwrap();
        assert_eq!(show(Some(spread)), "0.60 [0.50 to 0.70]");
        assert!(ratio(&run, Load::Churn, Path::Gate, Path::Haproxy, |f| Some(f.rate)).is_none());
        assert!(terminal(&run).contains("| tidegate |"));
    }
}
