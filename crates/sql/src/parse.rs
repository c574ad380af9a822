//! From text to parse tree to effects.
//!
//! Limits: [`TEXT_BYTES_MAX`] for a text, [`NESTED_BYTES_MAX`] for SQL in a string. Depth: the C
//! parser checks the stack that its thread has; the decoder of its answer stops at 100 nested
//! messages (about 48 expressions); the walk goes no deeper than what was decoded.

use std::borrow::Cow;

use pg_query::NodeEnum as N;
use pg_query::protobuf as p;
use pg_query::{Error, ParserOptions};
use tidegate_event::{Lineage, Rows};

use crate::collect::{Collector, Nested, bare};
use crate::resolve::Names;
use crate::walk::Walk;
use crate::{Settings, lineage, plpgsql, replication};

/// Longest text that is parsed; a longer one is unknown.
pub(crate) const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Longest SQL in a string, or block of PL/pgSQL, that is looked into.
pub(crate) const NESTED_BYTES_MAX: usize = 64 * 1024;

/// Statements in one text; more are unknown.
pub(crate) const STATEMENTS_MAX: usize = 4096;

/// What the walk found in a text.
pub(crate) struct Found {
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) effects: Vec<tidegate_event::Effect>,
    pub(crate) unknown: Option<String>,
    pub(crate) literals_matter: bool,
    pub(crate) lineage: Lineage,
}

/// How deep SQL may stand in strings.
const STRINGS_DEEP_MAX: u8 = 1;

/// Parses and walks a text.
pub(crate) fn find(text: &str, settings: Settings, names: Option<Names<'_>>) -> Found {
    let mut found = Collector::new(settings, 0);
    let lineage = match tree(text, ParserOptions::DEFAULT, settings) {
        Ok(tree) => {
            walk(&tree, &mut found);
            let names = names.map(|names| names.for_statements(&found.kinds, &found.effects));
            let traced = lineage::of(&tree, text, settings, names);
            found.literals_matter |= traced.literals_matter;
            for function in traced.called {
                found.add_on(tidegate_event::Action::Execute, Some(bare(&function)));
            }
            traced.lineage
        }
        Err(_) if replication::note(text, &mut found) => untold("a replication command"),
        Err(reason) => {
            found.kinds.push("unknown");
            let lineage = untold(&reason);
            found.unknown(reason);
            lineage
        }
    };
    if found.effects.is_empty() && !found.kinds.is_empty() {
        // `SELECT 1` reads no relation, but is a select all the same: no statement that runs may
        // be without an effect to decide on.
        found.add(tidegate_event::Action::Select);
    }
    Found {
        kinds: found.kinds,
        effects: found.effects.into_iter().collect(),
        unknown: found.unknown,
        literals_matter: found.literals_matter,
        lineage,
    }
}

/// The lineage of what could not be understood.
pub(crate) fn untold(reason: &str) -> Lineage {
    Lineage {
        rows: vec![Rows::Opaque(reason.to_owned())],
        filters_opaque: Some(reason.to_owned()),
        values_opaque: Some(reason.to_owned()),
        ..Lineage::default()
    }
}

/// The one statement that a text from the catalogue holds: a view's query, or a function's body;
/// `None` where it holds none, or several.
pub(crate) fn only_statement(text: &str) -> Option<N> {
    let tree = tree(&function_with(text), ParserOptions::DEFAULT, Settings::default()).ok()?;
    let [only] = <[p::RawStmt; 1]>::try_from(tree.stmts).ok()?;
    let node = only.stmt.and_then(|stmt| stmt.node)?;
    let N::CreateFunctionStmt(function) = node else {
        return Some(node);
    };
    match function.sql_body?.node? {
        // `BEGIN ATOMIC` is a list of a list of statements.
        N::List(body) => {
            let [body] = <[p::Node; 1]>::try_from(body.items).ok()?;
            let N::List(body) = body.node? else { return None };
            let [only] = <[p::Node; 1]>::try_from(body.items).ok()?;
            only.node
        }
        node => Some(node),
    }
}

/// A body in standard SQL parses only within the function that it is of.
pub(crate) fn function_with(text: &str) -> Cow<'_, str> {
    let word = text.trim_start().split(|char: char| !char.is_ascii_alphabetic()).next();
    match word {
        Some(word) if word.eq_ignore_ascii_case("begin") || word.eq_ignore_ascii_case("return") => {
            format!("CREATE FUNCTION tidegate_body() RETURNS void {text}").into()
        }
        _ => text.into(),
    }
}

/// Parses a text, or says why it can't be.
fn tree(text: &str, options: ParserOptions, settings: Settings) -> Result<p::ParseResult, String> {
    let options = if settings.standard_conforming_strings {
        options
    } else {
        options | ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    };
    match pg_query::parse(text, options) {
        Ok(tree) if tree.protobuf.stmts.len() > STATEMENTS_MAX => {
            Err(format!("more than {STATEMENTS_MAX} statements in one text"))
        }
        Ok(tree) => Ok(tree.protobuf),
        Err(error) => Err(explain(&error)),
    }
}

/// Parses and walks SQL that stands in a string.
pub(crate) fn nested(text: &str, grammar: Nested, settings: Settings, depth: u8) -> Collector {
    if depth > STRINGS_DEEP_MAX || text.len() > NESTED_BYTES_MAX {
        let mut found = Collector::new(settings, depth);
        found.unknown("SQL in a string is too long or too deep");
        return found;
    }
    match grammar {
        Nested::Statements => statements(text, settings, depth),
        Nested::Block => plpgsql::block(text, settings, depth),
    }
}

fn statements(text: &str, settings: Settings, depth: u8) -> Collector {
    with_options(text, ParserOptions::DEFAULT, settings, depth)
}

/// Parses and walks a text in the grammar that `options` name.
pub(crate) fn with_options(
    text: &str,
    options: ParserOptions,
    settings: Settings,
    depth: u8,
) -> Collector {
    let mut found = Collector::new(settings, depth);
    match tree(text, options, settings) {
        Ok(tree) => walk(&tree, &mut found),
        Err(reason) => found.unknown(reason),
    }
    if found.unknown.is_some() && found.kinds.is_empty() {
        found.kinds.push("unknown");
    }
    found
}

fn walk(tree: &p::ParseResult, found: &mut Collector) {
    for raw in &tree.stmts {
        if let Some(node) = raw.stmt.as_deref().and_then(|stmt| stmt.node.as_ref()) {
            found.kinds.push(crate::statement::kind(node));
        } else {
            found.kinds.push("unknown");
            found.unknown("the parser returned an empty statement");
        }
        raw.stmt.walk(found);
    }
}

/// Why a text did not parse. The parser's message may quote a piece of the text, which has no
/// place in a reason, so only the class is told.
fn explain(error: &Error) -> String {
    match error {
        Error::Decode(_) => "it is nested too deep".to_owned(),
        Error::Conversion(_) => "it holds a zero byte".to_owned(),
        Error::Parse(message) if message.contains("stack depth") => {
            "it is nested too deep".to_owned()
        }
        Error::Parse(message) if message.contains("memory exhausted") => {
            "it is nested too deep".to_owned()
        }
        _ => "it does not parse as PostgreSQL 18".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Objects of one kind in the tree, however the walk goes.
    fn count(tree: &Value, kind: &str) -> u64 {
        match tree {
            Value::Array(items) => items.iter().map(|item| count(item, kind)).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| u64::from(name == kind) + count(value, kind))
                .sum(),
            _ => 0,
        }
    }

    /// Expressions of every kind, each with `f(c)` wherever one may stand.
    const EXPRESSIONS: &str = "select f(c), c.d, -f(c), f(c) + f(c), f(c) and f(c), not f(c), f(c)::int,
        f(c) collate x, f(c) is null, f(c) is true, f(c) in (f(c), f(c)), f(c) between f(c) and f(c),
        f(c) like f(c) escape f(c), (f(c)).a, (f(c))[f(c)], (f(c))[f(c):f(c)], array[f(c)],
        array[[f(c)], [f(c)]], row(f(c), f(c)), (f(c), f(c)) = (f(c), f(c)),
        case f(c) when f(c) then f(c) else f(c) end, coalesce(f(c), f(c)), greatest(f(c), f(c)),
        nullif(f(c), f(c)), f(a => f(c)), f(variadic f(c)), f(distinct f(c)), f(f(c) order by f(c)),
        f(c) filter (where f(c)), f(c) within group (order by f(c)),
        f(c) over (partition by f(c) order by f(c) rows between f(c) preceding and f(c) following),
        f(c) = any (f(c)), f(c) = all (select f(c)), exists (select f(c)), (select f(c)),
        array(select f(c)), grouping(f(c)), f(c) at time zone f(c), f(c) at local,
        extract(year from f(c)), overlay(f(c) placing f(c) from f(c) for f(c)), position(f(c) in f(c)),
        substring(f(c) from f(c) for f(c)), trim(both f(c) from f(c)), normalize(f(c)),
        f(c) is normalized, f(c) is document, f(c) is distinct from f(c), f(c) is json object,
        xmlelement(name a, xmlattributes(f(c) as b), f(c)), xmlforest(f(c) as d), xmlconcat(f(c), f(c)),
        xmlparse(content f(c)), xmlpi(name a, f(c)), xmlroot(f(c), version f(c)),
        xmlserialize(content f(c) as text), xmlexists(f(c) passing f(c)),
        json_object('a': f(c), 'b': f(c)), json_object(f(c) value f(c)), json_array(f(c), f(c)),
        json_array(select f(c)), json_objectagg(f(c): f(c)), json_arrayagg(f(c) order by f(c)),
        json_arrayagg(f(c)) filter (where f(c)) over (partition by f(c)), json(f(c)), json_scalar(f(c)),
        json_serialize(f(c)), json_value(f(c), '$' passing f(c) as x default f(c) on empty default f(c) on error),
        json_query(f(c), '$' passing f(c) as x), json_exists(f(c), '$' passing f(c) as x)";

    const CLAUSES: &str = "with recursive w (a) as (select f(c) union select f(c))
            search depth first by a set o cycle a set b to true default false using p
        select distinct on (f(c)) f(c) from t tablesample s (f(c)) repeatable (f(c)), only u,
            f(c) with ordinality as x, rows from (f(c), f(c) as (a int)), lateral (select f(c)) as y,
            xmltable(xmlnamespaces(f(c) as n), f(c) passing f(c) columns a int path f(c) default f(c), o for ordinality),
            json_table(f(c), '$' passing f(c) as x columns (o for ordinality, a int path '$' default f(c) on empty default f(c) on error,
                nested path '$' columns (b int exists path '$'))),
            t join u on f(c) natural join v
        where f(c) group by f(c), rollup (f(c)), cube (f(c), f(c)), grouping sets ((f(c)), ())
        having f(c) window n as (partition by f(c) order by f(c) using <)
        order by f(c) limit f(c) offset f(c)";

    const CHANGES: &str = "insert into t (a[f(c)], b.x) values (f(c), default), (f(c), f(c))
            on conflict (f(c)) where f(c) do update set a = f(c), (b, d) = (f(c), f(c)) where f(c) returning f(c);
        insert into t overriding system value select f(c) on conflict do nothing;
        update t set a[f(c)] = f(c), (b, d) = (select f(c), f(c)) from u where f(c) returning f(c);
        delete from t using u where f(c) returning with (old as o, new as n) f(c);
        merge into t using (select f(c)) s on f(c)
            when matched and f(c) then update set a = f(c)
            when not matched by source and f(c) then delete
            when not matched then insert (a) values (f(c)) returning merge_action(), f(c)";

    #[test]
    fn no_call_and_no_column_is_passed_by() {
        let rows = include_str!("../tests/data/effects.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(";;").next());
        for text in rows.chain([EXPRESSIONS, CLAUSES, CHANGES]) {
            let Ok(tree) = pg_query::parse(text, ParserOptions::DEFAULT) else {
                assert!(!text.contains("f(c)"), "{text}: {:?}", pg_query::parse(text, 0));
                continue;
            };
            let found = statements(text, Settings::default(), 0);
            if found
                .kinds
                .iter()
                .any(|kind| !["select", "insert", "update", "delete", "merge"].contains(kind))
            {
                continue;
            }
            let tree = serde_json::to_value(&tree.protobuf).unwrap();
            let calls = count(&tree, "FuncCall");
            let columns = count(&tree, "ColumnRef") + count(&tree, "CurrentOfExpr");
            assert_eq!((found.calls, found.columns), (calls, columns), "{text}");
        }
    }
}
