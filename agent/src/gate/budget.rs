//! What is left of a principal's hour at a target.
//!
//! Promises: an operation whose hour is used up does not run; one that would go beyond it is cut.
//!
//! Known gaps: operations that run at the same time are each given what was left when they began.

use std::sync::Arc;

use tidegate_event::Outcome;
use tidegate_policy::Duties;

use crate::budget::{Amount, Given};

/// What may still be given; `None` is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

/// Whether these duties bound what is given in an hour.
pub(super) const fn is_bounded(duties: &Duties) -> bool {
    duties.rows_per_hour.is_some() || duties.bytes_per_hour.is_some()
}

/// What is left under these duties; the error is what is used up, in words.
pub(super) fn left(duties: &Duties, given: &Arc<Given>) -> Result<Left, String> {
    if !is_bounded(duties) {
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
    use super::*;
    use crate::budget::Budgets;

    #[test]
    fn an_hour_is_used_up_by_what_was_given() {
        let given = Budgets::default().of(7, 0);
        let duties = |rows: u64, bytes: Option<u64>| Duties {
            rows_per_hour: Some(rows),
            bytes_per_hour: bytes,
            ..Duties::default()
        };
        given.add(Amount { rows: 40, bytes: 4000 });
        assert_eq!(left(&Duties::default(), &given), Ok(Left::default()));
        let some = Left { rows: Some(60), bytes: None };
        assert_eq!(left(&duties(100, None), &given), Ok(some));
        assert_eq!(left(&duties(40, None), &given), Err("40 rows an hour are used up".to_owned()));
        assert_eq!(
            left(&duties(100, Some(3000)), &given),
            Err("3000 bytes an hour are used up".to_owned())
        );
    }
}
