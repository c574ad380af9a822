//! All statements that are neither queries nor changes of rows, by their verbs.
//!
//! Promise: a verb that is not here is unknown. A statement that is here has its effects whatever its
//! options say, or is unknown where an option could have another effect.

use sqlparser::tokenizer::Token;
use tidegate_event::{Action, Later, Relation, Rows};

use super::found::Found;
use super::lexer::Item;
use super::names::{Tokens, plain_word};
use super::{ddl, function, lineage, query, set};

/// How many statements may stand within one another (`EXPLAIN`, `SET STATEMENT .. FOR`).
const DEPTH_MAX: u8 = 4;

/// Notes what one statement does.
pub(super) fn statement(tokens: Tokens<'_>, to: &mut Found) {
    let Some(verb) = tokens.word() else {
        if tokens.peek() == Some(&Token::LParen) {
            to.kind("select");
            return query::statement(tokens, to);
        }
        to.kind("unknown");
        return to.unknown("it begins with no word");
    };
    rows(&verb, tokens, to);
}

/// The same for a statement within another, which gives the kind.
pub(super) fn statement_behind(tokens: Tokens<'_>, to: &mut Found) {
    if to.depth == DEPTH_MAX {
        return to.unknown("it has statements within statements");
    }
    let kinds = to.kinds.len();
    to.depth += 1;
    statement(tokens, to);
    to.depth -= 1;
    to.kinds.truncate(kinds);
}

fn rows(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    match verb {
        "SELECT" | "VALUES" | "WITH" => {
            to.kind(if verb == "WITH" { with_kind(&tokens) } else { "select" });
            query::statement(tokens, to);
        }
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" => {
            to.kind(verb.to_ascii_lowercase());
            query::statement(tokens, to);
        }
        "TABLE" => {
            to.kind("select");
            tokens.next();
            if tokens.has("INTO") || tokens.has("UNION") || tokens.has("SELECT") {
                return to.unknown("a TABLE statement of a form that is not known");
            }
            query::table(tokens, to);
        }
        _ => {
            to.literals_matter = true;
            tokens.next();
            other(verb, tokens, to);
        }
    }
}

fn with_kind(tokens: &Tokens<'_>) -> &'static str {
    let verbs = [("UPDATE", "update"), ("DELETE", "delete"), ("INSERT", "insert")];
    verbs
        .into_iter()
        .find(|(verb, _)| tokens.find(verb).is_some())
        .map_or("select", |(_, kind)| kind)
}

fn other(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    let second = tokens.word().unwrap_or_default();
    match verb {
        "SET" => {
            to.kind("set");
            set::statement(tokens, to);
        }
        "USE" => {
            to.kind("use");
            to.add_word(Action::Set, "database");
        }
        "SHOW" => show(tokens, to),
        "DESCRIBE" | "DESC" | "EXPLAIN" => explain(tokens, to),
        "BEGIN" if second == "NOT" => {
            to.kind("begin not atomic");
            to.unknown("a compound statement");
        }
        "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA" => {
            to.kind(verb.to_ascii_lowercase());
            to.add(Action::Transaction);
            // What is prepared outlives its session, and another may commit it or take it back.
            if second == "RECOVER" {
                to.tells_nothing();
            }
            let lasts = matches!(second.as_str(), "PREPARE" | "COMMIT" | "ROLLBACK");
            if verb == "XA" && lasts && !tokens.has("PHASE") {
                to.add_word(Action::Execute, &format!("xa_{}", second.to_ascii_lowercase()));
            }
        }
        "START" | "STOP"
            if matches!(&*second, "SLAVE" | "REPLICA" | "ALL" | "GROUP_REPLICATION") =>
        {
            replicate(verb, to);
        }
        "START" if second == "TRANSACTION" => {
            to.kind("start transaction");
            to.add(Action::Transaction);
        }
        "CHANGE" | "PURGE" | "BINLOG" => replicate(verb, to),
        "RESET" if matches!(&*second, "MASTER" | "SLAVE" | "REPLICA" | "BINARY" | "ALL") => {
            replicate(verb, to);
        }
        "RESET" | "FLUSH" => maintain_all(verb, tokens, to),
        "LOCK" | "UNLOCK" | "BACKUP" => lock(verb, tokens, to),
        "ANALYZE" if !matches!(&*second, "TABLE" | "TABLES" | "LOCAL" | "NO_WRITE_TO_BINLOG") => {
            // MariaDB runs the statement and shows its plan.
            to.kind("analyze");
            to.add(Action::Show);
            skip_format(&mut tokens);
            statement_behind(tokens, to);
            to.planned();
        }
        "ANALYZE" | "CHECK" | "CHECKSUM" | "OPTIMIZE" | "REPAIR" | "CACHE" => {
            maintain(verb, tokens, to);
        }
        "TRUNCATE" => {
            to.kind("truncate");
            tokens.take("TABLE");
            named(Action::Truncate, tokens, to);
        }
        "CREATE" | "ALTER" | "DROP" | "RENAME" if !(verb == "DROP" && second == "PREPARE") => {
            define(verb, tokens, to);
        }
        "GRANT" | "REVOKE" => ddl::grant(verb, tokens, to),
        _ => run(verb, tokens, to),
    }
}

/// Words of definitions for which the server reads the rows that are there: it may show their values in
/// an error, or make another column of them.
const READS_ROWS: [&str; 13] = [
    "GENERATED",
    "CHECK",
    "AS",
    "MODIFY",
    "CHANGE",
    "CONVERT",
    "UNIQUE",
    "PRIMARY",
    "FOREIGN",
    "FULLTEXT",
    "SPATIAL",
    "PARTITION",
    "IMPORT",
];

/// `CREATE`, `ALTER`, `DROP` and `RENAME`. What a table or view is made from leaves for there, and so does
/// what its rows are read for.
fn define(verb: &str, tokens: Tokens<'_>, to: &mut Found) {
    let before = to.effects.clone();
    let reads = READS_ROWS.iter().any(|word| tokens.has(word));
    ddl::statement(verb, tokens, to);
    to.carried();
    if reads {
        let new: Vec<_> = to.effects.difference(&before).cloned().collect();
        let defined = new.iter().filter(|effect| effect.action == Action::Ddl);
        for relation in defined.filter_map(|effect| effect.relation.as_ref()) {
            to.filter_row(relation);
        }
    }
}

/// What runs something or reaches further.
fn run(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    match verb {
        "CALL" => {
            to.kind("call");
            to.returns_opaque("what a procedure returns is not followed");
            match tokens.name() {
                Some(name) => to.add_on(Action::Execute, name),
                None => to.unknown("a CALL without a name"),
            }
            if let Some((Token::RParen, arguments)) = ends(&tokens)
                && arguments.peek() == Some(&Token::LParen)
            {
                let mut arguments = arguments;
                arguments.next();
                query::expression(arguments, to);
            } else if !tokens.is_empty() {
                to.unknown("a CALL of a form that is not known");
            }
        }
        "DO" => {
            to.kind("do");
            to.add(Action::Select);
            query::expression(tokens, to);
        }
        "PREPARE" => prepare(tokens, to),
        "EXECUTE" => execute(tokens, to),
        "DEALLOCATE" | "DROP" => {
            to.kind("deallocate");
            to.add(Action::Session);
        }
        "HANDLER" => {
            to.kind("handler");
            to.returns_opaque("what HANDLER reads is not followed");
            named(Action::Select, tokens, to);
            calls(tokens, to);
        }
        "LOAD" => load(tokens, to),
        "KILL" => {
            to.kind("kill");
            to.add(Action::Cancel);
            calls(tokens, to);
        }
        "HELP" => {
            to.kind("help");
            to.tells_nothing();
            to.add_word(Action::Show, "help");
        }
        "GET" | "SIGNAL" | "RESIGNAL" => {
            to.kind(verb.to_ascii_lowercase());
            to.add(Action::Session);
            calls(tokens, to);
        }
        "IMPORT" => {
            to.kind("import");
            to.add(Action::ServerFile);
            to.add(Action::Ddl);
        }
        _ => {
            to.kind("unknown");
            let shown = if verb.len() <= 32 { verb } else { "that" };
            to.unknown(format!("a {shown} statement is not followed"));
        }
    }
}

/// The last token, and what stands before it.
fn ends<'a>(tokens: &Tokens<'a>) -> Option<(&'a Token, Tokens<'a>)> {
    let (last, before) = tokens.rest().split_last()?;
    Some((&last.token, Tokens::new(before)))
}

fn named(action: Action, mut tokens: Tokens<'_>, to: &mut Found) {
    match tokens.name() {
        Some(name) => to.add_on(action, name),
        None => to.unknown("a name is missing"),
    }
}

fn replicate(verb: &str, to: &mut Found) {
    to.kind(verb.to_ascii_lowercase());
    to.add(Action::Replicate);
}

/// Functions and subqueries in what is otherwise not looked at.
fn calls(tokens: Tokens<'_>, to: &mut Found) {
    let items = tokens.rest();
    let begins_query = |pair: &[Item]| match pair {
        [paren, word] => {
            paren.token == Token::LParen
                && plain_word(&word.token)
                    .is_some_and(|word| matches!(&*word, "WITH" | "TABLE" | "VALUES"))
        }
        _ => false,
    };
    if tokens.has("SELECT") || items.windows(2).any(begins_query) {
        return to.unknown("a query where it is not looked at");
    }
    for (at, pair) in items.windows(2).enumerate() {
        let [word, paren] = pair else { continue };
        if paren.token != Token::LParen {
            continue;
        }
        let Token::Word(name) = &word.token else { continue };
        let before = at.checked_sub(1).and_then(|at| items.get(at));
        if before.is_some_and(|item| item.token == Token::Period) {
            to.unknown("a stored function where it is not looked at");
        } else if name.quote_style.is_some() || function::may_call(&name.value) {
            function::judge(Relation { schema: None, name: name.value.clone() }, to);
        }
    }
}

fn show(mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind("show");
    calls(tokens, to);
    tokens.skip(&["FULL", "EXTENDED", "GLOBAL", "SESSION", "LOCAL", "ALL", "STORAGE"]);
    let what = tokens.word().unwrap_or_default();
    if lineage::only_tells_of_itself(&what) {
        to.tells_nothing();
    } else {
        to.returns_opaque("it may show values, or texts of statements");
    }
    match what.as_str() {
        "CREATE" => {
            tokens.next();
            tokens.next();
            if tokens.take("IF") {
                tokens.take_all(&["NOT", "EXISTS"]);
            }
            named(Action::Show, tokens, to);
        }
        "COLUMNS" | "FIELDS" | "INDEX" | "INDEXES" | "KEYS" => {
            tokens.next();
            if !tokens.take("FROM") {
                tokens.take("IN");
            }
            let Some(mut table) = tokens.name() else {
                return to.unknown("a SHOW without its table");
            };
            if table.schema.is_none() && (tokens.take("FROM") || tokens.take("IN")) {
                table.schema = tokens.name().map(|schema| schema.name);
            }
            to.add_on(Action::Show, table);
        }
        "" => to.unknown("a SHOW without a word"),
        _ => to.add_word(Action::Show, &what),
    }
}

fn skip_format(tokens: &mut Tokens<'_>) {
    tokens.skip(&["EXTENDED", "PARTITIONS", "ANALYZE"]);
    if tokens.take("FORMAT") {
        tokens.take_token(&Token::Eq);
        tokens.next();
    }
    tokens.skip(&["EXTENDED", "PARTITIONS"]);
}

fn explain(mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind("explain");
    skip_format(&mut tokens);
    let word = tokens.word().unwrap_or_default();
    let is_statement = matches!(
        word.as_str(),
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "WITH" | "VALUES" | "TABLE"
    );
    if is_statement || tokens.peek() == Some(&Token::LParen) {
        // Derived tables are computed for a plan, too.
        to.add(Action::Show);
        statement_behind(tokens, to);
        return to.planned();
    }
    if word == "FOR" {
        to.returns_opaque("it shows the plan of another session's statement");
        return to.add_word(Action::Show, "processlist");
    }
    to.tells_nothing();
    named(Action::Show, tokens, to);
}

fn maintain_all(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind(verb.to_ascii_lowercase());
    tokens.skip(&["LOCAL", "NO_WRITE_TO_BINLOG"]);
    let what = tokens.word().unwrap_or_default();
    to.add_word(Action::Maintain, if what.is_empty() { "all" } else { &what });
    if matches!(what.as_str(), "TABLE" | "TABLES") {
        to.add(Action::Lock);
    }
}

fn maintain(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind(verb.to_ascii_lowercase());
    tokens.skip(&["LOCAL", "NO_WRITE_TO_BINLOG"]);
    if !tokens.take("TABLE") && !tokens.take("TABLES") && !tokens.take("INDEX") {
        if verb == "CHECK" || verb == "REPAIR" {
            tokens.take("VIEW");
        } else {
            return to.unknown("it names no table");
        }
    }
    to.tells_nothing();
    for mut part in tokens.parts() {
        let Some(name) = part.name() else {
            to.unknown("a name is missing");
            continue;
        };
        if verb == "CHECKSUM" {
            to.filter_row(&name);
            to.planned();
        }
        to.add_on(Action::Maintain, name);
    }
}

fn lock(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind(verb.to_ascii_lowercase());
    to.add(Action::Lock);
    if verb != "LOCK" {
        return;
    }
    if tokens.take("INSTANCE") || tokens.take("BINLOG") {
        return to.add_word(Action::Maintain, "instance");
    }
    if !tokens.take("TABLES") && !tokens.take("TABLE") {
        return to.unknown("a LOCK of something that is not known");
    }
    for part in tokens.parts() {
        named(Action::Lock, part, to);
    }
}

fn prepare(mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind("prepare");
    to.add(Action::Session);
    let name = match tokens.next() {
        Some(Token::Word(word)) => word.value.to_lowercase(),
        _ => return to.unknown("a PREPARE of a form that is not known"),
    };
    if !tokens.take("FROM") {
        return to.unknown("a PREPARE of a form that is not known");
    }
    match tokens.string() {
        Some(text) if tokens.is_empty() => {
            to.absorb(text);
            let rows = std::mem::take(&mut to.rows);
            to.later.push(Later { statement: to.all.len(), by: Rows::Prepared(name), rows });
        }
        _ => to.unknown("it prepares SQL that is not a constant"),
    }
}

fn execute(mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind("execute");
    if !tokens.take("IMMEDIATE") {
        to.add(Action::Session);
        if let Some(Token::Word(word)) = tokens.peek() {
            to.rows = Rows::Prepared(word.value.to_lowercase());
        }
        return to.unknown("it runs a statement that was prepared in SQL");
    }
    match tokens.string() {
        Some(text) if tokens.is_empty() || tokens.take("USING") => {
            to.absorb(text);
            let rows = std::mem::take(&mut to.rows);
            if !tokens.is_empty() {
                query::expression(tokens, to);
            }
            to.rows = rows;
        }
        _ => to.unknown("it runs SQL that is not a constant"),
    }
}

/// `LOAD DATA`, `LOAD XML`, `LOAD INDEX INTO CACHE`.
fn load(mut tokens: Tokens<'_>, to: &mut Found) {
    if tokens.take_all(&["INDEX", "INTO", "CACHE"]) {
        to.kind("load index");
        to.tells_nothing();
        for part in tokens.parts() {
            named(Action::Maintain, part, to);
        }
        return;
    }
    let data = tokens.take("DATA");
    if !data && !tokens.take("XML") {
        to.kind("load");
        return to.unknown("a LOAD of something that is not known");
    }
    tokens.skip(&["LOW_PRIORITY", "CONCURRENT"]);
    let local = tokens.take("LOCAL");
    to.kind(if local { "load data local" } else { "load data" });
    if !tokens.take("INFILE") || tokens.string().is_none() {
        return to.unknown("a LOAD DATA without its file");
    }
    if !local {
        to.add(Action::ServerFile);
    }
    let replace = tokens.take("REPLACE");
    tokens.take("IGNORE");
    if !tokens.take_all(&["INTO", "TABLE"]) {
        return to.unknown("a LOAD DATA without its table");
    }
    match tokens.name() {
        Some(name) => {
            if replace {
                to.add_on(Action::Delete, name.clone());
            }
            to.add_on(Action::CopyFrom, name);
        }
        None => return to.unknown("a LOAD DATA without its table"),
    }
    calls_of_load(tokens, to);
}

/// The column list of a `LOAD DATA` is no call, and neither are its options.
fn calls_of_load(tokens: Tokens<'_>, to: &mut Found) {
    if let Some(at) = tokens.find("SET") {
        let behind = Tokens::new(tokens.rest().get(at + 1..).unwrap_or_default());
        for part in behind.parts() {
            let signs = part.rest().iter().position(|item| item.token == Token::Eq);
            let value = signs.and_then(|at| part.rest().get(at + 1..)).unwrap_or_default();
            query::expression(Tokens::new(value), to);
        }
    }
    let selects = tokens.rest().iter().filter_map(|item| plain_word(&item.token));
    if tokens.find("SET").is_none() && selects.into_iter().any(|word| word == "SELECT") {
        to.unknown("a query where it is not looked at");
    }
}
