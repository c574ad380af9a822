//! The verifier against logs with one thing wrong.

use prost::Message as _;

use super::*;
use crate::checkpoint::{self, Checkpoint};
use crate::seal::SealFacts;
use crate::{Chain, SigningKey, chain_id, seal, verify};

mod agent;
mod heads;

use agent::*;

fn words(report: &Report) -> String {
    let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn log_key() -> SigningKey {
    SigningKey::from_bytes(&[99; 32])
}

fn note(log: &[Vec<u8>], size: usize) -> Note {
    let mut frontier = Frontier::new();
    log.iter().take(size).for_each(|entry| frontier.push(leaf_hash(entry)));
    let checkpoint = Checkpoint {
        origin: "log.example".to_owned(),
        size: frontier.size(),
        root: frontier.root(),
    };
    Note { from: format!("of {size}"), text: checkpoint::sign(&log_key(), &checkpoint).unwrap() }
}

fn trust(agents: &[&Agent], checkpoints: Vec<Note>) -> Trust {
    let key = VerifierKey::new("log.example", log_key().verifying_key().to_bytes()).unwrap();
    Trust {
        agents: agents.iter().map(|agent| agent.pin()).collect(),
        log_key: Some(key),
        checkpoints,
        policy: None,
    }
}

fn run(trust: Trust, log: &[Vec<u8>]) -> Report {
    let mut verifier = Verifier::new(trust);
    for (index, entry) in log.iter().enumerate() {
        let index = index as u64;
        verifier.feed(Place { index, file: "0.seg", offset: 64 + index * 100 }, entry);
    }
    verifier.finish()
}

/// Two agents, three chains, twelve records of the first chain in two batches.
fn sample() -> (Agent, Agent, Vec<Vec<u8>>) {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 2));
    let mut log = Vec::new();
    one.start(&mut log);
    two.start(&mut log);
    (0..5).for_each(|rows| one.outcome(&mut log, rows));
    one.seal(&mut log);
    two.outcome(&mut log, 9);
    two.seal(&mut log);
    (5..11).for_each(|rows| one.outcome(&mut log, rows));
    one.seal(&mut log);
    one.start(&mut log);
    one.outcome(&mut log, 1);
    one.seal(&mut log);
    (one, two, log)
}

#[test]
fn a_whole_log_verifies() {
    let (one, two, log) = sample();
    let notes = vec![note(&log, 0), note(&log, 3), note(&log, log.len())];
    let report = run(trust(&[&one, &two], notes), &log);
    assert_eq!(report.findings, []);
    assert_eq!((report.exit_code(), report.checkpoints_checked), (0, 3));
    assert_eq!((report.records, report.seals, report.bound_size), (16, 4, 20));
    assert!(report.chains.iter().all(|chain| chain.sealed == chain.records));
    assert!(!report.not_proven.is_empty());
}

#[test]
fn every_changed_byte_of_a_record_is_found_and_its_place_is_named() {
    const STEP: usize = 13;
    let (one, two, log) = sample();
    let original = note(&log, log.len());
    for index in 0..log.len() {
        for byte in (index % STEP..log[index].len()).step_by(STEP) {
            let mut changed = log.clone();
            changed[index][byte] ^= 1 << (byte % 8);
            if byte % 8 == 0 {
                let report = run(trust(&[&one, &two], vec![original.clone()]), &changed);
                assert_eq!(report.exit_code(), 20, "index {index} byte {byte}");
            }

            // A collector that signs its forgery has to leave the agents' bytes alone; the
            // envelope around them (time of receipt) is its own.
            let was = EntryBody::decode(log[index].as_slice()).unwrap();
            let is = EntryBody::decode(changed[index].as_slice());
            if is.is_ok_and(|is| EntryBody { received_ns: was.received_ns, ..is } == was) {
                continue;
            }
            let forged = run(trust(&[&one, &two], vec![note(&changed, log.len())]), &changed);
            assert_ne!(forged.exit_code(), 0, "index {index} byte {byte}");
            let named = forged.findings.iter().any(|finding| finding.index == Some(index as u64));
            assert!(named, "index {index} byte {byte}: {}", words(&forged));
        }
    }
}

#[test]
fn a_change_that_keeps_the_format_names_exactly_the_changed_record() {
    let (one, two, log) = sample();
    for (index, original) in log.iter().enumerate() {
        let mut body = EntryBody::decode(original.as_slice()).unwrap();
        if body.kind != 1 {
            continue;
        }
        let mut record = Record::decode(body.bytes.as_slice()).unwrap();
        if record.outcome.is_none() {
            continue;
        }
        for what in ["rows", "prev"] {
            match what {
                "rows" => record.outcome = Some(OutcomeBody { rows: 1_000_000 }),
                _ => record.prev = vec![1; 32],
            }
            body.bytes = record.encode_to_vec();
            let mut changed = log.clone();
            changed[index] = body.encode_to_vec();
            let report = run(trust(&[&one, &two], vec![note(&changed, log.len())]), &changed);
            let places: Vec<_> = report.findings.iter().map(|finding| finding.index).collect();
            assert_eq!(places, [Some(index as u64)], "{what} of {index}: {}", words(&report));
            assert_eq!(report.findings[0].offset, Some(64 + index as u64 * 100));
            assert_eq!(report.findings[0].file.as_deref(), Some("0.seg"));
            assert_eq!(report.exit_code(), 20);
        }
    }
}

#[test]
fn removal_insertion_and_reordering_are_found_even_when_the_collector_signs_them() {
    let (one, two, log) = sample();
    for index in 0..log.len() {
        let mut changed = log.clone();
        changed.remove(index);
        let report = run(trust(&[&one, &two], vec![note(&changed, changed.len())]), &changed);
        // An agent's very last seal can be cut with nothing but checkpoints to show it.
        assert_ne!(report.exit_code(), 0, "removed {index}");

        let mut changed = log.clone();
        changed.insert(index, log[index].clone());
        let report = run(trust(&[&one, &two], vec![note(&changed, changed.len())]), &changed);
        assert_eq!(report.exit_code(), 20, "doubled {index}");
    }
    let mut changed = log.clone();
    changed.swap(3, 4);
    let report = run(trust(&[&one, &two], vec![note(&changed, changed.len())]), &changed);
    assert_eq!(report.exit_code(), 20);
}

#[test]
fn a_cut_log_is_found_by_a_checkpoint_and_a_forked_one_too() {
    let (one, two, log) = sample();
    let notes = || vec![note(&log, log.len())];
    for size in 0..log.len() {
        assert_eq!(run(trust(&[&one, &two], notes()), &log[..size]).exit_code(), 20, "{size}");
    }
    let (mut three, mut other) = (Agent::new("three", 3), Vec::new());
    three.start(&mut other);
    three.seal(&mut other);
    let report = run(trust(&[&three], vec![note(&log, 2)]), &other);
    assert_eq!(report.exit_code(), 20);
}

#[test]
fn without_keys_or_checkpoints_it_says_that_it_cannot_decide() {
    let (one, two, log) = sample();
    let whole = || vec![note(&log, log.len())];
    assert_eq!(run(trust(&[&one, &two], Vec::new()), &log).exit_code(), 30);
    assert_eq!(run(trust(&[&one], whole()), &log).exit_code(), 30);
    let no_log_key = Trust { log_key: None, ..trust(&[&one, &two], whole()) };
    assert_eq!(run(no_log_key, &log).exit_code(), 30);
    let stranger = Agent::new("two", 7);
    assert_eq!(run(trust(&[&one, &stranger], whole()), &log).exit_code(), 20);
}

#[test]
fn what_agents_declare_is_a_gap_and_what_they_do_not_is_tampering() {
    let mut one = Agent::new("one", 1);
    let mut log = Vec::new();
    one.start(&mut log);
    one.outcome(&mut log, 0);
    one.seal(&mut log);
    let mut lost = Vec::new();
    one.outcome(&mut lost, 1);
    one.outcome(&mut lost, 2);
    one.sealed = one.chain.records();
    let mut silent = log.clone();
    let before = one.chain.clone();
    one.outcome(&mut silent, 3);
    one.seal(&mut silent);
    let report = run(trust(&[&one], vec![note(&silent, silent.len())]), &silent);
    assert_eq!(report.exit_code(), 20, "{:#?}", report.findings);

    one.chain = before;
    one.sealed = one.chain.records();
    let gap = GapBody {
        from_seq: 2,
        to_seq: 3,
        reason: "the disk lost them".to_owned(),
        chain_id: one.chain.id().0.to_vec(),
    };
    one.write(&mut log, Record { gap: Some(gap), ..Record::default() });
    let bypass = BypassBody { phase: 1, target: "ledger".to_owned() };
    one.write(&mut log, Record { bypass: Some(bypass), ..Record::default() });
    one.seal(&mut log);
    let report = run(trust(&[&one], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 10, "{:#?}", report.findings);
    assert_eq!(report.findings.len(), 2);

    // Of a chain that this log does not hold.
    let (mut one, two, mut log) = sample();
    let gap = GapBody {
        from_seq: 4,
        to_seq: 9,
        reason: "the disk lost them".to_owned(),
        chain_id: vec![7; 32],
    };
    one.write(&mut log, Record { gap: Some(gap), ..Record::default() });
    one.seal(&mut log);
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 10, "{:#?}", report.findings);
    assert!(report.findings[0].what.contains("records 4 to 9 of chain 0707"), "{report:#?}");
}

#[test]
fn chains_of_an_agent_must_follow_each_other() {
    let (mut one, two, mut log) = sample();
    // The last records of a chain are missing, and its successor counts them.
    let mut lost = Vec::new();
    one.outcome(&mut lost, 2);
    one.start(&mut log);
    one.seal(&mut log);
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 20);
    assert!(report.findings[0].what.contains("missing at its end"), "{:?}", report.findings);

    // The agent's state was copied: two chains follow one.
    let (mut one, two, mut log) = sample();
    let saved = one.chain.clone();
    one.start(&mut log);
    one.seal(&mut log);
    one.chain = saved;
    one.start(&mut log);
    one.seal(&mut log);
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 20);

    // The agent lost its state: it says nothing of the chain before.
    let (mut one, two, mut log) = sample();
    one.runs = 0;
    one.boot = 9;
    one.start(&mut log);
    one.seal(&mut log);
    let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 10);

    // The chain before was never sent here.
    let mut one = Agent::new("one", 1);
    one.start(&mut Vec::new());
    let mut log = Vec::new();
    one.start(&mut log);
    one.seal(&mut log);
    let report = run(trust(&[&one], vec![note(&log, log.len())]), &log);
    assert_eq!(report.exit_code(), 30);
}

#[test]
fn an_unclean_end_is_a_gap_only_when_the_host_went_down_with_it() {
    for (boot, code) in [(1, 0), (2, 10)] {
        let (mut one, two, mut log) = sample();
        let ended = one.chain.id().0.to_vec();
        one.boot = boot;
        one.start(&mut log);
        let recovered = RecoveredBody { chain_id: ended };
        one.write(&mut log, Record { recovered: Some(recovered), ..Record::default() });
        one.seal(&mut log);
        let report = run(trust(&[&one, &two], vec![note(&log, log.len())]), &log);
        assert_eq!(report.exit_code(), code, "{:#?}", report.findings);
    }
}

#[test]
fn damage_and_holes_in_the_index_are_named() {
    let (one, two, log) = sample();
    let mut verifier = Verifier::new(trust(&[&one, &two], vec![note(&log, log.len())]));
    verifier.feed(Place { index: 0, file: "0.seg", offset: 64 }, &log[0]);
    verifier.damage("0.seg", 164, "the checksum does not match");
    for (index, entry) in log.iter().enumerate().skip(2) {
        verifier.feed(Place { index: index as u64, file: "0.seg", offset: 0 }, entry);
    }
    let report = verifier.finish();
    assert_eq!(report.exit_code(), 20);
    assert_eq!(
        report.findings.iter().find(|one| one.index == Some(1)).unwrap().to_string(),
        "tampering: 0.seg at byte 164, index 1, the checksum does not match"
    );
}

#[test]
fn the_worst_finding_decides_even_when_the_list_is_full() {
    let (one, two, log) = sample();
    let mut verifier = Verifier::new(trust(&[&one, &two], Vec::new()));
    for _ in 0..verify::FINDINGS_MAX + 5 {
        verifier.find(Class::Gap, &Spot::default(), None, None, String::new());
    }
    for (index, entry) in log.iter().enumerate().skip(1) {
        verifier.feed(Place { index: index as u64, file: "", offset: 0 }, entry);
    }
    let report = verifier.finish();
    assert_eq!((report.exit_code(), report.findings.len()), (20, verify::FINDINGS_MAX));
    assert!(report.findings_left_out > 0);
}
