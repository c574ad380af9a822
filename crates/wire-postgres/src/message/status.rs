//! ParameterStatus, ReadyForQuery and command tags.

use nom::sequence::pair;

use super::{Malformed, c_string, whole};

/// Where the server's transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Idle,
    Open,
    Failed,
}

/// ReadyForQuery.
pub(crate) fn ready(body: &[u8]) -> Result<Transaction, Malformed> {
    match body {
        b"I" => Ok(Transaction::Idle),
        b"T" => Ok(Transaction::Open),
        b"E" => Ok(Transaction::Failed),
        _ => Err(Malformed),
    }
}

/// ParameterStatus: name and value.
pub(crate) fn parameter(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    whole(pair(c_string, c_string), body)
}

/// CommandComplete: its tag.
pub(crate) fn tag(body: &[u8]) -> Result<&[u8], Malformed> {
    whole(c_string, body)
}

/// Rows that a tag counts: its last word, where that is a number.
pub(crate) fn rows(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn tags_count_their_rows() {
        for (tag, expected) in [
            ("SELECT 5", 5),
            ("INSERT 0 3", 3),
            ("COPY 7", 7),
            ("CREATE TABLE", 0),
            ("", 0),
            ("SELECT 99999999999999999999999", 0),
        ] {
            assert_eq!(super::rows(tag), expected, "{tag}");
        }
    }
}
