//! What calling a function does, judged by its name.
//!
//! Promises: a built-in function of `pg_catalog` that only computes or reads the server's own
//! state is no effect (`data/harmless_functions.txt`, drawn from the catalogue of PostgreSQL 15
//! and the manuals of 16 to 18: what is not volatile and takes no SQL or relation in a string,
//! and a reviewed few that are volatile). Functions that take SQL in a string are looked into
//! where the string is a constant, and unknown where it isn't. All others are `execute`.
//!
//! Operators and types are judged the same way: a cast to a type that isn't PostgreSQL's own, or an
//! operator that isn't, is `execute` of its name.
//!
//! A sequence that `nextval` moves on is updated: for good, and for everybody.
//!
//! Known gaps: see the crate's page: names only, no overloads, no `search_path` but for one that puts
//! another schema before `pg_catalog`, which is unknown.

use std::collections::HashSet;
use std::sync::LazyLock;

use pg_query::protobuf as p;
use tidegate_event::{Action, Relation};

use crate::collect::{Collector, Nested, bare, constant, names};

static HARMLESS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../data/harmless_functions.txt").lines().collect());

/// Operators and types of PostgreSQL 15 to 18, drawn from their catalogues.
static OPERATORS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../data/harmless_operators.txt").lines().collect());
static TYPES: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../data/harmless_types.txt").lines().collect());

/// Schemas whose functions are taken for built-in ones.
const BUILT_IN_SCHEMA: &str = "pg_catalog";

/// Functions that read or write files or large objects on the server. Names that end in `*`
/// stand for all that begin so.
const SERVER_FILE: [&str; 14] = [
    "lo_*",
    "loread",
    "lowrite",
    "lo_import",
    "lo_export",
    "pg_read_file*",
    "pg_read_binary_file",
    "pg_stat_file",
    "pg_ls_*",
    "pg_file_*",
    "pg_logdir_ls",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_show_all_file_settings",
];

/// Functions that drive replication.
const REPLICATE: [&str; 6] = [
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_drop_replication_slot",
    "pg_copy_*",
    "pg_logical_*",
    "pg_replication_*",
];

/// Functions that run SQL which they get in their first argument.
const SQL_IN_FIRST: [&str; 5] =
    ["query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat", "crosstab*"];

/// Functions that read the relation which their first argument names.
const RELATION_IN_FIRST: [&str; 3] =
    ["table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema"];

/// Functions that run or read what can't be told from the statement.
const OPAQUE: [&str; 9] = [
    "dblink*",
    "cursor_to_xml*",
    "schema_to_xml*",
    "database_to_xml*",
    "connectby",
    "xpath_table",
    "pg_execute*",
    "lo_manage",
    "currtid*",
];

/// Notes what a call does, its arguments apart.
pub(crate) fn judge(call: &p::FuncCall, to: &mut Collector) {
    let Some(function) = names(&call.funcname) else {
        return to.unknown("a function call without a name");
    };
    let built_in = is_built_in(&function);
    let name = function.name.as_str();
    let first = call.args.first();
    if matches(name, &OPAQUE) {
        let reason = format!("{function}() runs or reads what the statement does not show");
        to.add_on(Action::Execute, Some(function));
        return to.unknown(reason);
    }
    if matches(name, &SQL_IN_FIRST) || (name == "ts_rewrite" && call.args.len() == 2) {
        let at = if name == "ts_rewrite" { call.args.get(1) } else { first };
        return in_string(function, at, to);
    }
    if of_information_schema(&function) {
        return;
    }
    if !built_in {
        return to.add_on(Action::Execute, Some(function));
    }
    if matches(name, &RELATION_IN_FIRST) {
        return relation_in_string(&function, first, to);
    }
    match name {
        "set_config" => set_config(&call.args, to),
        "nextval" => nextval(first, to),
        "pg_notify" => to.add(Action::Notify),
        _ if matches(name, &["pg_advisory_*", "pg_try_advisory_*"]) => to.add(Action::Lock),
        _ if matches(name, &SERVER_FILE) => to.add_on(Action::ServerFile, Some(function)),
        _ if matches(name, &REPLICATE) => to.add_on(Action::Replicate, Some(function)),
        // With three arguments it only computes; with two it runs one of them.
        "ts_rewrite" if call.args.len() == 3 => {}
        _ if HARMLESS.contains(name) || is_cast(call) => {}
        _ => to.add_on(Action::Execute, Some(function)),
    }
}

/// Whether a call may be a cast to a type of PostgreSQL's own, as `regtype('int4')` is.
pub(crate) fn is_cast(call: &p::FuncCall) -> bool {
    let function = names(&call.funcname).filter(|_| call.args.len() == 1);
    function
        .is_some_and(|function| is_built_in(&function) && TYPES.contains(function.name.as_str()))
}

/// Whether an operator is one of PostgreSQL's own.
pub(crate) fn is_harmless_operator(operator: &Relation) -> bool {
    is_built_in(operator) && OPERATORS.contains(operator.name.as_str())
}

/// Whether a type is one of PostgreSQL's own, or an array of one.
pub(crate) fn is_harmless_type(named: &Relation) -> bool {
    let own = |name: &str| TYPES.contains(name);
    match named.schema.as_deref() {
        Some(schema) => schema == BUILT_IN_SCHEMA || schema == "information_schema",
        None => own(&named.name) || named.name.strip_prefix('_').is_some_and(own),
    }
}

fn is_built_in(named: &Relation) -> bool {
    named.schema.as_deref().is_none_or(|schema| schema == BUILT_IN_SCHEMA)
}

/// Whether a function is one of PostgreSQL's own that returns nothing but what it makes of its
/// arguments and of the server's own state, whatever else it does.
pub(crate) fn returns_its_arguments(function: &Relation, arguments: usize) -> bool {
    let name = function.name.as_str();
    let has_effect =
        ["set_config", "pg_notify", "pg_advisory_*", "pg_try_advisory_*", "setval", "pg_sleep*"];
    of_information_schema(function)
        || is_built_in(function)
            && (HARMLESS.contains(name)
                || matches(name, &has_effect)
                || (name == "ts_rewrite" && arguments == 3))
}

/// The information schema's own helpers.
fn of_information_schema(function: &Relation) -> bool {
    function.schema.as_deref() == Some("information_schema") && function.name.starts_with("_pg_")
}

fn matches(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => name == *pattern,
    })
}

fn in_string(function: Relation, at: Option<&p::Node>, to: &mut Collector) {
    match at.and_then(constant) {
        Some(text) => to.absorb(text, Nested::Statements),
        None => to.unknown(format!("{function}() runs SQL that is not a constant")),
    }
    to.add_on(Action::Execute, Some(function));
}

fn relation_in_string(function: &Relation, at: Option<&p::Node>, to: &mut Collector) {
    let Some(text) = at.and_then(constant) else {
        return to.unknown(format!("{function}() reads a relation that is not a constant"));
    };
    // The server reads the string as a name, with quotes and dots: so does the parser.
    to.absorb(&format!("TABLE {text}"), Nested::Statements);
}

/// `set_config(name, value, is_local)` is `SET`, also of the role.
fn set_config(arguments: &[p::Node], to: &mut Collector) {
    to.literals_matter = true;
    if let Some(name) = arguments.first().and_then(constant) {
        let name = name.to_ascii_lowercase();
        if name == "search_path" {
            match arguments.get(1).and_then(constant) {
                Some(path) => search_path(path.split(','), to),
                None => to.unknown("set_config() sets a search_path that is not a constant"),
            }
        }
        return set(&name, to);
    }
    to.add(Action::Set);
    to.add(Action::SetRole);
}

/// Notes a search path under which names of built-in functions, operators and types may mean others.
pub(crate) fn search_path<'a>(schemas: impl Iterator<Item = &'a str>, to: &mut Collector) {
    let schema = |schema: &str| schema.trim().trim_matches('"').to_ascii_lowercase();
    let at = schemas.map(schema).position(|schema| schema == BUILT_IN_SCHEMA);
    if at.is_some_and(|at| at > 0) {
        to.unknown("a search_path that puts another schema before pg_catalog");
    }
}

/// The sequence is updated, under the name that a constant gives.
fn nextval(sequence: Option<&p::Node>, to: &mut Collector) {
    to.literals_matter = true;
    let plain = |part: &&str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let parts: Vec<&str> = sequence.and_then(constant).unwrap_or_default().split('.').collect();
    let relation = match parts.as_slice() {
        [name] if plain(name) => Some(bare(name)),
        [schema, name] if plain(schema) && plain(name) => {
            Some(Relation { schema: Some((*schema).to_owned()), name: (*name).to_owned() })
        }
        _ => None,
    };
    to.add_on(Action::Update, relation);
}

/// Whether a relation is a view of the system's that shows the server's files.
pub(crate) fn shows_server_files(relation: &Relation) -> bool {
    let views = ["pg_hba_file_rules", "pg_file_settings", "pg_ident_file_mappings"];
    is_built_in(relation) && views.contains(&relation.name.as_str())
}

/// Notes the effect of setting `name`, which is in lower case.
pub(crate) fn set(name: &str, to: &mut Collector) {
    let action = match name {
        "role" | "session_authorization" => Action::SetRole,
        _ => Action::Set,
    };
    to.add_on(action, Some(bare(name)));
}
