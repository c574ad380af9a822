//! The cache answers what a fresh analysis would, and shares where it may.

use std::sync::Arc;

use proptest::prelude::*;
use tidegate_sql::{Analyzer, Settings};

fn rows() -> impl Iterator<Item = &'static str> {
    include_str!("data/effects.txt")
        .lines()
        .chain(include_str!("data/lineage.txt").lines())
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(";;").next())
}

#[test]
fn texts_that_differ_in_literals_share_one_analysis() {
    let analyzer = Analyzer::new();
    let settings = Settings::default();
    let share = |one: &str, other: &str| {
        let (one, other) = (
            analyzer.analyze(one.as_bytes(), settings),
            analyzer.analyze(other.as_bytes(), settings),
        );
        assert_eq!(Arc::ptr_eq(&one, &other), one.fingerprint == other.fingerprint && one == other);
        Arc::ptr_eq(&one, &other)
    };
    assert!(share("select a from t where b = 1", "select a from t where b = 22"));
    assert!(share("select a from t where b = 'x'", "select a from t where b = 'it''s; delete'"));
    assert!(share("insert into t values (1, 'a')", "insert into t values (2, '')"));
    assert!(share("select f('a')", "select f('b')"));
    assert!(!share("select a from t where b = 1", "select a from t where c = 1"));
    assert!(!share("select a from t", "select a from T"));
    assert!(!share("select a from t where b = 1", "select a from t where b = '1'"));
    assert!(!share("select a from t where b = 1", "select a from t where b = 1.5"));
    let set = |name: &str| {
        analyzer.analyze(format!("select set_config('{name}', 'x', false)").as_bytes(), settings)
    };
    assert!(!Arc::ptr_eq(&set("role"), &set("work_mem")));
    assert_ne!(set("role").effects, set("work_mem").effects);
    assert_eq!(
        set("role").fingerprint,
        set("work_mem").fingerprint,
        "equal shapes, equal fingerprints"
    );
    let other = Settings { standard_conforming_strings: false, utf8: true };
    let text = b"select a from t where b = 1";
    assert!(!Arc::ptr_eq(&analyzer.analyze(text, settings), &analyzer.analyze(text, other)));
}

#[test]
fn the_cache_is_bounded_and_right_when_it_forgets() {
    let analyzer = Analyzer::new();
    for number in 0..40_000 {
        let text = format!("select a{number} from t{number}");
        let _ = analyzer.analyze(text.as_bytes(), Settings::default());
    }
    let again = analyzer.analyze(b"select a7 from t7", Settings::default());
    assert_eq!(again, Analyzer::new().analyze(b"select a7 from t7", Settings::default()));
}

/// Replaces each plain literal of `text` by one of `values`, by its place.
fn substitute(text: &str, values: &[(u32, String)]) -> String {
    let mut out = String::new();
    let mut values = values.iter().cycle();
    let mut rest = text.chars().peekable();
    let mut before = ' ';
    while let Some(char) = rest.next() {
        let glued = before.is_alphanumeric() || matches!(before, '_' | '$' | '.' | '"' | '&');
        match (char, values.next()) {
            ('0'..='9', Some((number, _))) if !glued => {
                while rest.next_if(char::is_ascii_digit).is_some() {}
                out.push_str(&number.to_string());
            }
            ('\'', Some((_, string))) if !glued => {
                while rest.next_if(|next| *next != '\'').is_some() {}
                rest.next();
                out.push('\'');
                out.push_str(&string.replace('\'', "''"));
                out.push('\'');
            }
            _ => out.push(char),
        }
        before = char;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// One analyser sees the table's statements first, then the same with other literals: each
    /// answer must be that of an analyser which never saw anything.
    #[test]
    fn a_remembered_answer_equals_a_fresh_one(
        values in prop::collection::vec((any::<u32>(), ".{0,12}"), 1..4),
    ) {
        let warm = Analyzer::new();
        for row in rows() {
            let _ = warm.analyze(row.as_bytes(), Settings::default());
            let text = substitute(row, &values);
            let remembered = warm.analyze(text.as_bytes(), Settings::default());
            let fresh = Analyzer::new().analyze(text.as_bytes(), Settings::default());
            prop_assert_eq!(remembered, fresh, "{}", text);
        }
    }
}
