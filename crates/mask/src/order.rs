//! What a permit says of a statement's results.
//!
//! Promises: [`Order::plan`] passes a column only where the table and column number that the server
//! names, or the lineage, tell all that may flow into it, and none of it is protected and not cleared.
//! Where both tell something, the stricter holds.
//!
//! Method: a field that the server says to be a stored column, unchanged, of a table that the catalogue
//! knows, is that column, whatever the lineage could not tell. For all others the lineage decides; the
//! fields of a star are told apart by their names.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_event::{Analysis, ColumnRef, Output, Relation, Rows, Shown};
use tidegate_sql::{Catalogue, KnownRelation, RelationKind};

use crate::catalogue::{Stands, stands};
use crate::form::{Format, scanned};
use crate::plan::{Field, Masker, Plan, Treatment};
use crate::protection::{Mask, Protection, Unresolved};

/// What a statement's results must not show, and to whom it may show more.
#[derive(Clone)]
pub struct Order {
    /// What the statement does, with its lineage.
    pub analysis: Arc<Analysis>,
    /// What is protected.
    pub protection: Arc<Protection>,
    /// Protected columns that policy cleared for this statement, by number.
    pub cleared: BTreeSet<usize>,
    /// What the database holds, where that was read.
    pub catalogue: Option<Arc<Catalogue>>,
}

/// Why a result can't be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// In words, for the person who reads the error. Holds no value.
    pub why: String,
}

/// What may flow into one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Flow {
    /// Protected columns, not cleared, that it may show as stored.
    stored: BTreeSet<usize>,
    /// Protected columns, not cleared, that it may be computed from.
    computed: BTreeSet<usize>,
    /// Why there may be more.
    opaque: Option<String>,
    /// Whether a column that policy cleared flows in: what it holds is meant to be seen.
    cleared: bool,
}

impl Order {
    /// Whether it asks for nothing: nothing is protected, or all of it was cleared.
    pub fn is_idle(&self) -> bool {
        self.all_cleared() && !self.protection.detectors().any()
    }

    /// Whether the client may see what is protected.
    pub fn shows_clear(&self) -> bool {
        !self.cleared.is_empty()
    }

    fn all_cleared(&self) -> bool {
        (0..self.protection.columns().len()).all(|at| self.cleared.contains(&at))
    }

    /// Whether the statement has to do with what is protected, so that its errors may tell of it.
    pub fn concerns(&self) -> bool {
        !self.all_cleared() && self.protection.concerns(&self.analysis.lineage)
    }

    /// The rows that its statement number `statement` (from 0) returns.
    pub fn rows(&self, statement: usize) -> Option<&Rows> {
        self.analysis.lineage.rows.get(statement)
    }

    /// What happens to each column of the result of statement number `statement`.
    pub fn plan(&self, statement: usize, fields: &[Field]) -> Result<Plan, Withheld> {
        self.plan_rows(self.rows(statement), fields)
    }

    /// The same for the rows of the cursor or prepared statement that statement number `statement` makes;
    /// a statement that makes none is itself the prepared one.
    pub fn plan_told(&self, statement: usize, fields: &[Field]) -> Result<Plan, Withheld> {
        let mut later = self.analysis.lineage.later.iter();
        let made = later.find(|later| later.statement == statement).map(|later| &later.rows);
        self.plan_rows(made.or_else(|| self.rows(statement)), fields)
    }

    /// The same for rows that were told elsewhere: those of a cursor or prepared statement.
    pub fn plan_rows(&self, rows: Option<&Rows>, fields: &[Field]) -> Result<Plan, Withheld> {
        if self.is_idle() {
            return Ok(Plan::of(vec![Treatment::Pass; fields.len()]));
        }
        let flows = self.flows(rows, fields);
        let treatments = fields.iter().zip(flows).map(|(field, flow)| self.treat(field, flow));
        Ok(Plan::of(treatments.collect::<Result<_, _>>()?))
    }

    /// The same for a COPY of so many columns in that format, of which no description comes.
    pub fn plan_copy(
        &self,
        statement: usize,
        columns: usize,
        format: Format,
    ) -> Result<Plan, Withheld> {
        let rows = self.rows(statement);
        let mut fields = Vec::with_capacity(columns);
        let outputs = match rows {
            Some(Rows::Known(outputs)) => outputs.as_slice(),
            _ => &[],
        };
        for output in outputs {
            match output {
                Output::One { sources, shown, .. } => {
                    let source = sources.columns.first().filter(|_| sources.columns.len() == 1);
                    let source = source.filter(|_| *shown == Shown::AsStored);
                    fields.push(Field {
                        type_oid: self.type_of(source),
                        format,
                        ..Field::default()
                    });
                }
                Output::Several(_) => {
                    let why = "how many columns it has is not known".to_owned();
                    return Err(Withheld { why });
                }
                Output::Star(relation) => match self.known(relation) {
                    Some(known) => fields.extend(known.columns.iter().map(|one| Field {
                        name: one.name.clone().into_bytes(),
                        table_oid: known.oid,
                        column: one.number,
                        origin: None,
                        type_oid: one.type_oid,
                        format,
                    })),
                    // Without names, a star of a relation with a protected column can't be told apart.
                    None if self.shields(relation) => {
                        let why = format!("the columns of {relation} are not known");
                        return Err(Withheld { why });
                    }
                    None => {}
                },
            }
        }
        if fields.len() != columns {
            let told = outputs
                .iter()
                .all(|one| matches!(one, Output::Star(relation) if !self.shields(relation)));
            if !told && !outputs.is_empty() && !self.is_idle() {
                return Err(Withheld { why: "its columns do not add up".to_owned() });
            }
            fields = vec![Field { format, ..Field::default() }; columns];
        }
        self.plan_rows(rows, &fields)
    }

    /// Whether the relation may have a protected column that was not cleared.
    fn shields(&self, relation: &Relation) -> bool {
        self.protection.of_relation(relation).any(|at| !self.cleared.contains(&at))
    }

    /// The one relation that the name can mean.
    fn known(&self, relation: &Relation) -> Option<&Arc<KnownRelation>> {
        let catalogue = self.catalogue.as_deref()?;
        match (&relation.schema, catalogue.named(&relation.name)) {
            (Some(_), _) => catalogue.relation(relation),
            (None, [one]) => Some(one),
            (None, _) => None,
        }
    }

    fn type_of(&self, source: Option<&ColumnRef>) -> u32 {
        let found = source.and_then(|source| {
            let known = self.known(&source.relation)?;
            known.columns.iter().find(|one| Some(&one.name) == source.column.as_ref())
        });
        found.map_or(0, |column| column.type_oid)
    }

    fn treat(&self, field: &Field, flow: Flow) -> Result<Treatment, Withheld> {
        let keyed = |at: usize| self.protection.keyed(at).cloned();
        let masker =
            |mask, key| Ok(Treatment::Mask(Masker::new(mask, field.type_oid, field.format, key)));
        let columns = self.protection.columns();
        let masks = flow.stored.iter().filter_map(|at| Some((*at, columns.get(*at)?)));
        let mut own = None;
        for (at, column) in masks {
            own = match own {
                None => Some((at, column.mask)),
                // Two columns of one class and mask look alike.
                Some((first, mask))
                    if mask == column.mask
                        && columns.get(first).is_some_and(|one| one.class == column.class) =>
                {
                    Some((first, mask))
                }
                Some((first, mask)) if mask == Mask::Null || column.mask == Mask::Null => {
                    Some((first, Mask::Null))
                }
                Some((first, _)) => Some((first, Mask::Redact)),
            };
        }
        let may_be_more =
            flow.opaque.is_some() && self.protection.unresolved() != Unresolved::Clear;
        match own {
            Some((at, mask)) if flow.computed.is_empty() && !may_be_more => {
                return masker(mask, keyed(at));
            }
            Some((_, Mask::Null)) => return masker(Mask::Null, None),
            Some(_) => return masker(Mask::Redact, None),
            None if !flow.computed.is_empty() => return masker(Mask::Redact, None),
            None => {}
        }
        let cover = scanned(field.type_oid, field.format)
            .filter(|_| self.protection.detectors().any() && !flow.cleared);
        match (flow.opaque, self.protection.unresolved()) {
            (Some(why), Unresolved::Withhold) if !self.all_cleared() => {
                let column = if field.name.is_empty() {
                    "a column".to_owned()
                } else {
                    format!("{:?}", String::from_utf8_lossy(&field.name))
                };
                Err(Withheld { why: format!("where {column} comes from can't be told: {why}") })
            }
            _ => Ok(cover.map_or(Treatment::Pass, Treatment::Detect)),
        }
    }

    /// What may flow into each field.
    fn flows(&self, rows: Option<&Rows>, fields: &[Field]) -> Vec<Flow> {
        let told = match rows {
            None => Err("its lineage is not told".to_owned()),
            Some(Rows::None) => Err("it was not expected to return rows".to_owned()),
            Some(Rows::Known(outputs)) => {
                self.assign(outputs, fields).ok_or_else(|| "its columns do not add up".to_owned())
            }
            Some(Rows::Cursor(name)) => Err(format!("the gate did not see cursor {name} declared")),
            Some(Rows::Prepared(name)) => {
                Err(format!("the gate did not see statement {name} prepared"))
            }
            Some(Rows::Opaque(why)) => Err(why.clone()),
        };
        let mut flows = told.unwrap_or_else(|why| {
            vec![Flow { opaque: Some(why), ..Flow::default() }; fields.len()]
        });
        for (field, flow) in fields.iter().zip(&mut flows) {
            self.add_oid(rows, field, flow);
        }
        flows
    }

    /// Adds what table OID and column number say, or the server's names.
    fn add_oid(&self, rows: Option<&Rows>, field: &Field, flow: &mut Flow) {
        if let Some(origin) = &field.origin {
            self.add(self.protection.matching(origin), true, flow);
        }
        let Some(catalogue) = &self.catalogue else { return };
        let Some(relation) = catalogue.by_oid(field.table_oid) else { return };
        let Some(column) = relation.columns.iter().find(|one| one.number == field.column) else {
            return;
        };
        let reference =
            ColumnRef { relation: relation.name.clone(), column: Some(column.name.clone()) };
        self.add(self.protection.matching(&reference), true, flow);
        if relation.kind == RelationKind::Table {
            flow.opaque = None;
        } else if !sees_through(rows, &relation.name) {
            let why = format!("{} is not a table", relation.name);
            flow.opaque.get_or_insert(why);
        }
    }

    /// Adds protected columns to what a field shows as stored, or is computed from.
    fn add(&self, found: impl Iterator<Item = usize>, stored: bool, flow: &mut Flow) {
        for at in found {
            if self.cleared.contains(&at) {
                flow.cleared = true;
            } else if stored {
                flow.stored.insert(at);
            } else {
                flow.computed.insert(at);
            }
        }
    }

    /// Gives each field the outputs that it may be; `None` where their numbers can't agree.
    fn assign(&self, outputs: &[Output], fields: &[Field]) -> Option<Vec<Flow>> {
        let is_star = |output: &Output| matches!(output, Output::Star(_) | Output::Several(_));
        let Some(first) = outputs.iter().position(is_star) else {
            let same = outputs.len() == fields.len();
            return same.then(|| outputs.iter().map(|output| self.one(output)).collect());
        };
        let last = outputs.iter().rposition(is_star)?;
        let (front, rest) = outputs.split_at_checked(first)?;
        let (middle, back) = rest.split_at_checked(last - first + 1)?;
        let spread = fields.len().checked_sub(front.len() + back.len())?;
        let mut flows: Vec<Flow> = front.iter().map(|output| self.one(output)).collect();
        flows.extend(
            fields.iter().skip(front.len()).take(spread).map(|one| self.spread(middle, one)),
        );
        flows.extend(back.iter().map(|output| self.one(output)));
        Some(flows)
    }

    /// What flows into a field that stands somewhere in the range of stars.
    fn spread(&self, middle: &[Output], field: &Field) -> Flow {
        let mut flow = Flow::default();
        for output in middle {
            match output {
                Output::Star(relation) => {
                    self.note_standing(relation, &mut flow);
                    let columns = self.protection.columns();
                    let named = |at: &usize| {
                        columns.get(*at).is_some_and(|one| one.column.as_bytes() == field.name)
                    };
                    self.add(self.protection.of_relation(relation).filter(named), true, &mut flow);
                }
                // It may be this one, under whatever name.
                Output::One { .. } | Output::Several(_) => {
                    let one = self.one(output);
                    flow.computed.extend(one.stored.into_iter().chain(one.computed));
                    flow.opaque = flow.opaque.or(one.opaque);
                }
            }
        }
        flow
    }

    fn one(&self, output: &Output) -> Flow {
        let mut flow = Flow::default();
        let (shown, sources) = match output {
            Output::One { shown, sources, .. } => (*shown, sources),
            Output::Several(sources) => (Shown::Computed, sources),
            Output::Star(_) => return flow,
        };
        flow.opaque.clone_from(&sources.opaque);
        for reference in &sources.columns {
            // A whole row is no stored value of a column.
            let stored = shown == Shown::AsStored && reference.column.is_some();
            self.add(self.protection.matching(reference), stored, &mut flow);
            self.note_standing(&reference.relation, &mut flow);
        }
        flow
    }

    fn note_standing(&self, relation: &Relation, flow: &mut Flow) {
        let stood = self.catalogue.as_deref().map(|catalogue| stands(catalogue, relation));
        if let Some(Stands::Unresolved(why)) = stood {
            flow.opaque.get_or_insert(why);
        }
    }
}

/// Whether the lineage is told, and does not stop at the relation of that name.
fn sees_through(rows: Option<&Rows>, name: &Relation) -> bool {
    let stops = |relation: &Relation| relation.name == name.name;
    let Some(Rows::Known(outputs)) = rows else { return false };
    !outputs.iter().any(|output| match output {
        Output::Star(relation) => stops(relation),
        Output::Several(sources) => sources.columns.iter().any(|one| stops(&one.relation)),
        Output::One { sources, .. } => sources.columns.iter().any(|one| stops(&one.relation)),
    })
}

#[cfg(test)]
mod tests;
