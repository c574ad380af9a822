//! `cargo xtask tidy`: the repository's own rules.
//!
//! Promises: each rule here has a test with a sample that breaks it. A finding names file and line
//! and says what to do.
//!
//! Rules: dependencies run down only ([`layers`]); source files keep their length, their module
//! docs and their promises ([`source`]); links between documents lead somewhere, and each row of
//! `docs/THREATS.md` names a test that exists ([`docs`]).
//!
//! Limits: functions longer than 70 lines are clippy's to find (`too_many_lines`).

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::run;

pub mod code;
pub mod docs;
pub mod layers;
pub mod source;
#[cfg(test)]
mod tests;

/// Directories that are not ours to tidy.
const SKIPPED_DIRS: [&str; 4] = [".git", "target", "corpus", "artifacts"];

/// Kinds of text files that are looked at.
const TEXT_KINDS: [&str; 13] = [
    "rs",
    "md",
    "toml",
    "proto",
    "cedar",
    "cedarschema",
    "yml",
    "yaml",
    "json",
    "sh",
    "py",
    "service",
    "java",
];

/// One breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the top of the repository.
    pub file: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    /// A breach at a line.
    pub fn new(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// A text file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Its path from the top of the repository.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Runs `cargo xtask tidy`.
pub fn run() -> anyhow::Result<()> {
    let files = read(run::repository())?;
    let findings = check(&files);
    for finding in &findings {
        run::say(&finding.to_string());
    }
    anyhow::ensure!(findings.is_empty(), "tidy: {} findings", findings.len());
    run::say(&format!("tidy: {} files are tidy", files.len()));
    Ok(())
}

/// Every breach in `files`.
pub fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(source::check_text(file));
        match file.path.extension().and_then(|kind| kind.to_str()) {
            Some("rs") => findings.extend(source::check_rust(file)),
            Some("md") => findings.extend(docs::check_links(file, files)),
            _ => {}
        }
    }
    findings.extend(layers::check(files));
    findings.extend(docs::check_threats(files));
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    findings
}

/// Every text file below `root`, in the order of their paths.
pub fn read(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() && !SKIPPED_DIRS.contains(&&*name) {
                dirs.push(path);
            } else if kind.is_file() && is_text(&path) {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_text(path: &Path) -> bool {
    path.extension().and_then(|kind| kind.to_str()).is_some_and(|kind| TEXT_KINDS.contains(&kind))
}
