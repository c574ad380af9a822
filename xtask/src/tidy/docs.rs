//! What a document must keep.
//!
//! Promises: a relative link leads to a file or directory that exists, and to a heading that does
//! where it names one; each row of a table in `docs/THREATS.md` that has a column "test" names a
//! test that exists, or a file or directory of samples that does, or says `none:` and why.
//!
//! Limits: links to other places are not followed; reference-style links are not read.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use super::code::code_only;
use super::{Finding, TextFile};
use crate::run;

/// The table of threats.
const THREATS: &str = "docs/THREATS.md";

/// Checks every link of one document.
pub fn check_links(file: &TextFile, files: &[TextFile]) -> Vec<Finding> {
    check_links_with(file, files, |path| run::repository().join(path).exists())
}

/// The same with `exists` saying which paths there are.
pub fn check_links_with(
    file: &TextFile,
    files: &[TextFile],
    exists: impl Fn(&Path) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, link) in links(&file.text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = link.split_once('#').map_or((link, None), |(p, h)| (p, Some(h)));
        let dir = file.path.parent().unwrap_or(Path::new(""));
        let to = if path.is_empty() { file.path.clone() } else { resolve(dir, path) };
        if !exists(&to) {
            let what = format!("link to {link}: there is no {}", to.display());
            findings.push(Finding::new(&file.path, line, what));
            continue;
        }
        let Some(heading) = heading else { continue };
        let target = files.iter().find(|other| other.path == to);
        if target.is_some_and(|target| !headings(&target.text).any(|slug| slug == heading)) {
            let what = format!("link to {link}: {} has no such heading", to.display());
            findings.push(Finding::new(&file.path, line, what));
        }
    }
    findings
}

/// Checks that each row of the table of threats names its test.
pub fn check_threats(files: &[TextFile]) -> Vec<Finding> {
    let Some(file) = files.iter().find(|file| file.path == Path::new(THREATS)) else {
        return Vec::new();
    };
    let tests = function_names(files);
    let mut findings = Vec::new();
    // Of the table that we are in: which column names the test, where one does.
    let mut column: Option<Option<usize>> = None;
    for (at, line) in prose(&file.text) {
        let Some(cells) = row(line) else {
            column = None;
            continue;
        };
        let Some(known) = column else {
            let title = |cell: &str| ["test", "tests"].contains(&cell.to_lowercase().as_str());
            column = Some(cells.iter().position(|cell| title(cell)));
            continue;
        };
        let Some(cell) = known.and_then(|known| cells.get(known)) else {
            continue;
        };
        if cell.chars().all(|c| matches!(c, '-' | ':')) && !cell.is_empty() {
            continue;
        }
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !cell.starts_with("none:") {
            let what = "names no test: write its name in backticks, or `none:` and why";
            findings.push(Finding::new(&file.path, at, what));
        }
        for name in names {
            let short = name.rsplit("::").next().unwrap_or(name);
            let is_place = name.contains('/') && run::repository().join(name).exists();
            if !tests.contains(short) && !is_place {
                let what = format!("there is no function {short}: correct the test's name");
                findings.push(Finding::new(&file.path, at, what));
            }
        }
    }
    findings
}

/// The cells of a table's row.
fn row(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?;
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    Some(inner.split('|').map(str::trim).collect())
}

/// Names of all functions.
fn function_names(files: &[TextFile]) -> HashSet<String> {
    let mut names = HashSet::new();
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "rs")) {
        let code = code_only(&file.text);
        for (at, _) in code.match_indices("fn ") {
            let rest = code.get(at + 3..).unwrap_or_default();
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            names.insert(rest.get(..end).unwrap_or_default().to_owned());
        }
    }
    names
}

/// Lines outside fenced code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((at + 1, line))
    })
}

/// `[text](link)`, with line numbers.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in prose(text) {
        let mut rest = line;
        while let Some((before, behind)) = rest.split_once("](") {
            let in_code = before.matches('`').count() % 2 == 1;
            let end = behind.find([')', ' ']).unwrap_or(behind.len());
            let (link, after) = behind.split_at_checked(end).unwrap_or((behind, ""));
            if !in_code && !link.is_empty() {
                found.push((at, link));
            }
            rest = after;
        }
    }
    found
}

/// The names under which headings can be linked, as GitHub makes them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// `path` as seen from `dir`, with its `..` taken out.
fn resolve(dir: &Path, path: &str) -> PathBuf {
    let joined = path.strip_prefix('/').map_or_else(|| dir.join(path), PathBuf::from);
    let mut out = PathBuf::new();
    for part in joined.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some_and(|name| name != "..") => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
