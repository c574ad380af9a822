//! The literal-free shape of a text, made in one pass and without the parser.
//!
//! Promises: two texts with the same shape lex to the same tokens but for the values of plain
//! string constants and of plain decimal numbers, so whatever doesn't look at those values is the
//! same for both. Comments, identifiers, keywords, parameters and all other constants (`E''`,
//! `U&''`, `B''`, `X''`, `N''`, dollar quotes) are kept byte for byte. A text that this lexer
//! isn't sure of has no shape.
//!
//! Sources: PostgreSQL manual, "Lexical Structure"; `src/backend/parser/scan.l` for what may
//! follow a number. Whole numbers that fit 31 bits and the other decimal numbers are two classes,
//! since the grammar tells them apart.

/// Stands for a plain string constant.
const STRING: u8 = 0x01;
/// Stands for a whole number below 2^31.
const INTEGER: u8 = 0x02;
/// Stands for any other decimal number.
const NUMBER: u8 = 0x03;

/// Digits of the longest number that is surely below 2^31.
const INTEGER_DIGITS_MAX: usize = 9;

/// Writes the shape of `text` behind what `key` holds. `false`: it has none, and `key` holds
/// something that means nothing.
pub(crate) fn write(text: &[u8], key: &mut Vec<u8>) -> bool {
    let mut lexer = Lexer { rest: text, key };
    while let Some(&byte) = lexer.rest.first() {
        if !lexer.token(byte) {
            return false;
        }
    }
    true
}

/// FNV-1a, 64 bits (offset basis cbf29ce484222325, prime 100000001b3).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

struct Lexer<'a> {
    rest: &'a [u8],
    key: &'a mut Vec<u8>,
}

const fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn goes_on_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl Lexer<'_> {
    fn token(&mut self, byte: u8) -> bool {
        match byte {
            b'\'' => self.string(),
            b'"' => self.quoted(b'"'),
            b'0'..=b'9' => self.number(),
            b'.' if self.rest.get(1).is_some_and(u8::is_ascii_digit) => self.number(),
            b'$' => self.dollar(),
            b'-' if self.rest.get(1) == Some(&b'-') => self.line_comment(),
            b'/' if self.rest.get(1) == Some(&b'*') => self.block_comment(),
            b'\t' | b'\n' | b'\r' | 0x0c | 0x0b => self.keep(1),
            0..=0x1f | 0x7f => false,
            _ if starts_name(byte) => self.name(),
            _ => self.keep(1),
        }
    }

    /// Takes `count` bytes into the shape as they are.
    fn keep(&mut self, count: usize) -> bool {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.key.extend_from_slice(taken);
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes `count` bytes, of which the shape holds only `mark`.
    fn mark(&mut self, count: usize, mark: u8) -> bool {
        self.key.push(mark);
        self.rest = self.rest.get(count..).unwrap_or_default();
        true
    }

    fn run(&self, from: usize, part: impl Fn(u8) -> bool) -> usize {
        self.rest.iter().skip(from).take_while(|byte| part(**byte)).count()
    }

    /// A plain string. A backslash means one thing or another by `standard_conforming_strings`,
    /// so a text with one has no shape.
    fn string(&mut self) -> bool {
        match self.closing(b'\'', true) {
            Some(count) => self.mark(count, STRING),
            None => false,
        }
    }

    /// Quoted identifiers and prefixed constants, byte for byte.
    fn quoted(&mut self, quote: u8) -> bool {
        match self.closing(quote, quote == b'\'') {
            Some(count) => self.keep(count),
            None => false,
        }
    }

    /// Length of what stands between quotes, with them; a doubled quote is part of it. The parser
    /// takes no zero byte, so none is hidden in a string.
    fn closing(&self, quote: u8, no_backslash: bool) -> Option<usize> {
        let mut at = 1;
        loop {
            at +=
                self.run(at, |byte| byte != quote && byte != 0 && !(no_backslash && byte == b'\\'));
            if *self.rest.get(at)? != quote {
                return None;
            }
            if self.rest.get(at + 1) != Some(&quote) {
                return Some(at + 1);
            }
            at += 2;
        }
    }

    /// A name, keyword or the prefix of a constant. `U&` changes what a later plain string
    /// means (`UESCAPE`), `E''` has escapes of its own, and the grammar looks at the number
    /// behind `FLOAT`: no shape.
    fn name(&mut self) -> bool {
        let count = self.run(0, goes_on_name);
        let Some((name, behind)) = self.rest.split_at_checked(count) else {
            return false;
        };
        match behind.first() {
            Some(b'\'') if name.len() == 1 => match name {
                b"e" | b"E" => false,
                b"b" | b"B" | b"x" | b"X" | b"n" | b"N" => self.keep(1) && self.quoted(b'\''),
                _ => self.keep(count),
            },
            Some(b'&') if name.eq_ignore_ascii_case(b"u") => false,
            _ if name.eq_ignore_ascii_case(b"float") => false,
            _ => self.keep(count),
        }
    }

    /// A decimal number: digits, a fraction, an exponent. Whatever is glued to it makes it
    /// something that server versions read differently: no shape.
    fn number(&mut self) -> bool {
        let whole = self.run(0, |byte| byte.is_ascii_digit());
        let mut count = whole;
        let mut plain = whole <= INTEGER_DIGITS_MAX;
        if self.rest.get(count) == Some(&b'.') {
            count += 1 + self.run(count + 1, |byte| byte.is_ascii_digit());
            plain = false;
        }
        if matches!(self.rest.get(count), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.rest.get(count + 1), Some(b'+' | b'-')));
            let digits = self.run(count + 1 + sign, |byte| byte.is_ascii_digit());
            if digits == 0 {
                return false;
            }
            count += 1 + sign + digits;
            plain = false;
        }
        match self.rest.get(count) {
            Some(next) if goes_on_name(*next) || matches!(next, b'.' | b'\'') => false,
            _ => self.mark(count, if plain { INTEGER } else { NUMBER }),
        }
    }

    /// `$1` or a dollar-quoted constant, both kept.
    fn dollar(&mut self) -> bool {
        let digits = self.run(1, |byte| byte.is_ascii_digit());
        if digits > 0 {
            let glued = self.rest.get(1 + digits).is_some_and(|next| goes_on_name(*next));
            return !glued && self.keep(1 + digits);
        }
        let tag = 1 + self.run(1, |byte| goes_on_name(byte) && byte != b'$');
        if self.rest.get(tag) != Some(&b'$') {
            return self.keep(1);
        }
        let Some((opening, inside)) = self.rest.split_at_checked(tag + 1) else {
            return false;
        };
        match inside.windows(opening.len()).position(|window| window == opening) {
            Some(at) => self.keep(2 * opening.len() + at),
            None => false,
        }
    }

    fn line_comment(&mut self) -> bool {
        self.keep(self.run(0, |byte| byte != b'\n' && byte != b'\r'))
    }

    /// Block comments nest.
    fn block_comment(&mut self) -> bool {
        let mut depth = 0_u32;
        let mut at = 0;
        loop {
            match (self.rest.get(at), self.rest.get(at + 1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return self.keep(at);
                    }
                }
                (Some(_), _) => at += 1,
                (None, _) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Option<String> {
        let mut key = Vec::new();
        write(text.as_bytes(), &mut key).then(|| {
            String::from_utf8(key)
                .unwrap()
                .replace('\u{1}', "§")
                .replace('\u{2}', "#")
                .replace('\u{3}', "%")
        })
    }

    #[test]
    fn literals_go_and_the_rest_stays() {
        for (text, expected) in [
            ("select 1", Some("select #")),
            ("select 1.5, .5, 5., 1e9, 12345678901", Some("select %, %, %, %, %")),
            ("select 'it''s'", Some("select §")),
            ("select 'a'\n'b'", Some("select §\n§")),
            ("select $1, $q$ 'x' 1 $q$, $$1$$", Some("select $1, $q$ 'x' 1 $q$, $$1$$")),
            ("select a1, \"b'2\" -- 3 'x\n, 4", Some("select a1, \"b'2\" -- 3 'x\n, #")),
            ("/* /* 1 */ 'x */ select 2", Some("/* /* 1 */ 'x */ select #")),
            ("select b'01', X'1F', n'a'", Some("select b'01', X'1F', n'a'")),
            ("select t.a[1:2], x::numeric(10,2)", Some("select t.a[#:#], x::numeric(#,#)")),
            ("select a$1", Some("select a$1")),
            ("select date'2020-01-01'", Some("select date§")),
            ("select 'größe', größe", Some("select §, größe")),
            ("select E'a'", None),
            ("select U&'d!0061' uescape '!'", None),
            ("select U&\"a\"", None),
            ("select 'a\\b'", None),
            ("select 'a", None),
            ("select \"a", None),
            ("select $q$a", None),
            ("select /* a", None),
            ("select 1a", None),
            ("select 0x1F", None),
            ("select 1_000", None),
            ("select 1..2", None),
            ("select $1a", None),
            ("select 1::float(9)", None),
            ("select \u{1}", None),
            ("select '\0'", None),
        ] {
            assert_eq!(shape(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn fnv1a_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
