//! What happens to each column of one result.

use std::sync::Arc;

use tidegate_event::ColumnRef;

use crate::detect::Cover;
use crate::form::{Form, Format, form};
use crate::protection::Mask;
use crate::transform::{self, Constant, Keyed};

/// One column as a RowDescription names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// Its name in the result.
    pub name: Vec<u8>,
    /// OID of the table that it is a column of, unchanged; 0 where it is computed.
    pub table_oid: u32,
    /// Number of the column in that table; 0 where it is computed.
    pub column: i16,
    /// What the server says that it is, by names in place of numbers: MySQL's `org_table` and `org_name`. It
    /// counts beside all that the lineage tells, and never in its place.
    pub origin: Option<ColumnRef>,
    /// OID of its type; 0 where that is not known. Another protocol's machine gives that of PostgreSQL's type
    /// whose values are written alike.
    pub type_oid: u32,
    /// In which format its values come.
    pub format: Format,
}

/// What happens to one column.
#[derive(Clone)]
pub enum Treatment {
    /// It passes.
    Pass,
    /// It passes, but for what the detectors find in it.
    Detect(Cover),
    /// Each value is masked.
    Mask(Masker),
}

/// What happens to each column of a result.
#[derive(Clone, Default)]
pub struct Plan {
    /// One for each column.
    pub columns: Vec<Treatment>,
    /// How many of them are masked.
    pub masked: u32,
}

impl Plan {
    pub(crate) fn of(columns: Vec<Treatment>) -> Self {
        let masks = columns.iter().filter(|one| matches!(one, Treatment::Mask(_))).count();
        Self { columns, masked: u32::try_from(masks).unwrap_or(u32::MAX) }
    }

    /// Whether every column passes as it is.
    pub fn is_pass(&self) -> bool {
        self.columns.iter().all(|one| matches!(one, Treatment::Pass))
    }
}

/// Writes what stands in place of a column's values.
#[derive(Clone)]
pub struct Masker {
    mask: Mask,
    form: Form,
    keyed: Option<Arc<Keyed>>,
}

impl Masker {
    /// `mask` for values of that type. A keyed mask without its key redacts.
    pub(crate) fn new(
        mask: Mask,
        type_oid: u32,
        format: Format,
        keyed: Option<Arc<Keyed>>,
    ) -> Self {
        let mask = if mask.is_keyed() && keyed.is_none() { Mask::Redact } else { mask };
        Self { mask, form: form(type_oid, format), keyed }
    }

    /// What the mask is.
    pub const fn mask(&self) -> Mask {
        self.mask
    }

    /// What stands in place of every value, where that does not depend on the value.
    pub const fn constant(&self) -> Option<Constant> {
        transform::constant(self.mask, self.form)
    }

    /// What stands in place of a value that is too long to be looked at.
    pub fn without_looking(&self) -> Constant {
        let mask = if self.mask == Mask::Null { Mask::Null } else { Mask::Redact };
        transform::constant(mask, self.form).unwrap_or(Constant::Null)
    }

    /// Whether stars of any number are a value of the type, in place of one too long to be looked at.
    pub const fn can_fill(&self) -> bool {
        matches!(self.form, Form::Text) && !matches!(self.mask, Mask::Null)
    }

    /// Writes what stands for `value`; `false` where that is NULL.
    pub fn write(&self, value: &[u8], out: &mut Vec<u8>) -> bool {
        transform::write(self.mask, self.form, self.keyed.as_deref(), value, out)
    }
}
