//! Duties for the exercises of the protocol machines, by which fuzz targets and tests drive them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_event::Analysis;

use crate::{Detectors, Duties, Mask, Order, ProtectedColumn, Protection, Unresolved};

/// Rows that a result under [`duties`] has at most.
pub const ROWS_MAX: u64 = 3;

/// An order over the relation `t`: `a` redacted, `b` made NULL, and at most [`ROWS_MAX`] rows, which are kept.
pub fn duties(analysis: &Arc<Analysis>) -> Duties {
    let column = |name: &str, mask| ProtectedColumn {
        schema: None,
        relation: "t".to_owned(),
        column: name.to_owned(),
        class: name.to_owned(),
        mask,
    };
    let columns = vec![column("a", Mask::Redact), column("b", Mask::Null)];
    let protection = Protection::new(columns, Detectors::ALL, Unresolved::Withhold, None);
    let order = protection.ok().map(|protection| Order {
        analysis: Arc::clone(analysis),
        protection: Arc::new(protection),
        cleared: BTreeSet::new(),
        catalogue: None,
    });
    Duties { order, rows_max: Some(ROWS_MAX), keep_rows: true, ..Duties::default() }
}
