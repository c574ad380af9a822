//! INSERT, UPDATE, DELETE and MERGE: what they store where, by which conditions, and return.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::Relation;

use super::Tracer;
use super::flow::{self, Flow, Item, union};
use crate::collect::relation_of;

impl Tracer<'_> {
    pub(super) fn insert(&mut self, stmt: &p::InsertStmt) -> Vec<Item> {
        self.in_query(stmt.with_clause.as_ref(), |to| {
            let Some(target) = &stmt.relation else {
                return vec![Item::Several(Flow::opaque("an INSERT without a target"))];
            };
            let places = to.places(target, &stmt.cols);
            let items = to.subquery(stmt.select_stmt.as_deref());
            to.store_all(&items, &places);
            to.add_relation(target, false);
            if let Some(conflict) = &stmt.on_conflict_clause {
                to.on_conflict(target, conflict);
            }
            to.returning(target, stmt.returning_clause.as_ref())
        })
    }

    /// The columns that an INSERT's values go to, one by one; a whole row where they aren't named.
    fn places(&mut self, target: &p::RangeVar, columns: &[p::Node]) -> Vec<Flow> {
        let base = self.base(target);
        if columns.is_empty() {
            return base.iter().map(Item::flow).collect();
        }
        let relation = relation_of(target);
        columns.iter().map(|column| self.place(&relation, &base, column)).collect()
    }

    /// The column that one item of SET or of an INSERT's list names.
    fn place(&mut self, relation: &Relation, base: &[Item], column: &p::Node) -> Flow {
        let Some(N::ResTarget(column)) = &column.node else {
            return Flow::row(relation);
        };
        let subscripts = self.union_of(&column.indirection);
        self.filter(&subscripts);
        let found = super::flow::find(&column.name, base);
        let mut place = union(found.exact.into_iter().chain(found.maybe));
        if place.columns.is_empty() {
            place = Flow::row(relation);
        }
        self.meet_with(&subscripts.values, &place);
        place
    }

    /// Values stored by position.
    fn store_all(&mut self, items: &[Item], places: &[Flow]) {
        for (value, place) in flow::stored(items, places) {
            self.store(&value, &place);
        }
    }

    /// A value goes into a place: whatever it is made of leaves for there.
    fn store(&mut self, value: &Flow, place: &Flow) {
        self.filter(value);
        self.meet_with(&value.values, place);
    }

    fn on_conflict(&mut self, target: &p::RangeVar, conflict: &p::OnConflictClause) {
        let relation = relation_of(target);
        match conflict.infer.as_deref() {
            Some(infer) if infer.conname.is_empty() => {
                for element in &infer.index_elems {
                    let Some(N::IndexElem(element)) = &element.node else { continue };
                    let mut flow = self.optional(element.expr.as_deref());
                    if !element.name.is_empty() {
                        flow.add(self.qualified_or_row(target, &element.name));
                    }
                    self.filter(&flow);
                }
                let condition = self.optional(infer.where_clause.as_deref());
                self.filter(&condition);
            }
            // Any unique constraint, or one whose columns aren't told, decides.
            _ => self.filter(&Flow::row(&relation)),
        }
        let base = self.base(target);
        self.hidden_range("excluded", base.clone());
        self.set(&relation, &base, &conflict.target_list);
        let condition = self.optional(conflict.where_clause.as_deref());
        self.filter(&condition);
    }

    fn qualified_or_row(&mut self, target: &p::RangeVar, column: &str) -> Flow {
        let base = self.base(target);
        let found = super::flow::find(column, &base);
        union(found.exact.into_iter().chain(found.maybe))
    }

    /// `SET a = x, (b, c) = (y, z)`.
    fn set(&mut self, relation: &Relation, base: &[Item], targets: &[p::Node]) {
        for target in targets {
            let place = self.place(relation, base, target);
            let Some(N::ResTarget(target)) = &target.node else { continue };
            let value = match target.val.as_ref().and_then(|value| value.node.as_ref()) {
                Some(N::MultiAssignRef(many)) => self.one_of_many(many),
                _ => self.optional(target.val.as_deref()),
            };
            self.store(&value, &place);
        }
    }

    fn one_of_many(&mut self, many: &p::MultiAssignRef) -> Flow {
        let row = many.source.as_ref().and_then(|source| source.node.as_ref());
        let at = usize::try_from(many.colno).ok().and_then(|number| number.checked_sub(1));
        match (row, at) {
            (Some(N::RowExpr(row)), Some(at)) => match row.args.get(at) {
                Some(value) => self.expression(value),
                None => self.union_of(&row.args),
            },
            _ => self.optional(many.source.as_deref()),
        }
    }

    pub(super) fn update(&mut self, stmt: &p::UpdateStmt) -> Vec<Item> {
        self.in_query(stmt.with_clause.as_ref(), |to| {
            let Some(target) = &stmt.relation else {
                return vec![Item::Several(Flow::opaque("an UPDATE without a target"))];
            };
            to.add_relation(target, false);
            stmt.from_clause.iter().for_each(|item| to.add_item(item));
            let condition = to.optional(stmt.where_clause.as_deref());
            to.filter(&condition);
            let base = to.base(target);
            to.set(&relation_of(target), &base, &stmt.target_list);
            to.returning(target, stmt.returning_clause.as_ref())
        })
    }

    pub(super) fn delete(&mut self, stmt: &p::DeleteStmt) -> Vec<Item> {
        self.in_query(stmt.with_clause.as_ref(), |to| {
            let Some(target) = &stmt.relation else {
                return vec![Item::Several(Flow::opaque("a DELETE without a target"))];
            };
            to.add_relation(target, false);
            stmt.using_clause.iter().for_each(|item| to.add_item(item));
            let condition = to.optional(stmt.where_clause.as_deref());
            to.filter(&condition);
            to.returning(target, stmt.returning_clause.as_ref())
        })
    }

    pub(super) fn merge_into(&mut self, stmt: &p::MergeStmt) -> Vec<Item> {
        self.in_query(stmt.with_clause.as_ref(), |to| {
            let Some(target) = &stmt.relation else {
                return vec![Item::Several(Flow::opaque("a MERGE without a target"))];
            };
            // `RETURNING *` has the source's columns first.
            stmt.source_relation.iter().for_each(|item| to.add_item(item));
            to.add_relation(target, false);
            let condition = to.optional(stmt.join_condition.as_deref());
            to.filter(&condition);
            let base = to.base(target);
            let relation = relation_of(target);
            for when in &stmt.merge_when_clauses {
                let Some(N::MergeWhenClause(when)) = &when.node else { continue };
                let condition = to.optional(when.condition.as_deref());
                to.filter(&condition);
                if when.command_type == p::CmdType::CmdInsert as i32 {
                    let places = to.places(target, &when.target_list);
                    let values = when.values.iter();
                    let values: Vec<_> =
                        values.map(|value| Item::One(None, to.expression(value))).collect();
                    to.store_all(&values, &places);
                } else {
                    to.set(&relation, &base, &when.target_list);
                }
            }
            to.returning(target, stmt.returning_clause.as_ref())
        })
    }

    fn returning(
        &mut self,
        target: &p::RangeVar,
        clause: Option<&p::ReturningClause>,
    ) -> Vec<Item> {
        let Some(clause) = clause else {
            return Vec::new();
        };
        let base = self.base(target);
        for name in ["old", "new"] {
            self.hidden_range(name, base.clone());
        }
        for option in &clause.options {
            if let Some(N::ReturningOption(option)) = &option.node {
                self.hidden_range(&option.value, base.clone());
            }
        }
        self.targets(&clause.exprs)
    }
}
