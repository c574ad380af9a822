//! Statements that change objects or rights.
//!
//! Promises: every object that is made, changed, renamed or dropped is named. Accounts and roles are
//! `grant`. A query within (`CREATE TABLE .. SELECT`, `CREATE VIEW .. AS`) has its own effects. What
//! reaches files or other servers (`DATA DIRECTORY`, `CONNECTION`, tablespaces, plugins) is
//! `server_file`; a `MERGE` table, which would be another name for its parts, is unknown.

use sqlparser::tokenizer::Token;
use tidegate_event::{Action, Relation};

use super::admin::statement_behind;
use super::found::Found;
use super::names::Tokens;

/// Words that stand between the verb and the kind of object.
const BEFORE_KIND: [&str; 12] = [
    "OR",
    "REPLACE",
    "TEMPORARY",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
    "ONLINE",
    "OFFLINE",
    "IGNORE",
    "AGGREGATE",
    "UNDO",
    "LOGFILE",
];

/// Notes what a `CREATE`, `ALTER`, `DROP` or `RENAME` does; `tokens` begin behind the verb.
pub(super) fn statement(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    let verb_kind = verb.to_ascii_lowercase();
    skip_before_kind(&mut tokens);
    let Some(object) = tokens.word() else {
        to.kind(verb_kind);
        return to.unknown("it names no kind of object");
    };
    tokens.next();
    to.kind(format!("{verb_kind} {}", object.to_ascii_lowercase()));
    if tokens.take("IF") {
        tokens.take("NOT");
        tokens.take("EXISTS");
    }
    match object.as_str() {
        "TABLE" | "TABLES" if verb == "RENAME" => rename(tokens, to),
        "TABLE" | "TABLES" | "VIEW" if verb == "DROP" => all(tokens, to),
        "TABLE" => table(verb, tokens, to),
        "VIEW" => {
            one(&mut tokens, to);
            if let Some(_name) = tokens.until("AS") {
                body(tokens, to);
            }
        }
        "INDEX" => {
            let table = tokens.until("ON").and_then(|_| tokens.name());
            match table {
                Some(table) => to.add_on(Action::Ddl, table),
                None => to.unknown("an index without its table"),
            }
        }
        "DATABASE" | "SCHEMA" | "SEQUENCE" | "SERVER" | "PACKAGE" => all(tokens, to),
        "USER" | "ROLE" => to.add(Action::Grant),
        "TRIGGER" if verb != "DROP" => {
            one(&mut tokens, to);
            let table = tokens.until("ON").and_then(|_| tokens.name());
            match table {
                Some(table) => to.add_on(Action::Ddl, table),
                None => to.unknown("a trigger without its table"),
            }
            routine(tokens, to);
        }
        "PROCEDURE" | "FUNCTION" | "EVENT" | "TRIGGER" => {
            one(&mut tokens, to);
            if tokens.has("SONAME") {
                to.add_word(Action::ServerFile, "soname");
            }
            routine(tokens, to);
        }
        "TABLESPACE" | "GROUP" | "INSTANCE" => {
            to.add(Action::Ddl);
            to.add_word(Action::ServerFile, "tablespace");
        }
        _ => {
            to.add(Action::Ddl);
            to.unknown("an object of a kind that is not known");
        }
    }
}

/// Takes what stands between the verb and the kind of object.
pub(super) fn skip_before_kind(tokens: &mut Tokens<'_>) {
    loop {
        tokens.skip(&BEFORE_KIND);
        // `ALGORITHM = x`, `DEFINER = y`, `SQL SECURITY z` of views and routines.
        if tokens.take("ALGORITHM") {
            tokens.take_token(&Token::Eq);
            tokens.next();
        } else if tokens.take("DEFINER") {
            tokens.take_token(&Token::Eq);
            skip_account(tokens);
        } else if tokens.take_all(&["SQL", "SECURITY"]) {
            tokens.next();
        } else {
            return;
        }
    }
}

/// `'u'@'h'`, `u@h`, `CURRENT_USER()`.
fn skip_account(tokens: &mut Tokens<'_>) {
    tokens.next();
    if tokens.take_token(&Token::LParen) {
        tokens.take_token(&Token::RParen);
    }
    if let Some(Token::Word(word)) = tokens.peek()
        && word.value.starts_with('@')
    {
        tokens.next();
    }
}

fn one(tokens: &mut Tokens<'_>, to: &mut Found) {
    match tokens.name() {
        Some(name) => to.add_on(Action::Ddl, name),
        None => to.unknown("a name is missing"),
    }
}

fn all(tokens: Tokens<'_>, to: &mut Found) {
    for mut part in tokens.parts() {
        one(&mut part, to);
    }
}

fn rename(tokens: Tokens<'_>, to: &mut Found) {
    for mut part in tokens.parts() {
        if part.take("IF") {
            part.take("EXISTS");
        }
        one(&mut part, to);
        match part.until("TO") {
            Some(_) => one(&mut part, to),
            None => to.unknown("a RENAME without its new name"),
        }
    }
}

fn table(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    one(&mut tokens, to);
    options(tokens, to);
    if verb == "ALTER" {
        return alter(tokens, to);
    }
    let mut like = tokens;
    like.take_token(&Token::LParen);
    if like.take("LIKE") {
        return match like.name() {
            Some(name) => to.add_on(Action::Show, name),
            None => to.unknown("a LIKE without its table"),
        };
    }
    // The query begins behind the columns and options, with or without AS and parentheses.
    let query =
        ["SELECT", "WITH", "VALUES"].iter().filter_map(|word| find_query(&tokens, word)).min();
    match query {
        Some(at) => body(Tokens::new(tokens.rest().get(at..).unwrap_or_default()), to),
        None if tokens.has("SELECT") => to.unknown("a query where it is not looked at"),
        None if tokens.take("TABLE") || tokens.take_all(&["AS", "TABLE"]) => match tokens.name() {
            Some(name) => to.add_on(Action::Select, name),
            None => to.unknown("a name is missing"),
        },
        None => {}
    }
}

/// Where a query begins: at `word`, or at the parentheses just before it.
fn find_query(tokens: &Tokens<'_>, word: &str) -> Option<usize> {
    let items = tokens.rest();
    let mut at = items.iter().position(|item| super::names::is_word(&item.token, word))?;
    if word == "WITH"
        && items.get(at + 1).is_some_and(|next| {
            matches!(&next.token, Token::Word(word)
            if ["SYSTEM", "PARSER"].iter().any(|one| word.value.eq_ignore_ascii_case(one)))
        })
    {
        return None;
    }
    if word == "VALUES" {
        // Of a partition: `VALUES LESS THAN`, `VALUES IN`.
        let next = items.get(at + 1).map(|item| &item.token);
        if !matches!(next, Some(Token::LParen)) {
            return None;
        }
    }
    while at > 0 && items.get(at - 1).is_some_and(|item| item.token == Token::LParen) {
        at -= 1;
    }
    Some(at)
}

/// Options with effects beyond the table.
fn options(tokens: Tokens<'_>, to: &mut Found) {
    let items = tokens.rest();
    let follows = |word: &str, next: fn(&Token) -> bool| {
        items.windows(2).any(|pair| match pair {
            [one, two] => super::names::is_word(&one.token, word) && next(&two.token),
            _ => false,
        })
    };
    if follows("DATA", |next| super::names::is_word(next, "DIRECTORY"))
        || follows("INDEX", |next| super::names::is_word(next, "DIRECTORY"))
        || follows("CONNECTION", |next| matches!(next, Token::Eq | Token::SingleQuotedString(_)))
        || tokens.has("TABLESPACE")
    {
        to.add_word(Action::ServerFile, "table options");
    }
    if follows("UNION", |next| matches!(next, Token::Eq | Token::LParen)) {
        to.unknown("a MERGE table is another name for its parts");
    }
}

fn alter(tokens: Tokens<'_>, to: &mut Found) {
    for mut part in tokens.parts() {
        if part.take("RENAME") {
            if ["COLUMN", "INDEX", "KEY"].iter().any(|word| part.take(word)) {
                continue;
            }
            part.skip(&["TO", "AS"]);
            part.take_token(&Token::Eq);
            one(&mut part, to);
        } else if part.has("EXCHANGE") {
            match part.until("TABLE") {
                Some(_) => one(&mut part, to),
                None => to.unknown("an EXCHANGE without its table"),
            }
        } else if part.take("CONVERT") && part.take("PARTITION") {
            match part.until("TABLE") {
                Some(_) => one(&mut part, to),
                None => to.unknown("a CONVERT without its table"),
            }
        } else if part.has("SELECT") {
            to.unknown("a query where it is not looked at");
        }
    }
    if tokens.has("CONVERT") && tokens.has("TABLE") && tokens.has("PARTITION") {
        to.unknown("a table becomes a partition of another");
    }
}

/// A query within, with its own effects.
fn body(mut tokens: Tokens<'_>, to: &mut Found) {
    tokens.skip(&["AS", "IGNORE", "REPLACE"]);
    // `WITH CHECK OPTION` at the end of a view.
    let items = tokens.rest();
    let check = items.len().checked_sub(2).and_then(|at| items.get(at..)).is_some_and(|last| {
        matches!(last, [check, option] if super::names::is_word(&check.token, "CHECK")
            && super::names::is_word(&option.token, "OPTION"))
    });
    if check {
        let with = items.iter().rposition(|item| super::names::is_word(&item.token, "WITH"));
        tokens = Tokens::new(items.get(..with.unwrap_or_default()).unwrap_or_default());
    }
    statement_behind(tokens, to);
}

/// What a routine's body does is no effect of making it, where the end of the body is found.
fn routine(tokens: Tokens<'_>, to: &mut Found) {
    if to.delimited && to.depth == 0 {
        return;
    }
    let compound = ["BEGIN", "IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR", "DECLARE"];
    if compound.iter().any(|word| tokens.has(word) && !is_header(&tokens, word)) {
        to.unknown("the body of a routine with several statements");
    }
}

/// `FOR EACH ROW` of a trigger begins no loop.
fn is_header(tokens: &Tokens<'_>, word: &str) -> bool {
    let items = tokens.rest();
    let count = items.iter().filter(|item| super::names::is_word(&item.token, word)).count();
    word == "FOR"
        && count == 1
        && items.windows(2).any(|pair| matches!(pair, [one, two]
            if super::names::is_word(&one.token, "FOR") && super::names::is_word(&two.token, "EACH")))
}

/// `GRANT` and `REVOKE`.
pub(super) fn grant(verb: &str, mut tokens: Tokens<'_>, to: &mut Found) {
    to.kind(verb.to_ascii_lowercase());
    let object = tokens.until("ON").and_then(|_| {
        tokens.skip(&["TABLE", "FUNCTION", "PROCEDURE", "PACKAGE"]);
        tokens.name()
    });
    match object {
        Some(Relation { schema: None, name }) if name != "*" => {
            to.add_on(Action::Grant, Relation { schema: None, name });
        }
        Some(relation) => to.add_on(Action::Grant, relation),
        None => to.add(Action::Grant),
    }
}
