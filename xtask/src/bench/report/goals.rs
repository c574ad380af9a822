//! The floors of the first landing, and whether this run stands on them.

use std::fmt::Write as _;

use super::{figures, ratio, show};
use crate::bench::Run;
use crate::bench::cpu::Spread;
use crate::bench::load::{Figures, Load};
use crate::bench::paths::Path;

/// Query modes of pgbench.
const MODES: [&str; 3] = ["simple", "extended", "prepared"];

/// Which side of the floor is good.
#[derive(Clone, Copy)]
enum Floor {
    AtMost(f64),
    AtLeast(f64),
}

impl Floor {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn show(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}"),
            Self::AtLeast(least) => format!("at least {least}"),
        }
    }
}

/// The table of goals, for both levels.
pub fn table(run: &Run) -> String {
    let mut text = "## Floors of the first landing\n\n\
        | goal | floor | tidegate | | tidegate host level | |\n\
        | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (name, floor, measure) in goals() {
        let cell = |path| {
            let spread = measure(run, path);
            let mark = match spread {
                Some(spread) if floor.holds(spread.median) => "holds",
                Some(_) => "MISSED",
                None => "not measured",
            };
            format!("{} | {mark}", show(spread))
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            floor.show(),
            cell(Path::Gate),
            cell(Path::GateHost)
        );
    }
    text
}

type Measure = Box<dyn Fn(&Run, Path) -> Option<Spread>>;

fn goals() -> Vec<(String, Floor, Measure)> {
    let mut goals: Vec<(String, Floor, Measure)> = Vec::new();
    for mode in MODES {
        statements(mode, &mut goals);
    }
    for load in [Load::Rows, Load::CopyOut, Load::CopyIn] {
        let name = format!("rate / direct, {}", load.name());
        goals.push((name, Floor::AtLeast(0.80), over(load, Path::Direct, |f| Some(f.rate))));
        let name = format!("CPU per GB / pgbouncer, {}", load.name());
        let cpu = over(load, Path::BouncerTransaction, |f| Some(f.cpu));
        goals.push((name, Floor::AtMost(1.0), cpu));
    }
    goals.push((
        "rate / masking off, 1M rows x 10 of which 2 are masked".to_owned(),
        Floor::AtLeast(0.75),
        Box::new(|run, path| {
            let masked = || ratio(run, Load::Wide, Path::Masking, Path::Gate, |f| Some(f.rate));
            (path == Path::Gate).then(masked).flatten()
        }),
    ));
    let churn = over(Load::Churn, Path::Haproxy, |f| Some(f.cpu));
    goals.push(("CPU per connection / haproxy, churn".to_owned(), Floor::AtMost(1.5), churn));
    goals.push((
        "memory of an idle connection, kB".to_owned(),
        Floor::AtMost(20.0),
        Box::new(|run, path| {
            let (_, kib) = run.memory.iter().find(|(at, _)| *at == path)?;
            Spread::of(vec![(*kib)?])
        }),
    ));
    goals
}

/// Goals for one query mode.
fn statements(mode: &'static str, goals: &mut Vec<(String, Floor, Measure)>) {
    // Debian's pgbouncer cannot pool prepared statements by transaction.
    let pooler = if mode == "prepared" { Path::BouncerSession } else { Path::BouncerTransaction };
    let (one, many) = (Load::Select(mode, 1), Load::Select(mode, 16));
    for (other, most) in [(pooler, 1.5), (Path::Haproxy, 1.5), (Path::Relay, 1.4)] {
        let name = format!("CPU per statement / {}, {}", other.name(), many.name());
        goals.push((name, Floor::AtMost(most), over(many, other, |f| Some(f.cpu))));
    }
    let name = format!("p50 / direct, {}", one.name());
    goals.push((name, Floor::AtMost(2.6), over(one, Path::Direct, |f| f.p50_us)));
    let name = format!("rate / direct, {}", many.name());
    goals.push((name, Floor::AtLeast(0.55), over(many, Path::Direct, |f| Some(f.rate))));
    let name = format!("evidence CPU s per 100k statements, {}", many.name());
    goals.push((name, Floor::AtMost(0.5), Box::new(move |run, path| evidence(run, many, path))));
}

fn over(load: Load, other: Path, pick: fn(&Figures) -> Option<f64>) -> Measure {
    Box::new(move |run, path| ratio(run, load, path, other, pick))
}

/// What the gate uses beyond our own bare relay.
fn evidence(run: &Run, load: Load, path: Path) -> Option<Spread> {
    let beyond = figures(run, load, path).filter_map(|(round, one)| {
        let (_, bare) = figures(run, load, Path::Relay).find(|(at, _)| *at == round)?;
        Some((one.cpu - bare.cpu).max(0.0))
    });
    Spread::of(beyond.collect())
}
