//! Gathers effects while a parse tree is walked.
//!
//! Promises: a name counts as a common table expression only where PostgreSQL's scoping rules let
//! it be one: an item of a plain `WITH` sees those before it, of `WITH RECURSIVE` all of them, and
//! the target of a data change is never one.

use std::collections::BTreeSet;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::{Action, Effect, Relation};

use crate::walk::Walk;
use crate::{Settings, function, parse};

/// Effects found so far, and where the walk stands.
pub(crate) struct Collector {
    pub(crate) effects: BTreeSet<Effect>,
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) unknown: Option<String>,
    /// Set when a literal's value, not only its presence, decided an effect.
    pub(crate) literals_matter: bool,
    pub(crate) settings: Settings,
    /// How many strings deep this SQL stands.
    pub(crate) depth: u8,
    scopes: Vec<BTreeSet<String>>,
    /// What a relation met outside a query is touched for; DDL sets it.
    touched_for: Action,
    pub(crate) columns: u64,
    /// Function calls met, for the test that none is passed by.
    #[cfg(test)]
    pub(crate) calls: u64,
}

/// Which grammar a text in a string is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nested {
    /// Statements.
    Statements,
    /// The body of a PL/pgSQL block.
    Block,
}

impl Collector {
    pub(crate) fn new(settings: Settings, depth: u8) -> Self {
        Self {
            effects: BTreeSet::new(),
            kinds: Vec::new(),
            unknown: None,
            literals_matter: false,
            settings,
            depth,
            scopes: Vec::new(),
            touched_for: Action::Select,
            columns: 0,
            #[cfg(test)]
            calls: 0,
        }
    }

    /// Notes an effect on the session or server.
    pub(crate) fn add(&mut self, action: Action) {
        self.add_on(action, None);
    }

    /// Notes an effect.
    pub(crate) fn add_on(&mut self, action: Action, relation: Option<Relation>) {
        self.effects.insert(Effect { action, relation, bounded: true });
    }

    /// Notes that a part could not be understood; the first reason stays.
    pub(crate) fn unknown(&mut self, reason: impl Into<String>) {
        self.unknown.get_or_insert_with(|| reason.into());
        self.add(Action::Unknown);
    }

    /// Takes over what a nested analysis found, but for its kinds.
    pub(crate) fn absorb(&mut self, text: &str, grammar: Nested) {
        self.literals_matter = true;
        let inner = parse::nested(text, grammar, self.settings, self.depth.saturating_add(1));
        self.effects.extend(inner.effects);
        if let Some(reason) = inner.unknown {
            self.unknown(reason);
        }
    }

    /// A relation met where rows are read, or where DDL names it.
    pub(crate) fn relation(&mut self, named: &p::RangeVar) {
        let is_cte = named.schemaname.is_empty()
            && self.touched_for == Action::Select
            && self.scopes.iter().any(|scope| scope.contains(&named.relname));
        if !is_cte {
            let relation = relation_of(named);
            if self.touched_for == Action::Select && function::shows_server_files(&relation) {
                self.add_on(Action::ServerFile, Some(relation.clone()));
            }
            self.add_on(self.touched_for, Some(relation));
        }
    }

    /// The target of a data change: always a relation.
    pub(crate) fn target(&mut self, action: Action, named: Option<&p::RangeVar>, bounded: bool) {
        let relation = named.map(relation_of);
        self.effects.insert(Effect { action, relation, bounded });
    }

    pub(crate) fn column(&mut self) {
        self.columns = self.columns.saturating_add(1);
    }

    /// Walks a condition; says whether it looks at a column at all. `WHERE true` doesn't.
    pub(crate) fn condition(&mut self, condition: Option<&p::Node>) -> bool {
        let before = self.columns;
        if let Some(condition) = condition {
            condition.walk(self);
        }
        self.columns > before
    }

    /// Runs `walk` with relations touched for `action`.
    pub(crate) fn touching(&mut self, action: Action, walk: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.touched_for, action);
        walk(self);
        self.touched_for = outer;
    }

    /// Runs `walk` in the scope of a `WITH` clause.
    pub(crate) fn scoped(&mut self, with: Option<&p::WithClause>, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(BTreeSet::new());
        self.touching(Action::Select, |to| {
            if let Some(with) = with {
                to.with(with);
            }
            walk(to);
        });
        self.scopes.pop();
    }

    /// Brings the items of a `WITH` clause into the innermost scope.
    pub(crate) fn with(&mut self, with: &p::WithClause) {
        let ctes = || {
            with.ctes.iter().filter_map(|node| match &node.node {
                Some(N::CommonTableExpr(cte)) => Some(cte),
                _ => None,
            })
        };
        if with.recursive {
            ctes().for_each(|cte| self.name_cte(&cte.ctename));
        }
        for cte in ctes() {
            cte.walk(self);
            self.name_cte(&cte.ctename);
        }
    }

    fn name_cte(&mut self, name: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    /// `SELECT`, `VALUES`, `TABLE` and set operations.
    pub(crate) fn select(&mut self, select: &p::SelectStmt) {
        self.scoped(select.with_clause.as_ref(), |to| {
            if let Some(into) = &select.into_clause {
                to.target(Action::Ddl, into.rel.as_ref(), true);
            }
            select.distinct_clause.walk(to);
            select.target_list.walk(to);
            select.from_clause.walk(to);
            select.where_clause.walk(to);
            select.group_clause.walk(to);
            select.having_clause.walk(to);
            select.window_clause.walk(to);
            select.values_lists.walk(to);
            select.sort_clause.walk(to);
            select.limit_offset.walk(to);
            select.limit_count.walk(to);
            select.larg.walk(to);
            select.rarg.walk(to);
            if !select.locking_clause.is_empty() {
                to.lock_all(&select.from_clause);
            }
        });
    }

    /// `FOR UPDATE` and its kin. `OF` names aliases, so all of FROM counts as locked.
    fn lock_all(&mut self, from: &[p::Node]) {
        let mut locked = Vec::new();
        for item in from {
            base_relations(item, &mut locked);
        }
        if locked.is_empty() {
            self.add(Action::Lock);
        }
        for relation in locked {
            self.add_on(Action::Lock, Some(relation));
        }
    }

    /// An operator that isn't PostgreSQL's own calls a function that its owner may have written.
    pub(crate) fn operator(&mut self, name: &[p::Node]) {
        if let Some(operator) = names(name)
            && !function::is_harmless_operator(&operator)
        {
            self.add_on(Action::Execute, Some(operator));
        }
    }

    /// A cast to a type that isn't PostgreSQL's own calls its input function, a cast function or the
    /// check of a domain. Where DDL names a type, nothing is cast.
    pub(crate) fn type_name(&mut self, name: &p::TypeName) {
        if self.touched_for == Action::Select
            && let Some(named) = names(&name.names)
            && !function::is_harmless_type(&named)
        {
            self.add_on(Action::Execute, Some(named));
        }
        name.typmods.walk(self);
    }

    /// A sampling method is a function.
    pub(crate) fn sample(&mut self, sample: &p::RangeTableSample) {
        sample.relation.walk(self);
        if let Some(method) = names(&sample.method)
            && !matches!(
                (method.schema.as_deref(), method.name.as_str()),
                (None | Some("pg_catalog"), "bernoulli" | "system")
            )
        {
            self.add_on(Action::Execute, Some(method));
        }
        sample.args.walk(self);
        sample.repeatable.walk(self);
    }

    /// A function call, with its arguments.
    pub(crate) fn call(&mut self, call: &p::FuncCall) {
        #[cfg(test)]
        {
            self.calls += 1;
        }
        function::judge(call, self);
        call.args.walk(self);
        call.agg_order.walk(self);
        call.agg_filter.walk(self);
        call.over.walk(self);
    }
}

fn base_relations(item: &p::Node, into: &mut Vec<Relation>) {
    match &item.node {
        Some(N::RangeVar(named)) => into.push(relation_of(named)),
        Some(N::JoinExpr(join)) => {
            for side in [&join.larg, &join.rarg].into_iter().flatten() {
                base_relations(side, into);
            }
        }
        _ => {}
    }
}

/// The relation as the statement names it.
pub(crate) fn relation_of(named: &p::RangeVar) -> Relation {
    let schema = (!named.schemaname.is_empty()).then(|| named.schemaname.clone());
    Relation { schema, name: named.relname.clone() }
}

/// The text of a `String` node.
pub(crate) fn string(node: &p::Node) -> Option<&str> {
    match &node.node {
        Some(N::String(text)) => Some(&text.sval),
        _ => None,
    }
}

/// A dotted name as a list of `String` nodes: the last two parts count.
pub(crate) fn names(parts: &[p::Node]) -> Option<Relation> {
    let mut parts = parts.iter().rev().filter_map(string);
    let name = parts.next()?.to_owned();
    Some(Relation { schema: parts.next().map(str::to_owned), name })
}

/// The value of a string constant, seen through casts that leave it as it is: one to `varchar(4)` or
/// `name` cuts it, one to `bpchar` takes blanks away.
pub(crate) fn constant(node: &p::Node) -> Option<&str> {
    match &node.node {
        Some(N::AConst(constant)) => match &constant.val {
            Some(p::a_const::Val::Sval(text)) => Some(&text.sval),
            _ => None,
        },
        Some(N::TypeCast(cast)) => {
            let to = cast.type_name.as_ref().filter(|to| to.typmods.is_empty())?;
            let to = names(&to.names)?;
            let keeps = ["text", "varchar", "regclass", "tsquery", "unknown"];
            let keeps = keeps.contains(&to.name.as_str()) && function::is_harmless_type(&to);
            cast.arg.as_deref().filter(|_| keeps).and_then(constant)
        }
        _ => None,
    }
}

/// A relation without a schema.
pub(crate) fn bare(name: &str) -> Relation {
    Relation { schema: None, name: name.to_owned() }
}
