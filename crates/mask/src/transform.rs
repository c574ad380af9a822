//! From a value to what stands in its place.
//!
//! Promises: the result is valid for the type and format (`form.rs`); nothing is allocated but in the
//! caller's buffer; equal values of one class give equal hashes and tokens under one key.
//!
//! Method of tokens: FF1 over the letters and over the digits, with what surrounds them as the tweak.
//! Where a value has too few of them for FF1, or too many, a keyed stream replaces each: then two values
//! may share a token. A character beyond ASCII becomes a letter, as nobody can say what it gives away.
//! Limits: a value of at most [`TOKEN_BYTES_MAX`] bytes is tokenised, a longer one redacted.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroize as _;

use crate::ff1::{Ff1, NUMERALS_MAX, TWEAK_BYTES, is_wide};
use crate::form::{Form, Format};
use crate::protection::Mask;
use crate::secret::Secret;

/// What stands in place of a redacted text.
pub(crate) const REDACTED: &[u8] = b"****";
/// The same as JSON.
const REDACTED_JSON: &[u8] = b"\"****\"";
/// The same in `jsonb`'s binary form, version 1.
const REDACTED_JSONB: &[u8] = b"\x01\"****\"";

/// Longest value that is tokenised, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 4096;

/// Most stars before what a partial mask keeps: the length is nobody's business.
const STARS_MAX: usize = 32;

/// Bytes of a hash that are shown, as twice as many hexadecimal digits.
const HASH_BYTES: usize = 16;

type HmacSha256 = Hmac<Sha256>;

/// The keys of one class.
pub(crate) struct Keyed {
    hash: HmacSha256,
    token: HmacSha256,
    ff1: Ff1,
}

impl Keyed {
    pub fn new(secret: &Secret, class: &str) -> Self {
        let mut keys = [*b"hash", *b"toke", *b"ff1k"].map(|what| derive(secret, what, class));
        let [hash, token, ff1] = &keys;
        let keyed = Self { hash: mac(hash), token: mac(token), ff1: Ff1::new(ff1) };
        keys.zeroize();
        keyed
    }

    fn digest(&self, value: &[u8]) -> [u8; HASH_BYTES] {
        let mut mac = self.hash.clone();
        mac.update(value);
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        whole.first_chunk().copied().unwrap_or_default()
    }
}

/// The key for one use and class. Uses have names of one length, so no two read alike.
fn derive(secret: &Secret, what: [u8; 4], class: &str) -> [u8; 32] {
    let mut mac = mac(secret.bytes());
    mac.update(b"tidegate/mask/v1/");
    mac.update(&what);
    mac.update(class.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Keys the digests of results that may show what is protected.
pub(crate) fn digest_key(secret: &Secret) -> [u8; 32] {
    derive(secret, *b"rslt", "")
}

fn mac(key: &[u8; 32]) -> HmacSha256 {
    // A key of one block or less goes in as it is, so a padded one gives the same as the short one.
    let mut block = [0_u8; 64];
    if let Some((front, _)) = block.split_first_chunk_mut() {
        *front = *key;
    }
    let mac = HmacSha256::new(&block.into());
    block.zeroize();
    mac
}

/// What stands in place of every value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constant {
    /// SQL NULL.
    Null,
    /// These bytes.
    Bytes(&'static [u8]),
}

/// What stands in place of every value, where that does not depend on the value.
pub(crate) const fn constant(mask: Mask, form: Form) -> Option<Constant> {
    match (mask, form) {
        (Mask::Null, _) | (_, Form::Other) => Some(Constant::Null),
        (Mask::Hash, _)
        | (Mask::Tokenise, Form::Uuid(_))
        | (Mask::Partial { .. } | Mask::Tokenise, Form::Text) => None,
        (_, Form::Uuid(_) | Form::Bytea(_)) => Some(Constant::Null),
        (_, Form::Text) => Some(Constant::Bytes(REDACTED)),
        (_, Form::Json { version: false }) => Some(Constant::Bytes(REDACTED_JSON)),
        (_, Form::Json { version: true }) => Some(Constant::Bytes(REDACTED_JSONB)),
    }
}

/// Writes what stands for `value`; `false` where that is NULL.
pub(crate) fn write(
    mask: Mask,
    form: Form,
    keyed: Option<&Keyed>,
    value: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    match constant(mask, form) {
        Some(Constant::Null) => return false,
        Some(Constant::Bytes(bytes)) => {
            out.extend_from_slice(bytes);
            return true;
        }
        None => {}
    }
    match (mask, form, keyed) {
        (Mask::Partial { keep_last }, ..) => partial(value, keep_last, out),
        (Mask::Tokenise, Form::Text, Some(keyed)) => tokenise(keyed, value, out),
        (Mask::Hash | Mask::Tokenise, Form::Uuid(format), Some(keyed)) => {
            uuid(format, keyed, value, out);
        }
        (Mask::Hash, form, Some(keyed)) => hash(form, keyed, value, out),
        _ => return false,
    }
    true
}

fn hash(form: Form, keyed: &Keyed, value: &[u8], out: &mut Vec<u8>) {
    match form {
        Form::Json { version } => {
            let digest = keyed.digest(value.get(usize::from(version)..).unwrap_or_default());
            out.extend_from_slice(if version { b"\x01\"" } else { b"\"" });
            hex(&digest, out);
            out.push(b'"');
        }
        Form::Bytea(Format::Binary) => out.extend_from_slice(&keyed.digest(value)),
        Form::Bytea(Format::Text) => {
            // `bytea_output = escape` has no prefix; then the text itself is hashed.
            out.extend_from_slice(b"\\x");
            hex(&keyed.digest(&unhex(value).unwrap_or_else(|| value.to_vec())), out);
        }
        Form::Text | Form::Uuid(_) | Form::Other => hex(&keyed.digest(value), out),
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0x0f] {
            out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        }
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b"\\x")?;
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|one| u8::try_from(one).ok());
    digits
        .chunks(2)
        .map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?))
        .collect()
}

/// A UUID of version 8 (RFC 9562, section 5.8) that tells nothing but equality.
fn uuid(format: Format, keyed: &Keyed, value: &[u8], out: &mut Vec<u8>) {
    let mut canonical = [0_u8; 16];
    match format {
        Format::Binary => {
            canonical.iter_mut().zip(value).for_each(|(place, byte)| *place = *byte);
        }
        Format::Text => {
            let digits = value.iter().filter_map(|digit| char::from(*digit).to_digit(16));
            for (at, digit) in digits.take(32).enumerate() {
                if let (Some(place), Ok(digit)) = (canonical.get_mut(at / 2), u8::try_from(digit)) {
                    *place = *place << 4 | digit;
                }
            }
        }
    }
    let mut digest = keyed.digest(&canonical);
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut digest;
    *version = (*version & 0x0f) | 0x80;
    *variant = (*variant & 0x3f) | 0x80;
    if format == Format::Binary {
        out.extend_from_slice(&digest);
        return;
    }
    let mut rest = digest.as_slice();
    for (at, length) in [4, 2, 2, 2, 6].into_iter().enumerate() {
        let (part, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        if at > 0 {
            out.push(b'-');
        }
        hex(part, out);
    }
}

/// Stars, and the last `keep` characters where at least as many again stay hidden.
fn partial(value: &[u8], keep: u8, out: &mut Vec<u8>) {
    let keep = usize::from(keep);
    let Ok(text) = std::str::from_utf8(value) else {
        // In another encoding a part of a character may be no character.
        out.extend_from_slice(REDACTED);
        return;
    };
    let characters = text.chars().count();
    if keep == 0 || characters < keep.saturating_mul(2) {
        out.extend_from_slice(REDACTED);
        return;
    }
    out.extend(std::iter::repeat_n(b'*', (characters - keep).min(STARS_MAX)));
    let kept = text.char_indices().rev().nth(keep - 1).map_or(0, |(at, _)| at);
    out.extend_from_slice(value.get(kept..).unwrap_or_default());
}

/// The kind of a character, as a token keeps it.
fn place(byte: u8) -> Option<(u8, u8)> {
    match byte {
        b'0'..=b'9' => Some((b'0', 10)),
        b'a'..=b'z' => Some((b'a', 26)),
        b'A'..=b'Z' => Some((b'A', 26)),
        _ => None,
    }
}

fn tokenise(keyed: &Keyed, value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let shown = |byte: &u8| place(*byte).is_some() || !byte.is_ascii();
    if value.len() > TOKEN_BYTES_MAX || !value.iter().any(shown) {
        out.extend_from_slice(REDACTED);
        return;
    }
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let fits = |radix, count| count == 0 || (is_wide(radix, count) && count <= NUMERALS_MAX);
    if value.is_ascii() && fits(10, digits) && fits(26, letters) {
        out.extend_from_slice(value);
        if let Some(token) = out.get_mut(start..) {
            permute(keyed, token);
            if token != value {
                return;
            }
        }
        // A fixed point would show the value.
        out.truncate(start);
    }
    stream(keyed, value, out);
}

/// FF1 over the letters, then over the digits.
fn permute(keyed: &Keyed, token: &mut [u8]) {
    let mut mac = keyed.token.clone();
    mac.update(b"p");
    for byte in token.iter() {
        // The shape: what is kept, and where letters and digits stand.
        mac.update(&[place(*byte).map_or(*byte, |(first, _)| first)]);
    }
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let tweak: [u8; TWEAK_BYTES] = digest.first_chunk().copied().unwrap_or_default();
    for radix in [26, 10] {
        let mut numerals = [0_u8; NUMERALS_MAX];
        let mut count = 0;
        for byte in token.iter() {
            if let Some((first, _)) = place(*byte).filter(|(_, of)| *of == radix)
                && let Some(numeral) = numerals.get_mut(count)
            {
                *numeral = byte - first;
                count += 1;
            }
        }
        let Some(used) = numerals.get_mut(..count).filter(|used| !used.is_empty()) else {
            continue;
        };
        keyed.ff1.encrypt(radix, &tweak, used);
        let mut used = used.iter();
        for byte in token.iter_mut() {
            if let Some((first, _)) = place(*byte).filter(|(_, of)| *of == radix) {
                *byte = first + used.next().copied().unwrap_or_default();
            }
        }
    }
}

/// Each letter and digit replaced by one that a keyed stream over the whole value names.
fn stream(keyed: &Keyed, value: &[u8], out: &mut Vec<u8>) {
    let mut first = keyed.token.clone();
    first.update(b"s");
    first.update(value);
    let mut block = [0_u8; 32];
    let (mut counter, mut at) = (0_u32, block.len());
    for byte in value {
        let (from, radix) = match place(*byte) {
            Some(place) => place,
            // The first byte of a character in UTF-8 stands for it; the others go.
            None if !byte.is_ascii() && byte & 0xc0 == 0x80 => continue,
            None if !byte.is_ascii() => (b'a', 26),
            None => {
                out.push(*byte);
                continue;
            }
        };
        // Two bytes a character: the bias of the remainder is below a thousandth.
        if at + 2 > block.len() {
            let mut mac = first.clone();
            mac.update(&counter.to_be_bytes());
            block = mac.finalize().into_bytes().into();
            counter += 1;
            at = 0;
        }
        let pair = block.get(at..at + 2).and_then(|pair| pair.first_chunk::<2>());
        at += 2;
        let drawn = pair.map_or(0, |pair| u16::from_be_bytes(*pair)) % u16::from(radix);
        out.push(from + u8::try_from(drawn).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
