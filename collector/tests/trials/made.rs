//! A log made by seed: agents, batches, checkpoints, a witness; and its files.

use std::path::Path;

use tidegate_collector::keys::{AuditKey, Keys};
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::cosignature::{WitnessKey, cosign};
use tidegate_ledger::policy::{self, Policy};
use tidegate_ledger::tree::{Frontier, leaf_hash};
use tidegate_ledger::{Header, SigningKey};
use tidegate_proto::audit::v1::Heartbeat;
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::entry;
use tidegate_segment::os::OsFiles;
use tidegate_segment::{Log, Options};

use crate::agent::FakeAgent;
use crate::random::Random;

const ORIGIN: &str = "trial.example/log";
const RECORD: u8 = 1;
const SEAL: u8 = 2;

/// Frames, and what was signed over them.
#[derive(Clone)]
pub struct Made {
    pub frames: Vec<(u8, Vec<u8>)>,
    /// Sizes at which a checkpoint was signed, and whether the witness signed it too.
    pub heads: Vec<(usize, bool)>,
    agents: Vec<FakeAgent>,
    received_ns: u64,
}

pub fn log_key() -> SigningKey {
    SigningKey::from_bytes(&[201; 32])
}

impl Made {
    pub fn new(random: &mut Random) -> Self {
        let agents = (1..=2 + random.below(2))
            .map(|seed| FakeAgent::new(&format!("host-{seed}"), u8::try_from(seed).unwrap()));
        let mut made = Self {
            frames: Vec::new(),
            heads: Vec::new(),
            agents: agents.collect(),
            received_ns: 1_700_000_000_000_000_000,
        };
        for _ in 0..8 + random.below(6) {
            made.batch(random);
            if random.one_in(2) {
                made.heads.push((made.frames.len(), !random.one_in(4)));
            }
        }
        // Behind the last of these nothing is bound, so the trials end on a witnessed one.
        made.heads.push((made.frames.len(), true));
        made.heads.dedup_by_key(|head| head.0);
        made.heads.last_mut().unwrap().1 = true;
        made
    }

    /// One batch of some agent goes into the log.
    pub fn batch(&mut self, random: &mut Random) {
        let seen = self.heads.last().map(|(size, _)| self.note(*size));
        let which = random.below(self.agents.len());
        let agent = &mut self.agents[which];
        if agent.chain.records() > 4 && random.one_in(6) {
            agent.next_chain();
        }
        for _ in 0..=random.below(3) {
            match random.below(3) {
                0 => agent.statement("select 1", "select", "accounts", Verdict::Allow),
                1 => agent.statement("delete from t", "delete", "t", Verdict::Deny),
                _ => {
                    let checkpoint = seen.clone().unwrap_or_default();
                    agent.record(Body::Heartbeat(Heartbeat { checkpoint, ..Heartbeat::default() }));
                }
            }
        }
        let batch = agent.batch();
        self.received_ns += 1_000_000;
        let chain = Header::read(&batch.records[0]).unwrap().chain_id;
        for record in &batch.records {
            let entry = entry::encode(Kind::Record, &chain, self.received_ns, record);
            self.frames.push((RECORD, entry));
        }
        self.frames.push((SEAL, entry::encode(Kind::Seal, &chain, self.received_ns, &batch.seal)));
    }

    /// A host that only a second collector hears of.
    pub fn stranger(&mut self) {
        self.agents.push(FakeAgent::new("host-9", 9));
        self.agents.swap_remove(0);
    }

    /// The signed note over the first `size` frames.
    pub fn note(&self, size: usize) -> String {
        let mut frontier = Frontier::new();
        self.frames[..size].iter().for_each(|(_, frame)| frontier.push(leaf_hash(frame)));
        let (size, root) = (frontier.size(), frontier.root());
        checkpoint::sign(&log_key(), &Checkpoint { origin: ORIGIN.into(), size, root }).unwrap()
    }

    /// The notes that the witness holds, as it keeps them.
    pub fn witnessed(&self) -> Vec<String> {
        let heads = self.heads.iter().filter(|(_, witnessed)| *witnessed);
        heads.map(|(size, _)| cosigned(&self.note(*size))).collect()
    }

    /// Writes what a collector with these frames has, and beside it what the auditor brings: keys, policy,
    /// and the notes of the witness.
    pub fn write(&self, dir: &Path, by_log: &[String], cosigned: &[String], witness: &[String]) {
        let log = dir.join("log");
        std::fs::create_dir_all(&log).unwrap();
        write_frames(&log.join("seg"), &self.frames);
        let lines = |notes: &[String]| {
            let lines = notes.iter().map(|note| serde_json::to_string(note).unwrap() + "\n");
            lines.collect::<String>()
        };
        std::fs::write(log.join("checkpoints"), lines(by_log)).unwrap();
        std::fs::write(log.join("cosigned"), lines(cosigned)).unwrap();
        if let Some(newest) = by_log.last() {
            std::fs::write(log.join("checkpoint"), newest).unwrap();
        }
        std::fs::write(dir.join("witness"), lines(witness)).unwrap();
        std::fs::write(dir.join("keys.json"), serde_json::to_string(&keys()).unwrap()).unwrap();
        std::fs::write(dir.join("policy.txt"), policy().to_string()).unwrap();
    }

    /// The same, with everything that these frames' own collector has signed.
    pub fn write_own(&self, dir: &Path, witness: &[String]) {
        let by_log: Vec<String> = self.heads.iter().map(|(size, _)| self.note(*size)).collect();
        self.write(dir, &by_log, &self.witnessed(), witness);
    }
}

fn write_frames(dir: &Path, frames: &[(u8, Vec<u8>)]) {
    std::fs::create_dir_all(dir).unwrap();
    let options = Options { owner: [7; 32], segment_bytes: 64 * 1024, ..Options::default() };
    let (mut log, _) = Log::open(OsFiles::open(dir).unwrap(), options).unwrap();
    for (at, (kind, frame)) in frames.iter().enumerate() {
        log.append(*kind, frame).unwrap();
        if at % 7 == 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    log.close().unwrap();
}

fn keys() -> Keys {
    let verifier = VerifierKey::new(ORIGIN, log_key().verifying_key().to_bytes()).unwrap();
    let agents = [1_u8, 2, 3, 9].map(|seed| AuditKey {
        agent_id: format!("host-{seed}"),
        audit_key: SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes(),
    });
    Keys { v: 1, log_key: verifier.to_string(), agents: agents.to_vec() }
}

fn witness_key() -> SigningKey {
    SigningKey::from_bytes(&[202; 32])
}

fn policy() -> Policy {
    let key = WitnessKey::new("witness.example", witness_key().verifying_key().to_bytes());
    let witness = policy::Witness { name: "w".to_owned(), key: key.unwrap(), url: None };
    Policy::of(keys().verifier().unwrap(), vec![witness], 1)
}

fn cosigned(note: &str) -> String {
    let line = cosign(&witness_key(), "witness.example", note, 1_700_000_000).unwrap();
    format!("{note}{line}")
}
