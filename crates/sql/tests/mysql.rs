//! What each statement of MySQL and MariaDB does, as a table of data; the traps of the dialect; arbitrary
//! bytes.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use Touch::{Doubt, Keeps, Sets};
use proptest::prelude::*;
use tidegate_event::{Analysis, Effect};
use tidegate_sql::mysql::{
    Analyzer, CHAIN_MAX, Charset, Named, Server, Settings, Touch, Touches, touches,
};

const MARIADB: Server = Server { mariadb: true, version: Some(101_106) };
const MYSQL: Server = Server { mariadb: false, version: Some(80_039) };
const SETTINGS: Settings = Settings {
    ansi_quotes: false,
    no_backslash_escapes: false,
    charset: Charset::Utf8,
    server: MARIADB,
};

fn quote(name: &str) -> String {
    if name.contains(['.', ' ']) { format!("\"{name}\"") } else { name.to_owned() }
}

fn written(effect: &Effect) -> String {
    let mark = if effect.bounded { "" } else { "!" };
    let on = effect.relation.as_ref().map_or_else(String::new, |relation| match &relation.schema {
        Some(schema) => format!(" {}.{}", quote(schema), quote(&relation.name)),
        None => format!(" {}", quote(&relation.name)),
    });
    format!("{}{mark}{on}", effect.action.name())
}

fn found(analysis: &Analysis) -> (String, BTreeSet<String>) {
    let kinds: Vec<_> = analysis.kinds.iter().map(|kind| kind.0.as_str()).collect();
    (kinds.join(" "), analysis.effects.iter().map(written).collect())
}

fn effects(text: &str, settings: Settings) -> String {
    let effects = found(&Analyzer::new().analyze(text.as_bytes(), settings)).1;
    effects.into_iter().collect::<Vec<_>>().join(", ")
}

#[test]
fn every_row_has_the_effects_that_it_says() {
    let analyzer = Analyzer::new();
    let rows: Vec<_> = include_str!("data/effects_mysql.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .chain(["# another ;; ;;"])
        .collect();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let parts: Vec<_> = row.splitn(3, ";;").collect();
        let [text, kinds, effects] = parts.as_slice() else {
            panic!("not a row: {row}");
        };
        // A text may itself hold the separator's sign, at its end only.
        let expected: (String, BTreeSet<String>) = (
            kinds.trim().to_owned(),
            effects
                .split(", ")
                .map(str::trim)
                .filter(|effect| !effect.is_empty())
                .map(str::to_owned)
                .collect(),
        );
        let analysis = analyzer.analyze(text.as_bytes(), SETTINGS);
        let is = found(&analysis);
        let unknown_told = analysis.unknown.is_some() == is.1.contains("unknown");
        if is != expected || !unknown_told {
            wrong.push(format!(
                "{text}\n    is       {is:?}\n    expected {expected:?}\n    {:?}",
                analysis.unknown
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn settings_change_how_a_text_reads() {
    let check = |text: &str, settings: Settings, expected: &str| {
        assert_eq!(effects(text, settings), expected, "{text} {settings:?}");
    };
    let ansi = Settings { ansi_quotes: true, ..SETTINGS };
    let plain = Settings { no_backslash_escapes: true, ..SETTINGS };
    check(r#"select * from "t""#, ansi, "select t");
    check(r#"select a from t where b = "c""#, SETTINGS, "select t");
    check(r#"select "`"; delete from t; -- `""#, SETTINGS, "delete! t, select");
    check(r#"select "x\"; delete from t; -- ""#, SETTINGS, "select");
    check(r"select '\'; delete from t; -- '", SETTINGS, "select");
    check(r"select '\'; delete from t; -- '", plain, "delete! t, select");
    let mysql = Settings { server: MYSQL, ..SETTINGS };
    check("/*M!100100 drop table t */ select 1", mysql, "select");
    check("/*!50701 drop table t */", mysql, "ddl t");
    check("/*!80040 drop table t */ select 1", mysql, "select");
    check("/*!800390 drop table t */ select 1", mysql, "unknown");
    let unsure = Settings { server: Server { mariadb: true, version: None }, ..SETTINGS };
    check("/*!50000 drop table t */ select 1", unsure, "unknown");
    check("/*! drop table t */", unsure, "ddl t");
}

#[test]
fn a_byte_that_may_be_half_a_character_is_doubtful() {
    let analyzer = Analyzer::new();
    let check = |text: &[u8], charset: Charset, unknown: bool| {
        let analysis = analyzer.analyze(text, Settings { charset, ..SETTINGS });
        assert_eq!(analysis.unknown.is_some(), unknown, "{text:?} {charset:?}");
    };
    let gbk = b"select '\xbf\\'; delete from t; -- '";
    check(gbk, Charset::Other, true);
    check(b"select '\xbf'", Charset::Other, false);
    check(b"select '\xbf' from t", Charset::SingleByte, false);
    check(b"select * from t\xbf", Charset::SingleByte, true);
    check("select 'größe' from größe".as_bytes(), Charset::Utf8, false);
    check("select 'größe' from größe".as_bytes(), Charset::Other, true);
    check(b"select _binary '\xff\xfe' from t", Charset::Utf8, false);
    check(b"select `\xff` from t", Charset::Utf8, true);
    check(b"select 1\0; delete from t", Charset::Utf8, true);
}

#[test]
fn what_a_text_changes_for_later_ones_is_told() {
    let check = |text: &str, database: Touch<&str>, charset: Touch<Charset>| {
        let database = match database {
            Touch::Keeps => Touch::Keeps,
            Touch::Sets(name) => Touch::Sets(name.to_owned()),
            Touch::Doubt => Touch::Doubt,
        };
        let found = touches(text.as_bytes(), SETTINGS);
        assert_eq!((found.database, found.charset), (database, charset), "{text}");
    };
    check("select 1", Keeps, Keeps);
    check("use `bank`", Sets("bank"), Keeps);
    check("/*!50000 use bank */", Sets("bank"), Keeps);
    check("use bank; set names gbk", Sets("bank"), Sets(Charset::Other));
    check("SET NAMES 'utf8mb4' COLLATE utf8mb4_bin", Keeps, Sets(Charset::Utf8));
    check("set @@session.character_set_client = latin1", Keeps, Sets(Charset::SingleByte));
    check("set character_set_client = @x", Keeps, Doubt);
    check("set names default", Keeps, Doubt);
    check("set autocommit = 1", Keeps, Keeps);
    check("call p()", Keeps, Doubt);
    check("execute s", Keeps, Keeps);
    check("execute immediate @s", Doubt, Doubt);
    check("begin not atomic set names gbk; end", Doubt, Doubt);
    check("set statement a=1 for select 1", Keeps, Keeps);
    check("nonsense", Doubt, Doubt);
    check("create procedure p() begin declare a int; set names gbk; end", Keeps, Keeps);
    check("create trigger g before insert on t for each row begin end; use d", Sets("d"), Keeps);
    check("create procedure p() select 1; set names gbk", Keeps, Sets(Charset::Other));
    check("create procedure p() begin set names utf8mb4; end x", Doubt, Doubt);
    check("create procedure p() begin select 1", Doubt, Doubt);
    check("create procedure p() begin end; end", Doubt, Doubt);
}

#[test]
fn what_was_prepared_in_sql_is_in_doubt_unless_it_is_plain() {
    let check = |text: &str, prepares: bool, executes: bool| {
        let found: Touches = touches(text.as_bytes(), SETTINGS);
        assert_eq!((found.prepares, found.executes), (prepares, executes), "{text}");
    };
    check("select 1", false, false);
    check("execute s using @a", false, true);
    check("execute `immediate`", true, true);
    check("prepare s from 'select 1'", false, false);
    check("prepare s from \" insert into t values (?)\"", false, false);
    check("prepare s from 'use bank'", true, false);
    check("prepare s from 'set names gbk'", true, false);
    check("prepare s from 'select/**/1'", true, false);
    check("prepare s from '/*!50000 use bank */'", true, false);
    check("prepare s from @a", true, false);
    check("prepare s from concat('select ', @a)", true, false);
    check("call p()", true, false);
    check("begin not atomic prepare s from 'use bank'; end", true, true);
}

#[test]
fn names_of_sqls_own_prepared_statements_are_read_or_in_doubt() {
    let check = |text: &str, expected: Named| {
        assert_eq!(touches(text.as_bytes(), SETTINGS).named, expected, "{text}");
    };
    check("select 1", Named::No);
    check("prepare `S` from 'select 1'", Named::Prepares("s".into()));
    check("prepare s from 'use bank'", Named::Prepares("s".into()));
    check("execute S using @a, @b", Named::Executes("s".into()));
    check("execute s using f(1)", Named::No);
    for doubt in [
        "prepare s from @a",
        "prepare s from concat('select 1', @a)",
        "prepare é from 'select 1'",
        "execute é",
        "call p()",
        "execute immediate 'select 1'",
        "begin not atomic prepare s from 'delete from t'; end",
        "prepare s from 'delete from t'; select 1",
        "create procedure p() begin",
        "nonsense",
    ] {
        check(doubt, Named::Doubt);
    }
}

#[test]
fn texts_of_one_shape_share_their_answer() {
    let analyzer = Analyzer::new();
    let analyze = |text: &str| analyzer.analyze(text.as_bytes(), SETTINGS);
    for (one, other, shared) in [
        ("select * from t where a = 1", "select * from t where a = 'x'", true),
        ("insert into t values (1),(2)", "insert into t values (3),(4),(5)", true),
        ("insert into t values (1),(2)", "insert into t values (3)", false),
        ("select 1 from t where a = ?", "select 1 from t where a = 2", false),
        ("select * from t", "select * from u", false),
        ("select * from t", "select * from `t`", false),
        ("execute immediate 'select 1'", "execute immediate 'select 2'", false),
        ("select a from t", "select b from t", false),
    ] {
        assert_eq!(Arc::ptr_eq(&analyze(one), &analyze(other)), shared, "{one} / {other}");
        assert_eq!(analyze(one), Analyzer::new().analyze(one.as_bytes(), SETTINGS), "{one}");
    }
}

#[test]
fn a_long_insert_of_literals_is_read_like_a_short_one() {
    let row = "(1, 'it''s', -2.5, NULL, _binary '\\0x', x'ff', DEFAULT)";
    let text = format!("insert into t values {}", vec![row; 60_000].join(","));
    assert_eq!(effects(&text, SETTINGS), "insert t");
    let hidden = text.clone() + ",(1,f(2),3,4,5,6,7)";
    assert_eq!(effects(&hidden, SETTINGS), "execute f, insert t");
    let introduced = format!("insert into t values {row}, (_x, 2), (x, n)");
    assert_eq!(effects(&introduced, SETTINGS), "insert t");
}

/// On a stack as small as a thread of the agent's.
fn on_a_small_stack(text: String) -> Option<String> {
    let analyze = move || Analyzer::new().analyze(text.as_bytes(), SETTINGS);
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let analysis = thread.spawn(analyze).unwrap().join().unwrap();
    analysis.unknown.as_ref().map(|unknown| unknown.reason.clone())
}

#[test]
fn no_depth_overflows_the_stack() {
    for (begin, middle, end) in [
        ("select ", "(", "1"),
        ("select 1", "+1", ""),
        ("select ", "not ", "1"),
        ("select ", "-", "1"),
        ("select 1", " union select 1", ""),
        ("select * from a", " join b", ""),
        ("select ", "case when 1 then ", "1"),
        ("select a", "->'$'", ""),
        ("select ", "f(", "1"),
        ("", "select (", ""),
        ("select a", " collate x", ""),
        ("select * from ", "(select * from ", "t"),
        ("select a", " is null", ""),
        ("select a.", "b.", "c"),
        ("", "explain ", "select 1"),
        ("", "set statement a=1 for ", "select 1"),
    ] {
        for count in [10, CHAIN_MAX - 5, CHAIN_MAX + 5, 100_000] {
            on_a_small_stack(format!("{begin}{}{end}", middle.repeat(count)));
        }
    }
    assert_eq!(on_a_small_stack(format!("select 1{}", "+1".repeat(CHAIN_MAX - 5))), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn noise_is_read_or_unknown(text in proptest::collection::vec(any::<u8>(), 0..120)) {
        let analysis = Analyzer::new().analyze(&text, SETTINGS);
        prop_assert_eq!(analysis.kinds.is_empty(), analysis.effects.is_empty());
    }

    #[test]
    fn words_out_of_order_are_read_or_unknown(
        words in proptest::collection::vec(prop::sample::select(vec![
            "select", "from", "t", "(", ")", ",", "delete", "update", "set", "=", "where", "'x'", "@a",
            "insert", "into", "values", "/*!50000", "*/", ";", "create", "table", "alter", "as", "with",
            "for", "grant", "on", "load", "data", "local", "infile", "explain", "execute", "immediate",
            "`q`", ".", "*", "join", "using", "outfile", "call", "show", "--", "\n", "union", "1",
            "procedure", "trigger", "begin", "end", "if", "then", "case", "when", "loop", "repeat",
            "until", "p()", "a:",
        ]), 0..30),
    ) {
        let text = words.join(" ");
        let analysis = Analyzer::new().analyze(text.as_bytes(), SETTINGS);
        prop_assert_eq!(analysis.kinds.is_empty(), analysis.effects.is_empty(), "{}", text);
        touches(text.as_bytes(), SETTINGS);
    }
}
