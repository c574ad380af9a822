//! What the tests share: options, operations, permits, and a collector in a Vec.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tidegate_event::*;
use tidegate_journal::*;
use tidegate_ledger::checkpoint::{Checkpoint, VerifierKey};
use tidegate_ledger::tree::{Frontier, leaf_hash};
use tidegate_ledger::verify::{AgentKey, Note, Place, Report, Trust, Verifier};
use tidegate_ledger::{SigningKey, checkpoint};
use tidegate_policy::{Decider, Denial, Permit, PolicySet, Ruling, Source, Subject};
use tidegate_proto::audit::v1::collector_entry::Kind;
use tidegate_proto::entry;

pub const AGENT: &str = "host-a";

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub fn options(boot: u8) -> Options {
    Options {
        agent_id: AGENT.to_owned(),
        audit_key: key(),
        host: "host-a.example".to_owned(),
        agent_version: "0.1.0".to_owned(),
        agent_digest: Digest([1; 32]),
        policy_digest: Digest([2; 32]),
        ebpf_digest: Digest([3; 32]),
        boot_id: [boot; 16],
    }
}

pub fn spool_options() -> tidegate_spool::Options {
    tidegate_spool::Options {
        owner: [7; 32],
        bytes_max: 8 << 20,
        segment_bytes: 256 << 10,
        reserve_bytes: 256 << 10,
        ..tidegate_spool::Options::default()
    }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn capture() -> Capture {
    Capture {
        original: "10.0.0.5:5432".parse().unwrap(),
        process: Process {
            uid: 991,
            gid: 991,
            pid: 4711,
            comm: "batch".to_owned(),
            cgroup_id: 77,
            cgroup: Some("/system.slice/batch.service".to_owned()),
            executable: Executable::Path("/usr/bin/psql".to_owned()),
        },
        socket_cookie: 5,
        netns_cookie: 6,
        connected_ns: 7,
        rule: 0,
    }
}

pub fn target() -> TargetName {
    TargetName("ledger".to_owned())
}

pub fn client() -> SocketAddr {
    "127.0.0.1:40000".parse().unwrap()
}

pub fn open_session<F: Files>(
    journal: &Journal<F>,
    on_failure: OnFailure,
) -> Result<SessionLog<F>, JournalError> {
    journal.session(&SessionOpening {
        capture: &capture(),
        principal: &Principal { name: "batch".to_owned(), uid: 991 },
        target: &target(),
        protocol: Protocol::Postgres,
        mode: Mode::Enforce,
        client: client(),
        on_failure,
    })
}

/// A statement; those that change something ask for `host`.
pub fn statement(action: Action, text: &str) -> Operation {
    let relation = Relation { schema: None, name: "accounts".to_owned() };
    Operation::Statement(Statement {
        via: Via::Simple,
        text: text.into(),
        text_bytes: text.len() as u64,
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::new(Analysis {
            kinds: vec![StatementKind(action.name().to_owned())],
            effects: vec![Effect { action, relation: Some(relation), bounded: true }],
            unknown: None,
            fingerprint: Some(1),
            ..Analysis::default()
        }),
    })
}

pub fn read() -> Operation {
    statement(Action::Select, "SELECT balance FROM accounts WHERE id = 7")
}

pub fn change() -> Operation {
    statement(Action::Update, "UPDATE accounts SET balance = 0 WHERE id = 7")
}

/// Each policy is compiled once; debug builds take their time over it.
fn policies(policy: &'static str, floor: Durability) -> Arc<PolicySet> {
    type Compiled = BTreeMap<(&'static str, Durability), Arc<PolicySet>>;
    static COMPILED: Mutex<Compiled> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap();
    let set = compiled.entry((policy, floor)).or_insert_with(|| {
        let source = Source { name: "test.cedar".to_owned(), text: policy.to_owned() };
        let Ok(set) = PolicySet::compile(&[source]) else { panic!("the policy does not compile") };
        Arc::new(set.with_durability(floor))
    });
    Arc::clone(set)
}

fn rule(policy: &'static str, floor: Durability, operation: &Operation) -> Ruling {
    let subject = Subject {
        principal: Principal { name: "batch".to_owned(), uid: 991 },
        executable: None,
        cgroup: None,
        target: target(),
        protocol: Protocol::Postgres,
        mode: Mode::Enforce,
        db_user: "batch".to_owned(),
        database: "bank".to_owned(),
    };
    Decider::new(policies(policy, floor), subject).decide(operation, None)
}

/// A permit for an operation, at the default level or a higher one.
pub fn permit(operation: &Operation, floor: Durability) -> Permit {
    match rule("permit(principal, action, resource);", floor, operation) {
        Ruling::Permitted(permit) => permit,
        Ruling::Refused(_) => panic!("refused"),
    }
}

pub fn denial(operation: &Operation) -> Denial {
    match rule("forbid(principal, action, resource);", Durability::Process, operation) {
        Ruling::Permitted(_) => panic!("permitted"),
        Ruling::Refused(denial) => denial,
    }
}

pub fn ok() -> Outcome {
    Outcome {
        status: Status::Ok,
        rows: 1,
        bytes_out: 20,
        copied: None,
        duration_ns: 1000,
        tags: "SELECT 1".to_owned(),
        masked: None,
        result: None,
        carried: None,
    }
}

/// Everything sealed and synced by now, as the collector would file it.
pub fn collect<F: Files>(journal: &Journal<F>) -> (Vec<SealedBatch>, Vec<Vec<u8>>) {
    journal.seal_and_sync().unwrap();
    let health = journal.health();
    let (mut batches, mut entries) = (Vec::new(), Vec::new());
    let mut source = journal.uplink();
    runtime().block_on(async {
        loop {
            let batch = source.next().await.unwrap();
            for record in &batch.records {
                entries.push(entry::encode(Kind::Record, &batch.chain_id, 9, record));
            }
            entries.push(entry::encode(Kind::Seal, &batch.chain_id, 9, &batch.seal));
            let last = (batch.chain_id, batch.last.next());
            batches.push(batch);
            if last == (health.chain_id, health.next_seq) {
                break;
            }
        }
    });
    (batches, entries)
}

/// The auditor's verdict over them.
pub fn verdict(entries: &[Vec<u8>]) -> Report {
    let log_key = SigningKey::from_bytes(&[2; 32]);
    let mut frontier = Frontier::new();
    for entry in entries {
        frontier.push(leaf_hash(entry));
    }
    let head = Checkpoint {
        origin: "log.example".to_owned(),
        size: frontier.size(),
        root: frontier.root(),
    };
    let note = Note { from: "test".to_owned(), text: checkpoint::sign(&log_key, &head).unwrap() };
    let agent =
        AgentKey { agent_id: AGENT.to_owned(), audit_key: key().verifying_key().to_bytes() };
    let mut verifier = Verifier::new(Trust {
        agents: vec![agent],
        log_key: Some(VerifierKey::new("log.example", log_key.verifying_key().to_bytes()).unwrap()),
        checkpoints: vec![note],
        policy: None,
    });
    for (index, entry) in entries.iter().enumerate() {
        verifier.feed(Place { index: index as u64, file: "test", offset: 0 }, entry);
    }
    verifier.finish()
}
