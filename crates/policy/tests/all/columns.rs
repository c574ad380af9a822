//! Protected columns, duties and alerts: what policies decide of them.

use std::sync::Arc;

use tidegate_event::{
    Action, Analysis, ColumnRef, Effect, Lineage, Mode, Operation, Output, Rows, Shown, Sources,
    Statement, StatementKind, Via,
};
use tidegate_policy::{Decider, Decision, Duties, ProtectedColumn, Ruling, Touched, Verdict};

use crate::{relation, set, subject};

/// `public.customers.ssn:person` or `customers.ssn:person`.
fn column(text: &str) -> ProtectedColumn {
    let (name, class) = text.split_once(':').unwrap_or((text, "person"));
    let (table, name) = name.rsplit_once('.').unwrap_or(("t", name));
    ProtectedColumn { relation: relation(table), column: name.to_owned(), class: class.to_owned() }
}

/// A select on `on` that shows `+columns`, filters by `?columns`, and may show more with `*` or
/// filter by more with `%`; it calls `!functions`.
fn ask(on: &str, columns: &str) -> (Operation, Arc<Touched>) {
    let effect = |action, on| Effect { action, relation: Some(relation(on)), bounded: true };
    let called = columns.split_whitespace().filter_map(|word| word.strip_prefix('!'));
    let effects: Vec<Effect> = std::iter::once(effect(Action::Select, on))
        .chain(called.map(|function| effect(Action::Execute, function)))
        .collect();
    let operation = Operation::Statement(Statement {
        via: Via::Simple,
        text: "text".into(),
        text_bytes: 4,
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::new(Analysis { effects, ..Analysis::default() }),
    });
    let of = |mark: char| {
        columns.split_whitespace().filter_map(|word| word.strip_prefix(mark)).map(column).collect()
    };
    let touched = Touched::new(of('+'), of('?'), columns.contains('*'));
    (operation, Arc::new(touched.with_filters_opaque(columns.contains('%'))))
}

fn decide_as(mode: Mode, policies: &str, on: &str, touches: &str) -> Arc<Decision> {
    let (operation, columns) = ask(on, touches);
    let mut decider = Decider::new(Arc::new(set(policies)), subject(mode));
    match decider.decide(&operation, Some(&columns)) {
        Ruling::Permitted(permit) => Arc::clone(permit.decision()),
        Ruling::Refused(denial) => Arc::clone(denial.decision()),
    }
}

fn decide(policies: &str, on: &str, touches: &str) -> Arc<Decision> {
    decide_as(Mode::Enforce, policies, on, touches)
}

const ALL: &str = r#"@id("all") permit (principal, action, resource);"#;

/// Policies beside [`ALL`], what is touched, expected: the reason or "" for allowed, the columns
/// that are shown clear, with `*` what isn't named.
const ROWS: &[(&str, &str, &str, &str)] = &[
    // By default nothing protected is shown or filters, whatever permits everything.
    ("", "+public.c.ssn", "", ""),
    (
        "",
        "?public.c.ssn",
        "no policy permits filter on public.c.ssn (class person) by batch; only one that names Action::\"filter\" can: which rows come would tell its value",
        "",
    ),
    ("", "*", "", ""),
    // One right is not the other, nor does an ordinary one bring them.
    (r#"permit (principal, action == Action::"unmask", resource);"#, "+c.ssn", "", "c.ssn"),
    (r#"permit (principal, action == Action::"filter", resource);"#, "+c.ssn", "", ""),
    (r#"permit (principal, action == Action::"filter", resource);"#, "?c.ssn", "", ""),
    (
        r#"permit (principal, action == Action::"unmask", resource);"#,
        "?c.ssn",
        "no policy permits filter on c.ssn (class person) by batch; only one that names Action::\"filter\" can: which rows come would tell its value",
        "",
    ),
    (
        r#"permit (principal, action in [Action::"select", Action::"unmask"], resource);"#,
        "+c.ssn",
        "",
        "c.ssn",
    ),
    (
        r#"permit (principal == ServiceAccount::"other", action == Action::"unmask", resource);"#,
        "+c.ssn",
        "",
        "",
    ),
    // By column, relation, schema, target, class.
    (
        r#"permit (principal, action == Action::"unmask", resource in Column::"ledger/c.ssn");"#,
        "+public.c.ssn +audit.c.ssn +public.d.ssn +public.c.name",
        "",
        "audit.c.ssn public.c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource == Column::"ledger/public.c.ssn");"#,
        "+public.c.ssn +audit.c.ssn",
        "",
        "public.c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource in Relation::"ledger/c");"#,
        "+public.c.ssn +d.ssn",
        "",
        "public.c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource in Schema::"ledger/public");"#,
        "+public.c.ssn +audit.c.ssn +c.ssn",
        "",
        "public.c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource in Class::"card");"#,
        "+c.ssn +c.pan:card +public.d.pan:card",
        "",
        "c.pan public.d.pan",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource in Target::"other");"#,
        "+c.ssn",
        "",
        "",
    ),
    // A name without a schema is asked in each schema that a policy mentions.
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal, action == Action::"unmask", resource == Column::"ledger/public.c.ssn");"#,
        "+c.ssn +audit.c.ssn",
        "",
        "audit.c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"filter", resource);
           @reason("not by number") forbid (principal, action == Action::"filter", resource == Column::"ledger/public.c.ssn");"#,
        "?c.ssn",
        "not by number",
        "",
    ),
    // A forbid on the relation holds for its columns.
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal, action, resource in Relation::"ledger/c");"#,
        "+c.ssn +d.ssn",
        "",
        "d.ssn",
    ),
    // Conditions.
    (
        r#"permit (principal, action == Action::"unmask", resource is Column) when { resource.name == "email" };"#,
        "+c.ssn +c.email",
        "",
        "c.email",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource) unless { context.via == "query" };"#,
        "+c.ssn",
        "",
        "",
    ),
    // What isn't named is clear where all of the target is, and nothing at all is forbidden there.
    (r#"permit (principal, action == Action::"unmask", resource);"#, "+c.ssn *", "", "c.ssn *"),
    (
        r#"permit (principal, action == Action::"unmask", resource in Target::"ledger");"#,
        "*",
        "",
        "*",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource in Class::"person");"#,
        "*",
        "",
        "",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource == Target::"ledger");"#,
        "+c.ssn *",
        "",
        "",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal, action == Action::"unmask", resource in Class::"card");"#,
        "+c.ssn *",
        "",
        "c.ssn",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal, action, resource in Relation::"ledger/x");"#,
        "*",
        "",
        "",
    ),
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal == ServiceAccount::"other", action, resource);
           forbid (principal, action == Action::"filter", resource);"#,
        "*",
        "",
        "*",
    ),
    // What may filter unseen needs leave for the function by name, or to filter by everything.
    (
        "",
        "% !f",
        "no policy permits filter on all of ledger by batch; only one that names Action::\"filter\" can: what a function does inside may tell of protected values",
        "",
    ),
    (
        r#"permit (principal, action == Action::"execute", resource in Function::"ledger/f");"#,
        "% !f",
        "",
        "",
    ),
    (
        r#"permit (principal, action == Action::"execute", resource in Function::"ledger/f");"#,
        "% !f !g",
        "no policy permits filter on all of ledger by batch; only one that names Action::\"filter\" can: what a function does inside may tell of protected values",
        "",
    ),
    (
        r#"permit (principal, action == Action::"execute", resource in Target::"ledger");"#,
        "% !f",
        "no policy permits filter on all of ledger by batch; only one that names Action::\"filter\" can: what a function does inside may tell of protected values",
        "",
    ),
    (r#"permit (principal, action == Action::"filter", resource);"#, "% !f", "", ""),
    // A policy that fails shows nothing, and lets nothing filter.
    (
        r#"permit (principal, action == Action::"unmask", resource);
           forbid (principal, action == Action::"unmask", resource) when { principal.uid * 9223372036854775807 > 0 };"#,
        "+c.ssn *",
        "",
        "",
    ),
];

#[test]
fn every_row_shows_and_refuses_as_it_says() {
    for (policies, touches, reason, shown) in ROWS {
        let decision = decide(&format!("{ALL} {policies}"), "x", touches);
        // The effect on x itself is permitted by ALL, but for the row that forbids it.
        let clear: Vec<String> = decision
            .unmasked
            .iter()
            .map(|column| format!("{}.{}", column.relation, column.column))
            .chain(decision.unseen_unmasked.then(|| "*".to_owned()))
            .collect();
        if !policies.contains("ledger/x") {
            assert_eq!(decision.reason, *reason, "{policies} with {touches}");
        }
        assert_eq!(clear.join(" "), *shown, "{policies} with {touches}");
        let (_, columns) = ask("x", touches);
        let all = decision.unmasked.len() + decision.masked.len();
        assert_eq!(all, columns.shown().len(), "{policies} with {touches}");
        for column in &decision.unmasked {
            assert!(decision.shows(column) && !decision.masked.contains(column));
        }
        assert!(decision.masked.iter().all(|column| !decision.shows(column)));
        assert_eq!(decision.shows_unseen(), shown.contains('*'));
    }
}

#[test]
fn a_filter_that_fails_to_be_judged_is_refused() {
    let failing = format!(
        r#"{ALL} permit (principal, action == Action::"filter", resource);
        @id("f") forbid (principal, action == Action::"filter", resource) when {{ principal.uid * 9223372036854775807 > 0 }};"#
    );
    let decision = decide(&failing, "x", "?c.ssn");
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.reason.contains("policy `f`"), "{}", decision.reason);
}

#[test]
fn in_shadow_mode_everything_is_shown_and_what_would_not_be_is_told() {
    let decision = decide_as(Mode::Shadow, ALL, "x", "+c.ssn ?c.pan *");
    assert_eq!(decision.verdict, Verdict::WouldDeny);
    assert!(decision.reason.starts_with("no policy permits filter on c.pan"));
    assert_eq!(decision.masked, [column("c.ssn")]);
    assert!(decision.shows(&column("c.ssn")) && decision.shows_unseen());
    assert!(!decision.unseen_unmasked);
}

#[test]
fn of_several_permits_the_tightest_bounds_hold() {
    let policies = r#"
        @rows_max("1000") @bytes_per_hour("1 GiB") permit (principal, action == Action::"select", resource);
        @rows_max("5000") @bytes_max("10MiB") permit (principal, action in Action::"read", resource);
        permit (principal, action, resource);
        @rows_max("10") permit (principal, action == Action::"unmask", resource in Class::"card");
        @rows_per_hour("7") permit (principal, action == Action::"filter", resource);
        @rows_max("1") permit (principal, action == Action::"delete", resource);"#;
    let bounds = Duties {
        rows_max: Some(1000),
        bytes_max: Some(10 << 20),
        rows_per_hour: None,
        bytes_per_hour: Some(1 << 30),
        keep_rows: false,
    };
    for (touches, expected) in [
        ("", bounds),
        ("+c.ssn", bounds),
        ("+c.pan:card", Duties { rows_max: Some(10), ..bounds }),
        ("?c.ssn", Duties { rows_per_hour: Some(7), ..bounds }),
    ] {
        assert_eq!(decide(policies, "x", touches).duties, expected, "{touches}");
    }
    assert_eq!(decide(ALL, "x", "").duties, Duties::default());
}

/// Policies, where HONEY stands for the annotations; the relation; the verdict; whether it alerts.
const ALERTS: &[(&str, &str, Verdict, bool)] = &[
    // By a permit, by a forbid, by a permit that another forbids, by what is in another schema.
    (
        r#"HONEY permit (principal, action, resource in Relation::"ledger/honey");"#,
        "honey",
        Verdict::Allow,
        true,
    ),
    (
        r#"permit (principal, action, resource);
           HONEY permit (principal, action, resource in Relation::"ledger/honey");"#,
        "public.honey",
        Verdict::Allow,
        true,
    ),
    (
        r#"permit (principal, action, resource);
           HONEY forbid (principal, action, resource in Relation::"ledger/honey");"#,
        "honey",
        Verdict::Deny,
        true,
    ),
    (
        r#"permit (principal, action, resource);
           HONEY forbid (principal, action, resource == Relation::"ledger/public.honey");"#,
        "honey",
        Verdict::Deny,
        true,
    ),
    (
        r#"HONEY permit (principal, action, resource in Relation::"ledger/honey");
           forbid (principal, action, resource);"#,
        "honey",
        Verdict::Deny,
        true,
    ),
    (
        r#"HONEY forbid (principal, action, resource in Relation::"ledger/honey");"#,
        "honey",
        Verdict::Deny,
        true,
    ),
    // Not by another relation, action or account.
    (
        r#"permit (principal, action, resource);
           HONEY forbid (principal, action, resource in Relation::"ledger/honey");"#,
        "bees",
        Verdict::Allow,
        false,
    ),
    (
        r#"permit (principal, action, resource);
           HONEY forbid (principal, action == Action::"delete", resource);"#,
        "honey",
        Verdict::Allow,
        false,
    ),
    (
        r#"permit (principal, action, resource);
           HONEY forbid (principal == ServiceAccount::"other", action, resource);"#,
        "honey",
        Verdict::Allow,
        false,
    ),
];

#[test]
fn an_alert_is_raised_allowed_or_not() {
    for (policies, on, verdict, alert) in ALERTS {
        let honey = r#"@id("h") @alert("somebody reads the honey")"#;
        let decision = decide(&policies.replace("HONEY", honey), on, "");
        let expected = alert.then_some("somebody reads the honey");
        let got = (decision.verdict, decision.alert.as_deref());
        assert_eq!(got, (*verdict, expected), "{policies}");
    }
    let failing = r#"@alert("a") permit (principal, action, resource) when { principal.uid * 9223372036854775807 > 0 };"#;
    let decision = decide(failing, "x", "");
    assert!(decision.alert.as_ref().is_some_and(|alert| alert.contains("can't be evaluated")));
}

#[test]
fn an_explanation_is_the_decision_with_every_question() {
    let policies = format!(
        r#"{ALL} @id("mask") permit (principal, action == Action::"unmask", resource in Class::"card");
           @id("no") forbid (principal, action == Action::"filter", resource);"#
    );
    let (operation, touched) = ask("c", "+public.c.pan:card +c.ssn ?c.ssn *");
    let mut decider = Decider::new(Arc::new(set(&policies)), subject(Mode::Enforce));
    let explained = decider.explain(&operation, Some(&touched));
    let Ruling::Refused(denial) = decider.decide(&operation, Some(&touched)) else {
        panic!("a filter is not permitted");
    };
    assert_eq!(explained.decision, **denial.decision());
    let steps: Vec<(&str, bool, String)> = explained
        .steps
        .iter()
        .map(|step| (step.asked.as_str(), step.permitted, step.policies.join(" ")))
        .collect();
    assert_eq!(
        steps,
        [
            ("select on c by batch", true, "all".to_owned()),
            ("filter on c.ssn (class person) by batch", false, "no".to_owned()),
            ("unmask on c.ssn (class person) by batch", false, String::new()),
            ("unmask on public.c.pan (class card) by batch", true, "all mask".to_owned()),
            ("unmask on all of ledger by batch", false, String::new()),
        ]
    );
}

#[test]
fn touched_columns_are_equal_whatever_their_order() {
    let [one, two] = ["c.ssn", "c.pan:card"].map(column);
    let given = |columns: &[&ProtectedColumn]| {
        Touched::new(columns.iter().map(|one| (*one).clone()).collect(), Vec::new(), false)
    };
    assert_eq!(given(&[&one, &two]), given(&[&two, &one, &two]));
    assert_ne!(given(&[&one]), given(&[&two]));
    assert_ne!(given(&[&one]), Touched::new(Vec::new(), vec![one.clone()], false));
    assert!(given(&[]).is_empty() && !Touched::new(Vec::new(), Vec::new(), true).is_empty());
}

/// Rows of one output that is made of these columns of `public.staff`; `*` is the whole row.
fn made_of(columns: &[&str]) -> Rows {
    let column = |name: &&str| ColumnRef {
        relation: relation("public.staff"),
        column: Some((*name).to_owned()).filter(|name| name != "*"),
    };
    let sources = Sources { columns: columns.iter().map(column).collect(), opaque: None };
    Rows::Known(vec![Output::One { name: None, shown: Shown::Computed, sources }])
}

#[test]
fn columns_are_known_where_all_of_them_are_and_else_absent() {
    let policy = r#"permit (principal, action, resource) when { context has columns && ["id", "name"].containsAll(context.columns) };"#;
    let set = Arc::new(set(policy));
    let opaque = Sources { columns: std::collections::BTreeSet::new(), opaque: Some("f".into()) };
    let star = |of: &str| Rows::Known(vec![Output::Star(relation(of))]);
    let told = |rows| Lineage { rows, ..Lineage::default() };
    let pay = ColumnRef { relation: relation("staff"), column: Some("pay".to_owned()) };
    for (what, on, lineage, permitted) in [
        ("listed", "staff", told(vec![made_of(&["id", "name"])]), true),
        ("none", "staff", told(vec![made_of(&[])]), true),
        ("no rows", "staff", told(vec![Rows::None]), true),
        ("another", "staff", told(vec![made_of(&["id", "pay"])]), false),
        ("of another schema", "audit.staff", told(vec![made_of(&["pay"])]), true),
        ("the whole row", "staff", told(vec![made_of(&["*"])]), false),
        ("a star", "staff", told(vec![star("staff")]), false),
        ("another's star", "staff", told(vec![star("offices")]), true),
        ("rows that can't be told", "staff", told(vec![Rows::Opaque("f".into())]), false),
        (
            "sources that can't",
            "staff",
            told(vec![Rows::Known(vec![Output::Several(opaque)])]),
            false,
        ),
        ("lineage that isn't told", "staff", Lineage::default(), false),
        (
            "a filter",
            "staff",
            Lineage { filters: [pay].into(), ..told(vec![made_of(&["id"])]) },
            false,
        ),
        (
            "filters that can't be told",
            "staff",
            Lineage { filters_opaque: Some("f".into()), ..told(vec![made_of(&["id"])]) },
            false,
        ),
    ] {
        let (Operation::Statement(mut statement), _) = ask(on, "") else { panic!("a statement") };
        let analysis = Arc::make_mut(&mut statement.analysis);
        analysis.kinds = vec![StatementKind("select".to_owned())];
        analysis.lineage = lineage;
        let mut decider = Decider::new(Arc::clone(&set), subject(Mode::Enforce));
        let ruling = decider.decide(&Operation::Statement(statement), None);
        assert_eq!(matches!(ruling, Ruling::Permitted(_)), permitted, "{what}");
    }
}
