//! What can't fail on any value, and where other columns' values lie about.
//!
//! Promises: a function or operator that is not in these lists is taken for one that can fail, warns, or
//! whose time tells of its arguments, so that a column in it counts as a filter.

use tidegate_event::Relation;

/// Native functions that give a result for every value of their arguments.
const TOTAL: &[&str] = &[
    "any_value",
    "ascii",
    "bit_length",
    "char_length",
    "character_length",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "crc32",
    "cume_dist",
    "dense_rank",
    "elt",
    "field",
    "find_in_set",
    "first_value",
    "floor",
    "ceil",
    "ceiling",
    "greatest",
    "group_concat",
    "hex",
    "if",
    "ifnull",
    "instr",
    "isnull",
    "lag",
    "last_value",
    "lcase",
    "lead",
    "least",
    "left",
    "length",
    "locate",
    "lower",
    "ltrim",
    "max",
    "md5",
    "mid",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "ord",
    "percent_rank",
    "position",
    "quote",
    "rank",
    "replace",
    "reverse",
    "right",
    "row_number",
    "rtrim",
    "sha",
    "sha1",
    "sha2",
    "sign",
    "soundex",
    "strcmp",
    "substr",
    "substring",
    "substring_index",
    "to_base64",
    "trim",
    "ucase",
    "upper",
    "values",
    "value",
    "weight_string",
];

/// Functions whose arguments say how long their result is.
const SIZES: &[&str] = &["export_set", "lpad", "repeat", "rpad", "space"];

/// Whether a native function makes a text of any size.
pub(super) fn sizes(name: &str) -> bool {
    SIZES.contains(&name)
}

/// Whether a native function that has an effect of its own returns no more than its arguments tell.
pub(super) fn returns_its_arguments(name: &str) -> bool {
    const THESE: [&str; 11] = [
        "benchmark",
        "get_lock",
        "is_free_lock",
        "is_used_lock",
        "lastval",
        "nextval",
        "release_all_locks",
        "release_lock",
        "setval",
        "sleep",
        "sysdate",
    ];
    THESE.contains(&name)
}

/// Whether its first argument is a word of the grammar, as `DAY` is.
pub(super) fn takes_unit(name: &str) -> bool {
    matches!(name, "timestampdiff" | "timestampadd" | "get_format")
}

/// Whether it works parts out only when others say so.
pub(super) fn chooses(name: &str) -> bool {
    matches!(name, "if" | "ifnull" | "coalesce" | "nullif" | "elt")
}

/// Whether a native function can't fail on any value.
pub(super) fn function(name: &str) -> bool {
    TOTAL.contains(&name)
}

/// System variables that tell of a statement before.
pub(super) fn tells_of_before(variable: &str) -> bool {
    let name = variable.rsplit('.').next().unwrap_or(variable).trim_start_matches('@');
    matches!(name, "warning_count" | "error_count")
}

/// The columns of a system relation that hold other relations' values or texts of statements; `*` for
/// all. The relation is in lower case.
pub(super) fn elsewhere_columns(relation: &Relation) -> &'static [&'static str] {
    let name = relation.name.as_str();
    match relation.schema.as_deref() {
        Some("information_schema") => match name {
            "processlist" => &["info", "info_binary", "state"],
            "innodb_trx" => &["trx_query"],
            "innodb_locks" => &["lock_data"],
            "column_statistics" => &["histogram"],
            "user_variables" => &["variable_value"],
            "innodb_ft_index_cache" | "innodb_ft_index_table" => &["word"],
            "innodb_ft_default_stopword" | "innodb_ft_config" => &["*"],
            _ => &[],
        },
        Some("performance_schema" | "sys") => &["*"],
        Some("mysql") => match name {
            "general_log" | "slow_log" => &["argument", "sql_text"],
            "column_stats" => &["min_value", "max_value", "histogram"],
            "innodb_table_stats" | "innodb_index_stats" => &["stat_value"],
            _ => &[],
        },
        _ => &[],
    }
}

/// Whether what `SHOW` shows under that word tells of objects and settings alone, and of no value that a
/// row or another statement holds.
pub(in crate::mysql) fn only_tells_of_itself(word: &str) -> bool {
    !matches!(
        word,
        "WARNINGS"
            | "ERRORS"
            | "COUNT"
            | "PROCESSLIST"
            | "ENGINE"
            | "BINLOG"
            | "RELAYLOG"
            | "PROFILE"
            | "PROFILES"
            | "EXPLAIN"
            | "ANALYZE"
            | "USER_VARIABLES"
            | "INNODB"
    )
}
