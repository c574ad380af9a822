//! Denied as it stands, allowed with an approval.

use std::sync::Arc;

use tidegate_event::{
    Action, Analysis, Effect, Mode, Operation, Parameter, Statement, StatementKind, Via,
};
use tidegate_policy::approval::{self, Approver, Binding, Clock, Grant, Need, Ticket};
use tidegate_policy::{Decider, PolicySet, Ruling, Source};

use crate::set;

fn statement(via: Via, action: Action, parameters: Vec<Parameter>) -> Operation {
    let effects = vec![Effect { action, relation: Some(crate::relation("t")), bounded: true }];
    Operation::Statement(Statement {
        via,
        text: "text".into(),
        text_bytes: 4,
        text_sha256: None,
        prepared: String::new(),
        parameters,
        analysis: Arc::new(Analysis {
            kinds: vec![StatementKind("test".to_owned())],
            effects,
            ..Analysis::default()
        }),
    })
}

fn delete() -> Operation {
    statement(Via::Execute, Action::Delete, vec![Parameter::Text(b"7".to_vec())])
}

fn decider(policies: &str, mode: Mode) -> Decider {
    Decider::new(Arc::new(set(policies)), crate::subject(mode))
}

fn need(policies: &str) -> Option<String> {
    match decider(policies, Mode::Enforce).decide(&delete(), None) {
        Ruling::Refused(denial) => denial.decision().approval.as_ref().map(Need::words),
        Ruling::Permitted(_) => panic!("permitted: {policies}"),
    }
}

const PERMIT: &str = r#"@approvers("dba") permit (principal, action, resource)
    when { context.approved };"#;
const FORBID: &str = r#"permit (principal, action, resource);
    @approvers("security") @approvals("2") @approval_minutes("10")
    forbid (principal, action == Action::"delete", resource) unless { context.approved };"#;

#[test]
fn a_permit_or_a_forbid_says_who_can_approve() {
    for (policies, expected) in [
        (PERMIT.to_owned(), Some("1 of dba, for one use")),
        (FORBID.to_owned(), Some("2 of security, for 10 minutes")),
        (format!("{PERMIT}{FORBID}"), Some("1 of dba and 2 of security, for one use")),
        // Nobody can approve what is forbidden all the same.
        (format!("{PERMIT} forbid (principal, action, resource);"), None),
        (r#"permit (principal, action == Action::"select", resource);"#.to_owned(), None),
    ] {
        assert_eq!(need(&policies).as_deref(), expected, "{policies}");
    }
}

#[test]
fn a_parameter_of_which_only_the_beginning_is_known_can_not_be_approved() {
    let cut = Parameter::Cut { head: vec![0; 8], bytes: 1 << 20 };
    let operation = statement(Via::Execute, Action::Delete, vec![cut]);
    let Ruling::Refused(denial) = decider(PERMIT, Mode::Enforce).decide(&operation, None) else {
        panic!("permitted")
    };
    assert_eq!(denial.decision().approval, None);
}

#[test]
fn a_target_in_shadow_mode_holds_nothing() {
    let Ruling::Permitted(permit) = decider(PERMIT, Mode::Shadow).decide(&delete(), None) else {
        panic!("refused")
    };
    assert_eq!(permit.decision().approval, None);
}

#[test]
fn preparing_passes_and_running_does_not() {
    let decider = decider(PERMIT, Mode::Enforce);
    let parse = statement(Via::Parse, Action::Delete, Vec::new());
    assert!(matches!(decider.decide_prepared(&parse, None), Some(Ruling::Permitted(_))));
    for via in [Via::Simple, Via::Execute, Via::Fetch, Via::Command] {
        let operation = statement(via, Action::Delete, Vec::new());
        assert!(decider.decide_prepared(&operation, None).is_none(), "{via:?}");
    }
}

fn approve(decider: &mut Decider, operation: &Operation) -> approval::Approved {
    let Ruling::Refused(denial) = decider.decide(operation, None) else { panic!("permitted") };
    let need = denial.decision().approval.clone().unwrap();
    let binding = Binding {
        principal: "batch".to_owned(),
        target: "ledger".to_owned(),
        db_user: String::new(),
        database: String::new(),
        operation: approval::operation_digest(operation).unwrap(),
    };
    let now = Clock { boot_id: [0; 16], wall_ns: 5, boot_ns: 5 };
    let ticket =
        Ticket { id: "t".to_owned(), binding: binding.clone(), need, salt: [0; 32], asked: now };
    let people = ["ann", "ben"].map(|name| Approver {
        name: name.to_owned(),
        groups: vec!["dba".to_owned(), "security".to_owned()],
    });
    let grant = Grant {
        id: ticket.id.clone(),
        binding: ticket.digest(),
        deadline_ns: ticket.deadline_ns(),
        people: people.into(),
    };
    approval::check(&ticket, &grant, &binding, None, &now).unwrap()
}

#[test]
fn what_was_approved_passes_and_nothing_else() {
    let mut one = decider(PERMIT, Mode::Enforce);
    let approved = approve(&mut one, &delete());
    let Ruling::Permitted(permit) = one.decide_approved(&delete(), None, &approved) else {
        panic!("refused")
    };
    assert_eq!(permit.decision().reason, "approved by ann, ben; request t");
    let other = statement(Via::Execute, Action::Delete, vec![Parameter::Text(b"8".to_vec())]);
    assert!(matches!(one.decide_approved(&other, None, &approved), Ruling::Refused(_)));
    // Policies that ask for more by now.
    let more = decider(&format!("{PERMIT}{FORBID}"), Mode::Enforce);
    assert!(matches!(more.decide_approved(&delete(), None, &approved), Ruling::Refused(_)));
    // Policies that permit nothing by now.
    let never = decider("forbid (principal, action, resource);", Mode::Enforce);
    assert!(matches!(never.decide_approved(&delete(), None, &approved), Ruling::Refused(_)));
}

#[test]
fn annotations_that_say_half_are_refused() {
    for (policy, complaint) in [
        ("permit (principal, action, resource) when { context.approved };", "says by whom"),
        (r#"@approvers("dba") permit (principal, action, resource);"#, "has no use here"),
        (r#"@approvals("2") permit (principal, action, resource);"#, "says by whom"),
        (
            r#"@approvers("") permit (principal, action, resource) when { context.approved };"#,
            "write groups",
        ),
        (
            r#"@approvers("a") @approvals("0")
               permit (principal, action, resource) when { context.approved };"#,
            "1 to 8",
        ),
        (
            r#"@approvers("a") @approval_wait("90000")
               permit (principal, action, resource) when { context.approved };"#,
            "seconds",
        ),
    ] {
        let source = Source { name: "p.cedar".to_owned(), text: policy.to_owned() };
        let errors = PolicySet::compile(&[source]).expect_err(policy);
        assert!(errors.iter().any(|error| error.message.contains(complaint)), "{errors:?}");
    }
}
