//! What fits is approved, and what differs in anything is not.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn person(name: &str, groups: &[&str]) -> Approver {
    Approver { name: name.to_owned(), groups: groups.iter().map(ToString::to_string).collect() }
}

fn binding() -> Binding {
    Binding {
        principal: "batch".to_owned(),
        target: "ledger".to_owned(),
        db_user: "app".to_owned(),
        database: "bank".to_owned(),
        operation: [7; 32],
    }
}

fn at(seconds: u64) -> Clock {
    Clock { boot_id: [1; 16], wall_ns: (1_000_000 + seconds) * SECOND, boot_ns: seconds * SECOND }
}

/// Two of dba or security, one use, an hour.
fn ticket() -> Ticket {
    let groups = ["dba", "security"].map(str::to_owned).into();
    let demands = BTreeSet::from([Demand { groups, people: 2 }]);
    let need = Need { demands, reuse_seconds: None, wait_seconds: 60, deadline_seconds: 3600 };
    Ticket { id: "t1".to_owned(), binding: binding(), need, salt: [5; 32], asked: at(10) }
}

fn grant() -> Grant {
    let ticket = ticket();
    Grant {
        id: ticket.id.clone(),
        binding: ticket.digest(),
        deadline_ns: ticket.deadline_ns(),
        people: vec![person("ann", &["dba"]), person("ben", &["security", "ops"])],
    }
}

#[derive(Debug, Clone)]
struct Attempt {
    ticket: Ticket,
    grant: Grant,
    asked: Binding,
    first_use: Option<Clock>,
    now: Clock,
}

fn attempt(change: impl FnOnce(&mut Attempt)) -> Result<Approved, Unfit> {
    let (ticket, grant) = (ticket(), grant());
    let mut attempt = Attempt { ticket, grant, asked: binding(), first_use: None, now: at(20) };
    change(&mut attempt);
    let Attempt { ticket, grant, asked, first_use, now } = &attempt;
    check(ticket, grant, asked, first_use.as_ref(), now)
}

#[test]
fn what_fits_is_approved() {
    let approved = attempt(|_| {}).unwrap();
    assert_eq!(approved.words(), "approved by ann, ben; request t1");
    assert!(attempt(|a| a.now = at(3609)).is_ok());
    // After a restart of the host only the clock on the wall is there to go by.
    assert!(attempt(|a| a.now = Clock { boot_id: [2; 16], boot_ns: 0, ..at(20) }).is_ok());
    let again = |a: &mut Attempt, now| {
        a.ticket.need.reuse_seconds = Some(60);
        a.first_use = Some(at(20));
        a.now = at(now);
    };
    assert!(attempt(|a| again(a, 79)).is_ok());
    assert_eq!(attempt(|a| again(a, 80)).unwrap_err(), Unfit::Used);
}

type Change = fn(&mut Attempt);

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_differs_in_anything_is_not_approved() {
    let attempts: [(&str, Change, Unfit); 27] = [
        ("another ticket", |a| a.grant.id = "t2".into(), Unfit::OtherTicket),
        ("changed text or parameters", |a| a.asked.operation = [8; 32], Unfit::OtherOperation),
        ("another principal", |a| a.asked.principal = "web".into(), Unfit::OtherOperation),
        ("another target", |a| a.asked.target = "test".into(), Unfit::OtherOperation),
        ("another user", |a| a.asked.db_user = "postgres".into(), Unfit::OtherOperation),
        ("another database", |a| a.asked.database = "other".into(), Unfit::OtherOperation),
        ("approvers saw another", |a| a.grant.binding = [0; 32], Unfit::OtherBinding),
        (
            "the ticket was changed to what is asked",
            |a| {
                a.ticket.binding.target = "test".into();
                a.asked.target = "test".into();
            },
            Unfit::OtherBinding,
        ),
        ("another salt", |a| a.ticket.salt = [6; 32], Unfit::OtherBinding),
        ("a later deadline", |a| a.grant.deadline_ns += 1, Unfit::OtherDeadline),
        ("an earlier deadline", |a| a.grant.deadline_ns -= 1, Unfit::OtherDeadline),
        (
            "the ticket's deadline was changed",
            |a| a.ticket.need.deadline_seconds = 86400,
            Unfit::OtherDeadline,
        ),
        ("at the deadline", |a| a.now = at(3610), Unfit::OutOfTime),
        ("long after", |a| a.now = at(999_999), Unfit::OutOfTime),
        ("wall clock before the request", |a| a.now.wall_ns = at(9).wall_ns, Unfit::OutOfTime),
        (
            "wall clock set back to within the deadline",
            |a| a.now = Clock { wall_ns: at(20).wall_ns, ..at(4000) },
            Unfit::OutOfTime,
        ),
        (
            "wall clock set forward",
            |a| a.now = Clock { wall_ns: at(4000).wall_ns, ..at(20) },
            Unfit::OutOfTime,
        ),
        ("boot clock before the request", |a| a.now.boot_ns = 0, Unfit::OutOfTime),
        (
            "restarted host, clock set back",
            |a| a.now = Clock { boot_id: [2; 16], ..at(0) },
            Unfit::OutOfTime,
        ),
        (
            "restarted host, after the deadline",
            |a| a.now = Clock { boot_id: [2; 16], boot_ns: 0, ..at(3610) },
            Unfit::OutOfTime,
        ),
        ("used once", |a| a.first_use = Some(at(15)), Unfit::Used),
        ("nobody", |a| a.grant.people.clear(), Unfit::TooFew),
        (
            "one of two",
            |a| {
                a.grant.people.pop();
            },
            Unfit::TooFew,
        ),
        (
            "the same twice",
            |a| a.grant.people = vec![person("ann", &["dba"]), person("ann", &["security"])],
            Unfit::TooFew,
        ),
        (
            "not of the groups",
            |a| a.grant.people = vec![person("ann", &["dba"]), person("eve", &["web"])],
            Unfit::TooFew,
        ),
        (
            "oneself as one of three",
            |a| a.grant.people.push(person("batch", &["dba"])),
            Unfit::Oneself,
        ),
        ("no demand at all", |a| a.ticket.need.demands.clear(), Unfit::TooFew),
    ];
    for (name, change, expected) in attempts {
        assert_eq!(attempt(change).map(|_| ()), Err(expected), "{name}");
    }
}

#[test]
fn of_several_demands_all_hold_and_each_bound_is_the_least() {
    let need = |group: &str, reuse_seconds, seconds| Need {
        demands: BTreeSet::from([Demand { groups: [group.to_owned()].into(), people: 1 }]),
        reuse_seconds,
        wait_seconds: seconds,
        deadline_seconds: seconds * 2,
    };
    let mut all = need("dba", Some(60), 30);
    all.tighten(&need("security", Some(600), 20));
    assert_eq!((all.reuse_seconds, all.wait_seconds, all.deadline_seconds), (Some(60), 20, 40));
    assert_eq!(all.words(), "1 of dba and 1 of security, for 1 minutes");
    assert!(!all.is_met_by(&[person("ann", &["dba"])]));
    assert!(all.is_met_by(&[person("ann", &["dba", "security"])]));
    all.tighten(&need("dba", None, 20));
    assert_eq!(all.reuse_seconds, None);
}
