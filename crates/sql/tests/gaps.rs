//! What the analyser does not see. Each of these is a known gap; a test that fails here is good
//! news, and moves its row to `data/effects.txt`.

use tidegate_event::Action;
use tidegate_sql::{Analyzer, Settings};

fn actions(text: &str) -> Vec<(Action, String)> {
    let analysis = Analyzer::new().analyze(text.as_bytes(), Settings::default());
    let name = |effect: &tidegate_event::Effect| {
        effect.relation.as_ref().map_or_else(String::new, ToString::to_string)
    };
    analysis.effects.iter().map(|effect| (effect.action, name(effect))).collect()
}

#[test]
fn views_stand_for_themselves() {
    assert_eq!(actions("select * from v"), [(Action::Select, "v".to_owned())]);
}

#[test]
fn a_function_that_shadows_a_harmless_one_is_taken_for_it() {
    assert_eq!(actions("select lower(t) from t"), [(Action::Select, "t".to_owned())]);
}

#[test]
fn column_notation_calls_functions_unseen_without_a_catalogue() {
    assert_eq!(actions("select t.f from t"), [(Action::Select, "t".to_owned())]);
}

#[test]
fn an_operator_of_postgresqls_name_is_taken_for_its_own() {
    for text in ["select a + b from t", "select a::text from t"] {
        assert_eq!(actions(text), [(Action::Select, "t".to_owned())], "{text}");
    }
}

#[test]
fn a_condition_that_is_always_true_of_a_column_counts_as_a_bound() {
    let analysis = Analyzer::new().analyze(b"delete from t where a = a", Settings::default());
    assert!(analysis.effects.iter().all(|effect| effect.bounded));
}

#[test]
fn long_chains_are_unknown_although_the_server_takes_them() {
    for text in [
        format!("select 1{}", " + 1".repeat(60)),
        format!("select 1{}", " union select 1".repeat(120)),
    ] {
        assert!(actions(&text).contains(&(Action::Unknown, String::new())), "{text}");
    }
    let fits =
        format!("select 1{} from t where a = 1{}", " + 1".repeat(40), " or a = 1".repeat(500));
    assert_eq!(actions(&fits), [(Action::Select, "t".to_owned())]);
}
