//! Prepared statements, by the number that the server gave them.
//!
//! Promise: memory is bounded; a statement that does not fit is not remembered, and its executions are
//! asked as unknown.

use std::collections::HashMap;

use crate::config::LONG_DATA_HEAD_BYTES;
use crate::delivery::Stage;
use crate::machine::Known;
use crate::message::column::Definition;
use crate::message::value::Type;

/// What every statement counts for beside its text, in bytes.
const STATEMENT_BYTES: usize = 512;
/// What a column that is kept counts for, in bytes.
const DEFINITION_BYTES: usize = 192;
/// Most parameters of one statement whose long data is kept.
const LONG_PARAMETERS_MAX: usize = 64;

/// A statement that the client prepared.
pub(crate) struct Prepared<R> {
    /// The statement's number.
    pub id: u32,
    /// What it does.
    pub known: Known,
    /// How many parameters it has.
    pub parameters: usize,
    /// How many columns its result has.
    pub columns_total: usize,
    /// Those columns, where the server may leave them out later.
    pub columns: Vec<Definition>,
    /// What the rows of its open cursor need.
    pub cursor: Stage,
    /// Their types, once they were sent.
    pub types: Vec<Type>,
    /// Long data: the parameter, its head and its whole length.
    pub long: Vec<(u16, Vec<u8>, u64)>,
    /// The receipt of its preparation.
    pub receipt: R,
}

impl<R> Prepared<R> {
    fn weight(&self) -> usize {
        // A definition that is kept counts when it is announced, so that the weight stays the same.
        let columns = self.columns_total.saturating_mul(DEFINITION_BYTES);
        STATEMENT_BYTES + self.known.bytes() + self.parameters.saturating_mul(4) + columns
    }

    /// Notes a piece of long data, of which `piece` is the part at hand.
    pub fn add_long(&mut self, parameter: u16, piece: &[u8], bytes: u64) {
        let at = self.long.iter().position(|(of, ..)| *of == parameter);
        if at.is_none() && self.long.len() == LONG_PARAMETERS_MAX {
            return;
        }
        let at = at.unwrap_or_else(|| {
            self.long.push((parameter, Vec::new(), 0));
            self.long.len() - 1
        });
        if let Some((_, head, whole)) = self.long.get_mut(at) {
            let room = (LONG_DATA_HEAD_BYTES + 1).saturating_sub(head.len());
            if *whole == u64::try_from(head.len()).unwrap_or(u64::MAX) {
                head.extend(piece.iter().take(room));
            }
            *whole = whole.saturating_add(bytes);
        }
    }
}

/// All of a session.
pub(crate) struct Statements<R> {
    held: HashMap<u32, Prepared<R>>,
    bytes: usize,
    bytes_max: usize,
}

impl<R> Statements<R> {
    pub fn new(bytes_max: usize) -> Self {
        Self { held: HashMap::new(), bytes: 0, bytes_max }
    }

    pub const fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, statement: Prepared<R>) {
        self.remove(statement.id);
        let weight = statement.weight();
        if self.bytes + weight <= self.bytes_max {
            self.bytes += weight;
            self.held.insert(statement.id, statement);
        }
    }

    pub fn get(&mut self, id: u32) -> Option<&mut Prepared<R>> {
        self.held.get_mut(&id)
    }

    pub fn remove(&mut self, id: u32) {
        if let Some(statement) = self.held.remove(&id) {
            self.bytes = self.bytes.saturating_sub(statement.weight());
        }
    }

    pub fn clear(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }
}
