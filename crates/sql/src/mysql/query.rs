//! Queries and changes of rows: from tokens to `sqlparser`'s tree to effects.
//!
//! Promises: every name that the tree has in a table's place, every function and every statement in it is
//! an effect or unknown. A name counts for a common table expression only where the server takes it for
//! one. What stands behind `FROM` or `JOIN` in the tokens and in no table's place of the tree is unknown:
//! then the parser has read the text in another way than the server.
//!
//! Limits: [`CHAIN_MAX`]; nesting by the parser's own limit of 50.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, Delete, Expr, FromTable, Insert, ObjectName,
    OnInsert, Query, Select, Statement, TableFactor, TableObject, TableWithJoins, Update,
    Visit as _, Visitor,
};
use sqlparser::dialect::MySqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use tidegate_event::{Action, Relation};

use super::found::Found;
use super::lexer::{self, Item};
use super::names::{Tokens, is_never_a_column, is_word, relation};
use super::{Settings, function, lineage};

mod tables;
mod tokens;

use tables::{aliases, base_tables};
use tokens::{Prepared, prepare};

/// Most operators in a row, over all open levels of parentheses: each makes the tree deeper.
pub const CHAIN_MAX: usize = 500;

/// Notes what a query or a change of rows does, and where its rows come from.
pub(super) fn statement(tokens: Tokens<'_>, to: &mut Found) {
    parse(&tokens.rest().iter().collect::<Vec<_>>(), lineage::Result::Returned, to);
}

/// Notes what `TABLE name ..` does; `tokens` begin behind the word.
pub(super) fn table(tokens: Tokens<'_>, to: &mut Found) {
    let item = |token| Item { token, at: usize::MAX, end: usize::MAX };
    let word = |word| item(Token::make_word(word, None));
    let select = [word("SELECT"), item(Token::Mul), word("FROM")];
    let items: Vec<_> = select.iter().chain(tokens.rest()).collect();
    parse(&items, lineage::Result::Returned, to);
}

/// Notes what computing expressions does whose values go elsewhere.
pub(super) fn expression(tokens: Tokens<'_>, to: &mut Found) {
    if tokens.is_empty() {
        return;
    }
    let token = Token::make_word("SELECT", None);
    let select = Item { token, at: usize::MAX, end: usize::MAX };
    let items: Vec<_> = std::iter::once(&select).chain(tokens.rest()).collect();
    parse(&items, lineage::Result::Carried, to);
}

/// The tree of a text with one statement.
pub(super) fn tree_of(text: &str, settings: Settings) -> Option<Statement> {
    let lexed = lexer::lex(text.as_bytes(), settings).ok()?;
    let items: Vec<_> = lexed.items.iter().collect();
    tree(&items).ok().map(|(tree, _)| tree)
}

fn tree(items: &[&Item]) -> Result<(Statement, Prepared), &'static str> {
    let tokens: Vec<Token> = items.iter().map(|item| item.token.clone()).collect();
    let mut prepared = prepare(&tokens)?;
    let origins = prepared.places.iter().map(|place| place.and_then(|place| items.get(place)));
    let tokens = std::mem::take(&mut prepared.tokens);
    let tokens = tokens.into_iter().zip(origins).map(|(token, item)| {
        // The line is where the token begins in the text, from 1; 0 where it is none of the text's.
        let at = item.and_then(|item| item.at.checked_add(1)).unwrap_or_default();
        let location = Location::new(u64::try_from(at).unwrap_or_default(), 1);
        TokenWithSpan::new(token, Span::new(location, location))
    });
    let tokens = tokens.collect();
    let dialect = MySqlDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    match parser.parse_statement() {
        Ok(tree) if parser.peek_token().token == Token::EOF => Ok((tree, prepared)),
        Ok(_) => Err("its end does not parse"),
        Err(_) => Err("it does not parse"),
    }
}

fn parse(items: &[&Item], result: lineage::Result, to: &mut Found) {
    let (tree, prepared) = match tree(items) {
        Ok(parsed) => parsed,
        Err(reason) => return to.unknown(reason),
    };
    let Prepared { locks, file, named, variables, .. } = prepared;
    if let Some(file) = file {
        to.literals_matter = true;
        to.add_word(Action::ServerFile, file);
    }
    for name in &variables {
        to.add_word(Action::Set, name);
    }
    let mut walk =
        Walk { to, locks, frames: Vec::new(), targets: HashSet::new(), seen: HashSet::new() };
    let _ = tree.visit(&mut walk);
    let seen = walk.seen;
    if named.iter().any(|name| !seen.contains(name)) {
        to.unknown("a name behind FROM or JOIN is not where a table should be");
    }
    let goes = file.is_some() || !variables.is_empty();
    to.trace(&tree, if goes { lineage::Result::Carried } else { result });
}

/// One `WITH`.
struct Frame {
    /// Queries of its expressions that are still to come, by address, with their names.
    coming: Vec<(usize, String)>,
    recursive: bool,
    visible: Vec<String>,
    owner: usize,
}

struct Walk<'a> {
    to: &'a mut Found,
    locks: bool,
    frames: Vec<Frame>,
    /// Names that were noted as the targets of a change, by address.
    targets: HashSet<usize>,
    /// All names in a table's place.
    seen: HashSet<String>,
}

fn address<T>(of: &T) -> usize {
    std::ptr::from_ref(of).addr()
}

/// A name of the tree, with whether it is without quotes.
fn named(name: &ObjectName) -> Option<(Relation, bool)> {
    let parts: Option<Vec<_>> = name.0.iter().map(|part| part.as_ident()).collect();
    match parts?.as_slice() {
        [one] => {
            let bare = one.quote_style.is_none();
            Some((Relation { schema: None, name: one.value.clone() }, bare))
        }
        [schema, name] => Some((relation(Some(schema.value.clone()), name.value.clone()), false)),
        _ => None,
    }
}

impl Walk<'_> {
    fn is_expression(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.visible.iter().any(|one| one == name))
    }

    fn target(&mut self, action: Action, name: &ObjectName, bounded: bool) {
        self.targets.insert(address(name));
        match named(name) {
            Some((relation, _)) => {
                self.seen.insert(relation.name.clone());
                self.to.add_bounded(action, relation, bounded);
            }
            None => self.to.unknown("a name of more than two parts"),
        }
    }

    fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(name) = &insert.table else {
            return self.to.unknown("an INSERT into something that is no table");
        };
        self.target(Action::Insert, name, true);
        if insert.replace_into {
            self.target(Action::Delete, name, true);
        }
        match &insert.on {
            None => {}
            Some(OnInsert::DuplicateKeyUpdate(_)) => self.target(Action::Update, name, true),
            Some(_) => self.to.unknown("an INSERT of another database's"),
        }
        if insert.returning.is_some() {
            self.target(Action::Select, name, true);
        }
        let foreign = insert.overwrite
            || insert.output.is_some()
            || !insert.multi_table_into_clauses.is_empty()
            || !insert.multi_table_when_clauses.is_empty();
        if foreign {
            self.to.unknown("an INSERT of another database's");
        }
    }

    fn update(&mut self, update: &Update) {
        if update.from.is_some() || update.output.is_some() {
            return self.to.unknown("an UPDATE of another database's");
        }
        let bounded = update.selection.as_ref().is_some_and(looks_at_a_column);
        let tables = std::slice::from_ref(&update.table);
        let all = base_tables(tables);
        let wanted = assigned(&update.assignments);
        let aliases = aliases(tables);
        for table in &all {
            let is_target = wanted.as_ref().is_none_or(|wanted| {
                wanted.iter().any(|name| {
                    aliases.iter().any(|(alias, of)| alias == name && std::ptr::eq(*of, *table))
                })
            });
            if is_target || all.len() == 1 {
                self.target(Action::Update, table, bounded);
            }
            if all.len() > 1 || update.returning.is_some() {
                self.read(table);
            }
        }
        if all.is_empty() {
            self.to.unknown("an UPDATE of something that is no table");
        }
    }

    fn delete(&mut self, delete: &Delete) {
        if delete.output.is_some() {
            return self.to.unknown("a DELETE of another database's");
        }
        let bounded = delete.selection.as_ref().is_some_and(looks_at_a_column);
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        if delete.tables.is_empty() && delete.using.is_none() {
            let all = base_tables(from);
            if all.is_empty() {
                self.to.unknown("a DELETE from something that is no table");
            }
            for table in all {
                self.target(Action::Delete, table, bounded);
                if delete.returning.is_some() {
                    self.target(Action::Select, table, true);
                }
            }
            return;
        }
        let (targets, sources): (Vec<&ObjectName>, &[TableWithJoins]) = match &delete.using {
            Some(using) => (base_tables(from), using),
            None => (delete.tables.iter().collect(), from),
        };
        let aliases = aliases(sources);
        for target in targets {
            self.targets.insert(address(target));
            let known = named(target).and_then(|(relation, _)| {
                self.seen.insert(relation.name.clone());
                let mut found = aliases.iter().filter(|(alias, _)| *alias == relation.name);
                relation.schema.is_none().then(|| found.next().map(|(_, of)| *of)).flatten()
            });
            self.target(Action::Delete, known.unwrap_or(target), bounded);
        }
        for table in base_tables(sources) {
            self.targets.remove(&address(table));
        }
    }

    /// Reads a relation by its name.
    fn read(&mut self, name: &ObjectName) {
        let Some((relation, bare)) = named(name) else {
            return self.to.unknown("a name of more than two parts");
        };
        self.seen.insert(relation.name.clone());
        let unqualified = relation.schema.is_none();
        if unqualified && bare && relation.name.eq_ignore_ascii_case("dual") {
            return;
        }
        if unqualified && self.is_expression(&relation.name) {
            return;
        }
        if self.locks {
            self.to.add_on(Action::Lock, relation.clone());
        }
        self.to.add_on(Action::Select, relation);
    }
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let this = address(query);
        for frame in &mut self.frames {
            if frame.recursive
                && let Some((_, name)) = frame.coming.iter().find(|(at, _)| *at == this)
            {
                frame.visible.push(name.clone());
            }
        }
        if let Some(with) = &query.with {
            let names = with.cte_tables.iter();
            let coming = names.map(|cte| (address(&*cte.query), cte.alias.name.value.clone()));
            self.frames.push(Frame {
                coming: coming.collect(),
                recursive: with.recursive,
                visible: Vec::new(),
                owner: this,
            });
        }
        if query.for_clause.is_some() || query.fetch.is_some() || !query.pipe_operators.is_empty() {
            self.to.unknown("a query of another database's");
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let this = address(query);
        if self.frames.last().is_some_and(|frame| frame.owner == this) {
            self.frames.pop();
        }
        for frame in &mut self.frames {
            if let Some(at) = frame.coming.iter().position(|(of, _)| *of == this) {
                let (_, name) = frame.coming.remove(at);
                frame.visible.push(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.into.is_some() || select.top.is_some() || !select.lateral_views.is_empty() {
            self.to.unknown("a query of another database's");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if !self.targets.remove(&address(relation)) {
            self.read(relation);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { args: None, .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::JsonTable { .. } => {}
            _ => self.to.unknown("something that is no table in a table's place"),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::BinaryOp { left, op: BinaryOperator::Assignment, .. } = expr {
            match &**left {
                Expr::Identifier(name) if name.value.starts_with('@') => {
                    self.to.add_word(Action::Set, &name.value);
                }
                _ => self.to.unknown("an assignment to something that is no variable"),
            }
        }
        if let Expr::Function(call) = expr {
            match named(&call.name) {
                Some((relation, _)) => function::judge(relation, self.to),
                None => self.to.unknown("a function with a name of more than two parts"),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Query(_) => {}
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            _ => self.to.unknown("a statement in a query's place"),
        }
        ControlFlow::Continue(())
    }
}

/// The tables or aliases that assignments name; `None` where one names none.
fn assigned(assignments: &[Assignment]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for assignment in assignments {
        let AssignmentTarget::ColumnName(column) = &assignment.target else {
            return None;
        };
        let parts: Vec<_> = column.0.iter().filter_map(|part| part.as_ident()).collect();
        match parts.as_slice() {
            [table, _] | [_, table, _] => names.push(table.value.clone()),
            _ => return None,
        }
    }
    Some(names)
}

/// Whether a condition depends on the rows.
fn looks_at_a_column(condition: &Expr) -> bool {
    struct Look(bool);
    impl Visitor for Look {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let column = match expr {
                Expr::Identifier(ident) => {
                    let quoted = ident.quote_style.is_some();
                    let word = ident.value.as_str();
                    let is_value = word.starts_with('@')
                        || is_never_a_column(word)
                        || MAY_BE_COLUMNS.iter().any(|one| word.eq_ignore_ascii_case(one));
                    quoted || !is_value
                }
                Expr::CompoundIdentifier(parts) => {
                    parts.first().is_none_or(|first| !first.value.starts_with('@'))
                }
                _ => false,
            };
            self.0 |= column;
            if self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
    }
    let mut look = Look(false);
    let _ = condition.visit(&mut look);
    look.0
}

/// Words that are a column where one has that name, and else a value.
const MAY_BE_COLUMNS: [&str; 2] = ["UNKNOWN", "CURRENT_ROLE"];

/// Whether a token is one of the words.
fn is_one(token: &Token, words: &[&str]) -> bool {
    words.iter().any(|word| is_word(token, word))
}
