//! Votes on requests for approval: who may not, and when not. Each refused vote is an act.

#![expect(clippy::unwrap_used, reason = "tests")]

use tidegate_collector::approvals::{Approver, Ballot, Counted, check_roster};
use tidegate_collector::state::State;
use tidegate_ledger::{SigningKey, approval};
use tidegate_proto::uplink::v1::{ApprovalDemand, ApprovalRequest};

const ID: &str = "00112233445566778899aabbccddeeff";
const DEADLINE_NS: u64 = 1_000;

fn person(name: &str, uid: u32, groups: &[&str], accounts: &[&str]) -> Approver {
    let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Approver { name: name.to_owned(), uid, groups: own(groups), accounts: own(accounts) }
}

fn roster() -> Vec<Approver> {
    vec![
        person("ann", 1, &["dba"], &[]),
        person("ben", 2, &["security"], &[]),
        person("eve", 3, &["web"], &[]),
        person("own", 4, &["dba"], &["batch"]),
        person("batch", 5, &["dba"], &[]),
    ]
}

fn request() -> ApprovalRequest {
    let groups = vec!["dba".to_owned(), "security".to_owned()];
    ApprovalRequest {
        id: ID.to_owned(),
        principal: "batch".to_owned(),
        target: "ledger".to_owned(),
        binding: vec![7; 32].into(),
        deadline_ns: DEADLINE_NS,
        demands: vec![ApprovalDemand { groups, people: 2 }],
        ..ApprovalRequest::default()
    }
}

fn state() -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state.db")).unwrap();
    state.approval_asked("host-1", &request(), 1).unwrap();
    (dir, state)
}

fn vote(state: &State, uid: u32, granted: bool, now_ns: u64) -> Result<Counted, String> {
    let ballot = Ballot { id: ID, uid, granted, note: "" };
    state.vote(&roster(), ballot, now_ns).unwrap()
}

/// How many acts of this name there are.
fn acts(state: &State, act: &str) -> usize {
    state.waiting_acts(0, 1000).unwrap().iter().filter(|waiting| waiting.body.act == act).count()
}

#[test]
fn votes_that_do_not_count_are_refused_and_recorded() {
    type Before = fn(&State);
    let none: Before = |_| {};
    let attempts: [(&str, Before, u32, bool, u64, &str); 11] = [
        ("nobody of the roster", none, 99, true, 5, "nobody of the roster"),
        ("of no group that is named", none, 3, true, 5, "none of the groups"),
        ("speaks for the account", none, 4, true, 5, "speaks for the account"),
        ("bears the account's name", none, 5, true, 5, "speaks for the account"),
        ("denies for the account", none, 4, false, 5, "speaks for the account"),
        ("the same person twice", |s| drop(vote(s, 1, true, 4)), 1, true, 5, "voted already"),
        ("for, then against", |s| drop(vote(s, 1, true, 4)), 1, false, 5, "voted already"),
        ("denied before", |s| drop(vote(s, 2, false, 4)), 1, true, 5, "denied already"),
        ("at the deadline", none, 1, true, DEADLINE_NS, "time is over"),
        ("after the deadline", none, 1, false, DEADLINE_NS + 9, "time is over"),
        (
            "answered before",
            |s| {
                vote(s, 1, true, 3).unwrap();
                vote(s, 2, true, 4).unwrap();
                let key = SigningKey::from_bytes(&[9; 32]);
                s.approval_answer(&roster(), &key, ID, 5).unwrap().unwrap();
            },
            2,
            false,
            6,
            "answered already",
        ),
    ];
    for (name, before, uid, granted, now_ns, expected) in attempts {
        let (_dir, state) = state();
        before(&state);
        let why = vote(&state, uid, granted, now_ns).expect_err(name);
        assert!(why.contains(expected), "{name}: {why}");
        assert_eq!(acts(&state, "approval_refused"), 1, "{name}");
    }
}

#[test]
fn an_answer_is_signed_once_and_only_for_people_who_are_still_there() {
    let (_dir, state) = state();
    let key = SigningKey::from_bytes(&[9; 32]);
    assert_eq!(vote(&state, 1, true, 3), Ok(Counted::MoreNeeded));
    assert_eq!(state.approval_answer(&roster(), &key, ID, 4).unwrap(), None);
    assert_eq!(vote(&state, 2, true, 4), Ok(Counted::Granted));
    // Somebody was taken off the roster, or out of the group, since they voted.
    let without: Vec<Approver> = roster().into_iter().filter(|one| one.name != "ben").collect();
    assert_eq!(state.approval_answer(&without, &key, ID, 5).unwrap(), None);
    let mut moved = roster();
    moved[1].groups = vec!["web".to_owned()];
    assert_eq!(state.approval_answer(&moved, &key, ID, 5).unwrap(), None);
    assert_eq!(state.approval_answer(&roster(), &key, ID, DEADLINE_NS).unwrap(), None);
    let answer = state.approval_answer(&roster(), &key, ID, 6).unwrap().unwrap();
    let public = key.verifying_key().to_bytes();
    let facts = approval::verify(&answer.body, &answer.signature, &public).unwrap();
    let names: Vec<&str> = facts.people.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((facts.granted, names), (true, vec!["ann", "ben"]));
    assert_eq!((facts.agent_id.as_str(), facts.deadline_ns), ("host-1", DEADLINE_NS));
    assert_eq!(state.approval_answer(&without, &key, ID, 7).unwrap(), Some(answer));
    assert_eq!(acts(&state, "approval_answered"), 1);
}

#[test]
fn a_request_keeps_its_content_and_its_agent() {
    let (_dir, state) = state();
    state.approval_asked("host-1", &request(), 2).unwrap();
    assert_eq!(acts(&state, "approval_asked"), 1);
    assert!(state.approval_asked("host-2", &request(), 2).is_err());
    let other = ApprovalRequest { statement: "DELETE".to_owned(), ..request() };
    assert!(state.approval_asked("host-1", &other, 2).is_err());
    let short = ApprovalRequest { binding: vec![7; 31].into(), ..request() };
    assert!(state.approval_asked("host-1", &short, 2).is_err());
}

#[test]
fn one_person_under_two_names_is_no_roster() {
    check_roster(&roster()).unwrap();
    let twice = [person("ann", 1, &["dba"], &[]), person("anna", 1, &["dba"], &[])];
    assert!(check_roster(&twice).is_err());
    let twice = [person("ann", 1, &["dba"], &[]), person("ann", 2, &["dba"], &[])];
    assert!(check_roster(&twice).is_err());
}
