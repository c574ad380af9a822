//! Finds the literals of a text: which bytes a record may have to mask.
//!
//! Promises: every string constant (plain, `E''`, `U&''`, `B''`, `X''`, `N''`, dollar-quoted) and
//! every number is in the answer, in the order of the text, and none of them overlap. A constant
//! that goes on behind a line break (`'a' <newline> 'b'`) is one literal. The number of a literal is
//! its place in this list: [`tidegate_event::ValueAt::Literal`]. What can't be told apart for
//! certain has no answer, and the whole text must be taken for a literal.
//!
//! What it can't do: comments and identifiers are not literals, whatever somebody writes in them.
//! Text in another encoding than UTF-8 that isn't ASCII has no answer.
//!
//! Source: PostgreSQL 18 `src/backend/parser/scan.l`.

use std::ops::Range;

use crate::Settings;

/// The byte ranges of the literals of `text`, in order; `None` where they can't be told.
pub fn literals(text: &[u8], settings: Settings) -> Option<Vec<Range<usize>>> {
    if !settings.utf8 && !text.is_ascii() || std::str::from_utf8(text).is_err() {
        return None;
    }
    let mut lexer = Lexer { text, at: 0, found: Vec::new() };
    while let Some(byte) = lexer.peek(0) {
        lexer.token(byte, settings)?;
    }
    Some(lexer.found)
}

/// What stands between quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Text in which a quote is doubled.
    Plain,
    /// The same, where a backslash escapes what follows.
    Escapes,
    /// Digits: the next quote ends them.
    Bits,
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    found: Vec<Range<usize>>,
}

const fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn goes_on_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at.checked_add(ahead)?).copied()
    }

    fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.text.len());
    }

    /// Skips bytes that are `part`.
    fn run(&mut self, part: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&part) {
            self.skip(1);
        }
    }

    fn token(&mut self, byte: u8, settings: Settings) -> Option<()> {
        let next = self.peek(1);
        let plain =
            if settings.standard_conforming_strings { Inside::Plain } else { Inside::Escapes };
        match (byte, next) {
            (0, _) => return None,
            (b'\'', _) => self.string(0, plain)?,
            (b'"', _) => {
                self.skip(1);
                self.quoted(b'"', Inside::Plain)?;
            }
            (b'e' | b'E', Some(b'\'')) => self.string(1, Inside::Escapes)?,
            // `N''` is a plain string behind a keyword.
            (b'n' | b'N', Some(b'\'')) => {
                self.string(1, plain)?;
            }
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => self.string(1, Inside::Bits)?,
            (b'u' | b'U', Some(b'&')) if self.peek(2) == Some(b'\'') => {
                self.string(2, Inside::Plain)?;
            }
            (b'u' | b'U', Some(b'&')) if self.peek(2) == Some(b'"') => {
                self.skip(3);
                self.quoted(b'"', Inside::Plain)?;
            }
            // `1..2` is a range of PL/pgSQL.
            (b'.', Some(b'.')) => self.skip(2),
            (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => self.number(),
            (b'$', _) => self.dollar()?,
            (b'-', Some(b'-')) => self.line_comment(),
            (b'/', Some(b'*')) => self.block_comment()?,
            _ if starts_name(byte) => self.run(goes_on_name),
            _ => self.skip(1),
        }
        Some(())
    }

    /// A string constant with `prefix` bytes before its quote, and its continuations.
    fn string(&mut self, prefix: usize, inside: Inside) -> Option<()> {
        let start = self.at;
        self.skip(prefix);
        loop {
            self.skip(1);
            self.quoted(b'\'', inside)?;
            let end = self.at;
            if !self.goes_on()? {
                self.at = end;
                self.found.push(start..end);
                return Some(());
            }
        }
    }

    /// Skips to behind the closing quote; a doubled one is part of the text, but of bits.
    fn quoted(&mut self, quote: u8, inside: Inside) -> Option<()> {
        loop {
            match self.peek(0)? {
                0 => return None,
                b'\\' if inside == Inside::Escapes => self.skip(2),
                byte if byte == quote => {
                    self.skip(1);
                    if self.peek(0) != Some(quote) || inside == Inside::Bits {
                        return Some(());
                    }
                    self.skip(1);
                }
                _ => self.skip(1),
            }
        }
    }

    /// Whether a string goes on: space with a line break in it, then a quote. Line comments may
    /// stand between.
    fn goes_on(&mut self) -> Option<bool> {
        let mut broken = false;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'\n' | b'\r'), _) => {
                    broken = true;
                    self.skip(1);
                }
                (Some(byte), _) if is_space(byte) => self.skip(1),
                (Some(b'-'), Some(b'-')) => self.line_comment(),
                (Some(b'\''), _) => return Some(broken),
                _ => return Some(false),
            }
        }
    }

    /// A number with all that is glued to it: what a server reads as the number's part differs by
    /// version, so more is taken rather than less.
    fn number(&mut self) {
        let start = self.at;
        loop {
            let before = self.at;
            self.run(goes_on_name);
            let exponent = self.at > start
                && matches!(self.text.get(self.at - 1), Some(b'e' | b'E'))
                && matches!(self.peek(0), Some(b'+' | b'-'))
                && self.peek(1).is_some_and(|byte| byte.is_ascii_digit());
            // `1..2` is a range of PL/pgSQL: two numbers.
            let fraction = self.peek(0) == Some(b'.') && self.peek(1) != Some(b'.');
            if exponent || fraction {
                self.skip(1);
            }
            if self.at == before {
                break;
            }
        }
        self.found.push(start..self.at);
    }

    /// A parameter, a dollar-quoted string, or a lone `$`.
    fn dollar(&mut self) -> Option<()> {
        let start = self.at;
        self.skip(1);
        if self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.run(goes_on_name);
            return Some(());
        }
        self.run(|byte| goes_on_name(byte) && byte != b'$');
        if self.peek(0) != Some(b'$') {
            self.at = start + 1;
            return Some(());
        }
        self.skip(1);
        let tag = self.text.get(start..self.at)?;
        let inside = self.text.get(self.at..)?;
        let end = find(inside, tag)?;
        self.skip(end + tag.len());
        self.found.push(start..self.at);
        Some(())
    }

    fn line_comment(&mut self) {
        self.run(|byte| byte != b'\n' && byte != b'\r');
    }

    /// Block comments nest.
    fn block_comment(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        loop {
            match (self.peek(0)?, self.peek(1)) {
                (b'/', Some(b'*')) => {
                    depth = depth.checked_add(1)?;
                    self.skip(2);
                }
                (b'*', Some(b'/')) => {
                    depth = depth.checked_sub(1)?;
                    self.skip(2);
                    if depth == 0 {
                        return Some(());
                    }
                }
                _ => self.skip(1),
            }
        }
    }
}

/// Where `tag` first stands in `text`. The tag begins and ends with its only two dollar signs, so a
/// search from dollar to dollar takes time in the text's length.
fn find(text: &[u8], tag: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        at += rest.iter().position(|byte| *byte == b'$')?;
        if text.get(at..)?.starts_with(tag) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use pg_query::protobuf::Token as T;
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, conforming: bool, expected: Option<&[&str]>) {
        let settings = Settings { standard_conforming_strings: conforming, utf8: true };
        let found = literals(text.as_bytes(), settings);
        let found: Option<Vec<_>> =
            found.map(|ranges| ranges.into_iter().map(|range| text.get(range).unwrap()).collect());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn each_literal_is_found_whole() {
        for (text, expected) in [
            ("select 1, 'it''s', -2.5e-3", Some(&["1", "'it''s'", "2.5e-3"][..])),
            ("select $1, $q$ '1' $q$, $$a$$, a$1", Some(&["$q$ '1' $q$", "$$a$$"])),
            ("select E'a\\'b', U&'\\0061' uescape '!'", Some(&["E'a\\'b'", "U&'\\0061'", "'!'"])),
            ("select b'01', X'1F', n'ä'", Some(&["b'01'", "X'1F'", "n'ä'"])),
            ("select 'a'\n -- x\n 'b', 'c' 'd'", Some(&["'a'\n -- x\n 'b'", "'c'", "'d'"])),
            ("select \"a'1'\", U&\"b'2'\", t1, größe2", Some(&[])),
            ("-- '1'\nselect /* 2 /* '3 */ */ 4", Some(&["4"])),
            ("select 0x1F, 1_000, .5, 5., 1..2", Some(&["0x1F", "1_000", ".5", "5.", "1", "2"])),
            ("select 'a\\', 'b'", Some(&["'a\\'", "'b'"])),
            ("select 'a", None),
            ("select $q$a", None),
            ("select \"a", None),
            ("/* a", None),
        ] {
            check(text, true, expected);
        }
        check("select 'a\\', 'b'", false, None);
        check("select 'a\\'b', 1", false, Some(&["'a\\'b'", "1"]));
        check("select '$$', '$a$ $$ $a$'", true, Some(&["'$$'", "'$a$ $$ $a$'"]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        /// PostgreSQL's own scanner finds the same literals wherever it finds tokens. libpg_query's
        /// doesn't let a string go on behind a comment, which the server's does: none is tried.
        #[test]
        fn the_scanner_of_postgresql_agrees(
            words in prop::collection::vec(prop::sample::select(&[
                "select", "'a'", "'it''s'", "\n", " ", "--c\n x", "/*'*/", "\"'\"", "E'\\''", "U&'a'", "$$'$$",
                "$q$a$q$", "1", "1.5", "2e5", "a1", "$1", "::", ",", "x", "b'1'", "(", "-", "U&\"a\"", "ä",
            ][..]), 0..24),
        ) {
            let text = words.join(" ");
            let Ok(tokens) = pg_query::scan(&text) else { return Ok(()) };
            let theirs: Vec<_> = tokens.tokens.iter().filter(|token| matches!(
                T::try_from(token.token),
                Ok(T::Iconst | T::Fconst | T::Sconst | T::Usconst | T::Bconst | T::Xconst)
            )).map(|token| usize::try_from(token.start).unwrap()).collect();
            let ours = literals(text.as_bytes(), Settings::default());
            let ours: Option<Vec<_>> = ours.map(|ranges| ranges.iter().map(|range| range.start).collect());
            prop_assert_eq!(ours, Some(theirs), "{}", text);
        }
    }
}
