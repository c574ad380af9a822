//! Values found by their shape.
//!
//! Promises: each kind below is found wherever it stands in a text, in one pass that allocates nothing
//! where nothing is found. What is found is covered byte for byte, so lengths stay.
//!
//! | kind | found | missed |
//! | --- | --- | --- |
//! | cards | 13 to 19 digits with a good Luhn sum, plain or in groups of four and more with one kind of separator | first digits 0, 1 and 20 (times read like that); digits within a hexadecimal word, a UUID or a decimal fraction |
//! | SSNs | `ddd-dd-dddd` and `ddd dd dddd` of areas, groups and serials that are given out | nine digits without separators |
//! | IBANs | 15 to 34 characters with a good remainder (ISO 7064, mod 97), plain or in groups of four | other separators |
//! | e-mail | a local part, `@`, a domain with a dot | quoted local parts, `@` written otherwise |
//! | phones | `+` and 8 to 15 digits, and North American numbers with separators | national numbers elsewhere |
//! | secrets | keys with a known prefix, JWTs, PEM blocks, and random words behind a name such as `password=` | random words by themselves |
//!
//! What looks like one of them and is none is covered too: a tenth of all long numbers have a good Luhn
//! sum. Known gap: values in another alphabet's digits, or split over columns.

mod numbers;
mod secrets;
mod stream;
mod words;

use std::ops::Range;

pub use stream::Stream;

/// Which detectors are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a configuration, each for itself")]
pub struct Detectors {
    /// Card numbers.
    pub cards: bool,
    /// US social security numbers.
    pub ssns: bool,
    /// IBANs.
    pub ibans: bool,
    /// E-mail addresses.
    pub emails: bool,
    /// Phone numbers.
    pub phones: bool,
    /// Keys and tokens.
    pub secrets: bool,
}

/// What covers what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cover {
    /// Stars.
    #[default]
    Stars,
    /// Nines for digits, so that a number stays one, and stars for the rest.
    Json,
}

impl Cover {
    fn over(self, part: &mut [u8]) {
        for byte in part {
            *byte = if self == Self::Json && byte.is_ascii_digit() { b'9' } else { b'*' };
        }
    }
}

impl Detectors {
    /// All of them.
    pub const ALL: Self =
        Self { cards: true, ssns: true, ibans: true, emails: true, phones: true, secrets: true };

    /// Whether one is on.
    pub const fn any(self) -> bool {
        self.cards || self.ssns || self.ibans || self.emails || self.phones || self.secrets
    }

    /// Covers what is found in `value`, byte for byte; `true` where something was found.
    pub fn cover(self, value: &mut [u8], cover: Cover) -> bool {
        let found = self.find(value);
        for range in &found {
            cover.over(value.get_mut(range.clone()).unwrap_or_default());
        }
        !found.is_empty()
    }

    /// Where in `value` something is found, in order, without overlaps.
    pub fn find(self, value: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if !self.any() {
            return found;
        }
        let text = Text { bytes: value };
        let (mut at, mut done) = (0, 0);
        while let Some(byte) = text.get(at) {
            match self.at(text, at, byte, done) {
                Some(range) if range.end > at => {
                    at = range.end;
                    done = range.end;
                    found.push(range);
                }
                _ => at += 1,
            }
        }
        found
    }

    /// What stands at `at`; an e-mail address may begin before, but not before `done`.
    fn at(self, text: Text<'_>, at: usize, byte: u8, done: usize) -> Option<Range<usize>> {
        let from_here = |end: Option<usize>| end.map(|end| at..end);
        match byte {
            b'0'..=b'9' if !text.is_digit_before(at) => from_here(
                on(self.cards, || numbers::card(text, at))
                    .or_else(|| on(self.ssns, || numbers::ssn(text, at)))
                    .or_else(|| on(self.phones, || numbers::north_american(text, at))),
            ),
            b'+' => from_here(on(self.phones, || numbers::international(text, at))),
            b'(' => from_here(on(self.phones, || numbers::north_american(text, at))),
            b'@' if self.emails => words::email(text, at, done),
            b'-' => from_here(on(self.secrets, || secrets::pem(text, at))),
            b'A'..=b'Z' | b'a'..=b'z' if !text.is_word_before(at) => {
                let iban = on(self.ibans, || words::iban(text, at));
                let key = || on(self.secrets, || secrets::key(text, at));
                from_here(iban.or_else(key))
                    .or_else(|| on(self.secrets, || secrets::named(text, at)))
            }
            _ => None,
        }
    }
}

fn on<T>(is_on: bool, find: impl FnOnce() -> Option<T>) -> Option<T> {
    if is_on { find() } else { None }
}

/// A text with checked access.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
}

impl<'a> Text<'a> {
    fn get(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn before(self, at: usize) -> Option<u8> {
        self.get(at.checked_sub(1)?)
    }

    fn from(self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).unwrap_or_default()
    }

    fn is_digit(self, at: usize) -> bool {
        self.get(at).is_some_and(|byte| byte.is_ascii_digit())
    }

    fn is_digit_before(self, at: usize) -> bool {
        self.before(at).is_some_and(|byte| byte.is_ascii_digit())
    }

    fn is_word_before(self, at: usize) -> bool {
        self.before(at).is_some_and(|byte| byte.is_ascii_alphanumeric())
    }

    fn is_word(self, at: usize) -> bool {
        self.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric())
    }

    /// Where the run of such bytes from `at` ends.
    fn run(self, at: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let from = self.from(at);
        at + from.iter().position(|byte| !belongs(*byte)).unwrap_or(from.len())
    }
}

#[cfg(test)]
mod tests;
