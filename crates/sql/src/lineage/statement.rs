//! The rows of each statement, and what statements that are no queries do with columns.

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::{Later, Output, Relation, Rows, Shown, Sources};

use super::flow::{Flow, Item, union};
use super::from::strings;
use super::{SOURCES_MAX, Tracer};
use crate::collect::relation_of;

impl Tracer<'_> {
    /// The rows of one statement of the text.
    pub(super) fn top(&mut self, node: &N) -> Rows {
        if let Some(items) = self.returned(node) {
            return match node {
                N::SelectStmt(select) if is_into(select) => Rows::None,
                N::SelectStmt(_) => known(&items),
                _ if items.is_empty() => Rows::None,
                _ => known(&items),
            };
        }
        // Names and options of utility statements are literals, and decide.
        self.literals_matter = true;
        match node {
            N::CopyStmt(stmt) => self.copy(stmt),
            N::ExplainStmt(stmt) => self.explain(stmt),
            N::PrepareStmt(stmt) => {
                self.later(stmt.query.as_deref(), Rows::Prepared(stmt.name.clone()))
            }
            N::DeclareCursorStmt(stmt) => {
                self.later(stmt.query.as_deref(), Rows::Cursor(stmt.portalname.clone()))
            }
            N::FetchStmt(stmt) if stmt.ismove => Rows::None,
            N::FetchStmt(stmt) => Rows::Cursor(stmt.portalname.clone()),
            N::ExecuteStmt(stmt) => {
                self.hand_over(&stmt.params, "EXECUTE hands them to a prepared statement");
                Rows::Prepared(stmt.name.clone())
            }
            N::VariableShowStmt(stmt) => Rows::Known(vec![Output::One {
                name: Some(stmt.name.clone()),
                shown: Shown::Computed,
                sources: Sources::default(),
            }]),
            N::CallStmt(stmt) => {
                let arguments = stmt.funccall.as_ref().map(|call| call.args.as_slice());
                self.hand_over(arguments.unwrap_or_default(), "CALL hands them to a procedure");
                self.filters_are_opaque("what a procedure reads isn't known");
                Rows::Opaque("what a procedure returns isn't known".to_owned())
            }
            N::DoStmt(_) => {
                self.filters_are_opaque("what a DO block does with what it reads isn't followed");
                self.values_are_opaque("they stand in a DO block");
                Rows::None
            }
            N::CreateTableAsStmt(stmt) => self.create_as(stmt.query.as_deref()),
            N::ViewStmt(stmt) => self.create_as(stmt.query.as_deref()),
            _ => {
                self.defines(node);
                Rows::None
            }
        }
    }

    fn nested(&mut self, query: Option<&p::Node>) -> Rows {
        match query.and_then(|query| query.node.as_ref()) {
            Some(node) => self.top(node),
            None => Rows::Opaque("a statement without a query".to_owned()),
        }
    }

    fn later(&mut self, query: Option<&p::Node>, by: Rows) -> Rows {
        let rows = self.nested(query);
        self.later.push(Later { statement: self.statement, by, rows });
        Rows::None
    }

    /// Values given to something that isn't in the text.
    fn hand_over(&mut self, arguments: &[p::Node], reason: &str) {
        self.levels.push(super::scope::Level::default());
        let arguments = self.union_of(arguments);
        self.levels.pop();
        self.filter(&arguments);
        if !arguments.values.is_empty() {
            self.values_are_opaque(reason);
        }
    }

    fn copy(&mut self, stmt: &p::CopyStmt) -> Rows {
        let Some(named) = &stmt.relation else {
            return self.nested(stmt.query.as_deref());
        };
        self.levels.push(super::scope::Level::default());
        self.add_relation(named, false);
        let condition = self.optional(stmt.where_clause.as_deref());
        self.filter(&condition);
        let mut items: Vec<Item> = match stmt.attlist.as_slice() {
            [] => {
                let left_out = self.generated(&crate::collect::relation_of(named));
                let goes = |item: &Item| match item {
                    Item::One(Some(name), _) => !left_out.contains(&name.as_str()),
                    _ => true,
                };
                let columns = self.levels.last().map(|level| level.columns.as_slice());
                columns.unwrap_or_default().iter().filter(|item| goes(item)).cloned().collect()
            }
            columns => {
                let columns = strings(columns).into_iter();
                let name = &named.relname;
                let column = |column: String| {
                    let flow = self.qualified(None, name, &column);
                    Item::One(Some(column), flow)
                };
                columns.map(column).collect()
            }
        };
        self.levels.pop();
        if stmt.is_from {
            return Rows::None;
        }
        if stmt.is_program || !stmt.filename.is_empty() {
            self.carry(&items);
            items.clear();
            return Rows::None;
        }
        known(&items)
    }

    /// A plan shows conditions and counts.
    fn explain(&mut self, stmt: &p::ExplainStmt) -> Rows {
        let outer = std::mem::take(&mut self.notes.filters);
        let outer_opaque = self.notes.filters_opaque.take();
        let rows = self.nested(stmt.query.as_deref());
        let mut flow = Flow {
            columns: self.notes.filters.clone(),
            opaque: self.notes.filters_opaque.clone(),
            ..Flow::default()
        };
        if matches!(rows, Rows::Prepared(_)) {
            flow.add(Flow::opaque("the plan is that of a prepared statement"));
        }
        self.notes.filters.extend(outer);
        self.notes.filters_opaque = outer_opaque.or(self.notes.filters_opaque.take());
        known(&[Item::One(Some("QUERY PLAN".to_owned()), flow)])
    }

    fn create_as(&mut self, query: Option<&p::Node>) -> Rows {
        match query.and_then(|query| query.node.as_ref()) {
            Some(N::ExecuteStmt(stmt)) => {
                self.hand_over(&stmt.params, "EXECUTE hands them to a prepared statement");
                self.filters_are_opaque("it stores what a prepared statement returns");
            }
            Some(node) => match self.returned(node) {
                Some(items) => self.carry(&items),
                None => self.filters_are_opaque("it stores what can't be told"),
            },
            None => self.filters_are_opaque("it stores what can't be told"),
        }
        Rows::None
    }

    /// Definitions that look at rows which are there already, or keep a query.
    fn defines(&mut self, node: &N) {
        match node {
            N::IndexStmt(stmt) => self.looks_at(stmt.relation.as_ref()),
            N::CreateStatsStmt(stmt) => {
                for relation in &stmt.relations {
                    if let Some(N::RangeVar(named)) = &relation.node {
                        self.looks_at(Some(named));
                    }
                }
            }
            N::AlterTableStmt(stmt) => self.alter_table(stmt),
            N::CreateStmt(stmt) => self.create_table(stmt),
            N::CreateSchemaStmt(stmt) => {
                for element in &stmt.schema_elts {
                    if let Some(node) = &element.node {
                        self.top(node);
                    }
                }
            }
            N::RuleStmt(_) => self.filters_are_opaque("a rule changes what statements do"),
            N::AlterDomainStmt(_) => self.filters_are_opaque("a domain's check looks at rows"),
            _ => {}
        }
        // A setting of the client's own may hold anything.
        let own = matches!(node, N::VariableSetStmt(set) if set.name.contains('.'));
        if own || !is_plain(node) {
            self.values_are_opaque("they stand in a definition");
        }
    }

    fn looks_at(&mut self, named: Option<&p::RangeVar>) {
        if let Some(named) = named {
            let items = self.base(named);
            let row: Flow = union(items.iter().map(Item::flow));
            self.filter(&row);
        }
    }

    fn create_table(&mut self, stmt: &p::CreateStmt) {
        for part in stmt.table_elts.iter().chain(&stmt.constraints) {
            match &part.node {
                Some(N::ColumnDef(column)) => {
                    column.constraints.iter().for_each(|part| self.references(part));
                }
                _ => self.references(part),
            }
        }
    }

    /// A foreign key tells which values the other table has.
    fn references(&mut self, part: &p::Node) {
        let Some(N::Constraint(constraint)) = &part.node else {
            return;
        };
        let Some(named) = &constraint.pktable else {
            return;
        };
        match strings(&constraint.pk_attrs).as_slice() {
            [] => self.looks_at(Some(named)),
            columns => {
                let relation: Relation = relation_of(named);
                let keys = columns.iter().map(|column| Flow::column(&relation, column));
                let keys = union(keys);
                self.filter(&keys);
            }
        }
    }

    fn alter_table(&mut self, stmt: &p::AlterTableStmt) {
        use p::AlterTableType as T;
        for command in &stmt.cmds {
            let Some(N::AlterTableCmd(command)) = &command.node else { continue };
            let defined = command.def.as_ref().and_then(|def| def.node.as_ref());
            let looks = match T::try_from(command.subtype) {
                Ok(
                    T::AtSetNotNull
                    | T::AtSetExpression
                    | T::AtAddIndex
                    | T::AtAddConstraint
                    | T::AtValidateConstraint
                    | T::AtAddIndexConstraint
                    | T::AtAlterColumnType
                    | T::AtAttachPartition,
                ) => true,
                Ok(T::AtAddColumn) => match defined {
                    Some(N::ColumnDef(column)) => column.constraints.iter().any(looks_at_rows),
                    _ => true,
                },
                _ => false,
            };
            if looks {
                self.looks_at(stmt.relation.as_ref());
            }
            match defined {
                Some(N::ColumnDef(column)) => {
                    column.constraints.iter().for_each(|part| self.references(part));
                }
                Some(N::Constraint(_)) => {
                    command.def.iter().for_each(|part| self.references(part));
                }
                _ => {}
            }
        }
    }
}

/// Whether a new column's constraint reads rows: all but a default and its absence.
fn looks_at_rows(part: &p::Node) -> bool {
    use p::ConstrType as C;
    let Some(N::Constraint(constraint)) = &part.node else {
        return true;
    };
    !matches!(
        C::try_from(constraint.contype),
        Ok(C::ConstrNull | C::ConstrNotnull | C::ConstrDefault | C::ConstrIdentity)
    )
}

fn known(items: &[Item]) -> Rows {
    if items.iter().map(Item::weight).sum::<usize>() > SOURCES_MAX {
        return Rows::Opaque("it has too many sources to follow".to_owned());
    }
    Rows::Known(items.iter().map(Item::output).collect())
}

fn is_into(select: &p::SelectStmt) -> bool {
    let mut at = Some(select);
    while let Some(select) = at {
        if select.into_clause.is_some() {
            return true;
        }
        at = select.larg.as_deref();
    }
    false
}

/// Statements whose literals meet no column.
const fn is_plain(node: &N) -> bool {
    matches!(
        node,
        N::VariableSetStmt(_)
            | N::TransactionStmt(_)
            | N::ConstraintsSetStmt(_)
            | N::DeallocateStmt(_)
            | N::ClosePortalStmt(_)
            | N::DiscardStmt(_)
            | N::TruncateStmt(_)
            | N::LockStmt(_)
            | N::VacuumStmt(_)
            | N::ClusterStmt(_)
            | N::ReindexStmt(_)
            | N::RefreshMatViewStmt(_)
            | N::CheckPointStmt(_)
            | N::ListenStmt(_)
            | N::UnlistenStmt(_)
    )
}
