//! E-mail addresses and IBANs.

use std::ops::Range;

use super::Text;

/// Longest local part and domain of an address, in bytes (RFC 5321, section 4.5.3.1), with room for
/// characters of four bytes.
const LOCAL_BYTES_MAX: usize = 256;
const DOMAIN_BYTES_MAX: usize = 255;

/// Characters of an IBAN (ISO 13616).
const IBAN_CHARACTERS: Range<usize> = 15..35;

/// The address around the `@` at `at`, which begins not before `done`.
pub(super) fn email(text: Text<'_>, at: usize, done: usize) -> Option<Range<usize>> {
    let local = text.bytes.get(done.max(at.saturating_sub(LOCAL_BYTES_MAX))..at)?;
    let length = local.iter().rev().take_while(|byte| is_local(**byte)).count();
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte >= 0x80;
    let mut end = at + 1;
    let (mut labels, mut top) = (0, 0..0);
    while end - at <= DOMAIN_BYTES_MAX {
        let label = end..text.run(end, part).min(at + 1 + DOMAIN_BYTES_MAX);
        if label.is_empty() {
            break;
        }
        labels += 1;
        end = label.end;
        top = label;
        if text.get(end) != Some(b'.') {
            break;
        }
        end += 1;
    }
    // A point behind the last label ends a sentence.
    let end = top.end;
    let letters = text.bytes.get(top)?;
    let named = letters.len() >= 2 && letters.iter().any(|byte| !byte.is_ascii_digit());
    (length > 0 && labels >= 2 && named).then(|| at - length..end)
}

/// Part of a local part without quotes (RFC 5322, "atext", and RFC 6531).
fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b".!#$%&'*+/=?^_`{|}~-".contains(&byte)
}

/// Where the IBAN that begins at `at` ends.
pub(super) fn iban(text: Text<'_>, at: usize) -> Option<usize> {
    let [first, second, third, fourth, ..] = text.from(at) else { return None };
    let country = first.is_ascii_alphabetic() && second.is_ascii_alphabetic();
    if !country || !third.is_ascii_digit() || !fourth.is_ascii_digit() {
        return None;
    }
    let check = [*first, *second, *third, *fourth];
    let (mut place, mut count, mut remainder, mut found) = (at + 4, 4, 0, None);
    while count < IBAN_CHARACTERS.end - 1 {
        // Groups of four, with one space between them.
        if count % 4 == 0 && text.get(place) == Some(b' ') && text.is_word(place + 1) {
            place += 1;
        }
        let Some(byte) = text.get(place).filter(u8::is_ascii_alphanumeric) else { break };
        remainder = append(remainder, byte);
        place += 1;
        count += 1;
        let good = || check.iter().fold(remainder, |sum, byte| append(sum, *byte)) == 1;
        if IBAN_CHARACTERS.contains(&count) && !text.is_word(place) && good() {
            found = Some(place);
        }
    }
    found
}

/// The remainder of 97 after one more character: a letter counts as two digits, A as 10.
fn append(remainder: u32, byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => {
            (remainder * 100 + u32::from(byte.to_ascii_uppercase().saturating_sub(b'A')) + 10) % 97
        }
    }
}
