//! Nothing that is missing is green: each discrepancy is planted once.

use tidegate_proto::audit::v1::{Bypass, Equivocation, Gap, Genesis, Missing, bypass};

use super::*;

/// The period is from second 100 to second 200.
const FROM: i64 = 100;
const TO: i64 = 200;

fn question() -> Question {
    Question { from_ns: FROM * SECOND_NS, to_ns: TO * SECOND_NS, ..Question::default() }
}

fn seen(chain: i64, second: i64, body: Body) -> Seen {
    let wall_ns = second * SECOND_NS;
    let received_ns = wall_ns + SECOND_NS / 10;
    Seen { wall_ns, boot_ns: wall_ns + 7, received_ns, chain, body }
}

fn pair(sessions: u64) -> Coverage {
    Coverage {
        principal: "batch".to_owned(),
        target: "db".to_owned(),
        accepted: sessions,
        sessions,
        sessions_ended: sessions,
        kernel_bytes_in: 100 * sessions,
        bytes_in: 100 * sessions,
        kernel_bytes_out: 10 * sessions,
        bytes_out: 10 * sessions,
        ..Coverage::default()
    }
}

fn genesis(boot: u8) -> Body {
    Body::Genesis(Genesis { boot_id: vec![boot; 16].into(), ..Genesis::default() })
}

fn attached(taken_over: bool) -> Body {
    Body::Lifecycle(Lifecycle { kind: Kind::Attached.into(), taken_over, ..Lifecycle::default() })
}

fn beat(coverage: Vec<Coverage>) -> Heartbeat {
    let digest = Bytes::from_static(&[5; 32]);
    Heartbeat {
        coverage,
        hooks_digest: digest.clone(),
        agent_digest: digest,
        ..Heartbeat::default()
    }
}

/// One chain with a heartbeat every ten seconds from 75 to 205, and a session in each time between.
fn day() -> Vec<Seen> {
    let mut all = vec![seen(1, 70, genesis(1)), seen(1, 70, attached(false))];
    for (sessions, second) in (0..).zip((75..=205).step_by(10)) {
        all.push(seen(1, second, Body::Heartbeat(beat(vec![pair(sessions)]))));
    }
    all
}

fn judge(question: &Question, all: Vec<Seen>) -> Host {
    let mut judge = Judge::new(question, "host-a", "a.example");
    for one in all {
        judge.take(one);
    }
    judge.finish()
}

/// The heartbeats from that second on.
fn beats_from(all: &mut [Seen], second: i64) -> impl Iterator<Item = &mut Heartbeat> {
    all.iter_mut().filter(move |one| one.wall_ns >= second * SECOND_NS).filter_map(|one| {
        match &mut one.body {
            Body::Heartbeat(beat) => Some(beat),
            _ => None,
        }
    })
}

fn pairs_from(all: &mut [Seen], second: i64) -> impl Iterator<Item = &mut Coverage> {
    beats_from(all, second).flat_map(|beat| beat.coverage.iter_mut())
}

#[test]
fn a_period_with_all_its_heartbeats_and_counts_is_whole() {
    let host = judge(&question(), day());
    assert_eq!((host.verdict, host.holes), (Verdict::Whole, Vec::new()));
    assert_eq!(host.heard_until_ns, Some(205 * SECOND_NS));
    let [pair] = host.pairs.as_slice() else { panic!("{:?}", host.pairs) };
    // Times between heartbeats that touch the period count whole.
    assert_eq!((pair.sessions, pair.accepted, pair.kernel_bytes_in), (11, 11, 1100));
}

/// What is expected, from when to when, and how it is planted.
type Row = (&'static str, (i64, i64), fn(&mut Vec<Seen>));

fn check(rows: &[Row]) {
    for &(expected, (from, to), plant) in rows {
        let mut all = day();
        plant(&mut all);
        let host = judge(&question(), all);
        assert_eq!(host.verdict, Verdict::NotWhole, "{expected}");
        let hole = host.holes.iter().find(|hole| hole.why.starts_with(expected));
        let hole = hole.unwrap_or_else(|| panic!("{expected}: {:?}", host.holes));
        assert_eq!((hole.from_ns / SECOND_NS, hole.to_ns / SECOND_NS), (from, to), "{expected}");
    }
}

#[test]
fn no_silence_and_no_count_that_disagrees_is_green() {
    check(&[
        ("nothing was heard of this host in the period", (100, 200), Vec::clear),
        ("nothing was heard of this host in the period", (100, 200), |all| {
            all.retain(|one| one.wall_ns < 90 * SECOND_NS);
        }),
        ("nothing was heard of this host before", (100, 125), |all| {
            all.retain(|one| one.wall_ns >= 120 * SECOND_NS);
        }),
        ("nothing was heard of this host any more", (155, 200), |all| {
            all.retain(|one| one.wall_ns < 160 * SECOND_NS);
        }),
        ("no heartbeat for 40 s", (125, 165), |all| {
            all.retain(|one| !(130..160).contains(&(one.wall_ns / SECOND_NS)));
        }),
        ("batch to \"db\": 1 connections reached the gate and were neither", (125, 135), |all| {
            for pair in pairs_from(all, 130) {
                pair.sessions -= 2;
            }
        }),
        ("batch to \"db\": 1 connections were counted by the gate and not by", (125, 135), |all| {
            pairs_from(all, 130).for_each(|pair| pair.sessions += 1);
        }),
        ("batch to \"db\": 1 bytes from the client are not the same", (125, 135), |all| {
            pairs_from(all, 130).for_each(|pair| pair.bytes_in -= 1);
        }),
        ("batch to \"db\": 3 bytes to the client are not the same", (125, 135), |all| {
            pairs_from(all, 130).for_each(|pair| pair.kernel_bytes_out += 3);
        }),
    ]);
}

#[test]
fn no_loss_and_no_change_is_green() {
    check(&[
        ("2 events or counts found no room in the kernel", (125, 135), |all| {
            beats_from(all, 130).for_each(|beat| beat.kernel_lost = 2);
        }),
        ("the agent says: 2 events found no room", (125, 135), |all| {
            let text = "2 events found no room".to_owned();
            beats_from(all, 130).for_each(|beat| beat.discrepancies.push(text.clone()));
        }),
        ("4 connections passed the gate by on_failure", (125, 135), |all| {
            beats_from(all, 130).for_each(|beat| beat.passed_open = 4);
        }),
        ("the hooks in the kernel are not those of the heartbeat before", (125, 135), |all| {
            beats_from(all, 130).for_each(|beat| beat.hooks_digest = Bytes::from_static(b"x"));
        }),
        ("the heartbeat does not say how the hooks are", (125, 200), |all| {
            beats_from(all, 130).for_each(|beat| beat.hooks_digest = Bytes::new());
        }),
        ("the agent's program file is not that of", (125, 135), |all| {
            beats_from(all, 130).for_each(|beat| beat.agent_digest = Bytes::new());
        }),
        ("the host's clock was set by 600 s", (125, 200), |all| {
            for one in all.iter_mut().filter(|one| one.wall_ns >= 130 * SECOND_NS) {
                one.wall_ns += 600 * SECOND_NS;
                one.received_ns += 600 * SECOND_NS;
            }
        }),
        ("the host's clock is 60 s ahead of the collector's", (100, 105), |all| {
            for one in all.iter_mut().filter(|one| one.wall_ns >= 100 * SECOND_NS) {
                one.received_ns = one.wall_ns - 60 * SECOND_NS;
            }
        }),
        ("the hooks were taken away by a command", (125, 200), |all| {
            let kind = Kind::Detached.into();
            let gone = Body::Lifecycle(Lifecycle { kind, ..Lifecycle::default() });
            all.insert(8, seen(1, 130, gone));
        }),
        ("records 5 to 7 are lost", (130, 130), |all| {
            let gap = Gap { from_seq: 5, to_seq: 7, ..Gap::default() };
            all.insert(8, seen(1, 130, Body::Gap(gap)));
        }),
        ("records 5 to 7 never came", (130, 130), |all| {
            let missing = Missing { from_seq: 5, to_seq: 7, ..Missing::default() };
            all.insert(8, seen(9, 130, Body::Missing(missing)));
        }),
        ("the agent sealed two histories", (130, 130), |all| {
            all.insert(8, seen(9, 130, Body::Equivocation(Equivocation::default())));
        }),
    ]);
}

#[test]
fn what_was_wrong_before_the_period_is_not_held_against_it() {
    let mut all = day();
    pairs_from(&mut all, 75).for_each(|pair| pair.kernel_bytes_in += 5);
    beats_from(&mut all, 75).for_each(|beat| beat.discrepancies.push("old".to_owned()));
    assert_eq!(judge(&question(), all).verdict, Verdict::Whole);
}

/// The day with another run of the agent from second 130 on.
fn restarted(boot: u8, taken_over: bool) -> Vec<Seen> {
    let mut all = day();
    for one in all.iter_mut().filter(|one| one.wall_ns >= 130 * SECOND_NS) {
        one.chain = 2;
    }
    all.insert(8, seen(2, 130, genesis(boot)));
    all.insert(9, seen(2, 130, attached(taken_over)));
    all
}

#[test]
fn a_restart_is_whole_where_the_hooks_stayed_in_place() {
    assert_eq!(judge(&question(), restarted(1, true)).verdict, Verdict::Whole);
    for (boot, taken_over, why) in [
        (1, false, "the agent found no hooks in place"),
        (2, false, "the host was started anew"),
        (2, true, "the host was started anew"),
    ] {
        let host = judge(&question(), restarted(boot, taken_over));
        let [hole] = host.holes.as_slice() else { panic!("{:?}", host.holes) };
        assert!(hole.why.starts_with(why), "{}", hole.why);
        assert_eq!((hole.from_ns, hole.to_ns), (125 * SECOND_NS, 135 * SECOND_NS));
    }
}

fn found(kind: &str, outcome: &str, target: &str) -> Body {
    let text = str::to_owned;
    Body::Finding(Finding {
        kind: text(kind),
        outcome: text(outcome),
        detail: text("said"),
        principal: text("batch"),
        target: text(target),
        ..Finding::default()
    })
}

#[test]
fn an_open_door_is_named_and_a_changed_hook_is_a_hole() {
    for (kind, outcome, expected) in [
        ("packet_socket", "open", Verdict::OpenDoors),
        ("earlier", "passed", Verdict::OpenDoors),
        ("reverse", "passed", Verdict::OpenDoors),
        ("opaque", "passed", Verdict::Whole),
        ("bypass", "ended", Verdict::Whole),
        ("hooks", "open", Verdict::NotWhole),
        ("clock", "open", Verdict::NotWhole),
    ] {
        let mut all = day();
        all.insert(8, seen(1, 130, found(kind, outcome, "")));
        assert_eq!(judge(&question(), all).verdict, expected, "{kind}");
    }
}

#[test]
fn only_what_is_asked_for_counts() {
    let mut all = day();
    pairs_from(&mut all, 130).for_each(|pair| pair.bytes_in -= 1);
    all.insert(8, seen(1, 130, found("reverse", "passed", "db")));
    let bypass =
        Bypass { phase: bypass::Phase::Start.into(), target: "db".to_owned(), ..Bypass::default() };
    all.insert(8, seen(1, 130, Body::Bypass(bypass)));
    let asked = |target: &str| Question { target: Some(target.to_owned()), ..question() };
    assert_eq!(judge(&asked("db"), all.clone()).verdict, Verdict::NotWhole);
    let other = judge(&asked("other"), all.clone());
    assert_eq!((other.verdict, other.pairs.len()), (Verdict::Whole, 0));
    let who = Question { principal: Some("cron".to_owned()), ..question() };
    // A bypass is about all accounts.
    assert_eq!(judge(&who, all).verdict, Verdict::NotWhole);
}
