//! What compiles, what doesn't and where it says so, the digest, and policies in words.

use tidegate_event::Action;
use tidegate_policy::{Mention, PolicySet, Source, schema};

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

#[test]
fn errors_say_file_line_column_and_what() {
    for (text, place, message) in [
        ("permit (principal, action, resource)", "p.cedar:1:", "unexpected end of input"),
        ("\n\n  permitt (principal, action, resource);", "p.cedar:3:3:", "invalid policy effect"),
        ("permit (principal, action == Action::\"fly\", resource);", "p.cedar:1:", "fly"),
        (
            "permit (principal, action, resource)\nwhen { context.nothing };",
            "p.cedar:2:",
            "nothing",
        ),
        ("permit (principal == User::\"x\", action, resource);", "p.cedar:1:", "User"),
        ("permit (principal == ?principal, action, resource);", "p.cedar:1:", "template"),
        (
            "@ids(\"x\")\npermit (principal, action, resource);",
            "p.cedar:1:1:",
            "unknown annotation @ids",
        ),
        (
            "\n@durability(\"disk\") permit (principal, action, resource);",
            "p.cedar:2:1:",
            "unknown durability \"disk\"",
        ),
        (
            "permit (principal, action, resource == Relation::\"accounts\");",
            "p.cedar:1:1:",
            "write target/name",
        ),
        (
            "@id(\"a\") permit (principal, action, resource);\n@id(\"a\") permit (principal, action, resource);",
            "p.cedar:2:1:",
            "a second policy named \"a\"; the first is at p.cedar:1",
        ),
        (
            "@rows_max(\"ten\") permit (principal, action, resource);",
            "p.cedar:1:1:",
            "@rows_max(\"ten\") is no bound: write a whole number",
        ),
        (
            "@bytes_max(\"10 MiB\") forbid (principal, action, resource);",
            "p.cedar:1:1:",
            "@bytes_max has no use on a forbid",
        ),
        ("@alert(\"\") forbid (principal, action, resource);", "p.cedar:1:1:", "needs a text"),
        (
            "permit (principal, action == Action::\"unmask\", resource == Column::\"l/ssn\");",
            "p.cedar:1:1:",
            "write target/relation.column",
        ),
        (
            "permit (principal, action == Action::\"filter\", resource == Relation::\"l/a\");",
            "p.cedar:1:",
            "",
        ),
        (
            "permit (principal, action == Action::\"set\", resource == Relation::\"l/a\");",
            "p.cedar:1:",
            "",
        ),
    ] {
        let errors = PolicySet::compile(&[source("p.cedar", text)]).unwrap_err();
        let error = errors.first().unwrap().to_string();
        assert!(error.starts_with(place) && error.contains(message), "{text}\n{error}");
    }
}

#[test]
fn every_action_has_its_place_in_the_schema() {
    for action in Action::ALL {
        let text =
            format!("permit (principal, action == Action::\"{}\", resource);", action.name());
        PolicySet::compile(&[source("p.cedar", &text)]).unwrap();
    }
    assert!(schema().contains("entity ServiceAccount"));
}

#[test]
fn the_example_policies_compile_and_read_well() {
    let files = [
        source(
            "batch-read-only.cedar",
            include_str!("../../../../docs/policies/batch-read-only.cedar"),
        ),
        source("permit-all.cedar", include_str!("../../../../docs/policies/permit-all.cedar")),
    ];
    let set = PolicySet::compile(&files).unwrap();
    assert_eq!(
        set.explain(),
        [
            "batch-login (batch-read-only.cedar:2) permits login to batch on ledger, when { context.db_user == \"batch\" }.",
            "batch-reads (batch-read-only.cedar:6) permits read to batch on all of ledger.",
            "batch-talks (batch-read-only.cedar:10) permits talk to batch on all of ledger.",
            "permit-all (permit-all.cedar:4) permits every action but unknown, unmask and filter to every account on everything.",
            "permit-all-unknown (permit-all.cedar:8) permits unknown to every account on everything.",
            "permit-all-unmask (permit-all.cedar:11) permits unmask to every account on everything.",
            "permit-all-filter (permit-all.cedar:14) permits filter to every account on everything.",
        ]
    );
    let writes =
        source("batch-writes.cedar", include_str!("../../../../docs/policies/batch-writes.cedar"));
    assert_eq!(PolicySet::compile(&[writes]).unwrap().len(), 5);
    let nothing = PolicySet::compile(&[]).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(nothing.explain(), ["There is no policy: everything is refused."]);
}

#[test]
fn the_digest_is_of_names_and_texts_whatever_their_order() {
    let (a, b) = (source("a", "permit (principal, action, resource);"), source("b", ""));
    let digest = |sources: &[Source]| PolicySet::compile(sources).unwrap().digest();
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]));
    let others = [
        digest(&[]),
        digest(std::slice::from_ref(&a)),
        digest(&[source("b", &a.text), source("a", "")]),
        digest(&[source("a", "permit (principal, action, resource); "), b.clone()]),
    ];
    assert!(!others.contains(&digest(&[a, b])));
}

#[test]
fn the_protected_names_that_policies_mention_are_told() {
    let text = r#"
        permit (principal, action == Action::"unmask", resource in Class::"card");
        permit (principal, action == Action::"unmask", resource) when { resource in Class::"ssn" };
        permit (principal, action == Action::"filter", resource in Column::"ledger/s.t.c");
        permit (principal, action == Action::"filter", resource in Column::"ledger/t.c");"#;
    let set = PolicySet::compile(&[source("p.cedar", text)]).unwrap();
    let column = |schema: Option<&str>| Mention::Column {
        target: "ledger".to_owned(),
        schema: schema.map(str::to_owned),
        relation: "t".to_owned(),
        column: "c".to_owned(),
    };
    let class = |name: &str| Mention::Class(name.to_owned());
    let expected = [class("card"), class("ssn"), column(None), column(Some("s"))];
    assert_eq!(set.mentions().cloned().collect::<Vec<_>>(), expected);
}
