//! What a PL/pgSQL block does, as far as its text shows.
//!
//! Promises: each SQL statement and expression of the block is parsed again and walked. `EXECUTE`
//! of a string is unknown. A block that does not parse is unknown.
//!
//! Known gaps: effects of loops and branches count whether or not they run. Variables can look
//! like columns: an `UPDATE .. WHERE variable` counts as bounded.

use pg_query::ParserOptions;
use serde_json::Value;

use crate::Settings;
use crate::collect::Collector;
use crate::parse;

/// Expressions in one block; more are unknown.
const EXPRESSIONS_MAX: usize = 4096;

/// Nesting of the parsed block that is looked through.
const DEPTH_MAX: usize = 100;

/// Finds what the block does.
pub(crate) fn block(body: &str, settings: Settings, depth: u8) -> Collector {
    let mut found = Collector::new(settings, depth);
    match function_of(body).map(|function| pg_query::parse_plpgsql(&function)) {
        Some(Ok(tree)) => {
            let mut left = EXPRESSIONS_MAX;
            look(&tree, &mut found, &mut left, DEPTH_MAX);
        }
        Some(Err(_)) => found.unknown("the block does not parse as PL/pgSQL"),
        None => found.unknown("the block's quotes can't be told"),
    }
    found
}

/// The parser reads functions only: the block becomes the body of one, between quotes that it
/// does not hold.
fn function_of(body: &str) -> Option<String> {
    let tag = ["$tidegate$", "$tidegate_block$", "$tidegate_do$"]
        .into_iter()
        .find(|tag| !body.contains(tag.trim_end_matches('$')))?;
    Some(format!(
        "CREATE FUNCTION tidegate_block() RETURNS void LANGUAGE plpgsql AS {tag}{body}{tag}"
    ))
}

fn look(tree: &Value, found: &mut Collector, left: &mut usize, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else {
        return found.unknown("the block is nested too deep");
    };
    match tree {
        Value::Array(items) => items.iter().for_each(|item| look(item, found, left, depth)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("PLpgSQL_expr", Value::Object(expression)) => {
                        let text = expression.get("query").and_then(Value::as_str);
                        let mode = expression.get("parseMode").and_then(Value::as_i64);
                        one(text, mode, found, left);
                    }
                    ("PLpgSQL_stmt_dynexecute" | "PLpgSQL_stmt_dynfors", _) => {
                        found.unknown("the block executes SQL that it builds");
                        look(value, found, left, depth);
                    }
                    ("dynquery", _) => found.unknown("the block executes SQL that it builds"),
                    _ => look(value, found, left, depth),
                }
            }
        }
        _ => {}
    }
}

fn one(text: Option<&str>, mode: Option<i64>, found: &mut Collector, left: &mut usize) {
    let (Some(text), Some(rest)) = (text, left.checked_sub(1)) else {
        return found.unknown("the block holds too many expressions");
    };
    *left = rest;
    let options = match mode {
        None | Some(0) => ParserOptions::DEFAULT,
        Some(2) => ParserOptions::PLPGSQL_EXPR,
        Some(3) => ParserOptions::PLPGSQL_ASSIGN1,
        Some(4) => ParserOptions::PLPGSQL_ASSIGN2,
        Some(5) => ParserOptions::PLPGSQL_ASSIGN3,
        Some(_) => return found.unknown("the block holds an expression of a new kind"),
    };
    let inner = parse::with_options(text, options, found.settings, found.depth);
    found.effects.extend(inner.effects);
    if let Some(reason) = inner.unknown {
        found.unknown(reason);
    }
}
