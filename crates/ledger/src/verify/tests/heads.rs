//! A log that its own key signed anew: what witnesses and agents saw tells. Forks, clocks.

use super::*;
use crate::cosignature::{WitnessKey, cosign};
use crate::policy::{Policy, Witness};

fn heartbeat(agent: &mut Agent, log: &mut Vec<Vec<u8>>, seen: &Note) {
    let heartbeat = HeartbeatBody { checkpoint: seen.text.clone() };
    agent.write(log, Record { heartbeat: Some(heartbeat), ..Record::default() });
    agent.seal(log);
}

/// A log in which agent one has seen the checkpoint over 20 entries, and its checkpoints.
fn seen() -> (Agent, Agent, Vec<Vec<u8>>, Vec<Note>) {
    let (mut one, two, mut log) = sample();
    let early = note(&log, log.len());
    heartbeat(&mut one, &mut log, &early);
    let last = note(&log, log.len());
    (one, two, log, vec![early, last])
}

#[test]
fn what_an_agent_saw_convicts_a_log_that_its_own_key_signed_anew() {
    let (one, two, log, notes) = seen();
    let report = run(trust(&[&one, &two], notes.clone()), &log);
    assert_eq!((report.exit_code(), report.seen_heads), (0, 1), "{}", words(&report));

    // A whole chain is taken out, and everything signed anew with the stolen key.
    let gone = two.chain.id();
    let mut forged = log.clone();
    forged.retain(|entry| EntryBody::decode(entry.as_slice()).unwrap().chain_id != gone.0);
    let (early, last) = (note(&forged, 17), note(&forged, forged.len()));
    let report = run(trust(&[&one, &two], vec![early, last.clone()]), &forged);
    assert_eq!(report.exit_code(), 20);
    assert!(words(&report).contains("before the log had so many"), "{}", words(&report));

    // The same, with the place filled up, so that the size is the old one.
    let mut filler = Agent::new("two", 2);
    filler.runs = 5;
    filler.start(&mut forged);
    (0..1).for_each(|_| filler.outcome(&mut forged, 1));
    filler.seal(&mut forged);
    forged.rotate_right(3);
    let notes = vec![note(&forged, 20), note(&forged, forged.len())];
    let report = run(trust(&[&one, &two], notes), &forged);
    assert!(words(&report).contains("rewritten, or forked"), "{}", words(&report));

    // The history of checkpoints lost one.
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert!(words(&report).contains("not among those given"), "{}", words(&report));
}

#[test]
fn a_note_that_the_log_did_not_sign_convicts_nobody() {
    let (mut one, two, mut log, mut notes) = seen();
    let liar = Note { from: String::new(), text: "anything\n\n\u{2014} a AAAA\n".to_owned() };
    heartbeat(&mut one, &mut log, &liar);
    notes.push(note(&log, log.len()));
    assert_eq!(run(trust(&[&one, &two], notes), &log).exit_code(), 30);
}

fn witness() -> (SigningKey, Witness) {
    let key = SigningKey::from_bytes(&[77; 32]);
    let public = WitnessKey::new("w.example", key.verifying_key().to_bytes()).unwrap();
    (key, Witness { name: "w".to_owned(), key: public, url: None })
}

#[test]
fn a_policy_asks_for_its_quorum_of_witnesses() {
    let (one, two, log) = sample();
    let (key, known) = witness();
    let log_key = trust(&[], Vec::new()).log_key.unwrap();
    let cosigned = |note: Note| {
        let line = cosign(&key, "w.example", &note.text, 7).unwrap();
        Note { text: format!("{}{line}", note.text), ..note }
    };
    let with = |threshold: usize, notes: Vec<Note>, log: &[Vec<u8>]| {
        let policy = Policy::of(log_key.clone(), vec![known.clone()], threshold);
        run(Trust { policy: Some(policy), ..trust(&[&one, &two], notes) }, log)
    };
    let (some, all) = (note(&log, 5), note(&log, log.len()));
    assert_eq!(with(1, vec![some.clone(), all.clone()], &log).exit_code(), 30, "nobody witnessed");
    assert_eq!(with(0, vec![cosigned(all.clone())], &log).exit_code(), 30, "nobody is asked for");
    let report = with(1, vec![cosigned(some.clone()), all.clone()], &log);
    assert_eq!((report.exit_code(), report.witnessed_size), (0, 5), "{}", words(&report));
    assert!(report.not_proven.iter().any(|line| line.contains("entries 5 to 19")));
    let forged = Note { text: cosigned(some).text.replace("w.example ", "w.example A"), ..all };
    assert_ne!(with(1, vec![forged], &log).exit_code(), 0);

    // What the witness has signed tells where a log was rewritten with the stolen key.
    let mut other = log.clone();
    other.swap(7, 8);
    let notes = vec![cosigned(note(&log, 5)), cosigned(note(&log, 12)), note(&other, other.len())];
    let report = with(1, notes, &other);
    assert_eq!(report.exit_code(), 20);
    assert!(words(&report).contains("the change lies in entries 5 to 11"), "{}", words(&report));
}

#[test]
fn a_fork_that_the_collector_kept_is_found_where_its_seal_is_the_agents() {
    for (by, code) in [(1, 20), (9, 30)] {
        let (one, two, mut log) = sample();
        let mut collector = Agent::new("@collector", 50);
        collector.start(&mut log);
        let facts = SealFacts {
            chain_id: one.chain.id(),
            first: Seq(0),
            last: Seq(1),
            chain_value: [8; 32],
            wall_ns: 1,
            boot_ns: 2,
        };
        let equivocation = EquivocationBody {
            agent_id: "one".to_owned(),
            chain_id: one.chain.id().0.to_vec(),
            seq: 1,
            seal: seal::sign(&SigningKey::from_bytes(&[by; 32]), &facts),
        };
        collector.write(&mut log, Record { equivocation: Some(equivocation), ..Record::default() });
        collector.seal(&mut log);
        let report = run(trust(&[&one, &two, &collector], vec![note(&log, log.len())]), &log);
        assert_eq!(report.exit_code(), code, "{}", words(&report));
        assert_eq!(report.findings.len(), 1);
    }
}

#[test]
fn what_the_collector_misses_is_a_gap_until_it_comes() {
    // The chain has records 0 and 1.
    for (to, code) in [(90, 10), (2, 10), (1, 0)] {
        let (one, two, mut log) = sample();
        let mut collector = Agent::new("@collector", 50);
        collector.start(&mut log);
        let missing = MissingBody {
            agent_id: "one".to_owned(),
            chain_id: two.chain.id().0.to_vec(),
            from_seq: 1,
            to_seq: to,
        };
        collector.write(&mut log, Record { missing: Some(missing), ..Record::default() });
        collector.seal(&mut log);
        let report = run(trust(&[&one, &two, &collector], vec![note(&log, log.len())]), &log);
        assert_eq!(report.exit_code(), code, "{to}: {}", words(&report));
    }
}

#[test]
fn a_clock_that_was_set_is_noted_and_no_fault_of_the_log() {
    const SECOND: u64 = 1_000_000_000;
    for (step_s, noted) in [(0, 0), (1, 0), (3, 1)] {
        let mut one = Agent::new("one", 1);
        let mut log = Vec::new();
        one.start(&mut log);
        for at in 1..4_u64 {
            let step = if at >= 2 { step_s * SECOND } else { 0 };
            let wall_ns = (1000 + at) * SECOND + step;
            let clocks = Record { wall_ns, boot_ns: at * SECOND, ..Record::default() };
            one.write(&mut log, Record { outcome: Some(OutcomeBody { rows: 1 }), ..clocks });
        }
        one.seal(&mut log);
        let report = run(trust(&[&one], vec![note(&log, log.len())]), &log);
        // The Genesis of this agent has no clocks, so the first record behind it is one step.
        let steps = report.findings.iter().filter(|found| found.class == Class::Notice).count();
        assert_eq!((report.exit_code(), steps), (0, noted + 1), "{step_s}: {}", words(&report));
    }
    let (one, two, mut log) = sample();
    let body = EntryBody::decode(log[4].as_slice()).unwrap();
    let chain = ChainId::from_slice(&body.chain_id).unwrap();
    log[4] = entry_at(body.kind, &chain, &body.bytes, 9 * SECOND);
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert_eq!((report.exit_code(), report.findings.len()), (0, 1), "{}", words(&report));
    assert!(words(&report).contains("collector's clock was set back by 8 s"));
}
