//! What each statement does, as a table of data.

use std::collections::BTreeSet;

use tidegate_event::{Analysis, Effect};
use tidegate_sql::{Analyzer, Settings};

fn quote(name: &str) -> String {
    if name.contains(['.', ' ']) { format!("\"{name}\"") } else { name.to_owned() }
}

fn written(effect: &Effect) -> String {
    let mark = if effect.bounded { "" } else { "!" };
    let on = effect.relation.as_ref().map_or_else(String::new, |relation| match &relation.schema {
        Some(schema) => format!(" {}.{}", quote(schema), quote(&relation.name)),
        None => format!(
            " {}",
            if relation.name == "session characteristics" {
                relation.name.clone()
            } else {
                quote(&relation.name)
            }
        ),
    });
    format!("{}{mark}{on}", effect.action.name())
}

fn found(analysis: &Analysis) -> (String, BTreeSet<String>) {
    let kinds: Vec<_> = analysis.kinds.iter().map(|kind| kind.0.as_str()).collect();
    (kinds.join(" "), analysis.effects.iter().map(written).collect())
}

#[test]
fn every_row_has_the_effects_that_it_says() {
    let analyzer = Analyzer::new();
    let rows: Vec<_> = include_str!("data/effects.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let parts: Vec<_> = row.splitn(3, ";;").collect();
        let [text, kinds, effects] = parts.as_slice() else {
            panic!("not a row: {row}");
        };
        let expected = (
            kinds.trim().to_owned(),
            effects
                .split(", ")
                .map(str::trim)
                .filter(|effect| !effect.is_empty())
                .map(str::to_owned)
                .collect(),
        );
        let analysis = analyzer.analyze(text.as_bytes(), Settings::default());
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
    let analyzer = Analyzer::new();
    let check = |text: &str, scs: bool, utf8: bool, expected: &str| {
        let settings = Settings { standard_conforming_strings: scs, utf8 };
        let effects = found(&analyzer.analyze(text.as_bytes(), settings)).1;
        let effects: Vec<_> = effects.iter().map(String::as_str).collect();
        assert_eq!(effects.join(", "), expected, "{text} {settings:?}");
    };
    let escaped = r"select '\'; delete from t; --'";
    check(escaped, true, true, "delete! t");
    check(escaped, false, true, "select");
    let hidden = r"select '\''; delete from t; --'";
    check(hidden, true, true, "select");
    check(hidden, false, true, "delete! t");
    check(r"select E'\'; delete from t; --'", true, true, "select");
    check("select 'größe' from t", true, true, "select t");
    check("select 'größe' from t", true, false, "unknown");
    check("select 'ascii' from t", true, false, "select t");
    let latin1 = analyzer.analyze(b"select 'gr\xf6\xdfe'", Settings::default());
    assert!(latin1.unknown.is_some());
    let zero = analyzer.analyze(b"select 1\0; delete from t", Settings::default());
    assert!(zero.unknown.is_some());
}
