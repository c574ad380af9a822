//! Texts that go elsewhere than into results: statements for the record, errors and notices.
//!
//! Promises: of an error's or notice's field stays what the server wrote, and goes what it quotes. Kept
//! are names behind a word that says what they name, where no cast or function can put a value in that
//! place (`'..'::regclass` makes `relation ".."` of any text); in breaches of constraints those behind any
//! such word. A detail stays only in the shapes of those breaches. Cut is what stands behind a colon,
//! and each number of four digits or more.
//!
//! Cannot do: tell names in other languages than English; there they are stars too.

use std::borrow::Cow;
use std::ops::Range;

use crate::detect::{Cover, Detectors};
use crate::transform::REDACTED;

/// `text` with those of its `literals` masked of which `which` says so, by their number.
pub fn mask_literals<'a>(
    text: &'a str,
    literals: &[Range<usize>],
    which: impl Fn(usize) -> bool,
) -> Cow<'a, str> {
    let mut out = String::new();
    let mut done = 0;
    for (_, range) in literals.iter().enumerate().filter(|(at, _)| which(*at)) {
        let Some(between) = text.get(done..range.start) else { continue };
        out.push_str(between);
        out.push_str("'****'");
        done = range.end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// What a field of an error or notice is (manual, "Error and Notice Message Fields").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Primary message or hint of the server itself.
    Message,
    /// Detail: quotes keys and rows in parentheses, or anything.
    Detail,
    /// Where it happened: quotes lines and statements.
    Context,
    /// The text of an internal query.
    Query,
    /// A message that a function wrote: it may hold anything.
    Foreign,
    /// A name, a code, a number.
    Name,
}

/// Words before a quoted name that no value can get behind.
const SURE: [&[u8]; 8] = [
    b"constraint",
    b"table",
    b"index",
    b"trigger",
    b"policy",
    b"savepoint",
    b"portal",
    b"statement",
];

/// The same where a constraint was broken (SQLSTATE class 23).
const IN_BREACH: [&[u8]; 4] = [b"relation", b"column", b"domain", b"partition"];

/// Digits in a row that may be a value.
const DIGITS_MIN: usize = 4;

/// Appends `value` without what it may quote. `breach`: the SQLSTATE is of class 23.
pub fn mask_field(
    field: Field,
    breach: bool,
    value: &[u8],
    detectors: Detectors,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    match field {
        Field::Foreign => {
            out.extend_from_slice(b"tidegate: a message of a function is withheld");
            return;
        }
        Field::Name => {
            out.extend_from_slice(value);
            return;
        }
        Field::Message => before_colon(value, breach, out),
        Field::Context => {
            for (at, line) in value.split(|byte| *byte == b'\n').enumerate() {
                if at > 0 {
                    out.push(b'\n');
                }
                before_colon(line, breach, out);
            }
        }
        Field::Query => out.extend_from_slice(REDACTED),
        Field::Detail => detail(value, out),
    }
    if let Some(written) = out.get_mut(start..) {
        numbers(written);
        detectors.cover(written, Cover::Stars);
    }
}

/// Stars for each number of [`DIGITS_MIN`] digits or more, and for bytes in hexadecimal.
fn numbers(text: &mut [u8]) {
    for word in text.split_mut(|byte| !byte.is_ascii_alphanumeric()) {
        let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
        if digits >= DIGITS_MIN || word.starts_with(b"0x") {
            word.fill(b'*');
        }
    }
}

/// What stands before the first colon, without its quotations; stars for the rest.
fn before_colon(value: &[u8], breach: bool, out: &mut Vec<u8>) {
    let colon = find(value, b": ").or_else(|| value.iter().position(|byte| *byte == b'\n'));
    // A colon within a quotation: the quotation reaches to the end.
    let (front, behind) =
        value.split_at_checked(colon.unwrap_or(value.len())).unwrap_or((value, b""));
    quotations(front, breach, out);
    if !behind.is_empty() {
        out.extend_from_slice(b": ");
        out.extend_from_slice(REDACTED);
    }
}

/// A mark that opens a quotation, and the one that closes it.
type Marks = (&'static [u8], &'static [u8]);

/// Quotation marks of the server's languages, each with what closes it.
const QUOTES: [Marks; 6] = [
    (b"\"", b"\""),
    (b"'", b"'"),
    ("\u{201c}".as_bytes(), "\u{201d}".as_bytes()),
    ("\u{201e}".as_bytes(), "\u{201c}".as_bytes()),
    ("\u{00ab}".as_bytes(), "\u{00bb}".as_bytes()),
    ("\u{2018}".as_bytes(), "\u{2019}".as_bytes()),
];

/// Copies `value` with stars in its quotations, but for those of names. A value may hold a mark itself:
/// where the marks behind a masked quotation do not add up, all behind it goes.
fn quotations(value: &[u8], breach: bool, out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some((at, (open, close))) = next_quote(rest) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        let inside = from.get(open.len()..).unwrap_or_default();
        let end = find(inside, close);
        let quoted = end.and_then(|end| inside.get(..end)).unwrap_or(inside);
        let behind = end.and_then(|end| inside.get(end + close.len()..)).unwrap_or_default();
        out.extend_from_slice(before);
        out.extend_from_slice(open);
        if is_name(before, quoted, breach) {
            out.extend_from_slice(quoted);
            out.extend_from_slice(close);
        } else {
            out.extend_from_slice(REDACTED);
            out.extend_from_slice(close);
            let joined = behind.first().is_some_and(u8::is_ascii_alphanumeric);
            let marks = behind.windows(close.len()).filter(|part| *part == close).count();
            if joined || !marks.is_multiple_of(2) {
                return;
            }
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
}

fn next_quote(text: &[u8]) -> Option<(usize, Marks)> {
    let found =
        QUOTES.iter().filter_map(|(open, close)| Some((find(text, open)?, (*open, *close))));
    found.min_by_key(|(at, _)| *at)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Whether a quotation is the name of something, by the word before it.
fn is_name(before: &[u8], quoted: &[u8], breach: bool) -> bool {
    let word = before.trim_ascii_end();
    let spaced = word.len() < before.len();
    let start = word.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |at| at + 1);
    let word = word.get(start..).unwrap_or_default();
    let names = SURE.contains(&word) || (breach && IN_BREACH.contains(&word));
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    spaced && names && quoted.iter().all(plain)
}

/// `Key (ssn)=(..)`, `Failing row contains (..)`: what stands in parentheses goes, up to the last one,
/// but for the names before an equals sign. Any other detail goes whole.
fn detail(value: &[u8], out: &mut Vec<u8>) {
    let key = value.starts_with(b"Key (").then(|| find(value, b")=(").map(|at| at + 2)).flatten();
    let row = value.starts_with(b"Failing row contains (").then(|| find(value, b"(")).flatten();
    let Some(open) = key.or(row) else {
        out.extend_from_slice(REDACTED);
        return;
    };
    let close = value.iter().rposition(|byte| *byte == b')').filter(|close| *close > open);
    out.extend_from_slice(value.get(..=open).unwrap_or_default());
    out.extend_from_slice(REDACTED);
    out.push(b')');
    let behind = close.and_then(|close| value.get(close + 1..)).unwrap_or_default();
    quotations(behind, true, out);
}
