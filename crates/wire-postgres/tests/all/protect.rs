//! What tests protect: the relation `t`, with a column for each mask.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_event::{Analysis, Relation};
use tidegate_mask::{Detectors, Mask, Order, ProtectedColumn, Protection, Secret, Unresolved};
use tidegate_sql::{Catalogue, KnownColumn, KnownRelation, RelationKind};
use tidegate_wire_postgres::Duties;

/// Columns with their masks, and their types in the catalogue.
pub const COLUMNS: [(&str, Option<Mask>, u32); 7] = [
    ("id", None, 23),
    ("ssn", Some(Mask::Redact), 25),
    ("name", Some(Mask::PARTIAL), 25),
    ("mail", Some(Mask::Hash), 25),
    ("card", Some(Mask::Tokenise), 25),
    ("pin", Some(Mask::Null), 23),
    ("city", None, 25),
];

/// Duties for every permit.
#[derive(Clone)]
pub struct Protect {
    protection: Arc<Protection>,
    cleared: BTreeSet<usize>,
    catalogue: Option<Arc<Catalogue>>,
    rows_max: Option<u64>,
    bytes_max: Option<u64>,
    shadow: bool,
    budget_only: bool,
}

impl Protect {
    /// From the words of a `protect` line.
    pub fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let unresolved = if words.contains(&"detect") {
            Unresolved::Detect
        } else if words.contains(&"clear") {
            Unresolved::Clear
        } else {
            Unresolved::Withhold
        };
        let detectors =
            if words.contains(&"detect") { Detectors::ALL } else { Detectors::default() };
        let number = |name: &str| {
            words.iter().find_map(|word| word.strip_prefix(name)).map(|max| max.parse().unwrap())
        };
        let columns = columns();
        let unmasked = words.iter().filter_map(|word| word.strip_prefix("unmask:"));
        let place = |name: &str| columns.iter().position(|column| column.column == name).unwrap();
        let cleared = unmasked.map(place).collect();
        let secret = Secret::new(&mut [7; 32]);
        let protection = Protection::new(columns, detectors, unresolved, Some(&secret)).unwrap();
        Self {
            protection: Arc::new(protection),
            cleared,
            catalogue: words.contains(&"catalogue").then(catalogue),
            rows_max: number("rows:"),
            bytes_max: number("bytes:"),
            shadow: words.contains(&"shadow"),
            budget_only: words.contains(&"nothing"),
        }
    }

    /// What a permit for a statement with that analysis holds.
    pub fn duties(&self, analysis: Arc<Analysis>) -> Duties {
        let order = Order {
            analysis,
            protection: Arc::clone(&self.protection),
            cleared: self.cleared.clone(),
            catalogue: self.catalogue.clone(),
        };
        let (rows_max, bytes_max) = (self.rows_max, self.bytes_max);
        let order = Some(order).filter(|_| !self.budget_only);
        Duties { order, rows_max, bytes_max, shadow: self.shadow, ..Duties::default() }
    }
}

fn columns() -> Vec<ProtectedColumn> {
    let protected = COLUMNS.iter().filter_map(|(name, mask, _)| Some((name, (*mask)?)));
    protected
        .map(|(name, mask)| ProtectedColumn {
            schema: None,
            relation: "t".to_owned(),
            column: (*name).to_owned(),
            class: (*name).to_owned(),
            mask,
        })
        .collect()
}

/// `public.t` with all columns, OID 100, and `public.v`, a view, OID 101.
fn catalogue() -> Arc<Catalogue> {
    let columns: Vec<KnownColumn> = COLUMNS
        .iter()
        .zip(1_i16..)
        .map(|((name, _, type_oid), number)| KnownColumn {
            number,
            name: (*name).to_owned(),
            type_oid: *type_oid,
            generated: false,
        })
        .collect();
    let relation = |oid, name: &str, kind| KnownRelation {
        oid,
        name: Relation { schema: Some("public".to_owned()), name: name.to_owned() },
        kind,
        columns: columns.clone(),
        definition: None,
    };
    let all = vec![relation(100, "t", RelationKind::Table), relation(101, "v", RelationKind::View)];
    Arc::new(Catalogue::new(1, all, Vec::new()))
}
