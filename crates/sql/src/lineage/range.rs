//! What names of columns are looked for in.

use std::rc::Rc;

use tidegate_event::Relation;

use super::flow::Item;

/// One item of FROM, as names refer to it; in MySQL all in lower case.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Of a relation without an alias: names may give its schema.
    pub(crate) relation: Option<Relation>,
    pub(crate) items: Rc<Vec<Item>>,
}

impl Table {
    /// Whether that is what a qualified name is of.
    pub(crate) fn is(&self, schema: Option<&str>, name: &str) -> bool {
        self.name == name
            && schema.is_none_or(|schema| {
                self.relation.as_ref().is_some_and(|relation| {
                    relation.schema.as_deref().is_none_or(|own| own == schema)
                })
            })
    }
}

/// An item of `WITH`, by its name as it is written.
#[derive(Debug)]
pub(crate) struct Cte {
    pub(crate) name: String,
    pub(crate) items: Rc<Vec<Item>>,
}
