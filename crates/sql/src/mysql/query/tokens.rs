//! From the server's tokens to those that `sqlparser` takes: what it does not know is taken away or put in
//! other words, where that changes no effect.

use sqlparser::tokenizer::Token;

use super::{CHAIN_MAX, is_one};
use crate::mysql::names::{is_word, plain_word};

/// A statement that can be parsed.
#[derive(Default)]
pub(super) struct Prepared {
    pub tokens: Vec<Token>,
    /// Which of the statement's tokens each is.
    pub places: Vec<Option<usize>>,
    /// User variables that it writes its result to.
    pub variables: Vec<String>,
    /// Whether it locks what it reads.
    pub locks: bool,
    /// How it writes its result to a file of the server's.
    pub file: Option<&'static str>,
    /// Names that stand behind `FROM` or `JOIN`.
    pub named: Vec<String>,
}

/// Words behind a verb that change no effect.
const MODIFIERS: [&str; 16] = [
    "LOW_PRIORITY",
    "HIGH_PRIORITY",
    "DELAYED",
    "QUICK",
    "IGNORE",
    "STRAIGHT_JOIN",
    "SQL_SMALL_RESULT",
    "SQL_BIG_RESULT",
    "SQL_BUFFER_RESULT",
    "SQL_CACHE",
    "SQL_NO_CACHE",
    "SQL_CALC_FOUND_ROWS",
    "ALL",
    "CONCURRENT",
    "DISTINCTROW",
    "HISTORY",
];
/// The parser goes much deeper for a join without a condition; a server takes 61 tables.
const JOIN_WEIGHT: usize = CHAIN_MAX / 62;
/// Words that make the tree deeper, beside signs.
const OPERATORS: [&str; 18] = [
    "JOIN",
    "AND",
    "OR",
    "XOR",
    "NOT",
    "LIKE",
    "IN",
    "IS",
    "BETWEEN",
    "DIV",
    "MOD",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "COLLATE",
    "REGEXP",
    "RLIKE",
    "MINUS",
];
/// Functions in whose parentheses `FROM` names no table.
const FROM_FUNCTIONS: [&str; 6] = ["EXTRACT", "TRIM", "SUBSTRING", "SUBSTR", "MID", "OVERLAY"];

/// Prepares the tokens of one statement.
pub(super) fn prepare(tokens: &[Token]) -> Result<Prepared, &'static str> {
    let mut prepared = Prepared::default();
    let is_update = tokens.first().is_some_and(|first| is_word(first, "UPDATE"));
    let mut before_set = is_update;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = tokens.get(at..).unwrap_or_default();
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        before_set &= !(depth == 0 && is_word(token, "SET"));
        let taken = rewrite(rest, before_set && depth == 0, &mut prepared);
        if taken == 0 {
            prepared.places.resize(prepared.tokens.len(), None);
            prepared.tokens.push(token.clone());
            prepared.places.push(Some(at));
        }
        at += taken.max(1);
    }
    prepared.places.resize(prepared.tokens.len(), None);
    check_depth(&prepared.tokens)?;
    prepared.named = named(&prepared.tokens);
    Ok(prepared)
}

/// Takes words at the front away, or puts others in their place; says how many.
fn rewrite(rest: &[Token], tables_of_update: bool, to: &mut Prepared) -> usize {
    let words = |wanted: &[&str]| {
        wanted
            .iter()
            .enumerate()
            .all(|(at, word)| rest.get(at).is_some_and(|one| is_word(one, word)))
    };
    let Some(first) = rest.first() else { return 0 };
    if tables_of_update && *first == Token::Comma {
        to.tokens.extend(["CROSS", "JOIN"].map(|word| Token::make_word(word, None)));
        return 1;
    }
    match plain_word(first).as_deref() {
        Some("SELECT" | "INSERT" | "REPLACE" | "UPDATE" | "DELETE") => {
            to.tokens.push(first.clone());
            let behind = rest.iter().skip(1);
            1 + behind.take_while(|token| is_one(token, &MODIFIERS)).count()
        }
        Some("STRAIGHT_JOIN") => {
            to.tokens.push(Token::make_word("JOIN", None));
            1
        }
        Some("LOCK") if words(&["LOCK", "IN", "SHARE", "MODE"]) => {
            to.locks = true;
            4
        }
        Some("FOR") if words(&["FOR", "UPDATE"]) || words(&["FOR", "SHARE"]) => {
            to.locks = true;
            lock_length(rest)
        }
        Some("INTO") if words(&["INTO", "OUTFILE"]) || words(&["INTO", "DUMPFILE"]) => {
            let dump = words(&["INTO", "DUMPFILE"]);
            to.file = Some(if dump { "into dumpfile" } else { "into outfile" });
            file_length(rest)
        }
        Some("INTO") if rest.get(1).is_some_and(is_user_variable) => {
            let length = variables_length(rest);
            let names = rest.iter().take(length).filter(|token| is_user_variable(token));
            to.variables.extend(names.map(|token| token.to_string().to_lowercase()));
            length
        }
        Some("ROWS") if words(&["ROWS", "EXAMINED"]) => 3,
        Some("MOD") if is_infix(to.tokens.last(), rest.get(1)) => {
            to.tokens.push(Token::Mod);
            1
        }
        Some("CYCLE") if to.tokens.last() == Some(&Token::RParen) => cycle_length(rest),
        _ => 0,
    }
}

/// `FOR UPDATE [OF t, ..] [NOWAIT | WAIT n | SKIP LOCKED]`.
fn lock_length(rest: &[Token]) -> usize {
    let mut at = 2;
    if rest.get(at).is_some_and(|token| is_word(token, "OF")) {
        at += 1;
        while rest.get(at).is_some_and(|token| {
            matches!(token, Token::Comma | Token::Period)
                || plain_word(token).is_some_and(|word| !is_lock_option(&word))
                || matches!(token, Token::Word(word) if word.quote_style.is_some())
        }) {
            at += 1;
        }
    }
    match rest.get(at).and_then(plain_word).as_deref() {
        Some("NOWAIT") => at + 1,
        Some("WAIT" | "SKIP") => at + 2,
        _ => at,
    }
}

fn is_lock_option(word: &str) -> bool {
    matches!(word, "NOWAIT" | "WAIT" | "SKIP" | "FOR" | "LOCK" | "INTO" | "UNION")
}

/// Whether a reserved word between the two is an operator, and not a function.
fn is_infix(before: Option<&Token>, next: Option<&Token>) -> bool {
    match before {
        Some(
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::RParen,
        ) => true,
        Some(Token::Word(_)) => next != Some(&Token::LParen),
        _ => false,
    }
}

/// `CYCLE a, b RESTRICT` behind a common table expression; 0 for another text.
fn cycle_length(rest: &[Token]) -> usize {
    let names = rest.iter().skip(1);
    let names = names.take_while(|token| {
        **token == Token::Comma || matches!(token, Token::Word(_)) && !is_word(token, "RESTRICT")
    });
    let end = 1 + names.count();
    if rest.get(end).is_some_and(|token| is_word(token, "RESTRICT")) { end + 1 } else { 0 }
}

/// `INTO OUTFILE '..'` with its options.
fn file_length(rest: &[Token]) -> usize {
    let ends = ["FROM", "FOR", "LOCK", "UNION", "WHERE", "LIMIT", "GROUP", "ORDER", "HAVING"];
    let behind = rest.iter().skip(3);
    let options = behind.take_while(|token| {
        !is_one(token, &ends) && !matches!(token, Token::RParen | Token::LParen)
    });
    3 + options.count()
}

/// `INTO @a, @b`.
fn variables_length(rest: &[Token]) -> usize {
    let behind = rest.iter().skip(1);
    1 + behind.take_while(|token| is_user_variable(token) || **token == Token::Comma).count()
}

fn is_user_variable(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none()
        && word.value.starts_with('@') && !word.value.starts_with("@@"))
}

/// Refuses what would make a tree deeper than a stack takes.
fn check_depth(tokens: &[Token]) -> Result<(), &'static str> {
    let mut open = vec![0_usize];
    let mut all = 0_usize;
    for token in tokens {
        match token {
            Token::LParen => open.push(0),
            Token::RParen => all -= open.pop().unwrap_or_default().min(all),
            Token::Comma => {
                if let Some(here) = open.last_mut() {
                    all -= std::mem::take(here).min(all);
                }
            }
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::Placeholder(_) => {}
            Token::Word(_) if !is_one(token, &OPERATORS) => {}
            _ => {
                let weight = if is_word(token, "JOIN") { JOIN_WEIGHT } else { 1 };
                all += weight;
                if let Some(here) = open.last_mut() {
                    *here += weight;
                }
                if all > CHAIN_MAX {
                    return Err("it has too many operators in a row");
                }
            }
        }
    }
    Ok(())
}

/// Names behind `FROM` and `JOIN`: the last part of each.
fn named(tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    let mut functions = Vec::new();
    let mut before: Option<&Token> = None;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => {
                functions.push(before.is_some_and(|word| is_one(word, &FROM_FUNCTIONS)));
            }
            Token::RParen => {
                functions.pop();
            }
            _ if is_one(token, &["FROM", "JOIN"]) => {
                let distinct = before.is_some_and(|word| is_word(word, "DISTINCT"));
                let no_table = functions.last().copied().unwrap_or_default() || distinct;
                if !no_table && let Some(name) = name_at(tokens, at + 1) {
                    found.push(name);
                }
            }
            _ => {}
        }
        before = Some(token);
    }
    found
}

fn name_at(tokens: &[Token], at: usize) -> Option<String> {
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    };
    let first = word(at)?;
    // `JSON_TABLE(..)`, `LATERAL (..)`.
    if tokens.get(at + 1) == Some(&Token::LParen) && first.quote_style.is_none() {
        return None;
    }
    if tokens.get(at + 1) == Some(&Token::Period) {
        return word(at + 2).map(|second| match second.value.as_str() {
            name if is_folded(&first.value) => name.to_ascii_lowercase(),
            name => name.to_owned(),
        });
    }
    Some(first.value.clone())
}

fn is_folded(schema: &str) -> bool {
    ["information_schema", "performance_schema"].iter().any(|one| schema.eq_ignore_ascii_case(one))
}
