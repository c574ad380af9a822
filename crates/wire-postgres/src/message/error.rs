//! ErrorResponse: read what outcomes need, write what refusals need (manual, "Error and Notice
//! Message Fields").

use bytes::Bytes;
use tidegate_mask::Detectors;
use tidegate_mask::text::{self, Field};

/// What matters of an ErrorResponse.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServerError {
    pub sqlstate: String,
    pub message: String,
    /// FATAL or PANIC: the server ends the session.
    pub ends_session: bool,
}

/// Longest text that is kept of a server's error, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Reads the fields that are there; a body may be only the head of one.
pub(crate) fn read(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    for field in body.split(|&byte| byte == 0) {
        let Some((kind, value)) = field.split_first() else {
            break;
        };
        let text = || {
            let whole = String::from_utf8_lossy(value);
            tidegate_event::limits::cut(&whole, TEXT_BYTES_MAX).0.to_owned()
        };
        match kind {
            // `S` may be translated, `V` never is (9.6 up).
            b'S' | b'V' => error.ends_session |= value == b"FATAL" || value == b"PANIC",
            b'C' => error.sqlstate = text(),
            b'M' => error.message = text(),
            _ => {}
        }
    }
    error
}

/// An ErrorResponse or NoticeResponse of which the fields that people write hold no value any more. A body
/// may be only the head of one.
pub(crate) fn masked(kind: u8, body: &[u8], detectors: Detectors) -> Bytes {
    let fields: Vec<(u8, &[u8])> = body
        .split(|&byte| byte == 0)
        .map_while(|field| field.split_first().map(|(kind, value)| (*kind, value)))
        .collect();
    let raised = fields.iter().any(|(kind, value)| match kind {
        b'C' => value.starts_with(b"P0"),
        b'W' => value.windows(3).any(|part| part == b"PL/"),
        _ => false,
    });
    let breach = fields.iter().any(|(kind, value)| *kind == b'C' && value.starts_with(b"23"));
    let mut masked = Vec::with_capacity(body.len());
    for (kind, value) in fields {
        masked.push(kind);
        let field = match kind {
            b'M' | b'H' | b'D' if raised => Field::Foreign,
            b'M' | b'H' => Field::Message,
            b'D' => Field::Detail,
            b'W' => Field::Context,
            b'q' => Field::Query,
            _ => Field::Name,
        };
        text::mask_field(field, breach, value, detectors, &mut masked);
        masked.push(0);
    }
    crate::frame::message(kind, &[&masked, b"\0"])
}

/// How bad an error of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Fatal,
}

/// Builds a NoticeResponse; 00000 is successful_completion.
pub(crate) fn notice(message: &str) -> Bytes {
    fields(b'N', "NOTICE", "00000", message, None)
}

/// Builds an ErrorResponse.
pub(crate) fn response(
    severity: Severity,
    sqlstate: &str,
    message: &str,
    hint: Option<&str>,
) -> Bytes {
    let severity = match severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    fields(b'E', severity, sqlstate, message, hint)
}

fn fields(kind: u8, severity: &str, sqlstate: &str, message: &str, hint: Option<&str>) -> Bytes {
    let mut body = Vec::with_capacity(message.len() + 64);
    let mut field = |kind: u8, text: &str| {
        body.push(kind);
        // A zero byte would end the field.
        body.extend(text.bytes().filter(|&byte| byte != 0));
        body.push(0);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', sqlstate);
    field(b'M', message);
    if let Some(hint) = hint {
        field(b'H', hint);
    }
    crate::frame::message(kind, &[&body, b"\0"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let written = response(Severity::Error, "42501", "no\0t you", Some("ask"));
        assert_eq!(
            read(written.get(5..).unwrap()),
            ServerError {
                sqlstate: "42501".into(),
                message: "not you".into(),
                ends_session: false
            }
        );
        assert!(read(b"SFATAL\0C57P01\0").ends_session);
        assert_eq!(read(b"Mcut in the mid").message, "cut in the mid");
    }
}
