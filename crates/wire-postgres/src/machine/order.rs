//! From a permit's duties to what a running operation is subject to.
//!
//! Promises: before an Execute under an order goes to the server, the gate knows the columns of its
//! result, or a Describe of the gate's own goes before it, whose answer goes no further (manual,
//! "Extended Query": a portal's description has the Bind's formats).

use std::sync::Arc;

use bytes::Bytes;
use tidegate_event::Rows;

use super::Machine;
use super::statement::{Known, Portal};
use crate::Duties;
use crate::duty::{Columns, Described, Duty, Told};
use crate::names::{Found, Names};
use crate::replies::Expect;
use crate::sql_names::Names as Named;

/// How many of the last messages are searched for a Describe that the client has just sent.
const RECENT_MESSAGES: usize = 8;

impl<R: Clone> Machine<R> {
    /// Notes what is protected, for what comes at any time.
    pub(super) fn ordered(&mut self, duties: Option<&Arc<Duties>>) {
        if let Some(order) = duties.and_then(|duties| duties.order.as_ref()) {
            self.session.guard.ordered(order);
        }
    }

    pub(super) fn duty_of_query(&self, duties: &Arc<Duties>, known: &Known) -> Arc<Duty> {
        Arc::new(self.duty(duties, Some(known), Columns::Announced))
    }

    pub(super) fn duty_of_call(&self, duties: &Arc<Duties>) -> Arc<Duty> {
        Arc::new(self.duty(duties, None, Columns::Never))
    }

    /// The duty of an Execute, and where its columns are to be put if they must be asked for.
    pub(super) fn duty_of_execute(
        &self,
        duties: &Arc<Duties>,
        known: &Known,
        portal: Option<&Arc<Portal<R>>>,
    ) -> (Arc<Duty>, Option<Described>) {
        let columns = portal.map_or_else(Described::default, |portal| Arc::clone(&portal.columns));
        let statement = portal.and_then(|portal| portal.statement.as_ref());
        let statement = statement.map(|statement| Arc::clone(&statement.columns));
        let formats = portal.map_or_else(Vec::new, |portal| portal.results.clone());
        let is_known = columns.get().is_some()
            || statement.as_ref().is_some_and(|columns| columns.get().is_some())
            || portal.is_some_and(|portal| self.is_being_described(portal));
        // A statement that returns nothing has no columns.
        let rows = known.analysis.lineage.rows.first();
        let returns = !matches!(rows, Some(Rows::None));
        let ask = (!is_known && returns && duties.order.is_some()).then(|| Arc::clone(&columns));
        let columns = Columns::Described { portal: columns, statement, formats };
        (Arc::new(self.duty(duties, Some(known), columns)), ask)
    }

    fn duty(&self, duties: &Arc<Duties>, known: Option<&Known>, columns: Columns) -> Duty {
        let settings = self.session.settings;
        let sure = self.session.doubt.is_none();
        Duty {
            duties: Arc::clone(duties),
            told: known.map_or_else(Vec::new, |known| self.told(duties, known)),
            columns,
            text: known.and_then(Known::whole_text),
            standard_conforming_strings: settings.standard_conforming_strings && sure,
            utf8: settings.utf8 && sure,
            concerns: duties.order.as_ref().is_some_and(tidegate_mask::Order::concerns),
        }
    }

    /// Whether the client has just asked for this portal's or its statement's columns.
    fn is_being_described(&self, portal: &Arc<Portal<R>>) -> bool {
        self.session.replies.recent(RECENT_MESSAGES).any(|expect| match expect {
            Expect::DescribePortal(Some(other)) => Arc::ptr_eq(other, portal),
            Expect::DescribeStatement(Some(other)) => {
                portal.statement.as_ref().is_some_and(|own| Arc::ptr_eq(own, other))
            }
            _ => false,
        })
    }

    /// Puts a Describe of ours before the Execute that begins at `at`.
    pub(super) fn describe_before(
        &mut self,
        message: &Bytes,
        at: usize,
        portal: &[u8],
        columns: Described,
    ) -> Bytes {
        self.session.replies.push(Expect::OurDescribe(columns));
        let describe = crate::frame::message(b'D', &[b"P", portal, b"\0"]);
        let (front, execute) = message.split_at_checked(at).unwrap_or((message, &[]));
        [front, &describe, execute].concat().into()
    }

    /// The rows of cursors and prepared statements that a text reads, as they were decided when these
    /// were named: by the text itself before, or by an earlier one.
    fn told(&self, duties: &Arc<Duties>, known: &Known) -> Vec<(usize, Told)> {
        let several = known.analysis.lineage.rows.len() > 1;
        let rows = known.analysis.lineage.rows.iter().enumerate();
        let told = rows.filter_map(|(at, rows)| {
            let (what, name) = match rows {
                Rows::Cursor(name) => (Named::Cursor, name.as_bytes()),
                Rows::Prepared(name) => (Named::Prepared, name.as_bytes()),
                Rows::None | Rows::Known(_) | Rows::Opaque(_) => return None,
            };
            // Behind a function that may open a cursor, nobody knows which one a name means.
            if several && what == Named::Cursor && known.touches.opens() {
                return None;
            }
            // Named by the same text: where that fails, this statement does not run.
            let mut own = known.touches.named().iter().rev();
            let own = own
                .find(|naming| naming.what == what && naming.name == name && naming.statement < at);
            let told = match own {
                Some(naming) => Told { duties: Arc::clone(duties), statement: naming.statement },
                None => self.find_told(what, name)?,
            };
            Some((at, told))
        });
        told.collect()
    }

    fn find_told(&self, what: Named, name: &[u8]) -> Option<Told> {
        let session = &self.session;
        let segment = session.segment;
        let found = |names: &Names<Told>| match names.find(name, segment) {
            Found::Value(told) => Some(told),
            Found::Unknown | Found::Wait => None,
        };
        let prepared = match what {
            Named::Cursor => {
                if let Some(told) = found(&session.cursors) {
                    return Some(told);
                }
                match session.portals.find(name, segment) {
                    Found::Value(portal) => portal.statement.clone()?,
                    Found::Unknown | Found::Wait => return None,
                }
            }
            Named::Prepared => {
                if let Some(told) = found(&session.prepared_in_sql) {
                    return Some(told);
                }
                match session.statements.find(name, segment) {
                    Found::Value(prepared) => prepared,
                    Found::Unknown | Found::Wait => return None,
                }
            }
        };
        let duties = prepared.duties.clone().filter(|duties| duties.order.is_some())?;
        Some(Told { duties, statement: 0 })
    }

    /// Names that messages from `seq` on would have changed stay as they are.
    pub(super) fn retract_names(&mut self, seq: u64) {
        let session = &mut self.session;
        session.statements.retract(seq);
        session.portals.retract(seq);
        session.cursors.retract(seq);
        session.prepared_in_sql.retract(seq);
    }
}
