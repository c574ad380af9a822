//! What can't fail on any value, and where other columns' values lie about.
//!
//! Promises: a function or operator that is not in these lists is taken for one that can fail, or
//! whose time tells of its arguments, so that a column in it counts as a filter.

use tidegate_event::Relation;

/// Functions of `pg_catalog` that give a result for every value of their arguments, or fail only by
/// the type of them.
const TOTAL: &[&str] = &[
    "any_value",
    "array_agg",
    "array_length",
    "array_ndims",
    "array_to_json",
    "array_to_string",
    "ascii",
    "bit_length",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "cbrt",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "dense_rank",
    "every",
    "first_value",
    "floor",
    "hashtext",
    "initcap",
    "isfinite",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_typeof",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_pretty",
    "jsonb_typeof",
    "lag",
    "last_value",
    "lead",
    "left",
    "length",
    "lower",
    "ltrim",
    "max",
    "md5",
    "min",
    "mode",
    "num_nonnulls",
    "num_nulls",
    "octet_length",
    "percent_rank",
    "pg_column_size",
    "pg_typeof",
    "position",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "rank",
    "replace",
    "reverse",
    "right",
    "row_number",
    "row_to_json",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "starts_with",
    "string_agg",
    "strpos",
    "text",
    "textlen",
    "to_hex",
    "to_json",
    "to_jsonb",
    "translate",
    "upper",
];

/// Those of [`TOTAL`] that return a number, a truth value or a short text, whatever they are given.
const SCALAR: &[&str] = &[
    "array_length",
    "array_ndims",
    "ascii",
    "bit_length",
    "bool_and",
    "bool_or",
    "cardinality",
    "ceil",
    "char_length",
    "character_length",
    "count",
    "every",
    "floor",
    "hashtext",
    "json_typeof",
    "jsonb_typeof",
    "length",
    "md5",
    "num_nonnulls",
    "num_nulls",
    "octet_length",
    "pg_column_size",
    "pg_typeof",
    "position",
    "row_number",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "starts_with",
    "strpos",
    "to_hex",
];

/// Functions whose result may be as large as their arguments say.
const SIZES: &[&str] = &["array_fill", "lpad", "repeat", "rpad"];

/// Operators that give a result for every value of the built-in types.
const TOTAL_OPERATORS: &[&str] = &[
    "=", "<>", "!=", "<", "<=", ">", ">=", "||", "->", "->>", "#>", "#>>", "@>", "<@", "?", "?|",
    "?&", "&&", "@@",
];

/// Types that every value can be cast to.
const TOTAL_TYPES: &[&str] = &["text", "varchar", "bpchar", "char", "name", "citext"];

/// Functions that take any value, so that `t.function` may be `function(t)`.
const ANY_ARGUMENT: &[&str] = &[
    "any_value",
    "array_agg",
    "concat",
    "first_value",
    "format",
    "hash_record",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "json_build_object",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "jsonb_build_object",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "mode",
    "num_nonnulls",
    "num_nulls",
    "pg_column_size",
    "pg_typeof",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "text",
    "to_json",
    "to_jsonb",
    "xmlforest",
];

/// Functions that compute, but from more than their arguments: what other sessions run, what the
/// planner has sampled, what a relation's file holds.
const ELSEWHERE: &[&str] = &[
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_stat_statements",
    "pg_prepared_statement",
    "pg_cursor",
    "pg_mcv_list_items",
    "current_query",
    "pg_stats_ext_mcvlist_items",
];

/// Columns of system relations that hold other columns' values or other sessions' statements; `*`
/// for every column.
const ELSEWHERE_COLUMNS: &[(&str, &[&str])] = &[
    (
        "pg_stats",
        &["most_common_vals", "most_common_elems", "histogram_bounds", "range_bounds_histogram"],
    ),
    ("pg_stats_ext", &["most_common_vals"]),
    ("pg_stats_ext_exprs", &["most_common_vals", "most_common_elems", "histogram_bounds"]),
    ("pg_statistic", &["stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"]),
    ("pg_statistic_ext_data", &["stxdmcv", "stxdexpr"]),
    ("pg_stat_activity", &["query"]),
    ("pg_stat_statements", &["query"]),
    ("pg_prepared_statements", &["statement"]),
    ("pg_cursors", &["statement"]),
    ("pg_prepared_xacts", &["gid"]),
    ("pg_largeobject", &["data"]),
];

/// Whether a built-in function of that name can't fail.
pub(crate) fn function(name: &str) -> bool {
    TOTAL.contains(&name)
}

/// Whether a built-in function of that name returns a number, a truth value or a short text.
pub(crate) fn scalar(name: &str) -> bool {
    SCALAR.contains(&name)
}

/// Whether a built-in function of that name returns neither an array nor a row.
pub(crate) fn plain(name: &str) -> bool {
    let hands_on = [
        "any_value",
        "array_agg",
        "first_value",
        "lag",
        "last_value",
        "lead",
        "max",
        "min",
        "mode",
    ];
    function(name) && !hands_on.contains(&name)
}

/// Whether the size of what a built-in function of that name returns is an argument of it.
pub(crate) fn sizes(name: &str) -> bool {
    SIZES.contains(&name)
}

/// Whether an operator of that name can't fail.
pub(crate) fn operator(name: &Relation) -> bool {
    let built_in = name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
    built_in && TOTAL_OPERATORS.contains(&name.name.as_str())
}

/// Whether a cast to a type of that name can't fail.
pub(crate) fn cast(name: &Relation) -> bool {
    let built_in = name.schema.as_deref().is_none_or(|schema| schema == "pg_catalog");
    built_in && TOTAL_TYPES.contains(&name.name.as_str())
}

/// Whether `t.name` may be a call of a built-in function with the whole row.
pub(crate) fn takes_any(name: &str) -> bool {
    ANY_ARGUMENT.contains(&name)
}

/// Whether a function reads more than its arguments.
pub(crate) fn reads_elsewhere(name: &str) -> bool {
    ELSEWHERE.contains(&name)
}

/// The columns of a system relation that hold what is other columns'; `None` for one that has none.
pub(crate) fn elsewhere_columns(relation: &Relation) -> Option<&'static [&'static str]> {
    if relation.schema.as_deref() == Some("pg_toast") {
        return Some(&["*"]);
    }
    // An extension's view stands in whichever schema.
    let built_in = relation.schema.as_deref().is_none_or(|schema| schema == "pg_catalog")
        || relation.name == "pg_stat_statements";
    let known = ELSEWHERE_COLUMNS.iter().find(|(name, _)| *name == relation.name);
    known.filter(|_| built_in).map(|(_, columns)| *columns)
}
