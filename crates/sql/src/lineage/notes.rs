//! What following a text's columns notes on the way, in whichever dialect: which columns decide, which
//! values meet which columns, and how much work may still be done.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tidegate_event::{ColumnRef, Later, Lineage, Rows, ValueAt, ValueUse};

use super::flow::{Flow, Item};
use super::{NESTING_MAX, PAIRS_MAX, WORK_MAX};

/// The notes on one text.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) filters: BTreeSet<Rc<ColumnRef>>,
    pub(crate) filters_opaque: Option<String>,
    values: BTreeMap<ValueAt, BTreeSet<Rc<ColumnRef>>>,
    values_opaque: Option<String>,
    left: usize,
    pairs_left: usize,
    nesting: usize,
}

impl Notes {
    pub(crate) const fn new() -> Self {
        Self {
            filters: BTreeSet::new(),
            filters_opaque: None,
            values: BTreeMap::new(),
            values_opaque: None,
            left: WORK_MAX,
            pairs_left: PAIRS_MAX,
            nesting: 0,
        }
    }

    /// The lineage of a text with these rows.
    pub(crate) fn end(self, mut rows: Vec<Rows>, later: Vec<Later>) -> Lineage {
        let exhausted = self.left == 0;
        let reason = "its lineage takes too long to follow";
        if exhausted {
            for rows in &mut rows {
                *rows = Rows::Opaque(reason.to_owned());
            }
        }
        let told = |why: Option<String>| {
            if exhausted { Some(reason.to_owned()) } else { why }
        };
        let plain = |columns: BTreeSet<Rc<ColumnRef>>| {
            columns.into_iter().map(|column| ColumnRef::clone(&column)).collect()
        };
        let uses = self.values.into_iter();
        Lineage {
            rows,
            later,
            filters: plain(self.filters),
            filters_opaque: told(self.filters_opaque),
            values: uses.map(|(at, columns)| ValueUse { at, columns: plain(columns) }).collect(),
            values_opaque: told(self.values_opaque),
        }
    }

    /// Takes `steps` from the budget; `false` when it is spent, and everything opaque anyway.
    pub(crate) fn spend(&mut self, steps: usize) -> bool {
        self.left = self.left.saturating_sub(steps);
        self.left > 0
    }

    /// Goes one level further in; `false` where that is too deep. Each `true` is followed by an
    /// [`Self::out`].
    pub(crate) fn further_in(&mut self) -> bool {
        if self.nesting >= NESTING_MAX {
            self.filters_are_opaque("it is nested too deep to follow");
            self.values_are_opaque("it is nested too deep to follow");
            return false;
        }
        self.nesting += 1;
        true
    }

    /// Comes one level out.
    pub(crate) fn out(&mut self) {
        self.nesting = self.nesting.saturating_sub(1);
    }

    /// The columns of `flow` decide something.
    pub(crate) fn filter(&mut self, flow: &Flow) {
        if !self.spend(flow.columns.len()) {
            return;
        }
        self.filters.extend(flow.columns.iter().cloned());
        if self.filters_opaque.is_none() {
            self.filters_opaque.clone_from(&flow.opaque);
        }
    }

    /// These values meet the columns of `with`.
    pub(crate) fn meet_with(&mut self, values: &BTreeSet<ValueAt>, with: &Flow) {
        let steps = values.len().saturating_mul(with.columns.len());
        if values.is_empty() || !self.spend(steps) {
            return;
        }
        if self.values_opaque.is_none() {
            self.values_opaque.clone_from(&with.opaque);
        }
        if with.columns.is_empty() {
            return;
        }
        if self.pairs_left < steps {
            self.pairs_left = 0;
            return self.values_are_opaque("too many values meet too many columns");
        }
        for value in values {
            let met = self.values.entry(*value).or_default();
            let before = met.len();
            met.extend(with.columns.iter().cloned());
            self.pairs_left = self.pairs_left.saturating_sub(met.len() - before);
        }
    }

    /// Parts that one expression is worked out from: they meet, and decide when it can fail.
    pub(crate) fn combine(&mut self, parts: Flow, can_fail: bool) -> Flow {
        self.meet_with(&parts.values, &parts);
        let mut whole = parts.computed();
        if can_fail {
            self.filter(&whole);
            whole.fails = true;
        }
        whole
    }

    /// The columns of all these leave for another place.
    pub(crate) fn carry(&mut self, items: &[Item]) {
        for item in items {
            self.filter(&item.flow());
        }
    }

    /// Notes that what decides can't all be told.
    pub(crate) fn filters_are_opaque(&mut self, reason: &str) {
        self.filters_opaque.get_or_insert_with(|| reason.to_owned());
    }

    /// Notes that which columns the values meet can't all be told.
    pub(crate) fn values_are_opaque(&mut self, reason: &str) {
        self.values_opaque.get_or_insert_with(|| reason.to_owned());
    }
}
