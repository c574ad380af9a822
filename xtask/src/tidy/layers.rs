//! Dependencies between our crates run down only.
//!
//! Promises: a crate depends on crates of a lower layer only; agent and collector meet only in
//! `proto` and below; test helpers are for tests. A crate that is not in the table is a finding.

use std::path::Path;

use super::{Finding, TextFile};

/// Where a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Pure libraries, for all.
    Pure,
    /// Between kernel and agent.
    Kernel,
    /// On the host.
    Agent,
    /// At the collector.
    Collector,
    /// Chores and tests.
    Chore,
}

/// Our crates with their layer, lowest first (docs/ARCHITECTURE.md). Without the name's prefix.
const LAYERS: [(&str, u8, Side); 23] = [
    ("event", 0, Side::Pure),
    ("agent-common", 0, Side::Kernel),
    ("ebpf", 1, Side::Kernel),
    ("wire", 1, Side::Pure),
    ("sql", 1, Side::Pure),
    ("ledger", 1, Side::Pure),
    ("segment", 1, Side::Pure),
    ("wire-mysql", 3, Side::Pure),
    ("wire-ssh", 3, Side::Pure),
    ("wire-postgres", 3, Side::Pure),
    ("testkit", 2, Side::Pure),
    ("policy", 2, Side::Pure),
    ("proto", 2, Side::Pure),
    ("mask", 2, Side::Pure),
    ("recording", 1, Side::Pure),
    ("identity", 3, Side::Agent),
    ("vault", 3, Side::Agent),
    ("spool", 3, Side::Agent),
    ("journal", 4, Side::Agent),
    ("agent", 5, Side::Agent),
    ("collector", 5, Side::Collector),
    ("vm-tests", 6, Side::Chore),
    ("fuzz", 6, Side::Chore),
];

/// Has no prefix.
const XTASK: (u8, Side) = (6, Side::Chore);

/// What all our crates but `xtask` begin with.
const PREFIX: &str = "tidegate-";

/// For tests only.
const TEST_HELPER: &str = "testkit";

/// Checks every `Cargo.toml` among `files`.
pub fn check(files: &[TextFile]) -> Vec<Finding> {
    let manifest =
        |file: &&TextFile| file.path.file_name().is_some_and(|name| name == "Cargo.toml");
    files.iter().filter(manifest).flat_map(check_manifest).collect()
}

fn check_manifest(file: &TextFile) -> Vec<Finding> {
    let table: toml::Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&file.path, 0, format!("is no TOML: {error}"))],
    };
    let package = table.get("package").and_then(toml::Value::as_table);
    let Some(name) = package.and_then(|package| package.get("name")?.as_str()) else {
        return Vec::new();
    };
    let Some((layer, side)) = place(name) else {
        let what = format!("{name} has no layer; give it one in xtask/src/tidy/layers.rs");
        return vec![Finding::new(&file.path, line_of(&file.text, name), what)];
    };
    let mut findings = Vec::new();
    for (key, tests) in
        [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        let dependencies = table.get(key).and_then(toml::Value::as_table);
        for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
            if let Some(what) = judge(name, (layer, side), dependency, tests) {
                findings.push(Finding::new(&file.path, line_of(&file.text, dependency), what));
            }
        }
    }
    findings.extend(check_purity(file, side));
    findings
}

/// What is wrong with a dependency, where something is.
fn judge(name: &str, (layer, side): (u8, Side), dependency: &str, tests: bool) -> Option<String> {
    let short = dependency.strip_prefix(PREFIX)?;
    if tests && dependency == name {
        // A crate may name itself in its tests, to turn on a feature.
        return None;
    }
    let Some((below, theirs)) = place(dependency) else {
        return Some(format!("{dependency} has no layer; give it one in xtask/src/tidy/layers.rs"));
    };
    if short == TEST_HELPER {
        let allowed = tests || side == Side::Chore;
        return (!allowed).then(|| format!("{dependency} is for [dev-dependencies] only"));
    }
    if below >= layer {
        return Some(format!(
            "{name} (layer {layer}) can't depend on {dependency} (layer {below}): dependencies run \
             down only"
        ));
    }
    let meets = match side {
        Side::Pure | Side::Collector => theirs == Side::Pure,
        Side::Kernel => theirs == Side::Kernel,
        Side::Agent => matches!(theirs, Side::Pure | Side::Agent | Side::Kernel),
        Side::Chore => true,
    };
    (!meets).then(|| {
        format!(
            "{name} can't depend on {dependency}: agent, kernel and collector meet only in \
                 proto and below"
        )
    })
}

/// A pure crate has no runtime to do IO with.
fn check_purity(file: &TextFile, side: Side) -> Vec<Finding> {
    const IO: [&str; 5] = ["tokio", "nix", "libc", "socket2", "aya"];
    let pure = side == Side::Pure && file.path.starts_with(Path::new("crates"));
    let Ok(table) = file.text.parse::<toml::Table>() else {
        return Vec::new();
    };
    let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
    let names = dependencies.into_iter().flatten();
    let io =
        names.filter(|(name, value)| pure && IO.contains(&name.as_str()) && !is_optional(value));
    io.map(|(name, _)| {
        let what = format!("{name} does IO, and crates/ is pure: take bytes and time as arguments");
        Finding::new(&file.path, line_of(&file.text, name), what)
    })
    .collect()
}

/// Behind a feature that only agent and collector turn on.
fn is_optional(value: &toml::Value) -> bool {
    value.get("optional").and_then(toml::Value::as_bool) == Some(true)
}

fn place(name: &str) -> Option<(u8, Side)> {
    if name == "xtask" {
        return Some(XTASK);
    }
    let short = name.strip_prefix(PREFIX)?;
    let found = LAYERS.into_iter().find(|(crate_name, _, _)| *crate_name == short);
    found.map(|(_, layer, side)| (layer, side))
}

fn line_of(text: &str, word: &str) -> usize {
    let at = text.lines().position(|line| {
        line.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with([' ', '=', '.']))
            || line.contains(&format!("\"{word}\""))
    });
    at.map_or(0, |at| at + 1)
}
