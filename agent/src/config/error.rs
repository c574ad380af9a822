//! What is wrong in a configuration file, where, and what to do.
//!
//! Promises: one complaint is one line, `file:line:column: what is wrong; what to do`, so that
//! editors can jump to it. It never quotes more of the file than the value complained about.

use std::fmt;
use std::path::{Path, PathBuf};

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1, the column in characters; `None` for the file as a whole.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub todo: String,
}

/// All complaints about a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigError {
    /// A complaint about the byte at `offset` of `text`.
    pub(super) fn at(file: &Path, text: &str, offset: usize, what: String, todo: String) -> Self {
        Self { file: file.to_owned(), place: Some(line_column(text, offset)), what, todo }
    }

    /// A complaint about a file as a whole.
    pub(super) fn whole_file(file: &Path, what: String, todo: &str) -> Self {
        Self { file: file.to_owned(), place: None, what, todo: todo.to_owned() }
    }
}

impl ConfigErrors {
    /// One complaint about a file as a whole.
    pub(super) fn whole_file(file: &Path, what: String, todo: &str) -> Self {
        Self(vec![ConfigError::whole_file(file, what, todo)])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)?;
        if self.todo.is_empty() { Ok(()) } else { write!(f, "; {}", self.todo) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Line and column of a byte, both from 1.
fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let (before, _) = text.split_at_checked(offset).unwrap_or((text, ""));
    let line = before.matches('\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}
