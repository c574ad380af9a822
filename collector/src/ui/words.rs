//! What an answer says, in words.
//!
//! Promise: each verdict has a glyph and a word, so that colour is never needed; an action that this
//! program does not know is shown by its own name.

use maud::{Markup, html};

use super::proof::State;
use super::text;
use crate::query::{Answer, Effect, Operation};

/// Relations named in one line.
const NAMED_MAX: usize = 4;

/// `read public.customers; changed public.accounts without WHERE`.
pub fn what(answer: &Answer) -> String {
    let Some(operation) = &answer.operation else {
        return answer.kind.replace('_', " ");
    };
    if answer.kind == "login" {
        let user = operation.user.as_deref().unwrap_or_default();
        let database = operation.database.as_deref().unwrap_or_default();
        return format!("logged in as {user} to {database}");
    }
    if answer.kind == "parse" && !operation.effects.is_empty() {
        return format!("prepared: {}", effects(&operation.effects));
    }
    // That not every shell reads a command alike says nothing of what was asked.
    if !operation.unknown.is_empty() && answer.kind != "exec" {
        return format!("not understood: {}", operation.unknown);
    }
    if !operation.effects.is_empty() {
        return effects(&operation.effects);
    }
    if operation.kinds.is_empty() { answer.kind.replace('_', " ") } else { operation.kinds.clone() }
}

fn effects(effects: &[Effect]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for effect in effects.iter().take(NAMED_MAX) {
        let verb = verb(&effect.action);
        let bound = if effect.unbounded { " without WHERE" } else { "" };
        let gap = if effect.relation.is_empty() { "" } else { " " };
        parts.push(format!("{verb}{gap}{}{bound}", effect.relation));
    }
    if effects.len() > NAMED_MAX {
        parts.push(format!("and {} more", effects.len() - NAMED_MAX));
    }
    parts.join("; ")
}

fn verb(action: &str) -> &str {
    match action {
        "select" => "read",
        "insert" => "added to",
        "update" => "changed",
        "delete" => "deleted from",
        "truncate" => "emptied",
        "copy_to" => "copied out of",
        "copy_from" => "copied into",
        "server_file" => "used a server's file or program",
        "ddl" => "made, altered or dropped",
        "grant" => "changed rights on",
        "execute" => "called",
        "login" => "logged in",
        "exec" => "ran",
        "shell" => "opened a shell",
        "subsystem" => "started",
        "env" => "set the variable",
        "forward" => "connected through to",
        "agent_forward" => "lent its key agent",
        "x11" => "lent its display",
        "file_read" => "read the file",
        "file_write" => "wrote the file",
        "file_remove" => "removed the file",
        "file_list" => "looked at",
        other => other,
    }
}

/// Glyph, word and style of a verdict.
pub fn verdict_words(verdict: &str) -> (&'static str, &'static str, &'static str) {
    match verdict {
        "allow" => ("✓", "allowed", "good"),
        "deny" => ("✕", "refused", "bad"),
        "would_deny" => ("△", "would be refused", "warn"),
        "passed_open" => ("○", "passed open", "warn"),
        _ => ("?", "unknown", "warn"),
    }
}

/// A verdict.
pub fn verdict(verdict: &str) -> Markup {
    tag(verdict_words(verdict))
}

/// How an entry is proven.
pub fn state(state: State) -> Markup {
    tag(state.words())
}

/// Glyph, word, style.
pub fn tag((glyph, word, style): (&str, &str, &str)) -> Markup {
    html! { span class={ "tag " (style) } { span aria-hidden="true" { (glyph) " " } (word) } }
}

/// `/usr/lib/bank/statements` by `svc_statements`: the program and the database user, small.
pub fn program(operation: Option<&Operation>) -> Markup {
    let Some(operation) = operation else { return html! {} };
    let program = operation.executable.as_deref().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    html! {
        @if !name.is_empty() { span.dim title=(program) { (text::short(name)) } }
        @if let Some(user) = &operation.user { span.dim { " as " (text::short(user)) } }
    }
}

/// `ok`, `failed 42501`, or nothing.
pub fn outcome(operation: &Operation) -> Option<String> {
    let status = operation.status.as_deref()?;
    let code = operation.code.as_deref().filter(|code| !code.is_empty());
    Some(code.map_or_else(|| status.to_owned(), |code| format!("{status} {code}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_become_a_sentence() {
        let effect = |action: &str, relation: &str, unbounded| Effect {
            action: action.into(),
            relation: relation.into(),
            unbounded,
        };
        let rows: [(&str, Operation, &str); 6] = [
            (
                "query",
                Operation {
                    effects: vec![effect("select", "public.customers", false)],
                    ..Operation::default()
                },
                "read public.customers",
            ),
            (
                "query",
                Operation {
                    effects: vec![
                        effect("update", "accounts", true),
                        effect("execute", "close_day", false),
                    ],
                    ..Operation::default()
                },
                "changed accounts without WHERE; called close_day",
            ),
            (
                "query",
                Operation { unknown: "does not parse".into(), ..Operation::default() },
                "not understood: does not parse",
            ),
            (
                "login",
                Operation {
                    user: Some("svc".into()),
                    database: Some("core".into()),
                    ..Operation::default()
                },
                "logged in as svc to core",
            ),
            ("query", Operation { kinds: "BEGIN".into(), ..Operation::default() }, "BEGIN"),
            (
                "query",
                Operation { effects: vec![effect("levitate", "t", false)], ..Operation::default() },
                "levitate t",
            ),
        ];
        for (kind, operation, expected) in rows {
            let answer =
                Answer { kind: kind.into(), operation: Some(operation), ..Answer::default() };
            assert_eq!(what(&answer), expected);
        }
        let gap = Answer { kind: "session_refused".into(), ..Answer::default() };
        assert_eq!(what(&gap), "session refused");
    }
}
