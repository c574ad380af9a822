//! What one session's operations have to do with what is protected at its target.
//!
//! Promises: asked once for each analysis and each state of the catalogue; after that an operation costs
//! one look-up. Where something can't be told, it counts as what it may be.
//!
//! While DDL of any session of its database is under way, and until the catalogue was read anew, only the
//! tables that were read before count. After DDL of its own, a session waits for that reading.
//!
//! Limits: [`KNOWN_MAX`] analyses remembered; when full, all are forgotten.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_event::{Action, Analysis, Mode, Operation, Statement, ValueAt, Via};
use tidegate_mask::{Order, Touched};
use tidegate_policy::{Decision, Touched as Asked};
use tidegate_wire_postgres::Duties;

use super::budget::Left;
use crate::catalogue::{Catalogues, Change, Fresh, Place, Source};
use crate::masking::{TargetMasking, View};
use crate::tls::ServerVerification;

/// Analyses that one session remembers.
const KNOWN_MAX: usize = 256;

/// What a session needs to know of its database, and where it asks.
pub struct Site {
    /// What is protected at its target.
    pub masking: Arc<TargetMasking>,
    /// All catalogues.
    pub catalogues: Arc<Catalogues>,
    /// The target's name.
    pub target: String,
    /// The server that it goes to.
    pub server: SocketAddr,
    /// How that server is verified.
    pub verification: Option<Arc<ServerVerification>>,
}

/// What one session knows.
pub struct Masking {
    site: Site,
    source: Option<Arc<Source>>,
    /// DDL of its own is under way.
    change: Option<Change>,
    /// It has changed what its database holds, and not waited for the next reading.
    behind: bool,
    /// [`Source::changes`] when `view` was made.
    seen: u64,
    view: Arc<View>,
    known: HashMap<usize, Arc<Known>>,
    /// For a call by number, of which nothing is known.
    call: Option<Arc<Known>>,
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
}

impl Masking {
    /// For a session that has not logged in yet.
    pub fn new(site: Site) -> Self {
        let view = Arc::clone(site.masking.named());
        Self {
            site,
            source: None,
            change: None,
            behind: false,
            seen: 0,
            view,
            known: HashMap::new(),
            call: None,
        }
    }

    /// The session logs in to this database.
    pub fn logged_in(&mut self, database: &str) -> Option<Arc<Source>> {
        let config = self.site.masking.catalogue.as_ref()?;
        let place = Place {
            target: self.site.target.clone(),
            server: self.site.server,
            database: database.to_owned(),
        };
        self.source = self.site.catalogues.of(place, config, self.site.verification.clone());
        self.refresh();
        self.source.clone()
    }

    /// What `operation` has to do with what is protected; `None` for one that brings no result.
    pub(super) fn of(&mut self, operation: &Operation) -> Option<Arc<Known>> {
        if self.source.as_ref().is_some_and(|source| source.changes() != self.seen) {
            self.refresh();
        }
        match operation {
            Operation::Statement(statement) => Some(self.of_analysis(&statement.analysis)),
            Operation::FunctionCall(_) => {
                let new = || Arc::new(Known::of(Arc::default(), Arc::clone(&self.view)));
                Some(Arc::clone(self.call.get_or_insert_with(new)))
            }
            Operation::Login(_) | Operation::Cancel(_) => None,
        }
    }

    fn of_analysis(&mut self, analysis: &Arc<Analysis>) -> Arc<Known> {
        let key = Arc::as_ptr(analysis).addr();
        if let Some(known) = self.known.get(&key) {
            return Arc::clone(known);
        }
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = Arc::new(Known::of(Arc::clone(analysis), Arc::clone(&self.view)));
        self.known.insert(key, Arc::clone(&known));
        known
    }

    /// A permitted operation is about to be sent. From now on the catalogue may be another.
    pub(super) fn sent(&mut self, operation: &Operation) {
        let (Some(source), Operation::Statement(statement)) = (&self.source, operation) else {
            return;
        };
        if self.change.is_none() && may_define(statement) {
            self.change = Some(source.changing());
            self.refresh();
        }
    }

    /// Whether DDL of this session is under way.
    pub(super) const fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// No transaction is open, and nothing is under way: what was changed is there for all.
    pub(super) fn settled(&mut self) {
        self.change = None;
        self.behind = true;
        self.refresh();
    }

    /// The catalogue, where this session has changed it and has not waited for it since.
    pub(super) fn behind(&mut self) -> Option<Arc<Source>> {
        std::mem::take(&mut self.behind).then(|| self.source.clone()).flatten()
    }

    fn refresh(&mut self) {
        let Some(source) = &self.source else { return };
        self.seen = source.changes();
        let masking = &self.site.masking;
        self.view = match source.current() {
            None => Arc::clone(masking.named()),
            Some((reading, Fresh::Yes)) => masking.whole(&reading),
            Some((reading, Fresh::No)) => masking.tables(&reading),
        };
        self.known.clear();
        self.call = None;
    }
}

/// Whether it may change what relations and functions there are, once it runs.
fn may_define(statement: &Statement) -> bool {
    let defines = |action| matches!(action, Action::Ddl | Action::Unknown);
    let mut effects = statement.analysis.effects.iter();
    statement.via != Via::Parse && effects.any(|effect| defines(effect.action))
}

impl Known {
    fn of(analysis: Arc<Analysis>, view: Arc<View>) -> Self {
        let catalogue = view.catalogue.as_deref();
        let touched = view.protection.touched(&analysis.lineage, catalogue);
        let in_words = |numbers: &BTreeSet<usize>| {
            numbers.iter().filter_map(|at| view.policy.get(*at).cloned()).collect()
        };
        let asked = Arc::new(Asked::new(
            in_words(&touched.shown),
            in_words(&touched.filtered),
            touched.opaque.is_some(),
        ));
        let values = values(&analysis, &view, &touched);
        Self { analysis, view, touched, asked, values }
    }

    /// Whether its errors may tell of what is protected.
    pub(super) fn concerns(&self) -> bool {
        !self.asked.is_empty() || self.analysis.unknown.is_some()
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

/// The duties of an operation; `None` where there is nothing to do.
pub(super) fn duties(order: Option<Order>, decision: &Decision, left: Left) -> Option<Arc<Duties>> {
    let least = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let duties = Duties {
        order,
        rows_max: least(decision.duties.rows_max, left.rows),
        bytes_max: least(decision.duties.bytes_max, left.bytes),
        shadow: decision.mode == Mode::Shadow,
    };
    let idle = duties.order.is_none() && duties.rows_max.is_none() && duties.bytes_max.is_none();
    (!idle).then(|| Arc::new(duties))
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
