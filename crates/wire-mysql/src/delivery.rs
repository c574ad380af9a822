//! What the results of one command are subject to, and how far they have come.
//!
//! Promises: nothing of a result's head goes to the client before its columns have a plan. The rows of a
//! cursor go by the plan of the execution that opened it.

use std::sync::Arc;

use bytes::BytesMut;
use tidegate_event::Rows;
use tidegate_mask::{Duties, Field, Order, Plan, Tally, Withheld};

use crate::message::column::Definition;
use crate::rows::Shape;

/// What the rows of the current result need.
#[derive(Clone, Default)]
pub(crate) enum Stage {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// They pass as they are.
    Pass,
    /// They go by a plan.
    Rows(Arc<Shape>),
}

/// How far the results of a command have come.
#[derive(Default)]
pub(crate) struct Delivery {
    pub duties: Option<Arc<Duties>>,
    /// Number of the statement whose result comes now.
    pub statement: usize,
    /// Columns of the current result, as far as they came.
    pub columns: Vec<Definition>,
    /// The head of a result that is held back: count and definitions.
    pub head: BytesMut,
    /// The EOF behind it.
    pub head_end: BytesMut,
    /// Sequence number of the first packet that is held back.
    pub head_seq: Option<u8>,
    pub stage: Stage,
    pub tally: Tally,
    /// The command was stopped, with this SQLSTATE and message; what still comes goes nowhere.
    pub stopped: Option<(String, String)>,
    /// Rows that were rewritten and not sent yet.
    pub out: Vec<u8>,
}

impl Delivery {
    pub fn under(duties: Option<Arc<Duties>>) -> Self {
        Self { duties: duties.filter(|duties| !duties.is_idle()), ..Self::default() }
    }

    /// The order, where it asks for something.
    pub fn order(&self) -> Option<&Order> {
        let order = self.duties.as_ref()?.order.as_ref()?;
        (!order.is_idle()).then_some(order)
    }

    pub fn is_shadow(&self) -> bool {
        self.duties.as_ref().is_some_and(|duties| duties.shadow)
    }

    /// Whether heads of results are held back until there is a plan.
    pub fn holds_heads(&self) -> bool {
        self.stopped.is_none() && self.order().is_some() && !self.is_shadow()
    }

    /// Whether names that the server makes of the statement's text must not be recorded.
    pub fn hides_text(&self) -> bool {
        self.duties.as_ref().is_some_and(|duties| duties.hides_text)
    }

    /// Whether errors, and how many warnings there are, may tell of protected values.
    pub fn concerns(&self) -> bool {
        !self.is_shadow() && self.order().is_some_and(Order::concerns)
    }

    /// What happens to a result of the columns that came.
    pub fn plan(&self) -> Result<Plan, Withheld> {
        let Some(order) = self.order() else {
            return Ok(Plan::default());
        };
        let fields: Vec<Field> = self.columns.iter().map(|column| column.field.clone()).collect();
        order.plan_rows(self.rows(order), &fields)
    }

    /// What is told of the current statement's rows. Behind a statement that may have any number of results
    /// nothing is.
    fn rows<'a>(&self, order: &'a Order) -> Option<&'a Rows> {
        let all = &order.analysis.lineage.rows;
        let counted = |rows: &Rows| matches!(rows, Rows::None | Rows::Known(_));
        all.get(..self.statement)?.iter().all(counted).then_some(())?;
        all.get(self.statement)
    }

    /// The next statement's result will come.
    pub fn next_statement(&mut self) {
        self.statement = self.statement.saturating_add(1);
        self.columns.clear();
        self.stage = Stage::Unknown;
    }

    /// Memory that is held, in bytes, roughly.
    pub fn held_bytes(&self) -> usize {
        self.head.len() + self.head_end.len() + self.out.len() + self.columns.len() * 128
    }
}
