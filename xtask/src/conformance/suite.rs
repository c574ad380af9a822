//! One run of `pg_regress` against a laboratory's server.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::source::Source;
use crate::lab::{Lab, Who, client, places};

/// What came of a run.
pub struct Outcome {
    /// Each test: whether it passed.
    pub tests: BTreeMap<String, bool>,
    results: PathBuf,
    /// Where the run's laboratory was: errors over files name it, and each run has its own.
    place: PathBuf,
}

impl Outcome {
    /// How many failed.
    pub fn failed(&self) -> usize {
        self.tests.values().filter(|passed| !**passed).count()
    }

    /// Each test whose result is another, or whose output differs although both failed.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let mut differing = Vec::new();
        for (name, passed) in &self.tests {
            let verdict = |passed: bool| if passed { "ok" } else { "failed" };
            match other.tests.get(name) {
                None => differing.push(format!("{name}: not run the second time")),
                Some(then) if then != passed => differing.push(format!(
                    "{name}: {} the first time, {} the second (see {})",
                    verdict(*passed),
                    verdict(*then),
                    other.results.join(format!("{name}.out")).display()
                )),
                Some(false) if self.output(name) != other.output(name) => {
                    differing.push(format!("{name}: failed both times, with other output"));
                }
                Some(_) => {}
            }
        }
        differing
    }

    fn output(&self, test: &str) -> Option<Vec<u8>> {
        let said = fs::read(self.results.join(format!("{test}.out"))).ok()?;
        Some(without(&said, self.place.as_os_str().as_bytes()))
    }
}

/// The text without each place where it says `what`.
fn without(text: &[u8], what: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = match rest.strip_prefix(what) {
            Some(behind) if !what.is_empty() => behind,
            _ => {
                kept.push(*first);
                behind
            }
        };
    }
    kept
}

/// Runs the whole schedule, or some tests; results are copied to `keep`.
pub fn run(
    lab: &Lab,
    who: Who,
    source: &Source,
    tests: &[String],
    keep: &Path,
) -> anyhow::Result<Outcome> {
    // A copy where the server's account may read, and a place where it may write.
    let (input, libraries, output) =
        (lab.path("regress"), lab.path("regress-lib"), lab.path("home").join("out"));
    copy(&source.regress, &input)?;
    copy(&source.libraries, &libraries)?;
    fs::create_dir_all(&output)?;
    for dir in [lab.path("home"), output.clone()] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(&dir, Some(lab.service_uid), Some(lab.service_uid))?;
    }
    let program =
        places::postgres_programs()?.with_file_name("lib/pgxs/src/test/regress/pg_regress");
    let mut regress = lab.command(who, &program)?;
    regress.current_dir(&output);
    regress.arg(format!("--inputdir={}", input.display()));
    regress.arg(format!("--outputdir={}", output.display()));
    regress.arg(format!("--bindir={}", places::postgres_programs()?.display()));
    regress.arg(format!("--dlpath={}", libraries.display()));
    regress.args(["--host=127.0.0.1", "--user=postgres", "--max-connections=20"]);
    regress.arg(format!("--port={}", lab.postgres.port()));
    if tests.is_empty() {
        regress.arg(format!("--schedule={}", input.join("parallel_schedule").display()));
    }
    regress.args(tests);
    let answer = client::run_within(&mut regress, b"", client::SUITE_MS_MAX)?;
    let _ = fs::remove_dir_all(keep);
    copy(&output, keep)?;
    let tests = parse(&answer.stdout);
    anyhow::ensure!(!tests.is_empty(), "pg_regress ran no test: {answer}");
    let place = input.parent().unwrap_or(&input).to_owned();
    Ok(Outcome { tests, results: keep.join("results"), place })
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(to);
    places::run(&mut cp).map(drop).with_context(|| format!("copying {}", from.display()))
}

/// Reads the lines of pg_regress 15: `test name ... ok  12 ms`, in groups `     name ... FAILED`.
fn parse(stdout: &str) -> BTreeMap<String, bool> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(" ... ")?;
        let name = name.trim().trim_start_matches("test ").trim();
        let verdict = rest.split_whitespace().next()?;
        let passed = match verdict {
            "ok" => true,
            "FAILED" | "failed" => false,
            _ => return None,
        };
        Some((name.to_owned(), passed))
    };
    stdout.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_alike_but_for_the_place_of_their_run() {
        let said = |place: &str| format!("ERROR: no \"{place}/regress.so\", {place}/x");
        let (one, other) = (said("/tmp/a"), said("/tmp/bb"));
        assert_eq!(without(one.as_bytes(), b"/tmp/a"), without(other.as_bytes(), b"/tmp/bb"));
        assert_eq!(without(b"ERROR: other", b"/tmp/a"), b"ERROR: other");
        assert_eq!(without(b"abc", b""), b"abc");
    }

    #[test]
    fn results_are_read_from_both_kinds_of_lines() {
        let said = "test test_setup                   ... ok          312 ms\n\
            parallel group (2 tests):  char boolean\n\
            \u{20}    boolean                      ... ok          101 ms\n\
            \u{20}    char                         ... FAILED       55 ms\n";
        let tests = parse(said);
        let wanted = [("boolean", true), ("char", false), ("test_setup", true)];
        assert_eq!(tests, wanted.map(|(name, passed)| (name.to_owned(), passed)).into());
    }
}
