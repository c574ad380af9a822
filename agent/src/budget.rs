//! What each principal was given by each target in the last hour.
//!
//! Promises: the hour slides, a minute at a time; what was given a little more than an hour ago may
//! still count, what was given within it always does. Shared by all sessions of a principal.
//!
//! Limits: one entry for each principal and target of the configuration that was ever bounded.
//!
//! Known gaps: kept in memory, so a restart of the agent begins anew. Only statements are counted whose
//! permits bear an hourly bound; others are unbounded anyway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Minutes that count: those of an hour, and the one that has begun.
const MINUTES: u64 = 61;

/// All budgets.
pub struct Budgets {
    started: Instant,
    given: Mutex<HashMap<(u32, usize), Arc<Given>>>,
}

/// What one principal was given by one target.
#[derive(Debug)]
pub struct Given {
    started: Instant,
    minutes: Mutex<Vec<(u64, Amount)>>,
}

/// Rows and bytes of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Rows.
    pub rows: u64,
    /// Bytes of result data.
    pub bytes: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { started: Instant::now(), given: Mutex::default() }
    }
}

impl Budgets {
    /// What the principal with `uid` was given by target number `target`.
    pub fn of(&self, uid: u32, target: usize) -> Arc<Given> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Given { started: self.started, minutes: Mutex::default() });
        Arc::clone(given.entry((uid, target)).or_insert_with(new))
    }
}

impl Given {
    /// So much more, now.
    pub fn add(&self, amount: Amount) {
        self.add_at(self.minute(), amount);
    }

    /// What was given in the last hour.
    pub fn in_the_last_hour(&self) -> Amount {
        self.in_the_hour_before(self.minute())
    }

    fn minute(&self) -> u64 {
        self.started.elapsed().as_secs() / 60
    }

    fn add_at(&self, minute: u64, amount: Amount) {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        minutes.retain(|(then, _)| minute.saturating_sub(*then) < MINUTES);
        match minutes.iter_mut().find(|(then, _)| *then == minute) {
            Some((_, known)) => {
                known.rows = known.rows.saturating_add(amount.rows);
                known.bytes = known.bytes.saturating_add(amount.bytes);
            }
            None => minutes.push((minute, amount)),
        }
    }

    fn in_the_hour_before(&self, minute: u64) -> Amount {
        let minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = minutes.iter().filter(|(then, _)| minute.saturating_sub(*then) < MINUTES);
        counts.fold(Amount::default(), |sum, (_, one)| Amount {
            rows: sum.rows.saturating_add(one.rows),
            bytes: sum.bytes.saturating_add(one.bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_counts_for_an_hour() {
        let given = Budgets::default().of(7, 0);
        for (minute, rows) in [(0, 5), (0, 1), (30, 7), (59, 2)] {
            given.add_at(minute, Amount { rows, bytes: rows * 10 });
        }
        for (now, rows) in [(0, 15), (59, 15), (60, 15), (61, 9), (90, 9), (91, 2), (120, 0)] {
            let expected = Amount { rows, bytes: rows * 10 };
            assert_eq!(given.in_the_hour_before(now), expected, "in minute {now}");
        }
        given.add_at(200, Amount { rows: u64::MAX, bytes: 1 });
        given.add_at(200, Amount { rows: 1, bytes: 1 });
        assert_eq!(given.in_the_hour_before(200), Amount { rows: u64::MAX, bytes: 2 });
        assert_eq!(given.minutes.lock().unwrap().len(), 1, "old minutes are forgotten");
    }

    #[test]
    fn sessions_of_a_principal_share_what_it_was_given_by_a_target() {
        let budgets = Budgets::default();
        budgets.of(7, 0).add(Amount { rows: 1, bytes: 1 });
        assert_eq!(budgets.of(7, 0).in_the_last_hour().rows, 1);
        assert_eq!(budgets.of(7, 1).in_the_last_hour().rows, 0);
        assert_eq!(budgets.of(8, 0).in_the_last_hour().rows, 0);
    }
}
