//! Types and formats: what may stand in place of a value so that a driver still reads it.
//!
//! | types | redact | partial | hash | tokenise |
//! | --- | --- | --- | --- | --- |
//! | text, varchar, bpchar, name, unknown | `****` | as said | 32 hexadecimal digits | as said |
//! | json, jsonb | `"****"` | the same | the same, as a JSON string | `"****"` |
//! | uuid | NULL | NULL | a UUID of version 8 | the same UUID |
//! | bytea | NULL | NULL | 16 bytes | NULL |
//! | all others, and unknown types | NULL | NULL | NULL | NULL |
//!
//! A value computed from a protected one is redacted. A domain comes with its base type's OID (server,
//! `printtup.c`), so it is read as that; enums, arrays, composites and ranges become NULL.

use crate::detect::Cover;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// As text.
    #[default]
    Text,
    /// In the type's own binary form.
    Binary,
}

impl Format {
    /// The format of that code (manual, "Formats and Format Codes"). An unknown one is taken for
    /// binary: nothing is known of it.
    pub const fn from_code(code: u16) -> Self {
        if code == 0 { Self::Text } else { Self::Binary }
    }
}

/// What kind of value a type holds, as masks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Any text is a value.
    Text,
    /// A JSON text; in `jsonb`'s binary form behind a version byte.
    Json {
        /// Whether the version byte is there.
        version: bool,
    },
    /// 16 bytes, or their text.
    Uuid(Format),
    /// Any bytes, or `\x` and their hexadecimal text.
    Bytea(Format),
    /// Only NULL is sure to be a value.
    Other,
}

/// Kind of the type with that OID (`pg_type.dat`).
pub(crate) const fn form(type_oid: u32, format: Format) -> Form {
    match (type_oid, format) {
        (25 | 1043 | 1042 | 19 | 705, _) => Form::Text,
        (114, _) | (3802, Format::Text) => Form::Json { version: false },
        (3802, Format::Binary) => Form::Json { version: true },
        (2950, format) => Form::Uuid(format),
        (17, format) => Form::Bytea(format),
        _ => Form::Other,
    }
}

/// How detectors cover values of that type; `None` where they can't read them. Where they can, a value's
/// bytes are its text, and covered text is a value too.
pub(crate) const fn scanned(type_oid: u32, format: Format) -> Option<Cover> {
    match (type_oid, format) {
        (114, _) | (3802 | 199 | 3807, Format::Text) => Some(Cover::Json),
        // Arrays of text, as text; hstore and the like have no fixed OID.
        (25 | 1043 | 1042 | 19 | 705, _)
        // A COPY names no types: its values are text.
        | (0 | 1009 | 1015 | 1014 | 1003, Format::Text) => Some(Cover::Stars),
        _ => None,
    }
}
