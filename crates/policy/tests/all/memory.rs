//! What is remembered is never stale, and is found again without allocating.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_event::{
    Action, Analysis, Durability, Effect, Login, Mode, Operation, Principal, Relation, Statement,
    Via,
};
use tidegate_policy::{Decider, Decision, PolicySet, ProtectedColumn, Ruling, Subject, Touched};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Each says another thing of at least one of the operations below.
const POLICIES: [&str; 6] = [
    "permit (principal, action, resource);",
    r#"permit (principal, action, resource); permit (principal, action == Action::"unmask", resource);"#,
    r#"permit (principal, action, resource); permit (principal, action == Action::"filter", resource in Class::"card");"#,
    r#"permit (principal, action in [Action::"select", Action::"login"], resource) when { context.db_user == "app" };"#,
    r#"permit (principal, action, resource) unless { context.via == "execute" }; @alert("a") forbid (principal, action == Action::"delete", resource);"#,
    r#"@rows_max("5") permit (principal == ServiceAccount::"batch", action, resource); permit (principal, action == Action::"unmask", resource in Relation::"ledger/s.c");"#,
];

fn relation(schema: Option<&str>, name: &str) -> Relation {
    Relation { schema: schema.map(str::to_owned), name: name.to_owned() }
}

fn analysis(number: usize) -> Analysis {
    let all = [
        (Action::Select, relation(None, "c")),
        (Action::Select, relation(Some("s"), "c")),
        (Action::Delete, relation(None, "c")),
    ];
    let effects = all
        .into_iter()
        .skip(number % 3)
        .take(1 + number / 3)
        .map(|(action, relation)| Effect { action, relation: Some(relation), bounded: true })
        .collect();
    Analysis { effects, ..Analysis::default() }
}

fn touched(number: usize) -> Option<Arc<Touched>> {
    let column = |name: &str, class: &str| ProtectedColumn {
        relation: relation((number > 4).then_some("s"), "c"),
        column: name.to_owned(),
        class: class.to_owned(),
    };
    let (ssn, pan) = (column("ssn", "person"), column("pan", "card"));
    let touched = match number {
        0 => return None,
        1 => Touched::new(vec![], vec![], false),
        2 => Touched::new(vec![ssn], vec![], false),
        3 => Touched::new(vec![], vec![ssn], false),
        4 => Touched::new(vec![], vec![pan], false),
        5 => Touched::new(vec![ssn, pan], vec![], false),
        6 => Touched::new(vec![pan], vec![column("pan", "person")], false),
        _ => Touched::new(vec![], vec![], true),
    };
    Some(Arc::new(touched))
}

fn statement(analysis: &Arc<Analysis>, via: Via) -> Operation {
    Operation::Statement(Statement {
        via,
        text: "text".into(),
        text_bytes: 4,
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::clone(analysis),
    })
}

fn subject(principal: &str, mode: Mode) -> Subject {
    let principal = Principal { name: principal.to_owned(), uid: 991 };
    Subject { principal, ..crate::subject(mode) }
}

/// Each policy on a line of its own, for its name.
fn set(number: usize) -> PolicySet {
    crate::set(&POLICIES.get(number).unwrap().replace("; ", ";\n"))
}

fn made(ruling: &Ruling) -> Arc<Decision> {
    match ruling {
        Ruling::Permitted(permit) => Arc::clone(permit.decision()),
        Ruling::Refused(denial) => Arc::clone(denial.decision()),
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// A statement is decided: which analysis, way and touched columns.
    Ask(usize, usize, usize),
    /// The analyser forgets this analysis; it comes again at whatever address.
    Forget(usize),
    /// The policy files change.
    Policies(usize),
    /// Another session.
    Session(usize, bool),
    /// A login of that user.
    Login(bool),
    /// The operator raises the durability.
    Raise,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..6_usize, 0..3_usize, 0..8_usize).prop_map(|(a, v, t)| Event::Ask(a, v, t)),
        2 => (0..6_usize).prop_map(Event::Forget),
        1 => (0..POLICIES.len()).prop_map(Event::Policies),
        2 => (0..2_usize, any::<bool>()).prop_map(|(who, shadow)| Event::Session(who, shadow)),
        1 => any::<bool>().prop_map(Event::Login),
        1 => Just(Event::Raise),
    ]
}

struct World {
    sets: Vec<Arc<PolicySet>>,
    analyses: Vec<Arc<Analysis>>,
    decider: Decider,
    set: usize,
    subject: Subject,
}

impl World {
    fn new() -> Self {
        let sets: Vec<_> = (0..POLICIES.len()).map(|number| Arc::new(set(number))).collect();
        let subject = subject("batch", Mode::Enforce);
        Self {
            decider: Decider::new(Arc::clone(sets.first().unwrap()), subject.clone()),
            analyses: (0..6).map(|number| Arc::new(analysis(number))).collect(),
            set: 0,
            sets,
            subject,
        }
    }

    fn renew(&mut self) {
        let set = Arc::clone(self.sets.get(self.set).unwrap());
        self.decider = Decider::new(set, self.subject.clone());
    }

    /// Decides, and compares with what is decided without a memory.
    fn decide(&mut self, operation: &Operation, touched: Option<&Arc<Touched>>) {
        let fresh = self.decider.explain(operation, touched.map(AsRef::as_ref)).decision;
        let decided = made(&self.decider.decide(operation, touched));
        assert_eq!(*decided, fresh);
        self.subject = self.decider.subject().clone();
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Ask(number, via, columns) => {
                let ways = [Via::Simple, Via::Parse, Via::Execute];
                let analysis = self.analyses.get(*number).unwrap();
                let operation = statement(analysis, *ways.get(*via).unwrap());
                self.decide(&operation, touched(*columns).as_ref());
            }
            Event::Forget(number) => {
                *self.analyses.get_mut(*number).unwrap() = Arc::new(analysis(*number));
            }
            Event::Policies(number) => {
                self.set = *number;
                self.renew();
            }
            Event::Session(who, shadow) => {
                let mode = if *shadow { Mode::Shadow } else { Mode::Enforce };
                self.subject = subject(["batch", "other"].get(*who).unwrap(), mode);
                self.renew();
            }
            Event::Login(app) => {
                let user = if *app { "app" } else { "late" };
                let login = Operation::Login(Login {
                    user: user.to_owned(),
                    database: "bank".to_owned(),
                    application: None,
                    options: Vec::new(),
                    replication: false,
                    client_tls: false,
                });
                self.decide(&login, None);
            }
            Event::Raise => {
                let raised = set(self.set).with_durability(Durability::Collector);
                *self.sets.get_mut(self.set).unwrap() = Arc::new(raised);
                self.renew();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn no_change_leaves_a_stale_answer(events in proptest::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
    }
}

#[test]
fn a_hit_allocates_nothing() {
    let mut decider = Decider::new(Arc::new(set(1)), subject("batch", Mode::Enforce));
    for number in 0..8 {
        let columns = touched(number);
        let operation = statement(&Arc::new(analysis(0)), Via::Simple);
        let first = made(&decider.decide(&operation, columns.as_ref()));
        // Another one of equal content is as good.
        let equal = touched(number);
        let before = ALLOCATIONS.get();
        let again = decider.decide(&operation, columns.as_ref());
        let equally = decider.decide(&operation, equal.as_ref());
        assert_eq!(ALLOCATIONS.get(), before, "touched columns {number}");
        for ruling in [again, equally] {
            assert!(Arc::ptr_eq(&first, &made(&ruling)));
        }
    }
}
