//! What policies decide: one row a promise.

use std::sync::Arc;

use tidegate_event::{
    Action, Analysis, Cancel, Durability, Effect, FunctionCall, Login, Mode, Operation, SshKind,
    SshRequest, Statement, StatementKind, Unknown, Via,
};
use tidegate_policy::{Decider, Decision, PolicySet, Ruling, Subject, Verdict};

use crate::set;

fn subject(mode: Mode) -> Subject {
    Subject { executable: Some("/usr/bin/psql".to_owned()), ..crate::subject(mode) }
}

/// `delete! public.t` is an unbounded delete on that relation.
fn effect(text: &str) -> Effect {
    let (action, relation) = text.split_once(' ').unwrap_or((text, ""));
    let bounded = !action.ends_with('!');
    let relation = (!relation.is_empty()).then(|| crate::relation(relation));
    let action = Action::from_name(action.trim_end_matches('!')).expect(text);
    Effect { action, relation, bounded }
}

fn statement(effects: &[&str]) -> Operation {
    let effects: Vec<Effect> = effects.iter().map(|text| effect(text)).collect();
    let unknown = effects
        .iter()
        .any(|effect| effect.action == Action::Unknown)
        .then(|| Unknown { reason: "it does not parse".to_owned() });
    let kinds = vec![StatementKind("test".to_owned())];
    Operation::Statement(Statement {
        via: Via::Simple,
        text: "text".into(),
        text_bytes: 4,
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::new(Analysis { kinds, effects, unknown, ..Analysis::default() }),
    })
}

fn decide(decider: &mut Decider, operation: &Operation) -> (bool, Arc<Decision>) {
    match decider.decide(operation, None) {
        Ruling::Permitted(permit) => (true, Arc::clone(permit.decision())),
        Ruling::Refused(denial) => (false, Arc::clone(denial.decision())),
    }
}

fn one(policies: &str, operation: &Operation) -> Arc<Decision> {
    let mut decider = Decider::new(Arc::new(set(policies)), subject(Mode::Enforce));
    let (permitted, first) = decide(&mut decider, operation);
    assert_eq!(permitted, first.verdict == Verdict::Allow);
    let (again, second) = decide(&mut decider, operation);
    assert_eq!((permitted, &first), (again, &second), "the second answer is another");
    first
}

const READ: &str = r#"@id("r") permit (principal, action in Action::"read", resource);"#;
const ALL: &str = r#"@id("all") permit (principal, action, resource);"#;

/// Policies, effects, expected: reason or "" for allowed, policies, durability.
type Row =
    (&'static str, &'static [&'static str], &'static str, &'static [&'static str], &'static str);

const ROWS: &[Row] = &[
    ("", &["select public.t"], "no policy permits select on public.t by batch", &[], "host"),
    ("", &["select"], "no policy permits select on ledger by batch", &[], "host"),
    ("", &[], "", &[], "process"),
    (READ, &["select t"], "", &["r"], "process"),
    (READ, &["select t", "copy_to"], "", &["r"], "process"),
    (
        READ,
        &["delete! public.t"],
        "no policy permits delete of all rows on public.t by batch",
        &[],
        "host",
    ),
    (READ, &["select t", "insert u"], "no policy permits insert on u by batch", &["r"], "host"),
    (ALL, &["delete t"], "", &["all"], "host"),
    (ALL, &["set search_path"], "", &["all"], "process"),
    (ALL, &["login"], "", &["all"], "host"),
    (
        ALL,
        &["unknown"],
        "no policy permits unknown on ledger by batch; only one that names Action::\"unknown\" can: it does not parse",
        &[],
        "host",
    ),
    (
        r#"@id("u") permit (principal, action in [Action::"unknown", Action::"login"], resource);"#,
        &["unknown"],
        "",
        &["u"],
        "host",
    ),
    (
        r#"@id("u") permit (principal, action == Action::"unknown", resource);"#,
        &["unknown"],
        "",
        &["u"],
        "host",
    ),
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") @reason("not on a Friday") forbid (principal, action == Action::"delete", resource) when { !context.bounded };"#,
        &["delete! t"],
        "not on a Friday",
        &["f"],
        "host",
    ),
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") forbid (principal, action == Action::"delete", resource) when { !context.bounded };"#,
        &["delete! t"],
        "policy f forbids delete of all rows on t by batch",
        &["f"],
        "host",
    ),
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") forbid (principal, action == Action::"delete", resource) when { !context.bounded };"#,
        &["delete t"],
        "",
        &["all"],
        "host",
    ),
    // A name without a schema is asked in each schema that a policy mentions.
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") forbid (principal, action, resource == Relation::"ledger/public.accounts");"#,
        &["select accounts"],
        "policy f forbids select on accounts (as it may be in schema public) by batch",
        &["all", "f"],
        "host",
    ),
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") forbid (principal, action, resource == Relation::"ledger/public.accounts");"#,
        &["select other.accounts", "select public.others", "select others"],
        "",
        &["all"],
        "process",
    ),
    (
        r#"@id("all") permit (principal, action, resource);
           @id("f") forbid (principal, action, resource in Schema::"ledger/secret");"#,
        &["select anything"],
        "policy f forbids select on anything (as it may be in schema secret) by batch",
        &["all", "f"],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action, resource == Relation::"ledger/public.accounts");"#,
        &["select accounts"],
        "no policy permits select on accounts by batch",
        &["p"],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action, resource in Relation::"ledger/accounts");"#,
        &["select accounts", "select public.accounts"],
        "",
        &["p"],
        "process",
    ),
    (
        r#"@id("p") permit (principal, action, resource in Target::"other");"#,
        &["select accounts"],
        "no policy permits select on accounts by batch",
        &[],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action == Action::"execute", resource in Function::"ledger/close");"#,
        &["execute public.close"],
        "",
        &["p"],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action == Action::"set", resource) when { context has about && context.about == "search_path" };"#,
        &["set search_path"],
        "",
        &["p"],
        "process",
    ),
    (
        r#"@id("p") permit (principal, action == Action::"set", resource) when { context has about && context.about == "search_path" };"#,
        &["set session_replication_role"],
        "no policy permits set on session_replication_role by batch",
        &[],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action, resource) when { principal has executable && principal.executable == "/usr/bin/psql" && principal.uid == 991 && !(principal has cgroup) && context.db_user == "app" && context.database == "bank" && context.via == "query" };"#,
        &["select t"],
        "",
        &["p"],
        "process",
    ),
    (
        r#"@id("p") permit (principal == ServiceAccount::"other", action, resource);"#,
        &["select t"],
        "no policy permits select on t by batch",
        &[],
        "host",
    ),
    // Durability: raised, lowered only by all that match, the most protective counts.
    (
        r#"@id("p") @durability("collector") permit (principal, action, resource);"#,
        &["select t"],
        "",
        &["p"],
        "collector",
    ),
    (
        r#"@id("p") @durability("process") permit (principal, action, resource);"#,
        &["delete t"],
        "",
        &["p"],
        "process",
    ),
    (
        r#"@id("p") @durability("process") permit (principal, action, resource);
           @id("q") permit (principal, action == Action::"delete", resource);"#,
        &["delete t"],
        "",
        &["p", "q"],
        "host",
    ),
    (
        r#"@id("p") @durability("process") permit (principal, action, resource);
           @id("q") @durability("host") permit (principal, action == Action::"select", resource);"#,
        &["select t", "delete t"],
        "",
        &["p", "q"],
        "host",
    ),
    (
        r#"@id("p") permit (principal, action, resource);
           @id("q") @durability("collector") forbid (principal, action == Action::"select", resource);"#,
        &["select t"],
        "policy q forbids select on t by batch",
        &["q"],
        "collector",
    ),
];

#[test]
fn every_row_is_decided_as_it_says() {
    for (policies, effects, reason, named, durability) in ROWS {
        let decision = one(policies, &statement(effects));
        let verdict = if reason.is_empty() { Verdict::Allow } else { Verdict::Deny };
        let mut policies_named = decision.policies.clone();
        policies_named.sort();
        assert_eq!(
            (
                decision.verdict,
                decision.reason.as_str(),
                policies_named,
                decision.durability.name()
            ),
            (verdict, *reason, named.iter().map(|id| (*id).to_owned()).collect(), *durability),
            "{policies} with {effects:?}"
        );
    }
}

#[test]
fn a_policy_that_fails_refuses() {
    let failing = r#"@id("all") permit (principal, action, resource);
        @id("f") forbid (principal, action, resource) when { principal.uid * 9223372036854775807 > 0 };"#;
    let decision = one(failing, &statement(&["select t"]));
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.reason.contains("policy `f`"), "{}", decision.reason);
    assert_eq!(decision.durability, Durability::Host);
}

#[test]
fn shadow_permits_and_says_what_it_would_have_done() {
    let mut decider = Decider::new(Arc::new(set(READ)), subject(Mode::Shadow));
    let (permitted, decision) = decide(&mut decider, &statement(&["delete t"]));
    assert!(permitted);
    assert_eq!(decision.verdict, Verdict::WouldDeny);
    assert_eq!(decision.reason, "no policy permits delete on t by batch");
    let (_, allowed) = decide(&mut decider, &statement(&["select t"]));
    assert_eq!(allowed.verdict, Verdict::Allow);
}

fn login(user: &str, replication: bool) -> Operation {
    Operation::Login(Login {
        user: user.to_owned(),
        database: "bank".to_owned(),
        application: Some("psql".to_owned()),
        options: Vec::new(),
        replication,
        client_tls: true,
    })
}

#[test]
fn logins_cancels_and_fast_path_calls_are_decided_too() {
    let policies = r#"
        @id("l") permit (principal, action == Action::"login", resource == Target::"ledger")
        when { context.db_user == "app" && context.client_tls && context has about && context.about == "psql" };
        @id("c") permit (principal, action == Action::"cancel", resource);"#;
    for (operation, verdict, policy) in [
        (login("app", false), Verdict::Allow, Some("l")),
        (login("postgres", false), Verdict::Deny, None),
        (login("app", true), Verdict::Deny, Some("l")),
        (Operation::Cancel(Cancel { backend_pid: 1 }), Verdict::Allow, Some("c")),
        (Operation::FunctionCall(FunctionCall { oid: 764, arguments: 1 }), Verdict::Deny, None),
    ] {
        let decision = one(policies, &operation);
        assert_eq!(decision.verdict, verdict, "{operation:?}: {}", decision.reason);
        assert_eq!(decision.policies.first().map(String::as_str), policy, "{operation:?}");
        assert_eq!(decision.durability == Durability::Process, policy == Some("c"));
    }
}

fn ssh(kind: SshKind, about: &str) -> Operation {
    Operation::Ssh(SshRequest {
        kind,
        channel: 0,
        about: about.to_owned(),
        bytes: 0,
        sha256: None,
        terminal: String::new(),
        words: Vec::new(),
        command: None,
        unclear: String::new(),
        carries: Vec::new(),
    })
}

#[test]
fn ssh_requests_are_decided_by_their_text_and_forwards_only_by_name() {
    let any = "permit (principal, action, resource);";
    let ls = r#"permit (principal, action == Action::"exec", resource)
        when { context has about && context.about == "ls /srv" };"#;
    let forward = r#"permit (principal, action == Action::"forward", resource)
        when { context has about && context.about == "10.0.0.1:80" };"#;
    for (policy, kind, about, allowed) in [
        (any, SshKind::Exec, "ls", true),
        (any, SshKind::Shell, "", true),
        (any, SshKind::Env, "LANG", true),
        (any, SshKind::Subsystem, "sftp", true),
        (any, SshKind::Forward, "10.0.0.1:80", false),
        (any, SshKind::AgentForward, "", false),
        (any, SshKind::X11, "", false),
        (ls, SshKind::Exec, "ls /srv", true),
        (ls, SshKind::Exec, "ls /srv; rm -r /srv", false),
        (ls, SshKind::Exec, "ls  /srv", false),
        (ls, SshKind::Exec, "LS /srv", false),
        (ls, SshKind::Exec, "", false),
        (ls, SshKind::Shell, "ls /srv", false),
        (forward, SshKind::Forward, "10.0.0.1:80", true),
        (forward, SshKind::Forward, "10.0.0.1:22", false),
    ] {
        let decision = one(policy, &ssh(kind, about));
        assert_eq!(
            decision.verdict == Verdict::Allow,
            allowed,
            "{kind:?} {about}: {}",
            decision.reason
        );
    }
}

#[test]
fn a_permitted_login_names_the_session() {
    let policies = r#"
        permit (principal, action == Action::"login", resource);
        permit (principal, action == Action::"select", resource) when { context.db_user == "late" };"#;
    let mut decider = Decider::new(Arc::new(set(policies)), subject(Mode::Enforce));
    let query = statement(&["select t"]);
    assert!(!decide(&mut decider, &query).0);
    assert!(decide(&mut decider, &login("late", false)).0);
    assert!(decide(&mut decider, &query).0, "the cache must not outlive the login");
}

#[test]
fn the_operator_can_raise_every_statement() {
    let set = set(ALL).with_durability(Durability::Host);
    let mut decider = Decider::new(Arc::new(set), subject(Mode::Enforce));
    let (_, decision) = decide(&mut decider, &statement(&["select t"]));
    assert_eq!(decision.durability, Durability::Host);
}

#[test]
fn a_hit_gives_the_same_decision_and_a_full_cache_forgets() {
    let mut decider = Decider::new(Arc::new(set(ALL)), subject(Mode::Enforce));
    let first = statement(&["select t"]);
    let (_, once) = decide(&mut decider, &first);
    let (_, twice) = decide(&mut decider, &first);
    assert!(Arc::ptr_eq(&once, &twice));
    for _ in 0..300 {
        assert!(decide(&mut decider, &statement(&["select t"])).0);
    }
    let (_, later) = decide(&mut decider, &first);
    assert_eq!(once, later);
}

#[test]
fn what_was_decided_holds_for_the_same_subject_and_no_other() {
    let policies = r#"
        permit (principal, action == Action::"login", resource) when { !context.client_tls };
        permit (principal, action == Action::"select", resource) when { context.db_user == "app" };"#;
    let set = Arc::new(set(policies));
    let query = statement(&["select t"]);
    let of = |db_user: &str, operation: &Operation| {
        let subject = Subject { db_user: db_user.to_owned(), ..subject(Mode::Enforce) };
        decide(&mut Decider::new(Arc::clone(&set), subject), operation)
    };
    let (first, again, other) = (of("app", &query), of("app", &query), of("late", &query));
    assert!(first.0 && Arc::ptr_eq(&first.1, &again.1));
    assert!(!other.0);
    let Operation::Login(plain) = login("app", false) else { panic!("a login") };
    let login = |client_tls| Operation::Login(Login { client_tls, ..plain.clone() });
    let (first, again, other) =
        (of("", &login(false)), of("", &login(false)), of("", &login(true)));
    assert!(first.0 && Arc::ptr_eq(&first.1, &again.1));
    assert!(!other.0, "a login under TLS is another one");
}

#[test]
fn sessions_may_move_between_threads() {
    const fn moves<T: Send + Sync>() {}
    const { moves::<Decider>() };
    const { moves::<Ruling>() };
    const { moves::<PolicySet>() };
}
