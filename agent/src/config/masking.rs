//! Which columns of a target are protected, what becomes of their values, and where the agent learns
//! what the target's databases hold.
//!
//! Promises: plain settings; every default is a named constant here. Names of columns are written as the
//! target's protocol writes them. PostgreSQL: a part without quotes is folded to lower case, a part in
//! double quotes stays as it is. MySQL: all parts are folded to lower case, in backticks, double quotes or
//! none, since whether the server tells case apart is not known.
//!
//! Known gaps: a column is named in full, not by a pattern. What a mask does to a value is
//! `crates/mask`'s to say.

use std::path::PathBuf;

use tidegate_event::Protocol;
use tidegate_mask::{Mask, Unresolved};

/// How often the catalogue is read anew, in seconds. DDL that passes the gate does not wait for it.
pub const REFRESH_SECONDS_DEFAULT: u64 = 60;

/// Shortest such time.
pub const REFRESH_SECONDS_MIN: u64 = 5;

/// Longest such time: what others change past the gate should not stay unknown for more than an hour.
pub const REFRESH_SECONDS_LIMIT: u64 = 3600;

/// Most `[[protect]]` entries.
pub const PROTECT_MAX: usize = 1024;

/// Most columns of one entry.
pub const PROTECT_COLUMNS_MAX: usize = 1024;

/// Longest name of a schema, a relation or a column, in bytes (PostgreSQL's `NAMEDATALEN` less one).
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// The same in MySQL, in characters (MySQL manual, "Identifier Length Limits").
pub const MYSQL_IDENTIFIER_CHARS_MAX: usize = 64;

/// Characters that `partial` keeps where the file does not say.
pub const KEEP_LAST_DEFAULT: u8 = 4;

/// Most characters that `partial` may keep: more would be no mask for what is usually protected.
pub const KEEP_LAST_LIMIT: u8 = 16;

/// Largest password file, in bytes.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

/// Columns of one class that are protected in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectConfig {
    /// What kind of value it is, for policies and records.
    pub class: String,
    /// The columns.
    pub columns: Vec<ProtectedColumn>,
    /// What becomes of their values.
    pub mask: Mask,
}

/// One protected column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProtectedColumn {
    /// Its schema (in MySQL its database); `None` means any.
    pub schema: Option<String>,
    /// Its table, view or foreign table.
    pub relation: String,
    /// Its name.
    pub column: String,
}

/// What is looked for in values of which it can't be told where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DetectorName {
    /// Card numbers (with their check digit).
    Card,
    /// US social security numbers.
    Ssn,
    /// IBANs (with their checksum).
    Iban,
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Phone,
    /// Keys and tokens.
    Secret,
}

impl DetectorName {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Card, Self::Ssn, Self::Iban, Self::Email, Self::Phone, Self::Secret];

    /// The word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Ssn => "ssn",
            Self::Iban => "iban",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Secret => "secret",
        }
    }
}

/// How a target's results are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskingConfig {
    /// What is looked for where lineage can't tell.
    pub detectors: Vec<DetectorName>,
    /// What becomes of what can't be told.
    pub unresolved: Unresolved,
}

/// The agent's own connection to a target's databases, by which it learns what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueConfig {
    /// The database user. In PostgreSQL it needs no rights on tables, only `CONNECT`; what it needs in
    /// MySQL stands in `docs/OPERATING.md`.
    pub user: String,
    /// A file with its password; `None` where the server asks for none.
    pub password_file: Option<PathBuf>,
    /// How often it is read anew, in milliseconds.
    pub refresh_ms: u64,
}

impl ProtectedColumn {
    /// Reads `relation.column` or `schema.relation.column` as `protocol` writes names; the error is what
    /// is wrong and what to do.
    pub fn parse(text: &str, protocol: Protocol) -> Result<Self, (String, &'static str)> {
        let mysql = protocol == Protocol::Mysql;
        let todo = if mysql {
            "write table.column or database.table.column, names with other signs than letters, digits, \
             _ and $ in backticks"
        } else {
            "write relation.column or schema.relation.column, names that are not all lower \
             case in double quotes"
        };
        let wrong = |what: &str| (format!("column \"{text}\" {what}"), todo);
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let read = if mysql { mysql_identifier(rest) } else { identifier(rest) };
            let (part, behind) = read.ok_or_else(|| wrong("is no column's name"))?;
            if mysql && (part.is_empty() || part.chars().count() > MYSQL_IDENTIFIER_CHARS_MAX) {
                return Err(wrong("has a part that is empty or longer than 64 characters"));
            }
            if !mysql && (part.is_empty() || part.len() > IDENTIFIER_BYTES_MAX) {
                return Err(wrong("has a part that is empty or longer than 63 bytes"));
            }
            parts.push(part);
            match behind.strip_prefix('.') {
                Some(next) => rest = next,
                None if behind.is_empty() => break,
                None => return Err(wrong("is no column's name")),
            }
        }
        match <[String; 3]>::try_from(parts) {
            Ok([schema, relation, column]) => Ok(Self { schema: Some(schema), relation, column }),
            Err(parts) => match <[String; 2]>::try_from(parts) {
                Ok([relation, column]) => Ok(Self { schema: None, relation, column }),
                Err(_) => Err(wrong("has not two or three parts")),
            },
        }
    }
}

impl std::fmt::Display for ProtectedColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        write!(f, "{}.{}", self.relation, self.column)
    }
}

/// One identifier at the front of `text`, and what stands behind it.
pub(crate) fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let end = text.find(|c| !plain(c)).unwrap_or(text.len());
        let (name, behind) = text.split_at_checked(end)?;
        return Some((name.to_ascii_lowercase(), behind));
    };
    tidegate_event::unquote(quoted)
}

/// The same in MySQL, in lower case. A backtick or double quote within is doubled.
fn mysql_identifier(text: &str) -> Option<(String, &str)> {
    let (name, behind) = match text.chars().next() {
        Some('`') => quoted(text, '`')?,
        Some('"') => quoted(text, '"')?,
        _ => identifier(text)?,
    };
    Some((tidegate_sql::mysql::folded(&name), behind))
}

/// What stands between two such quotes at the front of `text`, and what stands behind them.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let (inside, behind) = rest.split_once(quote)?;
        name.push_str(inside);
        match behind.strip_prefix(quote) {
            Some(more) => {
                name.push(quote);
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_named_as_postgresql_names_it() {
        for (text, expected) in [
            ("customers.ssn", Ok("customers.ssn")),
            ("public.customers.ssn", Ok("public.customers.ssn")),
            ("Public.Customers.SSN", Ok("public.customers.ssn")),
            ("\"Public\".\"a.b\".\"c\"\"d\"", Ok("Public.a.b.c\"d")),
            ("ssn", Err("has not two or three parts")),
            ("a.b.c.d", Err("has not two or three parts")),
            ("a..b", Err("has a part that is empty or longer than 63 bytes")),
            ("a.b.", Err("has a part that is empty or longer than 63 bytes")),
            ("", Err("has a part that is empty or longer than 63 bytes")),
            ("a.*", Err("has a part that is empty or longer than 63 bytes")),
            ("a b.c", Err("is no column's name")),
            ("\"a.b", Err("is no column's name")),
        ] {
            check(text, Protocol::Postgres, expected);
        }
    }

    #[track_caller]
    fn check(text: &str, protocol: Protocol, expected: Result<&str, &str>) {
        let got = ProtectedColumn::parse(text, protocol);
        match (&got, expected) {
            (Ok(column), Ok(name)) => assert_eq!(column.to_string(), name, "{text}"),
            (Err((what, _)), Err(why)) => assert!(what.contains(why), "{text}: {what}"),
            _ => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn a_column_is_named_as_mysql_names_it_and_in_lower_case() {
        let long = "ä".repeat(64);
        let (fits, too_long) = (format!("t.{long}"), format!("t.{long}b"));
        for (text, expected) in [
            ("Customers.SSN", Ok("customers.ssn")),
            ("Bank.`Customers`.\"SSN\"", Ok("bank.customers.ssn")),
            ("`a``b.C`.`d`", Ok("a`b.c.d")),
            ("ÄB.Ö", Ok("äb.ö")),
            (&fits, Ok(&fits)),
            (&too_long, Err("has a part that is empty or longer than 64 characters")),
            ("``.a", Err("has a part that is empty or longer than 64 characters")),
            ("a", Err("has not two or three parts")),
            ("`a.b", Err("is no column's name")),
            ("a-b.c", Err("is no column's name")),
        ] {
            check(text, Protocol::Mysql, expected);
        }
    }
}
