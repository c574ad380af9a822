//! Card, social security and phone numbers.

use super::Text;

/// Digits of a card number (ISO/IEC 7812-1).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Fewest digits in a group of a card number but the last.
const GROUP_DIGITS_MIN: usize = 4;

/// Most digits of a phone number (E.164), and the fewest that are taken for one.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// Bytes of a UUID's text.
const UUID_BYTES: usize = 36;

/// Where the card number that begins at `at` ends.
pub(super) fn card(text: Text<'_>, at: usize) -> Option<usize> {
    // The length of the first run tells most numbers off.
    let first_end = text.run(at, |byte| byte.is_ascii_digit());
    let first = first_end - at;
    if !(GROUP_DIGITS_MIN..=*CARD_DIGITS.end()).contains(&first) || !may_begin_card(text, at) {
        return None;
    }
    let separator = text.get(first_end).filter(|byte| matches!(byte, b' ' | b'-'));
    let (mut end, mut group, mut digits) = (first_end, first, first);
    let mut found = None;
    loop {
        if CARD_DIGITS.contains(&digits) && ends_card(text, end) && luhn(text, at, end) {
            found = Some(end);
        }
        let next = text.get(end);
        if group < GROUP_DIGITS_MIN || next.is_none() || next != separator {
            break;
        }
        let group_end = text.run(end + 1, |byte| byte.is_ascii_digit());
        group = group_end - end - 1;
        digits += group;
        if group == 0 || digits > *CARD_DIGITS.end() {
            break;
        }
        end = group_end;
    }
    found.filter(|_| !is_in_uuid(text, at))
}

fn may_begin_card(text: Text<'_>, at: usize) -> bool {
    let fraction = text.before(at) == Some(b'.') && text.is_digit_before(at - 1);
    let industry = match (text.get(at), text.get(at + 1)) {
        (Some(b'2'), second) => second != Some(b'0'),
        (Some(first), _) => first > b'1',
        (None, _) => false,
    };
    industry && !fraction && !is_in_hex_word(text, at)
}

fn ends_card(text: Text<'_>, end: usize) -> bool {
    let fraction = text.get(end) == Some(b'.') && text.is_digit(end + 1);
    !fraction && !is_in_hex_word(text, end - 1)
}

/// Whether the word at `at` is hexadecimal, and more than digits.
fn is_in_hex_word(text: Text<'_>, at: usize) -> bool {
    let before = text.bytes.get(..at).unwrap_or_default();
    let start =
        before.iter().rposition(|byte| !byte.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    let end = text.run(at, |byte| byte.is_ascii_alphanumeric());
    let word = text.bytes.get(start..end).unwrap_or_default();
    word.iter().all(u8::is_ascii_hexdigit) && word.iter().any(u8::is_ascii_alphabetic)
}

fn is_in_uuid(text: Text<'_>, at: usize) -> bool {
    let part = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    let before = text.bytes.get(at.saturating_sub(UUID_BYTES)..at).unwrap_or_default();
    let back = before.iter().rev().take_while(|byte| part(**byte)).count();
    let start = at - back;
    let word = text.bytes.get(start..text.run(start, part)).unwrap_or_default();
    let dashes = [8, 13, 18, 23];
    word.len() == UUID_BYTES
        && word.iter().enumerate().all(|(at, byte)| (*byte == b'-') == dashes.contains(&at))
}

/// The Luhn sum (ISO/IEC 7812-1, annex B) of the digits in that range.
fn luhn(text: Text<'_>, at: usize, end: usize) -> bool {
    let digits = text.bytes.get(at..end).unwrap_or_default().iter().rev();
    let digits = digits.filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    let sum = digits.enumerate().fold(0, |sum, (place, digit)| {
        let doubled = if place % 2 == 1 { digit * 2 } else { digit };
        sum + if doubled > 9 { doubled - 9 } else { doubled }
    });
    sum % 10 == 0
}

/// Where the social security number that begins at `at` ends.
pub(super) fn ssn(text: Text<'_>, at: usize) -> Option<usize> {
    let number: &[u8; 11] = text.from(at).first_chunk()?;
    let (area, rest) = number.split_first_chunk::<3>()?;
    let (group, serial) = rest.split_first_chunk::<4>()?;
    let [first, tens, ones, second] = group;
    let digits = area.iter().chain([tens, ones]).chain(serial).all(u8::is_ascii_digit);
    if !digits || first != second || !matches!(first, b'-' | b' ') {
        return None;
    }
    // Numbers that the Social Security Administration never gives out.
    let none = area == b"000" || area == b"666" || area.starts_with(b"9");
    let none = none || (*tens, *ones) == (b'0', b'0') || serial == b"0000";
    let end = at + number.len();
    (!none && stands_alone(text, at, end)).then_some(end)
}

/// Whether no letter, digit or further group touches a number.
fn stands_alone(text: Text<'_>, at: usize, end: usize) -> bool {
    let joins = |byte: Option<u8>| matches!(byte, Some(b'-' | b'.'));
    let before =
        text.is_word_before(at) || (joins(text.before(at)) && text.is_digit_before(at - 1));
    let behind = text.is_word(end) || (joins(text.get(end)) && text.is_digit(end + 1));
    !before && !behind
}

/// Where the number with a country code, whose `+` stands at `at`, ends.
pub(super) fn international(text: Text<'_>, at: usize) -> Option<usize> {
    if text.is_word_before(at) || !matches!(text.get(at + 1), Some(b'1'..=b'9')) {
        return None;
    }
    let (mut digits, mut place, mut found) = (0, at + 1, None);
    loop {
        let end = text.run(place, |byte| byte.is_ascii_digit());
        digits += end - place;
        if end == place || digits > *PHONE_DIGITS.end() {
            break;
        }
        if PHONE_DIGITS.contains(&digits) && !text.is_word(end) {
            found = Some(end);
        }
        // At most two separators in a row: `) `, ` (`.
        let gap = text.run(end, |byte| matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'/'));
        if gap == end || gap - end > 2 {
            break;
        }
        place = gap;
    }
    found
}

/// Where the North American number that begins at `at` ends: `(ddd) ddd-dddd`, `ddd-ddd-dddd`.
pub(super) fn north_american(text: Text<'_>, at: usize) -> Option<usize> {
    let open = text.get(at) == Some(b'(');
    let area = at + usize::from(open);
    let mut place = area + 3;
    let separator = if open {
        if text.get(place) != Some(b')') {
            return None;
        }
        place += 1;
        place += usize::from(text.get(place) == Some(b' '));
        b'-'
    } else {
        let separator = text.get(place).filter(|byte| matches!(byte, b'-' | b'.'))?;
        place += 1;
        separator
    };
    let exchange = place;
    let line = exchange + 4;
    let end = line + 4;
    let begins = |at: usize| matches!(text.get(at), Some(b'2'..=b'9'));
    let all = |from: usize, count: usize| (from..from + count).all(|at| text.is_digit(at));
    let good = begins(area) && all(area, 3) && begins(exchange) && all(exchange, 3);
    let good = good && text.get(exchange + 3) == Some(separator) && all(line, 4);
    (good && stands_alone(text, at, end)).then_some(end)
}
