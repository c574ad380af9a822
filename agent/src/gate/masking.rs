//! What one session's operations have to do with what is protected at its target.
//!
//! Promises: asked once for each analysis and each state of what the session sees; after that an
//! operation costs one look-up. Where something can't be told, it counts as what it may be.
//!
//! Limits: [`KNOWN_MAX`] analyses remembered; when full, all are forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_event::{Action, Analysis, Mode, Operation, Protocol, Statement, ValueAt, Via};
use tidegate_mask::{Order, Touched};
use tidegate_policy::{Decision, ProtectedColumn as PolicyColumn, Touched as Asked};
use tidegate_wire_postgres::Duties;

use super::budget::Left;
use super::sight::{Sight, defines, moves};
use crate::masking::View;

/// Analyses that one session remembers.
const KNOWN_MAX: usize = 256;

/// What one session knows.
pub struct Masking {
    sight: Arc<Sight>,
    /// The state of what it sees in which `known` was made.
    epoch: u64,
    known: HashMap<usize, Arc<Known>>,
}

/// Which values of a statement must not be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Values {
    /// None of them meets a protected column.
    Clear,
    /// These.
    These(BTreeSet<ValueAt>),
    /// Any may.
    All,
}

/// What one analysis has to do with what is protected.
pub(super) struct Known {
    /// What it was told from; held so that its address stays its own.
    analysis: Arc<Analysis>,
    view: Arc<View>,
    /// In the mask's words.
    touched: Touched,
    /// In the policy's words.
    pub asked: Arc<Asked>,
    /// Which of its values are recorded.
    pub values: Values,
    /// In whose dialect its text is.
    pub protocol: Protocol,
}

impl Masking {
    /// For a session that sees its database so.
    pub fn new(sight: Arc<Sight>) -> Self {
        Self { sight, epoch: 0, known: HashMap::new() }
    }

    /// What the session sees.
    pub(super) const fn sight(&self) -> &Arc<Sight> {
        &self.sight
    }

    /// `operation` as the session sees it now; `None` where it is that already.
    pub(super) fn renewed(&self, operation: &Operation) -> Option<Operation> {
        let Operation::Statement(statement) = operation else { return None };
        let analysis = self.sight.renewed(statement)?;
        Some(Operation::Statement(Statement { analysis, ..statement.clone() }))
    }

    /// What `operation` has to do with what is protected; `None` for one that brings no result.
    pub(super) fn of(&mut self, operation: &Operation) -> Option<Arc<Known>> {
        let nothing;
        let analysis = match operation {
            Operation::Statement(statement) => &statement.analysis,
            // A call by number, of which nothing is known.
            Operation::FunctionCall(_) => {
                nothing = Arc::default();
                &nothing
            }
            Operation::Login(_) | Operation::Cancel(_) | Operation::Ssh(_) | Operation::File(_) => {
                return None;
            }
        };
        let seen = self.sight.now();
        if seen.epoch != self.epoch || self.known.len() >= KNOWN_MAX {
            self.known.clear();
            self.epoch = seen.epoch;
        }
        let key = Arc::as_ptr(analysis).addr();
        let protocol = self.sight.protocol();
        let new = || Arc::new(Known::of(Arc::clone(analysis), Arc::clone(&seen.view), protocol));
        Some(Arc::clone(self.known.entry(key).or_insert_with(new)))
    }
}

impl Known {
    fn of(analysis: Arc<Analysis>, view: Arc<View>, protocol: Protocol) -> Self {
        let catalogue = view.catalogue.as_deref();
        let mut touched = view.protection.touched(&analysis.lineage, catalogue);
        if let Some(why) = hidden(&analysis) {
            touched.opaque.get_or_insert_with(|| why.to_owned());
        }
        let in_words = |numbers: &BTreeSet<usize>| {
            numbers.iter().filter_map(|at| view.policy.get(*at).cloned()).collect()
        };
        let asked = Asked::new(
            in_words(&touched.shown),
            in_words(&touched.filtered),
            touched.opaque.is_some(),
        );
        let asked = Arc::new(asked.with_filters_opaque(touched.filters_opaque.is_some()));
        let values = values(&analysis, &view, &touched);
        Self { analysis, view, touched, asked, values, protocol }
    }

    /// Whether its errors may tell of what is protected.
    pub(super) fn concerns(&self) -> bool {
        !self.asked.is_empty() || self.analysis.unknown.is_some()
    }

    /// Why a permitted operation would carry protected values to where no mask reaches: into a setting,
    /// which the server tells the client of its own accord, a notification, a file or large object. Into
    /// another table it may: that is what `filter` permits.
    pub(super) fn carries(
        &self,
        operation: &Operation,
        decision: &Decision,
    ) -> Option<&'static str> {
        let Operation::Statement(statement) = operation else { return None };
        let shows = self.touched.shown.iter().chain(&self.touched.filtered);
        let mut hidden = shows.filter_map(|at| self.view.policy.get(*at));
        let is_clear = |one: &PolicyColumn| decision.unmasked.binary_search(one).is_ok();
        if decision.mode == Mode::Shadow || !hidden.any(|one| !is_clear(one)) {
            return None;
        }
        let mut actions = statement.analysis.effects.iter().map(|effect| effect.action);
        actions.find_map(|action| match action {
            Action::Set => {
                Some("a setting could hold protected values, which can't be masked there")
            }
            Action::Notify => {
                Some("a notification could hold protected values, which can't be masked there")
            }
            Action::ServerFile => {
                Some("a file could hold protected values, which can't be masked there")
            }
            _ => None,
        })
    }

    /// Whether names of results must not be recorded: MySQL makes them of the statement's text.
    pub(super) fn hides_text(&self) -> bool {
        self.protocol == Protocol::Mysql && self.values != Values::Clear
    }

    /// What must be done to the results of a permitted operation, beside bounds on their size.
    pub(super) fn order(&self, operation: &Operation, decision: &Decision) -> Option<Order> {
        // Rows that come later are known by what is said now, also where nothing is to be done to them.
        let names = match operation {
            Operation::Statement(statement) => {
                !self.analysis.lineage.later.is_empty()
                    || (statement.via == Via::Parse && !statement.prepared.is_empty())
            }
            _ => false,
        };
        if self.asked.is_empty() && !names && !self.view.protection.detectors().any() {
            return None;
        }
        let columns = &self.view.policy;
        let may_show = |at: &usize| {
            columns.get(*at).is_some_and(|one| decision.unmasked.binary_search(one).is_ok())
        };
        let cleared = if decision.unseen_unmasked {
            (0..columns.len()).collect()
        } else {
            self.touched.shown.iter().copied().filter(may_show).collect()
        };
        Some(Order {
            analysis: Arc::clone(&self.analysis),
            protection: Arc::clone(&self.view.protection),
            cleared,
            catalogue: self.view.catalogue.clone(),
        })
    }
}

/// Why names of a text may mean something else than its analysis took them for.
fn hidden(analysis: &Analysis) -> Option<&'static str> {
    let changes = |effect| defines(effect) || moves(effect);
    if analysis.lineage.rows.is_empty() && analysis.kinds.is_empty() && analysis.effects.is_empty()
    {
        return Some("it calls a function by number");
    }
    (analysis.kinds.len() > 1 && analysis.effects.iter().any(changes))
        .then_some("an earlier statement of the same text changes what names mean")
}

/// The duties of an operation; `None` where there is nothing to do.
pub(super) fn duties(
    order: Option<Order>,
    hides_text: bool,
    decision: &Decision,
    left: Left,
) -> Option<Arc<Duties>> {
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let duties = Duties {
        order,
        rows_max: least(decision.duties.rows_max, left.rows),
        bytes_max: least(decision.duties.bytes_max, left.bytes),
        keep_rows: decision.duties.keep_rows,
        hides_text,
        shadow: decision.mode == Mode::Shadow,
    };
    (duties.order.is_some() || !duties.is_idle()).then(|| Arc::new(duties))
}

/// Which values of a statement must not be recorded: those that meet a protected column, or all where
/// that can't be told and the statement has to do with what is protected.
fn values(analysis: &Analysis, view: &View, touched: &Touched) -> Values {
    if view.protection.columns().is_empty() {
        return Values::Clear;
    }
    if analysis.unknown.is_some() {
        return Values::All;
    }
    let lineage = &analysis.lineage;
    let is_told = touched.opaque.is_none() && lineage.values_opaque.is_none();
    let concerns = !touched.shown.is_empty()
        || !touched.filtered.is_empty()
        || touched.filters_opaque.is_some()
        || touched.opaque.is_some()
        || names_protected(analysis, view);
    if !is_told && concerns {
        return Values::All;
    }
    let meets = |column| view.protection.matching(column).next().is_some();
    let these = lineage.values.iter().filter(|value| value.columns.iter().any(meets));
    let these: BTreeSet<ValueAt> = these.map(|value| value.at).collect();
    if these.is_empty() { Values::Clear } else { Values::These(these) }
}

/// Whether an effect names a relation with protected columns.
fn names_protected(analysis: &Analysis, view: &View) -> bool {
    let mut relations = analysis.effects.iter().filter_map(|effect| effect.relation.as_ref());
    relations.any(|relation| view.protection.of_relation(relation).next().is_some())
}
