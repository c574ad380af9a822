//! Keys and tokens: by their prefix, by their form, by the name before them.

use std::ops::Range;

use super::Text;

/// A kind of key: what it begins with, how many characters follow at least, and which.
struct Kind(&'static [u8], usize, fn(u8) -> bool);

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

/// base64url.
fn url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn dotted(byte: u8) -> bool {
    url(byte) || byte == b'.'
}

/// Prefixes as their issuers document them.
const KINDS: [Kind; 37] = [
    Kind(b"AKIA", 16, upper),
    Kind(b"ASIA", 16, upper),
    Kind(b"ABIA", 16, upper),
    Kind(b"ACCA", 16, upper),
    Kind(b"AROA", 16, upper),
    Kind(b"AIDA", 16, upper),
    Kind(b"AGPA", 16, upper),
    Kind(b"AIPA", 16, upper),
    Kind(b"ANPA", 16, upper),
    Kind(b"ANVA", 16, upper),
    Kind(b"ghp_", 36, alphanumeric),
    Kind(b"gho_", 36, alphanumeric),
    Kind(b"ghu_", 36, alphanumeric),
    Kind(b"ghs_", 36, alphanumeric),
    Kind(b"ghr_", 36, alphanumeric),
    Kind(b"github_pat_", 22, url),
    Kind(b"glpat-", 20, dotted),
    Kind(b"xoxa-", 10, url),
    Kind(b"xoxb-", 10, url),
    Kind(b"xoxe-", 10, url),
    Kind(b"xoxp-", 10, url),
    Kind(b"xoxr-", 10, url),
    Kind(b"xoxs-", 10, url),
    Kind(b"xapp-", 10, url),
    Kind(b"sk_live_", 16, alphanumeric),
    Kind(b"sk_test_", 16, alphanumeric),
    Kind(b"rk_live_", 16, alphanumeric),
    Kind(b"rk_test_", 16, alphanumeric),
    Kind(b"whsec_", 16, url),
    Kind(b"sk-", 20, url),
    Kind(b"AIza", 35, url),
    Kind(b"ya29.", 20, url),
    Kind(b"npm_", 36, alphanumeric),
    Kind(b"pypi-", 16, url),
    Kind(b"dop_v1_", 64, alphanumeric),
    Kind(b"hvs.", 20, url),
    Kind(b"SG.", 30, dotted),
];

/// Where the key that begins at `at` ends.
pub(super) fn key(text: Text<'_>, at: usize) -> Option<usize> {
    let from = text.from(at);
    let kinds = KINDS.iter().filter(|Kind(prefix, ..)| from.starts_with(prefix));
    let known = kinds.filter_map(|Kind(prefix, least, belongs)| {
        let start = at + prefix.len();
        let end = text.run(start, belongs);
        (end - start >= *least).then_some(end)
    });
    known.max().or_else(|| jwt(text, at))
}

/// A JSON Web Token (RFC 7515): a header that begins with `{"` in base64url, and more parts.
fn jwt(text: Text<'_>, at: usize) -> Option<usize> {
    const PART_MIN: usize = 8;
    if !text.from(at).starts_with(b"eyJ") {
        return None;
    }
    let header = text.run(at, url);
    let mut end = text.run(header + 1, url);
    if text.get(header) != Some(b'.') || header - at < PART_MIN || end - header <= PART_MIN {
        return None;
    }
    while text.get(end) == Some(b'.') && text.get(end + 1).is_some_and(url) {
        end = text.run(end + 1, url);
    }
    Some(end)
}

/// Where the PEM block (RFC 7468) that begins at `at` ends: behind its last line, or with the text.
pub(super) fn pem(text: Text<'_>, at: usize) -> Option<usize> {
    let from = text.from(at);
    if !from.starts_with(b"-----BEGIN ") {
        return None;
    }
    let behind = |start: usize, mark: &[u8]| {
        let rest = from.get(start..)?;
        rest.windows(mark.len())
            .position(|part| part == mark)
            .map(|found| start + found + mark.len())
    };
    let end = behind(0, b"-----END ").and_then(|end| behind(end, b"-----"));
    Some(at + end.unwrap_or(from.len()))
}

/// Names that have a secret behind them, in lower case.
const NAMES: [&[u8]; 14] = [
    b"password",
    b"passwd",
    b"passphrase",
    b"pwd",
    b"secret",
    b"token",
    b"apikey",
    b"api_key",
    b"api-key",
    b"accesskey",
    b"access_key",
    b"private_key",
    b"bearer",
    b"basic",
];

/// Longest rest of a name, and longest gap, before a secret, in bytes.
const GAP_BYTES_MAX: usize = 24;

/// Fewest characters and different ones of a random word.
const RANDOM_MIN: usize = 16;
const DIFFERENT_MIN: usize = 8;

/// The random word behind the name that begins at `at`.
pub(super) fn named(text: Text<'_>, at: usize) -> Option<Range<usize>> {
    let from = text.from(at);
    let begins =
        |name: &&&[u8]| from.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name));
    let name = NAMES.iter().find(begins)?;
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let name_end = text.run(at + name.len(), part_of_name);
    let gap = text.run(name_end, |byte| matches!(byte, b' ' | b'"' | b'\'' | b':' | b'=' | b'>'));
    let spaces = text.bytes.get(name_end..gap)?;
    let scheme = matches!(*name, b"bearer" | b"basic");
    let assigned = spaces.iter().any(|byte| matches!(byte, b':' | b'='));
    if gap - at > name.len() + GAP_BYTES_MAX || spaces.is_empty() || !(assigned || scheme) {
        return None;
    }
    let end = text.run(gap, |byte| dotted(byte) || matches!(byte, b'+' | b'/' | b'='));
    let word = text.bytes.get(gap..end)?;
    is_random(word).then_some(gap..end)
}

/// Long, of letters and digits, and of many different ones.
fn is_random(word: &[u8]) -> bool {
    let mut seen = [false; 256];
    let mut different = 0;
    for byte in word {
        if let Some(seen) = seen.get_mut(usize::from(*byte))
            && !std::mem::replace(seen, true)
        {
            different += 1;
        }
    }
    let mixed = word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
    word.len() >= RANDOM_MIN && different >= DIFFERENT_MIN && mixed
}
