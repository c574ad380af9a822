//! What is left of a principal's hour at a target.
//!
//! Promises: an operation whose hour is used up does not run; one that would go beyond it is cut.
//!
//! Known gaps: operations that run at the same time are each given what was left when they began.

use std::sync::Arc;

use tidegate_event::{Operation, Outcome, Rows, Via};
use tidegate_policy::Duties;

use crate::budget::{Amount, Given};

/// What may still be given; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

/// Whether these duties bound what `operation` is given in an hour: only what brings rows is.
pub(super) fn is_bounded(operation: &Operation, duties: &Duties) -> bool {
    let bounded = duties.rows_per_hour.is_some() || duties.bytes_per_hour.is_some();
    bounded && brings_rows(operation)
}

fn brings_rows(operation: &Operation) -> bool {
    match operation {
        Operation::Statement(statement) if statement.via == Via::Parse => false,
        Operation::Statement(statement) => {
            let rows = &statement.analysis.lineage.rows;
            rows.is_empty() || rows.iter().any(|rows| *rows != Rows::None)
        }
        Operation::FunctionCall(_) => true,
        Operation::Login(_) | Operation::Cancel(_) | Operation::Ssh(_) | Operation::File(_) => {
            false
        }
    }
}

/// What is left for `operation` under these duties; the error is what is used up, in words.
pub(super) fn left(
    operation: &Operation,
    duties: &Duties,
    given: &Arc<Given>,
) -> Result<Left, String> {
    if !is_bounded(operation, duties) {
        return Ok(Left::default());
    }
    let used = given.in_the_last_hour();
    let rest = |max: Option<u64>, used: u64, what: &str| match max {
        Some(max) if used >= max => Err(format!("{max} {what} an hour are used up")),
        max => Ok(max.map(|max| max - used)),
    };
    Ok(Left {
        rows: rest(duties.rows_per_hour, used.rows, "rows")?,
        bytes: rest(duties.bytes_per_hour, used.bytes, "bytes")?,
    })
}

/// What an operation gave to the client.
pub(super) fn given_by(outcome: &Outcome) -> Amount {
    let bytes = outcome.bytes_out.max(outcome.copied.map_or(0, |copied| copied.bytes_out));
    // Rows that were changed and not shown are counted by the server, too.
    Amount { rows: if bytes > 0 { outcome.rows } else { 0 }, bytes }
}

#[cfg(test)]
mod tests {
    use tidegate_event::{Cancel, Statement};
    use tidegate_sql::{Analyzer, Settings};

    use super::*;
    use crate::budget::Budgets;

    fn statement(text: &str, via: Via) -> Operation {
        Operation::Statement(Statement {
            via,
            text: text.into(),
            text_bytes: 0,
            text_sha256: None,
            prepared: String::new(),
            parameters: Vec::new(),
            analysis: Analyzer::new().analyze(text.as_bytes(), Settings::default()),
        })
    }

    #[test]
    fn an_hour_is_used_up_by_what_was_given() {
        let given = Budgets::default().of(7, 0);
        let duties = |rows: u64, bytes: Option<u64>| Duties {
            rows_per_hour: Some(rows),
            bytes_per_hour: bytes,
            ..Duties::default()
        };
        given.add(Amount { rows: 40, bytes: 4000 });
        let left =
            |duties: &Duties| left(&statement("SELECT a FROM b", Via::Simple), duties, &given);
        assert_eq!(left(&Duties::default()), Ok(Left::default()));
        assert_eq!(left(&duties(100, None)), Ok(Left { rows: Some(60), bytes: None }));
        assert_eq!(left(&duties(40, None)), Err("40 rows an hour are used up".to_owned()));
        let bytes = duties(100, Some(3000));
        assert_eq!(left(&bytes), Err("3000 bytes an hour are used up".to_owned()));
    }

    #[test]
    fn only_what_brings_rows_is_bounded() {
        let duties = Duties { rows_per_hour: Some(1), ..Duties::default() };
        for (operation, expected) in [
            (statement("SELECT a FROM b", Via::Simple), true),
            (statement("SELECT a FROM b", Via::Execute), true),
            (statement("SELECT a FROM b", Via::Parse), false),
            (statement("COPY b TO STDOUT", Via::Simple), true),
            (statement("DELETE FROM b RETURNING a", Via::Simple), true),
            (statement("DELETE FROM b", Via::Simple), false),
            (statement("COMMIT", Via::Simple), false),
            (statement("COMMIT; SELECT a FROM b", Via::Simple), true),
            (statement("FETCH ALL FROM c", Via::Simple), true),
            (Operation::Cancel(Cancel { backend_pid: 1 }), false),
        ] {
            assert_eq!(is_bounded(&operation, &duties), expected, "{operation:?}");
        }
    }
}
