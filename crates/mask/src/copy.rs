//! How a COPY writes its rows, from its options.
//!
//! Promises: read by PostgreSQL's own grammar; what it does not know, or what is not told as a constant,
//! is `None`, and the caller withholds. Cannot do: a text of which only the head is there.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStyle {
    /// `FORMAT text`.
    Text,
    /// `FORMAT csv`.
    Csv {
        /// Encloses values.
        quote: u8,
        /// Stands before a quote within a value.
        escape: u8,
    },
    /// `FORMAT binary`.
    Binary,
}

/// All that must be known to find the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFormat {
    /// How rows are written.
    pub style: CopyStyle,
    /// Between values.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: Vec<u8>,
    /// Whether the first row holds names.
    pub header: bool,
}

impl CopyFormat {
    /// How the COPY that is statement number `statement` (from 0) of `text` writes its rows.
    pub fn of(text: &str, statement: usize, standard_conforming_strings: bool) -> Option<Self> {
        // Options are strings: where a backslash may read either way, nobody knows.
        if !standard_conforming_strings && text.contains('\\') {
            return None;
        }
        let tree = pg_query::parse(text, pg_query::ParserOptions::DEFAULT).ok()?;
        let raw = tree.protobuf.stmts.get(statement)?;
        let N::CopyStmt(copy) = raw.stmt.as_deref()?.node.as_ref()? else { return None };
        if copy.is_from {
            return None;
        }
        read(&copy.options)
    }
}

/// What the options say, in any order.
#[derive(Default)]
struct Said<'a> {
    format: &'a str,
    delimiter: Option<&'a str>,
    null: Option<&'a str>,
    quote: Option<&'a str>,
    escape: Option<&'a str>,
    header: bool,
}

fn read(options: &[p::Node]) -> Option<CopyFormat> {
    let mut said = Said { format: "text", ..Said::default() };
    for option in options {
        let Some(N::DefElem(option)) = &option.node else { return None };
        let value = option.arg.as_deref().and_then(|arg| arg.node.as_ref());
        let text = || match value {
            Some(N::String(value)) => Some(value.sval.as_str()),
            _ => None,
        };
        match option.defname.as_str() {
            "format" => said.format = text()?,
            "delimiter" => said.delimiter = Some(text()?),
            "null" => said.null = Some(text()?),
            "quote" => said.quote = Some(text()?),
            "escape" => said.escape = Some(text()?),
            "header" => said.header = is_on(value)?,
            // Another encoding may have delimiters within characters.
            "encoding" if text()?.eq_ignore_ascii_case("utf8") => {}
            "force_quote" | "freeze" | "force_not_null" | "force_null" => {}
            _ => return None,
        }
    }
    let csv = said.format.eq_ignore_ascii_case("csv");
    let style = if csv {
        let quote = one_byte(said.quote.unwrap_or("\""))?;
        let escape = said.escape.map_or(Some(quote), one_byte)?;
        CopyStyle::Csv { quote, escape }
    } else if said.format.eq_ignore_ascii_case("text") {
        CopyStyle::Text
    } else if said.format.eq_ignore_ascii_case("binary") {
        CopyStyle::Binary
    } else {
        return None;
    };
    let delimiter = one_byte(said.delimiter.unwrap_or(if csv { "," } else { "\t" }))?;
    let null = said.null.unwrap_or(if csv { "" } else { "\\N" }).as_bytes().to_vec();
    Some(CopyFormat { style, delimiter, null, header: said.header })
}

/// A switch as the server reads it (`defGetBoolean`).
fn is_on(value: Option<&N>) -> Option<bool> {
    match value {
        None => Some(true),
        Some(N::Boolean(value)) => Some(value.boolval),
        Some(N::Integer(value)) => Some(value.ival != 0),
        Some(N::String(value)) => match value.sval.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        Some(_) => None,
    }
}

fn one_byte(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_both_syntaxes() {
        let text = |delimiter, null: &str, header| {
            let null = null.as_bytes().to_vec();
            Some(CopyFormat { style: CopyStyle::Text, delimiter, null, header })
        };
        let csv = |delimiter, null: &str, header, quote, escape| {
            let style = CopyStyle::Csv { quote, escape };
            Some(CopyFormat { style, delimiter, null: null.as_bytes().to_vec(), header })
        };
        for (statement, expected) in [
            ("COPY t TO STDOUT", text(b'\t', "\\N", false)),
            ("COPY t TO STDOUT (DELIMITER '|', NULL 'x', HEADER)", text(b'|', "x", true)),
            ("COPY t TO STDOUT WITH (FORMAT csv)", csv(b',', "", false, b'"', b'"')),
            ("COPY t TO STDOUT CSV HEADER DELIMITER AS ';'", csv(b';', "", true, b'"', b'"')),
            (
                "COPY t TO STDOUT (FORMAT CSV, QUOTE '''', ESCAPE '!', FORCE_QUOTE *, HEADER off)",
                csv(b',', "", false, b'\'', b'!'),
            ),
            (
                "COPY (SELECT 1) TO STDOUT (FORMAT csv, ENCODING 'UTF8')",
                csv(b',', "", false, b'"', b'"'),
            ),
            ("COPY t TO STDOUT (FORMAT csv, ENCODING 'SJIS')", None),
            ("COPY t TO STDOUT (FORMAT parquet)", None),
            ("COPY t TO STDOUT (later 1)", None),
            ("COPY t FROM STDIN", None),
            ("SELECT 1", None),
            ("COPY t TO", None),
        ] {
            assert_eq!(CopyFormat::of(statement, 0, true), expected, "{statement}");
        }
        let binary = CopyFormat::of("SELECT 1; COPY t TO STDOUT BINARY", 1, true).unwrap();
        assert_eq!(binary.style, CopyStyle::Binary);
        assert_eq!(CopyFormat::of("COPY t TO STDOUT (NULL E'\\\\N')", 0, false), None);
    }
}
