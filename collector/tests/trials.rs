//! Seeded trials: a log is spoilt in one way, and both verifiers must find it and say where; a clean one must
//! raise no alarm. The second verifier is `docs/formats/verify.py`.
//!
//! `TIDEGATE_TRIALS` says how many of each kind (`cargo xtask soak evidence`: 100), `TIDEGATE_SEED` which.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests: a failure here is the test's verdict"
)]

#[path = "collector/agent.rs"]
#[expect(dead_code, reason = "shared with the collector's other tests, which use all of it")]
mod agent;
#[path = "trials/made.rs"]
mod made;
#[path = "trials/random.rs"]
mod random;
#[path = "trials/spoil.rs"]
mod spoil;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidegate_collector::keys::Keys;
use tidegate_collector::log::notes;
use tidegate_collector::verify::{Against, to_json, verify_against};

use made::Made;
use random::Random;
use spoil::{Spoil, spoil};

/// Of each kind in an ordinary run; two signatures a millisecond is what plain Python does.
const TRIALS: u64 = 5;

fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// One spoilt log on the disk.
struct Trial {
    seed: u64,
    dir: PathBuf,
    /// The first entry that is not as it was.
    at: u64,
}

impl Trial {
    fn rust(&self) -> Value {
        let read = |name: &str| std::fs::read_to_string(self.dir.join(name)).unwrap();
        let against = Against {
            policy: Some(read("policy.txt").parse().unwrap()),
            checkpoints: notes::read_some(&self.dir.join("witness")).unwrap(),
            range: None,
        };
        let keys = Keys::read(&self.dir.join("keys.json")).unwrap();
        to_json(&verify_against(&self.dir.join("log"), &keys, &against).unwrap())
    }

    fn arguments(&self) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        json!([
            "--log",
            path("log"),
            "--keys",
            path("keys.json"),
            "--policy",
            path("policy.txt"),
            "--checkpoint",
            path("witness"),
        ])
        .to_string()
    }
}

/// What the second verifier says of each.
fn python(dir: &Path, trials: &[Trial]) -> Vec<Value> {
    let batch = dir.join("batch");
    let lines: Vec<String> = trials.iter().map(Trial::arguments).collect();
    std::fs::write(&batch, lines.join("\n")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/verify.py");
    let output = Command::new("python3").arg(script).arg("--batch").arg(&batch).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the second verifier failed: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a report names the place: the entry, or a run of entries with it.
fn locates(report: &Value, at: u64) -> bool {
    report["findings"].as_array().unwrap().iter().any(|found| {
        let here = found["index"].as_u64().is_some_and(|index| index == at);
        let run = found["what"].as_str().and_then(run_of);
        let within = run.is_some_and(|(first, last)| (first..=last).contains(&at));
        found["class"] == "tampering" && (here || within)
    })
}

/// `entries A to B` in a finding.
fn run_of(what: &str) -> Option<(u64, u64)> {
    let (_, rest) = what.rsplit_once("in entries ")?;
    let mut words = rest.split(' ');
    let first = words.next()?.parse().ok()?;
    words.next().filter(|word| *word == "to")?;
    Some((first, words.next()?.parse().ok()?))
}

fn first_of(report: &Value) -> Option<u64> {
    let found = report["findings"].as_array()?;
    let tampering = found.iter().filter(|found| found["class"] == "tampering");
    tampering.filter_map(|found| found["index"].as_u64()).min()
}

fn check(how: Spoil) {
    let base = tempfile::tempdir().unwrap();
    let (count, first_seed) = (from_env("TIDEGATE_TRIALS", TRIALS), from_env("TIDEGATE_SEED", 1));
    let trials: Vec<Trial> = (first_seed..first_seed + count)
        .map(|seed| {
            let mut random = Random::new(seed, how as u64);
            let made = Made::new(&mut random);
            let dir = base.path().join(seed.to_string());
            let at = spoil(how, &made, &mut random, &dir);
            Trial { seed, dir, at }
        })
        .collect();
    let theirs = python(base.path(), &trials);
    assert_eq!(theirs.len(), trials.len());
    for (trial, theirs) in trials.iter().zip(&theirs) {
        let (seed, ours) = (trial.seed, trial.rust());
        let both = || format!("{how:?}, seed {seed}, entry {}:\n{ours:#}\n{theirs:#}", trial.at);
        assert_eq!(ours["exit_code"], theirs["exit_code"], "they differ: {}", both());
        if how == Spoil::Nothing {
            assert_eq!(
                (ours["exit_code"].as_u64(), first_of(&ours)),
                (Some(0), None),
                "{}",
                both()
            );
            assert!(ours["findings"].as_array().unwrap().is_empty(), "{}", both());
            for key in
                ["root", "records", "seals", "bound_size", "witnessed_size", "seen_by_agents"]
            {
                assert_eq!(ours[key], theirs[key], "{key}: {}", both());
            }
            continue;
        }
        assert_eq!(ours["exit_code"], 20, "not found: {}", both());
        assert!(locates(&ours, trial.at), "not located by the first: {}", both());
        assert!(locates(theirs, trial.at), "not located by the second: {}", both());
        assert_eq!(first_of(&ours), first_of(theirs), "other places: {}", both());
    }
}

#[test]
fn a_clean_log_raises_no_alarm() {
    check(Spoil::Nothing);
}

#[test]
fn a_flipped_bit_in_a_file_is_found() {
    check(Spoil::FlipInFile);
}

#[test]
fn a_flipped_bit_under_a_new_checksum_is_found() {
    check(Spoil::Flip);
}

#[test]
fn a_deleted_entry_is_found() {
    check(Spoil::Delete);
}

#[test]
fn an_inserted_entry_is_found() {
    check(Spoil::Insert);
}

#[test]
fn swapped_entries_are_found() {
    check(Spoil::Swap);
}

#[test]
fn a_cut_end_is_found() {
    check(Spoil::Truncate);
}

#[test]
fn a_data_directory_that_was_set_back_is_found() {
    check(Spoil::Rollback);
}

#[test]
fn a_fork_by_a_second_collector_is_found() {
    check(Spoil::Fork);
}

#[test]
fn a_history_that_a_stolen_log_key_signed_is_found() {
    check(Spoil::StolenKey);
}
