//! Finds the literals of a text: which bytes a record may have to mask.
//!
//! Promises: every string and every number is in the answer, in the order of the text; strings in a row
//! are one. The number of a literal is its place in this list:
//! [`tidegate_event::ValueAt::Literal`]. What can't be told apart for certain has no answer, and the
//! whole text must be taken for a literal.
//!
//! What it can't do: comments and names are not literals, whatever somebody writes in them.

use std::ops::Range;

use super::{Settings, lexer};

/// Where the literals of `text` begin and end, in bytes; `None` where that can't be told.
pub fn literals(text: &[u8], settings: Settings) -> Option<Vec<Range<usize>>> {
    let lexed = lexer::lex_all(text, settings).ok()?;
    let literals = lexed.items.iter().filter(|item| item.is_literal());
    Some(literals.map(|item| item.at..item.end).collect())
}

/// How many parameters a text has when it is prepared; `None` where that can't be told.
pub fn placeholders(text: &[u8], settings: Settings) -> Option<usize> {
    let lexed = lexer::lex_all(text, settings).ok()?;
    Some(lexed.items.iter().filter(|item| item.is_placeholder()).count())
}
