//! Texts that mean harm end in an answer, on a stack as small as a worker's.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use tidegate_event::{Action, Rows};
use tidegate_sql::{Analyzer, Catalogue, Settings};

/// Stack of a tokio worker.
const STACK_BYTES: usize = 2 * 1024 * 1024;

fn unknown_on_a_small_stack(text: String) -> bool {
    let run = move || {
        let analysis = Analyzer::new().analyze(text.as_bytes(), Settings::default());
        analysis.unknown.is_some()
            && analysis.effects.iter().any(|effect| effect.action == Action::Unknown)
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap().join().unwrap()
}

#[test]
fn deep_nesting_is_unknown_and_not_a_crash() {
    for deep in [100, 1_000, 10_000, 100_000] {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("(select ", "1", ")"),
            ("not ", "true", ""),
            ("- ", "a", ""),
            ("case when true then ", "1", " end"),
            ("", "1", " + 1"),
            ("", "'a'", " || 'a'"),
            ("", "1", "::int"),
            ("array[", "1", "]"),
            ("f(", "1", ")"),
            ("row(1, ", "1", ")"),
        ] {
            let text = format!("select {}{middle}{}", open.repeat(deep), close.repeat(deep));
            if text.len() < 1024 * 1024 && open != "(" {
                assert!(unknown_on_a_small_stack(text), "{deep} of {open:?} {close:?}");
            }
        }
        let sets = format!("select 1{}", " union select 1".repeat(deep));
        assert!(unknown_on_a_small_stack(sets), "{deep} unions");
        let joins = format!("select * from t{}", " join t using (a)".repeat(deep));
        assert!(joins.len() > 1024 * 1024 || unknown_on_a_small_stack(joins), "{deep} joins");
        let ctes = format!("{}select 1{}", "with a as (".repeat(deep), ") select 1".repeat(deep));
        assert!(ctes.len() > 1024 * 1024 || unknown_on_a_small_stack(ctes), "{deep} ctes");
    }
    assert!(unknown_on_a_small_stack(format!("select {}", "(".repeat(1_000_000))));
}

#[test]
fn too_long_is_unknown() {
    let long = format!("select '{}'", "a".repeat(1024 * 1024));
    assert!(unknown_on_a_small_stack(long));
    let told = Analyzer::new().too_long(9_000_000);
    assert!(told.unknown.as_ref().unwrap().reason.contains("9000000"));
}

#[test]
fn deep_blocks_are_unknown_and_not_a_crash() {
    for deep in [100, 2_000] {
        let block = format!("do $$ {}{} $$", "begin ".repeat(deep), "end; ".repeat(deep));
        assert!(unknown_on_a_small_stack(block), "{deep} blocks");
        let ifs = format!(
            "do $$ begin {}{} end $$",
            "if true then ".repeat(deep),
            "end if; ".repeat(deep)
        );
        assert!(unknown_on_a_small_stack(ifs), "{deep} ifs");
    }
}

/// Texts whose lineage would grow without end if nothing held it: a piece that is put around the
/// next one, and how often.
#[test]
fn lineage_that_explodes_is_opaque_and_not_endless() {
    let around = |deep: usize, open: &str, middle: &str, close: &str| {
        format!("{}{middle}{}", open.repeat(deep), close.repeat(deep))
    };
    let columns =
        |count: usize| (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
    let chain: Vec<_> =
        (1..2_000).map(|at| format!("w{at} as (select *, * from w{})", at - 1)).collect();
    let doubled =
        format!("with w0 as (select a, b from t), {} select * from w1999", chain.join(", "));
    let recursive: Vec<_> = (0..40)
        .map(|at| {
            format!(
                "r{at} as (select {} from t union all select c1, c2, c0 from r{at}, (select * from t) x)",
                columns(3)
            )
        })
        .collect();
    for text in [
        around(20, "select *, * from (", "select * from t", ") x"),
        around(20, "select x.*, x.*, x.* from (", "select a, b from t", ") x"),
        doubled,
        format!("with recursive {} select * from r39", recursive.join(", ")),
        around(
            16,
            "with recursive r as (select 1 union all select a from r, (",
            "select 1 as a",
            ") y) select * from r",
        ),
        format!("select concat({}, {}) from t", columns(3_000), "1, ".repeat(10_000) + "1"),
        format!("select {} from (select {} from t) x", "x, ".repeat(3_000) + "x", columns(1_600)),
        format!(
            "select {} from (select {} from t) x",
            "c1599, ".repeat(10_000) + "c0",
            columns(1_600)
        ),
        format!("insert into t values {}(1, 'a')", "(1, 'a'), ".repeat(15_000)),
        format!("select 1 from t where a in ({}1)", "1, ".repeat(40_000)),
        format!("select {}1 from t", "(select x from (select * from t) x), ".repeat(3_000)),
        format!("select * from t{}", " natural join t".repeat(40)),
        format!("select * from {}t", "t, ".repeat(20_000)),
    ] {
        let head: String = text.chars().take(60).collect();
        let bytes = text.len();
        let run = move || Analyzer::new().analyze(text.as_bytes(), Settings::default());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
        let analysis = thread.join().unwrap();
        let lineage = &analysis.lineage;
        assert_eq!(lineage.rows.len(), analysis.kinds.len().max(1), "{head}");
        let met: usize = lineage.values.iter().map(|value| value.columns.len()).sum();
        assert!(met <= 250_000 && lineage.filters.len() <= bytes, "{head}");
        for rows in &lineage.rows {
            if let Rows::Known(outputs) = rows {
                assert!(outputs.len() <= 1_664, "{head}");
            }
        }
    }
}

const WORDS: &[&str] = &[
    "select",
    "from",
    "t",
    "where",
    "(",
    ")",
    "'",
    "\"",
    "$$",
    "$1",
    ";",
    ",",
    "*",
    "delete",
    "insert",
    "into",
    "values",
    "update",
    "set",
    "with",
    "as",
    "begin",
    "end",
    "do",
    "/*",
    "*/",
    "--",
    "\n",
    "E'",
    "U&'",
    "\\",
    "1",
    "1.5e",
    "::",
    "=",
    "copy",
    "to",
    "stdout",
    "union",
    "if",
    "then",
    "loop",
    "execute",
    "language plpgsql",
    "declare",
    "x int;",
    "return",
    "perform",
    "join",
    "natural",
    "using (a)",
    "lateral",
    "t.*",
    "(t).a",
    "order by",
    "group by",
    "returning",
    "case when",
    "recursive",
    "over (",
    "explain",
    "on conflict",
];

/// Blocks that use most of PL/pgSQL, to be broken.
const BLOCKS: &[&str] = &[
    "declare x int := 1; y t%rowtype; z t.a%type; c cursor (k int) for select * from t where a = k; \
     begin open c(1); fetch c into y; move next from c; close c; x := x + 1; end",
    "<<a>> declare r record; begin for r in execute 'select 1' using x loop continue a when r.x > 1; \
     exit; end loop; end a",
    "begin for i in reverse 10..1 by 2 loop raise notice '%', i using hint = 'x'; end loop; end",
    "begin foreach x slice 1 in array array[1,2] loop null; end loop; while true loop exit; end loop; end",
    "begin case x when 1, 2 then null; else raise exception sqlstate '22012'; end case; end",
    "begin insert into t values (1) returning a into strict x; get diagnostics x = row_count; \
     exception when unique_violation or others then get stacked diagnostics y = message_text; raise; end",
    "begin return; return next 1; return query select 1; return query execute 'x' using 1; end",
    "declare a alias for $1; b constant numeric(3,2) not null default 1.5; begin call p(a, b); \
     commit; rollback and chain; perform f(x) from t; assert x > 1, 'no'; end",
    "declare c refcursor; begin open c for select 1; open c no scroll for execute 'x'; \
     for r in c loop update t set a = 1 where current of c; end loop; x[1].y := (select 1); end",
];

fn break_block(block: &str, cuts: &[(u8, usize, usize)]) -> String {
    let mut words: Vec<&str> = block.split(' ').collect();
    for (what, one, other) in cuts {
        let (one, other) = (one % words.len(), other % words.len());
        match what % 3 {
            0 => words.swap(one, other),
            1 => words.insert(one, words.get(other).copied().unwrap_or_default()),
            _ if words.len() > 1 => drop(words.remove(one)),
            _ => {}
        }
    }
    format!("do $body$ {} $body$", words.join(" "))
}

#[test]
fn whole_blocks_parse() {
    let whole = BLOCKS
        .iter()
        .map(|block| {
            Analyzer::new().analyze(break_block(block, &[]).as_bytes(), Settings::default())
        })
        .filter(|analysis| {
            analysis.unknown.as_ref().is_none_or(|why| !why.reason.contains("parse as PL/pgSQL"))
        })
        .count();
    assert!(whole >= 3, "only {whole} of the blocks parse before they are broken");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let analyzer = Analyzer::new();
        let _ = tidegate_sql::literals(&text, Settings::default());
        let once = analyzer.analyze(&text, Settings::default());
        prop_assert_eq!(once, analyzer.analyze(&text, Settings::default()));
    }

    #[test]
    fn any_words_get_an_answer(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let text = words.join(" ");
        let analyzer = Analyzer::new();
        for settings in [
            Settings::default(),
            Settings { standard_conforming_strings: false, utf8: true },
        ] {
            let analysis = analyzer.analyze(text.as_bytes(), settings);
            let told = analysis.effects.iter().any(|effect| effect.action == Action::Unknown);
            prop_assert_eq!(analysis.unknown.is_some(), told);
            prop_assert_eq!(analysis.lineage.rows.len(), analysis.kinds.len());
            let catalogue = Catalogue::new(1, Vec::new(), Vec::new());
            let resolved = analyzer.resolve(text.as_bytes(), settings, &catalogue, &[]);
            prop_assert_eq!(resolved.lineage.rows.len(), analysis.kinds.len());
            let _ = tidegate_sql::literals(text.as_bytes(), settings);
        }
    }

    #[test]
    fn any_block_gets_an_answer(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let text = format!("do $body$ begin {} end $body$", words.join(" "));
        let _ = Analyzer::new().analyze(text.as_bytes(), Settings::default());
    }

    #[test]
    fn any_broken_block_gets_an_answer(
        block in prop::sample::select(BLOCKS),
        cuts in prop::collection::vec((any::<u8>(), any::<usize>(), any::<usize>()), 0..6),
    ) {
        let _ = Analyzer::new().analyze(break_block(block, &cuts).as_bytes(), Settings::default());
    }
}
