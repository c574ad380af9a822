//! Names that a SQL text takes from or gives to prepared statements: PREPARE and DEALLOCATE share
//! their names with Parse (manual, "Extended Query").
//!
//! Method: looks for the words anywhere in the text, in comments and strings too, so it may
//! forget a name too many; an execution of a forgotten name is asked as unknown. Cannot see: names
//! that dynamic SQL puts together.

use std::sync::Arc;

use tidegate_event::{Later, Lineage, Rows};

use crate::names::Name;

/// What a text may do to names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forget {
    /// These names.
    Names(Vec<Name>),
    /// All named ones.
    All,
}

/// The names whose meaning `text` may change.
pub(crate) fn statements(text: &[u8]) -> Forget {
    let mut names = Vec::new();
    let mut words = Words { rest: text };
    while let Some(word) = words.next() {
        let (prepare, deallocate) = (is(word, b"prepare"), is(word, b"deallocate"));
        if is(word, b"discard") {
            return Forget::All;
        }
        if !prepare && !deallocate {
            continue;
        }
        match words.name() {
            NameFound::Plain(name) if is(name, b"prepare") && deallocate => match words.name() {
                NameFound::Plain(name) if !is(name, b"all") => {
                    names.push(name.to_ascii_lowercase());
                }
                NameFound::Quoted(name) => names.push(name),
                NameFound::Plain(_) | NameFound::Unclear => return Forget::All,
            },
            NameFound::Plain(name) if is(name, b"all") && deallocate => return Forget::All,
            NameFound::Plain(name) if is(name, b"transaction") => {}
            NameFound::Plain(name) if name.is_ascii() => names.push(name.to_ascii_lowercase()),
            NameFound::Quoted(name) => names.push(name),
            NameFound::Plain(_) | NameFound::Unclear => return Forget::All,
        }
    }
    Forget::Names(names)
}

/// What a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// DECLARE: a cursor.
    Cursor,
    /// PREPARE: a statement.
    Prepared,
}

/// A name that a statement of a text gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Naming {
    /// Number of the statement, from 0.
    pub statement: usize,
    pub what: Names,
    pub name: Name,
}

/// The names that a text of that lineage gives.
pub(crate) fn names(lineage: &Lineage) -> Arc<[Naming]> {
    let naming = |later: &Later| {
        let (what, name) = match &later.by {
            Rows::Cursor(name) => (Names::Cursor, name),
            Rows::Prepared(name) => (Names::Prepared, name),
            Rows::None | Rows::Known(_) | Rows::Opaque(_) => return None,
        };
        Some(Naming { statement: later.statement, what, name: name.clone().into_bytes() })
    };
    lineage.later.iter().filter_map(naming).collect()
}

/// Whether `text` may open a cursor, which may take a portal's name.
pub(crate) fn declares(text: &[u8]) -> bool {
    Words { rest: text }.any(|word| is(word, b"declare"))
}

/// Whether `text` names one of the things that change how later texts are read.
pub(crate) fn sets_by_function(text: &[u8]) -> bool {
    Words { rest: text }.any(|word| is(word, b"set_config"))
}

fn is(word: &[u8], expected: &[u8]) -> bool {
    word.eq_ignore_ascii_case(expected)
}

const fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

struct Words<'a> {
    rest: &'a [u8],
}

enum NameFound<'a> {
    Plain(&'a [u8]),
    Quoted(Name),
    Unclear,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|&byte| in_word(byte))?;
        let from = self.rest.get(start..)?;
        let end = from.iter().position(|&byte| !in_word(byte)).unwrap_or(from.len());
        let (word, rest) = from.split_at_checked(end)?;
        self.rest = rest;
        Some(word)
    }
}

impl<'a> Words<'a> {
    /// The identifier that follows, with only white space before it.
    fn name(&mut self) -> NameFound<'a> {
        let from = self.rest.trim_ascii_start();
        if let Some(quoted) = from.strip_prefix(b"\"") {
            let Some(end) = quoted.iter().position(|&byte| byte == b'"') else {
                return NameFound::Unclear;
            };
            let (name, rest) = quoted.split_at_checked(end).unwrap_or((quoted, &[]));
            // A doubled quote within a name: too rare to be read right.
            if rest.starts_with(b"\"\"") {
                return NameFound::Unclear;
            }
            self.rest = rest;
            return NameFound::Quoted(name.to_vec());
        }
        if !from.first().is_some_and(|&byte| in_word(byte)) {
            return NameFound::Unclear;
        }
        self.rest = from;
        match self.next() {
            // U&"..": an identifier with escapes.
            Some(word) if !(is(word, b"u") && self.rest.starts_with(b"&")) => {
                NameFound::Plain(word)
            }
            _ => NameFound::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (text, expected) in [
            ("SELECT 1", Some(vec![])),
            ("PREPARE Foo AS SELECT 1", Some(vec!["foo"])),
            ("prepare \"Foo\" (int) AS SELECT 1", Some(vec!["Foo"])),
            ("DEALLOCATE a; DEALLOCATE PREPARE b", Some(vec!["a", "b"])),
            ("deallocate all", None),
            ("DEALLOCATE PREPARE ALL", None),
            ("DISCARD ALL", None),
            ("PREPARE TRANSACTION 'x'", Some(vec![])),
            ("PREPARE /* c */ s AS SELECT 1", None),
            ("PREPARE U&\"s\" AS SELECT 1", None),
            ("PREPARE \"a\"\"b\" AS SELECT 1", None),
            ("DO $$ BEGIN EXECUTE 'PREPARE s AS SELECT 1'; END $$", Some(vec!["s"])),
        ] {
            let expected = expected.map_or(Forget::All, |names: Vec<&str>| {
                Forget::Names(names.into_iter().map(|name| name.as_bytes().to_vec()).collect())
            });
            assert_eq!(statements(text.as_bytes()), expected, "{text}");
        }
        assert!(declares(b"begin; Declare c cursor for select 1"));
        assert!(!declares(b"select declared"));
        assert!(sets_by_function(b"SELECT pg_catalog.SET_CONFIG('a', 'b', false)"));
    }
}
