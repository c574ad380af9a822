//! `SET` in its forms (MySQL manual, "SET Syntax for Variable Assignment"; MariaDB adds
//! `SET STATEMENT .. FOR`).

use sqlparser::tokenizer::Token;
use tidegate_event::Action;

use super::found::Found;
use super::names::{Tokens, plain_word};
use super::{admin, query};

/// One assignment.
pub(super) struct Assignment<'a> {
    /// The variable in lower case, without its scope; `@name` for a user's own.
    pub name: String,
    /// Whether it lasts beyond the session.
    pub global: bool,
    /// What it becomes.
    value: Tokens<'a>,
}

impl Assignment<'_> {
    /// The value, where it is one string or word.
    pub fn literal(&self) -> Option<String> {
        match self.value.rest() {
            [one] | [one, ..] if self.name == "names" || self.value.rest().len() == 1 => match &one
                .token
            {
                Token::SingleQuotedString(text) => Some(text.clone()),
                Token::Word(word) if !word.value.starts_with('@') => {
                    let text = word.value.clone();
                    Some(if text.eq_ignore_ascii_case("default") { "DEFAULT".into() } else { text })
                }
                _ => None,
            },
            _ => None,
        }
    }
}

const SCOPES: [&str; 6] = ["GLOBAL", "SESSION", "LOCAL", "PERSIST", "PERSIST_ONLY", "INSTANCE"];

/// Reads one part of a `SET`.
pub(super) fn assignment(mut part: Tokens<'_>) -> Option<Assignment<'_>> {
    let word = part.word()?;
    let second = part.word_at(1);
    let second = second.as_deref();
    let of = |name: &str, value| Some(Assignment { name: name.into(), global: false, value });
    match (word.as_str(), second) {
        ("NAMES", _) => {
            part.next();
            return of("names", part);
        }
        ("CHARACTER", Some("SET")) => {
            part.take_all(&["CHARACTER", "SET"]);
            return of("character set", part);
        }
        ("CHARSET", _) if !has_sign(&part) => {
            part.next();
            return of("character set", part);
        }
        _ => {}
    }
    let mut global = false;
    if SCOPES.contains(&word.as_str()) && !is_sign(part.rest().get(1).map(|item| &item.token)) {
        global = !matches!(word.as_str(), "SESSION" | "LOCAL");
        part.next();
    }
    let mut name = match part.next()? {
        Token::Word(word) => word.value.to_lowercase(),
        _ => return None,
    };
    if let Some(system) = name.strip_prefix("@@").map(str::to_owned) {
        let (scope, rest) = match system.split_once('.') {
            Some((scope, rest)) if SCOPES.contains(&&*scope.to_ascii_uppercase()) => (scope, rest),
            _ => ("session", system.as_str()),
        };
        global = !matches!(scope, "session" | "local");
        rest.clone_into(&mut name);
    }
    while part.take_token(&Token::Period) {
        if let Token::Word(word) = part.next()? {
            name = format!("{name}.{}", word.value.to_lowercase());
        }
    }
    if !part.take_token(&Token::Eq) && !part.take_token(&Token::Assignment) {
        return None;
    }
    Some(Assignment { name, global, value: part })
}

fn is_sign(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Eq | Token::Assignment))
}

fn has_sign(part: &Tokens<'_>) -> bool {
    is_sign(part.rest().get(1).map(|item| &item.token))
}

/// Notes what a `SET` does; `tokens` begin behind it.
pub(super) fn statement(mut tokens: Tokens<'_>, to: &mut Found) {
    to.literals_matter = true;
    let first = tokens.word().unwrap_or_default();
    let second = tokens.word_at(1).unwrap_or_default();
    match (first.as_str(), second.as_str()) {
        ("PASSWORD", _) | ("DEFAULT", "ROLE") => return to.add(Action::Grant),
        ("ROLE", _) => return to.add(Action::SetRole),
        ("TRANSACTION", _) | ("SESSION" | "LOCAL", "TRANSACTION") => {
            return to.add(Action::Transaction);
        }
        ("GLOBAL", "TRANSACTION") => return to.add_word(Action::Maintain, "transaction"),
        ("RESOURCE", "GROUP") => return to.add_word(Action::Set, "resource group"),
        ("STATEMENT", _) => {
            tokens.next();
            let Some(assignments) = tokens.until("FOR") else {
                return to.unknown("a SET STATEMENT without FOR");
            };
            for part in assignments.parts() {
                assign(part, to);
            }
            return admin::statement_behind(tokens, to);
        }
        _ => {}
    }
    for part in tokens.parts() {
        assign(part, to);
    }
}

fn assign(part: Tokens<'_>, to: &mut Found) {
    let Some(assignment) = assignment(part) else {
        return to.unknown("a SET of a form that is not known");
    };
    let Assignment { name, global, value } = assignment;
    // What a trusted definer or the audit of the server hangs on is no mere setting.
    if global {
        to.add_word(Action::Maintain, &name);
    } else {
        to.add_word(Action::Set, &name);
    }
    let simple = value.rest().iter().all(|item| match &item.token {
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Minus | Token::Comma => true,
        other => plain_word(other).is_some(),
    });
    if !simple {
        query::expression(value, to);
    }
}
