//! What a source file must be.

use super::code::code_only;
use super::{Finding, TextFile};

/// Longest source file, in lines. Longer ones have more than one job.
pub const FILE_LINES_MAX: usize = 600;

/// Rules for any text file.
pub fn check_text(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::new(&file.path, at + 1, "trailing blanks: remove them"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        let last = file.text.lines().count();
        findings.push(Finding::new(&file.path, last, "the last line has no end: add a newline"));
    }
    findings
}

/// Rules for Rust.
pub fn check_rust(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, more than {FILE_LINES_MAX}: split it by job");
        findings.push(Finding::new(&file.path, FILE_LINES_MAX + 1, what));
    }
    if file.path.file_name().is_some_and(|name| name == "mod.rs") {
        let what = "mod.rs: name the file after its module (foo.rs beside foo/)";
        findings.push(Finding::new(&file.path, 0, what));
    }
    // Programs that must not compile: their lines are quoted in the expected errors.
    let fixture = file.path.components().any(|part| part.as_os_str() == "compile_fail");
    if !fixture && !starts_with_module_docs(&file.text) {
        let what = "no module docs: start with //! and what the module promises";
        findings.push(Finding::new(&file.path, 1, what));
    }
    let in_src = file.path.components().any(|part| part.as_os_str() == "src");
    let pure = file.path.starts_with("crates") && in_src;
    for (at, line) in code_only(&file.text).lines().enumerate() {
        for (word, what) in banned(pure) {
            if line.contains(word) && !is_part_of_word(line, word) {
                findings.push(Finding::new(&file.path, at + 1, *what));
            }
        }
    }
    findings.extend(only_user_of_aya(file));
    findings
}

/// Pieces of code that are not to be, each with what to do.
fn banned(pure: bool) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    const EVERYWHERE: [(&str, &str); 6] = [
        ("#[allow(", "#[allow]: use #[expect(.., reason = \"..\")]"),
        ("#![allow(", "#![allow]: use #![expect(.., reason = \"..\")]"),
        ("#[ignore", "#[ignore]: a test runs, or is listed as not run in docs/TESTING.md"),
        ("todo!(", "todo!: write it, or leave it out and say so in the module's docs"),
        ("unimplemented!(", "unimplemented!: write it, or leave it out and say so"),
        ("dbg!(", "dbg!: remove it"),
    ];
    const IN_CRATES: [(&str, &str); 4] = [
        ("println!(", "println! in a library: return what is to be said"),
        ("eprintln!(", "eprintln! in a library: return what is to be said"),
        ("print!(", "print! in a library: return what is to be said"),
        ("eprint!(", "eprint! in a library: return what is to be said"),
    ];
    EVERYWHERE.iter().chain(IN_CRATES.iter().filter(move |_| pure))
}

/// Whether `word` occurs only as the end of a longer name (`println!` in `eprintln!`).
fn is_part_of_word(line: &str, word: &str) -> bool {
    line.match_indices(word).all(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Whether the first line that is no attribute is a `//!`.
fn starts_with_module_docs(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !line.starts_with("#!")).is_some_and(|line| line.starts_with("//!"))
}

/// In the agent only `capture` speaks to the kernel.
fn only_user_of_aya(file: &TextFile) -> Vec<Finding> {
    let capture = ["agent/src/capture.rs", "agent/src/capture"];
    let elsewhere = file.path.starts_with("agent/src")
        && !capture.into_iter().any(|path| file.path.starts_with(path));
    let code = code_only(&file.text);
    let lines = code.lines().enumerate();
    let uses = lines.filter(|(_, line)| elsewhere && line.contains("aya::"));
    uses.map(|(at, _)| Finding::new(&file.path, at + 1, "aya: only agent/src/capture uses it"))
        .collect()
}
