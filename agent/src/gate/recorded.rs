//! Operations as their records have them, where values must not be recorded.
//!
//! Promises: what goes to the server is never touched. A value that meets a protected column, or that
//! may, is not in what comes out; neither is a digest of it, since such values are few enough to be
//! tried one by one. Where literals can't be told apart, the whole text is left out.
//!
//! Known gaps: comments and names are recorded as they are, whatever somebody writes in them.

use std::ops::Range;
use std::sync::Arc;

use tidegate_event::{
    Analysis, Operation, Outcome, Parameter, Protocol, Statement, Status, Unknown, ValueAt,
};
use tidegate_mask::text::mask_literals;
use tidegate_sql::{Settings, literals, mysql};

use super::masking::Values;

/// What stands in place of a parameter.
const MASKED: &str = "****";

/// What stands in place of a message of the server's.
const MESSAGE: &str = "(left out: it may tell of protected values)";

/// What stands in place of the reason why a text was not understood.
const NOT_UNDERSTOOD: &str =
    "its text is not understood, and left out: it may hold protected values";

/// `operation` without the values that must not be recorded; `None` where it may be recorded as it is.
pub(super) fn masked(
    operation: &Operation,
    values: &Values,
    protocol: Protocol,
) -> Option<Operation> {
    let Operation::Statement(statement) = operation else { return None };
    let hides = |at: ValueAt| match values {
        Values::Clear => false,
        Values::These(these) => these.contains(&at),
        Values::All => true,
    };
    if *values == Values::Clear {
        return None;
    }
    let text = masked_text(statement, protocol, |number| hides(ValueAt::Literal(number)));
    let row = row(statement, protocol);
    let hides = |at: usize| match row {
        Some(row) => {
            u16::try_from(at % row + 1).map_or(true, |number| hides(ValueAt::Parameter(number)))
        }
        None => true,
    };
    let parameters =
        statement.parameters.iter().enumerate().map(|(at, parameter)| match parameter {
            Parameter::Null => Parameter::Null,
            _ if hides(at) => Parameter::Text(MASKED.as_bytes().to_vec()),
            shown => shown.clone(),
        });
    let parameters: Vec<Parameter> = parameters.collect();
    let known = text.is_some();
    Some(Operation::Statement(Statement {
        via: statement.via,
        text: text.unwrap_or_default(),
        text_bytes: statement.text_bytes,
        text_sha256: None,
        prepared: statement.prepared.clone(),
        parameters,
        analysis: masked_analysis(&statement.analysis, known),
    }))
}

/// After how many parameters the first one's value comes again, as in MariaDB's bulk execution; `None` where that can't
/// be told.
fn row(statement: &Statement, protocol: Protocol) -> Option<usize> {
    let all = statement.parameters.len().max(1);
    match protocol {
        _ if all == 1 => Some(all),
        Protocol::Mysql if statement.text_sha256.is_some() => None,
        Protocol::Mysql => mysql_read(&statement.text, mysql::placeholders).filter(|row| *row > 0),
        _ => Some(all),
    }
}

/// The text without the literals that `hides` names by their number; `None` where they can't be told.
fn masked_text(
    statement: &Statement,
    protocol: Protocol,
    hides: impl Fn(u32) -> bool,
) -> Option<Arc<str>> {
    let found = match protocol {
        Protocol::Mysql => mysql_read(&statement.text, mysql::literals)?,
        _ => postgres_literals(&statement.text)?,
    };
    let hides = |at: usize| u32::try_from(at).map_or(true, &hides);
    Some(mask_literals(&statement.text, &found, hides).into())
}

fn postgres_literals(text: &str) -> Option<Vec<Range<usize>>> {
    // The session may read a backslash either way; only where both say the same it can be told.
    let read = |standard_conforming_strings| {
        let settings = Settings { standard_conforming_strings, utf8: true };
        literals(text.as_bytes(), settings)
    };
    let found = read(true)?;
    (!text.contains('\\') || read(false).as_ref() == Some(&found)).then_some(found)
}

/// What `of` finds in a text of MySQL's, where every reading of it says the same.
fn mysql_read<T: PartialEq>(text: &str, of: fn(&[u8], mysql::Settings) -> Option<T>) -> Option<T> {
    // Nor is it known here how the session reads a double quote, or which executable comments count.
    let read = |ansi_quotes, no_backslash_escapes| {
        let charset = mysql::Charset::Utf8;
        let server = mysql::Server::default();
        let settings = mysql::Settings { ansi_quotes, no_backslash_escapes, charset, server };
        of(text.as_bytes(), settings)
    };
    let found = read(false, false)?;
    let quotes: &[bool] = if text.contains('"') { &[false, true] } else { &[false] };
    let slashes: &[bool] = if text.contains('\\') { &[false, true] } else { &[false] };
    let same =
        |ansi: &bool| slashes.iter().all(|plain| read(*ansi, *plain).as_ref() == Some(&found));
    quotes.iter().all(same).then_some(found)
}

/// The parser quotes the text where it does not understand it, and the fingerprint of a text whose
/// literals can't be told is made from all of it.
fn masked_analysis(analysis: &Arc<Analysis>, literals_known: bool) -> Arc<Analysis> {
    if literals_known && analysis.unknown.is_none() {
        return Arc::clone(analysis);
    }
    Arc::new(Analysis {
        fingerprint: None,
        unknown: analysis.unknown.as_ref().map(|_| Unknown { reason: NOT_UNDERSTOOD.to_owned() }),
        ..Analysis::clone(analysis)
    })
}

/// What a refusal's record says instead of its reason, where that quotes what must not be recorded.
pub(super) fn masked_reason(operation: &Operation, values: &Values) -> Option<&'static str> {
    let Operation::Statement(statement) = operation else { return None };
    let quotes = statement.analysis.unknown.is_some() && *values != Values::Clear;
    quotes.then_some(NOT_UNDERSTOOD)
}

/// An outcome without the server's words, which may quote values. Why a result was stopped is the gate's
/// own word, and holds none.
pub(super) fn masked_outcome(outcome: &Outcome) -> Option<Outcome> {
    let Status::Failed { code, .. } = &outcome.status else { return None };
    if outcome.masked.is_some_and(|masked| masked.stopped.is_some()) {
        return None;
    }
    let status = Status::Failed { code: code.clone(), message: MESSAGE.to_owned() };
    Some(Outcome { status, ..outcome.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tidegate_event::{Masked, Stopped, Via};
    use tidegate_sql::Analyzer;

    use super::*;

    fn statement(text: &str, parameters: &[&str]) -> Operation {
        let texts = parameters.iter().map(|text| Parameter::Text(text.as_bytes().to_vec()));
        Operation::Statement(Statement {
            via: Via::Execute,
            text: text.into(),
            text_bytes: 1000,
            text_sha256: Some([1; 32]),
            prepared: String::new(),
            parameters: texts.collect(),
            analysis: Analyzer::new().analyze(text.as_bytes(), Settings::default()),
        })
    }

    #[track_caller]
    fn check(text: &str, values: &Values, expected: &str) {
        let Some(Operation::Statement(got)) =
            masked(&statement(text, &["p1", "p2"]), values, Protocol::Postgres)
        else {
            panic!("{text}: not masked")
        };
        let parameters: Vec<String> = got.parameters.iter().map(|one| format!("{one:?}")).collect();
        let shown = [&["p1", "p2"].map(|text| format!("{:?}", Parameter::Text(text.into())))];
        let hidden = format!("{:?}", Parameter::Text(MASKED.into()));
        let marks: Vec<&str> = parameters
            .iter()
            .map(|one| {
                if *one == hidden {
                    "*"
                } else if shown[0].contains(one) {
                    "p"
                } else {
                    "?"
                }
            })
            .collect();
        assert_eq!(format!("{} | {}", got.text, marks.join("")), expected, "{text}");
        assert_eq!((got.text_bytes, got.text_sha256), (1000, None));
    }

    #[test]
    fn values_that_meet_a_protected_column_are_not_recorded() {
        let these = |list: &[ValueAt]| Values::These(list.iter().copied().collect::<BTreeSet<_>>());
        let (literal, parameter) = (ValueAt::Literal, ValueAt::Parameter);
        let text = "SELECT 'a', 5 WHERE b = 'c' AND d = $1 AND e = $2";
        for (values, expected) in [
            (these(&[literal(2)]), "SELECT 'a', 5 WHERE b = '****' AND d = $1 AND e = $2 | pp"),
            (
                these(&[literal(1), parameter(2)]),
                "SELECT 'a', '****' WHERE b = 'c' AND d = $1 AND e = $2 | p*",
            ),
            (Values::All, "SELECT '****', '****' WHERE b = '****' AND d = $1 AND e = $2 | **"),
        ] {
            check(text, &values, expected);
        }
        assert!(masked(&statement(text, &[]), &Values::Clear, Protocol::Postgres).is_none());
    }

    #[test]
    fn a_text_whose_literals_cannot_be_told_is_left_out() {
        for text in [r"SELECT 'a\'", r"SELECT 'a\', 'b\'c'", "SELECT 'never ends"] {
            check(text, &Values::All, " | **");
        }
        check(r"SELECT E'a\'b'", &Values::All, "SELECT '****' | **");
    }

    #[test]
    fn the_server_s_words_are_left_out_and_the_gate_s_own_are_not() {
        let failed = |stopped| {
            let code = "22P02".to_owned();
            let message = "invalid input syntax for type integer: \"123-45-6789\"".to_owned();
            let masked = Masked { stopped, ..Masked::default() };
            let outcome = Outcome::without_result(Status::Failed { code, message });
            Outcome { masked: Some(masked), ..outcome }
        };
        let Some(got) = masked_outcome(&failed(None)) else { panic!() };
        let expected = Status::Failed { code: "22P02".to_owned(), message: MESSAGE.to_owned() };
        assert_eq!(got.status, expected);
        assert_eq!(masked_outcome(&failed(Some(Stopped::Withheld))), None);
        assert_eq!(masked_outcome(&Outcome::without_result(Status::Ok)), None);
    }

    #[test]
    fn what_the_parser_quotes_is_left_out_too() {
        let operation = statement("SELEKT '123-45-6789'", &[]);
        let Some(Operation::Statement(got)) = masked(&operation, &Values::All, Protocol::Postgres)
        else {
            panic!()
        };
        assert_eq!(got.analysis.unknown.as_ref().unwrap().reason, NOT_UNDERSTOOD);
        assert_eq!(got.analysis.fingerprint, None);
        assert_eq!(masked_reason(&operation, &Values::All), Some(NOT_UNDERSTOOD));
        assert_eq!(masked_reason(&statement("SELECT 1", &[]), &Values::All), None);
    }

    #[test]
    fn in_mysql_literals_are_those_that_every_session_would_read() {
        let shown = |text: &str, values: &Values| {
            let statement = statement(text, &[]);
            match masked(&statement, values, Protocol::Mysql) {
                Some(Operation::Statement(got)) => got.text.to_string(),
                _ => panic!("{text}: not masked"),
            }
        };
        let one = Values::These(BTreeSet::from([ValueAt::Literal(1)]));
        for (text, values, expected) in [
            (
                "select 'a', 5 from `t` where b = 'c'",
                &one,
                "select 'a', '****' from `t` where b = 'c'",
            ),
            ("select 'a' 'b', x'41' # 'no'", &one, "select 'a' 'b', x'****' # 'no'"),
            // With ANSI_QUOTES it is a name.
            ("select \"a\"", &Values::All, ""),
            (r"select 'a\'b'", &Values::All, ""),
            (r"select 'a\nb', 1", &Values::All, "select '****', '****'"),
            // Whether it runs hangs on the server's version.
            ("select /*!50000 'a' */ 1", &Values::All, ""),
            ("select 'never ends", &Values::All, ""),
        ] {
            assert_eq!(shown(text, values), expected, "{text}");
        }
    }

    #[test]
    fn in_bulk_each_row_s_values_are_those_of_the_first() {
        let values = |text: &str, parameters: &[&str]| {
            let parameters: Vec<Parameter> =
                parameters.iter().map(|one| Parameter::Text(one.as_bytes().to_vec())).collect();
            let Operation::Statement(statement) = statement(text, &[]) else { panic!() };
            let operation =
                Operation::Statement(Statement { parameters, text_sha256: None, ..statement });
            let hidden = Values::These(BTreeSet::from([ValueAt::Parameter(2)]));
            let Some(Operation::Statement(got)) = masked(&operation, &hidden, Protocol::Mysql)
            else {
                panic!()
            };
            let shown = |one: &Parameter| match one {
                Parameter::Text(text) => String::from_utf8(text.clone()).unwrap(),
                _ => panic!(),
            };
            got.parameters.iter().map(shown).collect::<Vec<_>>().join(" ")
        };
        let insert = "insert into t values (?, ?) -- ?";
        assert_eq!(values(insert, &["1", "a"]), "1 ****");
        assert_eq!(values(insert, &["1", "a", "2", "b", "3", "c"]), "1 **** 2 **** 3 ****");
        // Whether that is a parameter hangs on the session.
        assert_eq!(
            values("insert into t values (?, ?, \"?\", \'\\\'?\')", &["1", "a", "2"]),
            "**** **** ****"
        );
    }
}
