//! `cargo xtask threats`: runs the tests that `docs/THREATS.md` names, and writes what came of each row.
//!
//! Promises: a row is *held* only where every test that it names ran and passed, on the kernel that the table's head
//! names. A row whose test did not run says so. What stands by hand in the table stays.
//!
//! Cannot do: rows that name a file of samples, or the test machine, beside their tests, are judged by their tests
//! alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::Context as _;

use crate::{run, setup};

/// The document.
const THREATS: &str = "docs/THREATS.md";

/// The profile of nextest that writes the results.
const PROFILE: &str = "threats";

/// Head of the column that is written.
const COLUMN: &str = "shown";

/// The line that says when and where; written before the first table.
const STAMP: &str = "Column *shown*: ";

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
}

/// Runs `cargo xtask threats`.
pub fn run() -> anyhow::Result<()> {
    setup::ensure(setup::Purpose::Test)?;
    let path = run::repository().join(THREATS);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {THREATS}"))?;
    let names = tests(&text);
    let filter = names.iter().map(|name| format!("test(/(^|::){name}$/)")).collect::<Vec<_>>();
    let mut cargo = run::cargo();
    cargo.args(["nextest", "run", "--workspace", "--no-fail-fast", "--profile", PROFILE, "-E"]);
    cargo.arg(filter.join(" + "));
    // A test that fails is a row that is not held, and the command's failure once that is written.
    let ran = run::run(&mut cargo);
    let report = run::target().join("nextest").join(PROFILE).join("junit.xml");
    let report = fs::read_to_string(report).context("nextest wrote no results")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let commit = run::output(run::command("git").args(["log", "-1", "--format=%cs, commit %h"]))?;
    let stamp = format!("kernel {}, {}", kernel.trim(), commit.trim());
    fs::write(&path, written(&text, &outcomes(&report), &stamp))?;
    ran.map_err(|_| anyhow::anyhow!("not every row of {THREATS} holds; it says which do not"))
}

/// Names of tests in the tables, each once.
fn tests(text: &str) -> Vec<String> {
    let mut names: Vec<String> = rows(text).flat_map(|(_, cells)| named(cells)).collect();
    names.sort();
    names.dedup();
    names
}

/// Lines that are a row of a table with a column of tests, by line number, with that column.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut column = None;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if !line.starts_with('|') {
            column = None;
            return None;
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(known) = column else {
            column = Some(cells.iter().position(|cell| *cell == "test"));
            return None;
        };
        let cell = cells.get(known?).copied()?;
        (!cell.starts_with('-')).then_some((at, cell))
    })
}

/// Test names of one cell.
fn named(cell: &str) -> Vec<String> {
    let names = cell.split('`').skip(1).step_by(2);
    let names = names.filter(|name| !name.contains(['/', '.']));
    names.map(|name| name.rsplit("::").next().unwrap_or(name).to_owned()).collect()
}

/// What nextest's JUnit report says, by the last part of each name; of two of one name, the worse.
fn outcomes(report: &str) -> BTreeMap<String, Outcome> {
    let mut found = BTreeMap::new();
    for case in report.split("<testcase ").skip(1) {
        let Some(name) = case.split("name=\"").nth(1).and_then(|rest| rest.split('"').next())
        else {
            continue;
        };
        let name = name.rsplit("::").next().unwrap_or(name).to_owned();
        let case = case.split("</testcase>").next().unwrap_or(case);
        let failed = case.contains("<failure") || case.contains("<error");
        let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
        let held = found.entry(name).or_insert(outcome);
        if outcome == Outcome::Failed {
            *held = Outcome::Failed;
        }
    }
    found
}

/// The document with its column written anew.
fn written(text: &str, outcomes: &BTreeMap<String, Outcome>, stamp: &str) -> String {
    let of_tests: BTreeMap<usize, &str> = rows(text).collect();
    let (mut out, mut before, mut stamped, mut in_table) = (String::new(), "", false, false);
    for (at, line) in text.lines().enumerate() {
        if line.starts_with(STAMP) || (line.is_empty() && before.starts_with(STAMP)) {
            before = line;
            continue;
        }
        before = line;
        if line.starts_with("## ") && !stamped {
            stamped = true;
            let said = "what came of the tests of each row";
            // Writing to a String can't fail.
            let _ = writeln!(out, "{STAMP}{said}, on {stamp} (`cargo xtask threats`).\n");
        }
        let cell = match of_tests.get(&at) {
            Some(cell) => Some(verdict(cell, outcomes)),
            None if line.starts_with('|') && line.contains("| test |") => {
                in_table = true;
                Some(COLUMN.to_owned())
            }
            None if in_table && line.starts_with("| ---") => Some("---".to_owned()),
            None => None,
        };
        in_table &= line.starts_with('|');
        match cell {
            Some(cell) => {
                let _ = writeln!(out, "{} {cell} |", without_column(line));
            }
            None => {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    out
}

/// A row up to its third cell, with the bar behind it.
fn without_column(line: &str) -> &str {
    let bars = line.match_indices('|').map(|(at, _)| at).nth(3);
    bars.and_then(|at| line.get(..=at)).unwrap_or(line)
}

/// What is shown of one row.
fn verdict(cell: &str, outcomes: &BTreeMap<String, Outcome>) -> String {
    let found: Vec<_> = named(cell).iter().map(|name| outcomes.get(name).copied()).collect();
    let passed = found.iter().filter(|one| **one == Some(Outcome::Passed)).count();
    match (passed, found.len()) {
        (_, 0) => "not run here".to_owned(),
        (passed, all) if passed == all => "held".to_owned(),
        (passed, all) if found.contains(&Some(Outcome::Failed)) => {
            format!("**not held**: {passed} of {all} tests pass")
        }
        (passed, all) => format!("{passed} of {all} tests ran"),
    }
}

#[cfg(test)]
mod proofs {
    use super::*;

    const TEXT: &str = "# T\n\nColumn *shown*: old\n\n## Ways\n\n| way | what happens | test | shown |\n\
                        | --- | --- | --- | --- |\n| a | x | `one`, `m::two` | old |\n| b | y | `two`, `three` |\n\
                        | c | z | `a/file.rs` |\n| d | w | `four` |\n\nprose\n\n| way | when |\n| --- | --- |\n| e | `one` |\n";

    const REPORT: &str = "<testsuite name=\"s\"><testcase name=\"x::one\" time=\"1\"></testcase>\
                          <testcase name=\"two\" time=\"1\"></testcase><testcase name=\"four\" time=\"1\">\
                          <failure>no</failure></testcase></testsuite>";

    #[test]
    fn each_row_says_what_came_of_its_tests_and_a_second_run_changes_nothing() {
        assert_eq!(tests(TEXT), ["four", "one", "three", "two"]);
        let written = written(TEXT, &outcomes(REPORT), "kernel 6");
        for expected in [
            "Column *shown*: what came of the tests of each row, on kernel 6 (`cargo xtask threats`).\n\n## Ways",
            "| way | what happens | test | shown |\n| --- | --- | --- | --- |\n",
            "| a | x | `one`, `m::two` | held |\n",
            "| b | y | `two`, `three` | 1 of 2 tests ran |\n",
            "| c | z | `a/file.rs` | not run here |\n",
            "| d | w | `four` | **not held**: 0 of 1 tests pass |\n",
            "| e | `one` |\n",
        ] {
            assert!(written.contains(expected), "{expected}\n{written}");
        }
        let again = super::written(&written, &outcomes(REPORT), "kernel 6");
        assert_eq!(again, written);
    }
}
