//! What the results of an operation are subject to, and how far they have come.
//!
//! Promises: a cursor's or prepared statement's rows are planned with the lineage and the clearances that
//! were decided when it was named. One that the gate did not see named is unresolved.

use std::sync::{Arc, OnceLock};

use tidegate_event::Rows;
use tidegate_mask::{Field, Order, Plan, Tally, Withheld};

use crate::Duties;
use crate::message::row::in_formats;
use crate::names::Weigh;

/// Columns that the server describes, once it has.
pub(crate) type Described = Arc<OnceLock<Vec<Field>>>;

/// Rows that another statement decides: a cursor's, a prepared statement's.
#[derive(Clone)]
pub(crate) struct Told {
    pub duties: Arc<Duties>,
    /// Which statement of its text.
    pub statement: usize,
}

impl Weigh for Told {
    fn weight(&self) -> usize {
        // What it shares is held by the analyser's cache or by its session, too.
        size_of::<Duties>()
    }
}

/// How a result's columns come to be known.
pub(crate) enum Columns {
    /// By the RowDescription before its rows.
    Announced,
    /// By a description of the portal or of its statement.
    Described { portal: Described, statement: Option<Described>, formats: Vec<u16> },
    /// Not at all: a function's result.
    Never,
}

/// What a permitted operation's results are subject to.
pub(crate) struct Duty {
    pub duties: Arc<Duties>,
    /// Rows that other statements decide, by the number of the statement that returns them.
    pub told: Vec<(usize, Told)>,
    pub columns: Columns,
    /// The whole text, where it is at hand: for the options of a COPY.
    pub text: Option<Arc<str>>,
    pub standard_conforming_strings: bool,
    /// Whether texts are in UTF-8.
    pub utf8: bool,
    /// Whether errors and notices may tell of protected values.
    pub concerns: bool,
}

impl Duty {
    /// The order, where it asks for something.
    pub fn order(&self) -> Option<&Order> {
        self.duties.order.as_ref().filter(|order| !order.is_idle())
    }

    /// What happens to a result of these columns. `again`: the statement has had a result already.
    pub fn plan(&self, statement: usize, again: bool, fields: &[Field]) -> Result<Plan, Withheld> {
        let Some(order) = self.order() else {
            return Ok(Plan::default());
        };
        let rows = order.rows(statement).filter(|_| !again);
        if matches!(rows, Some(Rows::Cursor(_) | Rows::Prepared(_)))
            && let Some((_, told)) = self.told.iter().find(|(at, _)| *at == statement)
            && let Some(theirs) = &told.duties.order
        {
            return theirs.plan_told(told.statement, fields);
        }
        order.plan_rows(rows, fields)
    }

    /// Whether a cursor or prepared statement that it reads may show what is protected: that was decided
    /// when it was named.
    pub fn told_is_clear(&self) -> bool {
        self.told.iter().any(|(_, told)| told.duties.shows_clear())
    }

    /// The columns of a portal's result, where they were described.
    pub fn fields(&self) -> Option<Vec<Field>> {
        let Columns::Described { portal, statement, formats } = &self.columns else {
            return None;
        };
        let own = portal.get().cloned();
        own.or_else(|| Some(in_formats(statement.as_ref()?.get()?, formats)))
    }
}

/// What the rows of the current result need.
#[derive(Default)]
pub(crate) enum Stage {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// They pass as they are.
    Pass,
    /// They go by a plan.
    Rows(Arc<Plan>),
    /// They are COPY data that goes by a plan.
    Copy(Box<crate::copy_out::Copier>),
}

/// How far the results of the front operation have come.
#[derive(Default)]
pub(crate) struct Delivery {
    /// Number of the statement whose result comes now.
    pub statement: usize,
    /// It has had a description already.
    pub described: bool,
    pub stage: Stage,
    pub tally: Tally,
}

impl Delivery {
    /// The next statement's result will come.
    pub fn next_statement(&mut self) {
        self.statement = self.statement.saturating_add(1);
        self.described = false;
        self.stage = Stage::Unknown;
    }

    /// Memory that is held for values that are not there yet, in bytes, roughly.
    pub fn held_bytes(&self) -> usize {
        match &self.stage {
            Stage::Copy(copier) => copier.held_bytes(),
            Stage::Unknown | Stage::Pass | Stage::Rows(_) => 0,
        }
    }
}
