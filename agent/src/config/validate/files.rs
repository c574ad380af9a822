//! Policy files by name or pattern.
//!
//! Promises: a pattern has `*` in its last part only, matches in the order of names, skips hidden
//! files, and is refused where it matches nothing, so that a missing policy is never silent.

use std::path::{Path, PathBuf};

use super::Check;
use crate::config::raw::Text;

impl Check<'_> {
    /// The files of `policy.files`, relative to the configuration file.
    pub(super) fn policy_files(&mut self, raw: &toml::Spanned<Vec<Text>>) -> Vec<PathBuf> {
        if raw.get_ref().is_empty() {
            self.complain(
                raw.span().start,
                "policy.files is empty",
                "name at least one Cedar file; without a permit everything is refused",
            );
        }
        let mut files = Vec::new();
        for pattern in raw.get_ref() {
            let at = pattern.span().start;
            let path = self.beside_config(pattern.get_ref());
            match expand(&path) {
                Ok(found) => files.extend(found),
                Err(reason) => self.complain(
                    at,
                    format!("policy file \"{}\" {reason}", pattern.get_ref()),
                    "name a readable file, or a pattern with '*' in its last part that matches one",
                ),
            }
        }
        let mut seen = std::collections::HashSet::new();
        files.retain(|file| seen.insert(file.clone()));
        files
    }

    /// `path` as seen from the configuration file's directory.
    pub(super) fn beside_config(&self, path: &str) -> PathBuf {
        self.context.path.parent().unwrap_or(Path::new(".")).join(path)
    }
}

/// The files that `pattern` names; the error is a reason in words.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parent = pattern.parent().unwrap_or(Path::new("."));
    if parent.to_string_lossy().contains('*') {
        return Err("has '*' in the name of a directory".to_owned());
    }
    if !name.contains('*') {
        return match std::fs::metadata(pattern) {
            Ok(found) if found.is_file() => Ok(vec![pattern.to_owned()]),
            Ok(_) => Err("is no file".to_owned()),
            Err(error) => Err(format!("can't be read: {error}")),
        };
    }
    let entries = std::fs::read_dir(parent)
        .map_err(|error| format!("can't be listed in {}: {error}", parent.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("can't be listed: {error}"))?;
        let file = entry.file_name();
        let file = file.to_string_lossy();
        if !file.starts_with('.') && matches_stars(name, &file) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err("matches nothing".to_owned()) } else { Ok(found) }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn matches_stars(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{expand, matches_stars};

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("*.cedar", "a.cedar", true),
            ("*.cedar", "a.cedar.bak", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("x", "xy", false),
        ] {
            assert_eq!(matches_stars(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_gives_its_files_in_order_and_never_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.cedar", "a.cedar", ".hidden.cedar", "c.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = expand(&dir.path().join("*.cedar")).unwrap();
        assert_eq!(found, [dir.path().join("a.cedar"), dir.path().join("b.cedar")]);
        assert_eq!(expand(&dir.path().join("*.json")).unwrap_err(), "matches nothing");
        assert_eq!(expand(dir.path()).unwrap_err(), "is no file");
        assert!(expand(&dir.path().join("x*/a.cedar")).is_err());
    }
}
