//! Each statement's kind and effects.
//!
//! Promises: every statement of the grammar has its line here; what has none is unknown.
//! `bounded` is false for an `UPDATE` or `DELETE` whose condition looks at no column, as
//! `WHERE true` and `WHERE $1` do.

mod ddl;
mod kind;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use tidegate_event::Action;

pub(crate) use kind::kind;

use crate::collect::{Collector, Nested, bare, constant, names, relation_of, string};
use crate::function;
use crate::walk::Walk;

impl Collector {
    /// Notes what a statement does.
    pub(crate) fn statement(&mut self, node: &N) {
        match node {
            N::SelectStmt(stmt) => self.select(stmt),
            N::InsertStmt(stmt) => self.insert(stmt),
            N::UpdateStmt(stmt) => self.update(stmt),
            N::DeleteStmt(stmt) => self.delete(stmt),
            N::MergeStmt(stmt) => self.merge(stmt),
            N::ReturnStmt(stmt) => self.touching(Action::Select, |to| stmt.returnval.walk(to)),
            _ => {
                // Names, texts and options decide what a utility statement does.
                self.literals_matter = true;
                utility(node, self);
            }
        }
    }

    fn insert(&mut self, stmt: &p::InsertStmt) {
        self.scoped(stmt.with_clause.as_ref(), |to| {
            to.target(Action::Insert, stmt.relation.as_ref(), true);
            stmt.cols.walk(to);
            stmt.select_stmt.walk(to);
            if let Some(conflict) = &stmt.on_conflict_clause {
                if conflict.action == p::OnConflictAction::OnconflictUpdate as i32 {
                    to.target(Action::Update, stmt.relation.as_ref(), true);
                }
                conflict.walk(to);
            }
            to.returning(stmt.returning_clause.as_ref(), stmt.relation.as_ref());
        });
    }

    fn update(&mut self, stmt: &p::UpdateStmt) {
        self.scoped(stmt.with_clause.as_ref(), |to| {
            let bounded = to.condition(stmt.where_clause.as_deref());
            to.target(Action::Update, stmt.relation.as_ref(), bounded);
            stmt.target_list.walk(to);
            stmt.from_clause.walk(to);
            to.returning(stmt.returning_clause.as_ref(), stmt.relation.as_ref());
        });
    }

    fn delete(&mut self, stmt: &p::DeleteStmt) {
        self.scoped(stmt.with_clause.as_ref(), |to| {
            let bounded = to.condition(stmt.where_clause.as_deref());
            to.target(Action::Delete, stmt.relation.as_ref(), bounded);
            stmt.using_clause.walk(to);
            to.returning(stmt.returning_clause.as_ref(), stmt.relation.as_ref());
        });
    }

    fn merge(&mut self, stmt: &p::MergeStmt) {
        self.scoped(stmt.with_clause.as_ref(), |to| {
            stmt.source_relation.walk(to);
            let bounded = to.condition(stmt.join_condition.as_deref());
            for clause in &stmt.merge_when_clauses {
                let Some(N::MergeWhenClause(when)) = &clause.node else {
                    to.unknown("a MERGE action of a new kind");
                    continue;
                };
                let target = stmt.relation.as_ref();
                match p::CmdType::try_from(when.command_type) {
                    Ok(p::CmdType::CmdInsert) => to.target(Action::Insert, target, true),
                    Ok(p::CmdType::CmdUpdate) => to.target(Action::Update, target, bounded),
                    Ok(p::CmdType::CmdDelete) => to.target(Action::Delete, target, bounded),
                    Ok(p::CmdType::CmdNothing) => {}
                    _ => to.unknown("a MERGE action of a new kind"),
                }
                when.walk(to);
            }
            to.returning(stmt.returning_clause.as_ref(), stmt.relation.as_ref());
        });
    }

    /// `RETURNING` reads the target.
    fn returning(&mut self, clause: Option<&p::ReturningClause>, target: Option<&p::RangeVar>) {
        if let Some(clause) = clause {
            self.target(Action::Select, target, true);
            clause.walk(self);
        }
    }
}

fn utility(node: &N, to: &mut Collector) {
    match node {
        N::CopyStmt(stmt) => copy(stmt, to),
        N::ExplainStmt(stmt) => explain(stmt, to),
        N::PrepareStmt(stmt) => {
            to.add_on(Action::Session, Some(bare(&stmt.name)));
            stmt.argtypes.walk(to);
            stmt.query.walk(to);
        }
        N::ExecuteStmt(stmt) => execute(stmt, to),
        N::DeallocateStmt(stmt) => to.add_on(Action::Session, named(&stmt.name)),
        N::DeclareCursorStmt(stmt) => {
            to.add_on(Action::Session, Some(bare(&stmt.portalname)));
            stmt.query.walk(to);
        }
        N::FetchStmt(stmt) => to.add_on(Action::Session, Some(bare(&stmt.portalname))),
        N::ClosePortalStmt(stmt) => to.add_on(Action::Session, named(&stmt.portalname)),
        N::VariableSetStmt(stmt) => variable_set(stmt, to),
        N::VariableShowStmt(stmt) => to.add_on(Action::Show, named(&stmt.name)),
        N::DiscardStmt(_) => {
            to.add(Action::Set);
            to.add(Action::Session);
        }
        N::TransactionStmt(stmt) => transaction(stmt, to),
        N::ConstraintsSetStmt(_) => to.add(Action::Transaction),
        N::TruncateStmt(stmt) => to.touching(Action::Truncate, |to| stmt.relations.walk(to)),
        N::LockStmt(stmt) => to.touching(Action::Lock, |to| stmt.relations.walk(to)),
        N::VacuumStmt(stmt) if stmt.rels.is_empty() => to.add(Action::Maintain),
        N::VacuumStmt(stmt) => to.touching(Action::Maintain, |to| stmt.rels.walk(to)),
        N::ClusterStmt(stmt) => {
            to.add_on(Action::Maintain, stmt.relation.as_ref().map(relation_of));
        }
        N::ReindexStmt(stmt) => {
            let relation = stmt.relation.as_ref().map(relation_of).or_else(|| named(&stmt.name));
            to.add_on(Action::Maintain, relation);
        }
        N::RefreshMatViewStmt(stmt) => {
            to.add_on(Action::Maintain, stmt.relation.as_ref().map(relation_of));
        }
        N::CheckPointStmt(_) => to.add(Action::Maintain),
        N::NotifyStmt(stmt) => to.add_on(Action::Notify, named(&stmt.conditionname)),
        N::ListenStmt(stmt) => to.add_on(Action::Notify, named(&stmt.conditionname)),
        // It hears less; a pool says it with each reset of a connection.
        N::UnlistenStmt(stmt) => to.add_on(Action::Session, named(&stmt.conditionname)),
        N::DoStmt(stmt) => do_block(stmt, to),
        N::CallStmt(stmt) => call(stmt, to),
        N::LoadStmt(_) => to.add(Action::ServerFile),
        _ => ddl::note(node, to),
    }
}

fn named(name: &str) -> Option<tidegate_event::Relation> {
    (!name.is_empty()).then(|| bare(name))
}

fn copy(stmt: &p::CopyStmt, to: &mut Collector) {
    let action = if stmt.is_from { Action::CopyFrom } else { Action::CopyTo };
    to.add_on(action, stmt.relation.as_ref().map(relation_of));
    stmt.query.walk(to);
    to.touching(Action::Select, |to| stmt.where_clause.walk(to));
    if stmt.is_program || !stmt.filename.is_empty() {
        to.add(Action::ServerFile);
    }
}

fn execute(stmt: &p::ExecuteStmt, to: &mut Collector) {
    to.add(Action::Session);
    to.add_on(Action::Execute, Some(bare(&stmt.name)));
    stmt.params.walk(to);
}

/// `EXPLAIN` alone runs nothing but functions that the planner evaluates; with `ANALYZE` it does
/// all that its statement does.
fn explain(stmt: &p::ExplainStmt, to: &mut Collector) {
    to.add(Action::Show);
    if stmt.options.iter().any(asks_to_analyze) {
        return stmt.query.walk(to);
    }
    let mut inner = Collector::new(to.settings, to.depth);
    stmt.query.walk(&mut inner);
    for effect in inner.effects {
        match effect.action {
            Action::Select
            | Action::Insert
            | Action::Update
            | Action::Delete
            | Action::Lock
            | Action::Ddl
            | Action::Maintain
            | Action::Session => to.add_on(Action::Show, effect.relation),
            _ => {
                to.effects.insert(effect);
            }
        }
    }
    if let Some(reason) = inner.unknown {
        to.unknown(reason);
    }
}

fn asks_to_analyze(option: &p::Node) -> bool {
    let Some(N::DefElem(option)) = &option.node else {
        return false;
    };
    let off = match option.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
        Some(N::String(text)) => {
            ["false", "off", "0"].iter().any(|off| text.sval.eq_ignore_ascii_case(off))
        }
        Some(N::Integer(number)) => number.ival == 0,
        Some(N::Boolean(value)) => !value.boolval,
        _ => false,
    };
    option.defname.eq_ignore_ascii_case("analyze") && !off
}

/// `SET` and `RESET`. `SET TRANSACTION` is of the transaction; `ROLE` and
/// `SESSION AUTHORIZATION` make the session somebody else.
pub(super) fn variable_set(stmt: &p::VariableSetStmt, to: &mut Collector) {
    match stmt.name.to_ascii_lowercase().as_str() {
        "" => to.add(Action::Set),
        "transaction" | "transaction snapshot" => to.add(Action::Transaction),
        name @ ("role" | "session_authorization") => {
            let value = stmt.args.first().and_then(constant);
            to.add_on(Action::SetRole, Some(bare(value.unwrap_or(name))));
        }
        name => {
            if name == "search_path" {
                function::search_path(stmt.args.iter().filter_map(constant), to);
            }
            function::set(name, to);
        }
    }
}

/// What is prepared outlives its session, and anybody of the same role may commit it or take it back:
/// that is `execute` of what the statement is called.
fn transaction(stmt: &p::TransactionStmt, to: &mut Collector) {
    use p::TransactionStmtKind as K;
    to.add(Action::Transaction);
    let name = match K::try_from(stmt.kind) {
        Ok(K::TransStmtPrepare) => "prepare_transaction",
        Ok(K::TransStmtCommitPrepared) => "commit_prepared",
        Ok(K::TransStmtRollbackPrepared) => "rollback_prepared",
        _ => return,
    };
    to.add_on(Action::Execute, Some(bare(name)));
}

fn do_block(stmt: &p::DoStmt, to: &mut Collector) {
    to.add_on(Action::Execute, Some(bare("do")));
    let option = |name: &str| {
        stmt.args.iter().find_map(|arg| match &arg.node {
            Some(N::DefElem(element)) if element.defname == name => element.arg.as_deref(),
            _ => None,
        })
    };
    let language = option("language").and_then(string).unwrap_or("plpgsql");
    match option("as").and_then(string) {
        Some(body) if language == "plpgsql" => to.absorb(body, Nested::Block),
        Some(_) => to.unknown(format!("a DO block in {language}")),
        None => to.unknown("a DO block without a body"),
    }
}

/// `CALL` is always `execute`: a procedure exists for what it does.
fn call(stmt: &p::CallStmt, to: &mut Collector) {
    if let Some(call) = &stmt.funccall {
        to.add_on(Action::Execute, names(&call.funcname));
        to.touching(Action::Select, |to| call.walk(to));
    }
}
