//! What a record costs on the caller's thread: `cargo run --release --example record_cost DIR`.
//!
//! Prints nanoseconds a record for an operation at level `process` (one write(2) each) and for its
//! outcome (memory only), permits made beforehand, sealing and syncing going on beside.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tidegate_event::{
    Action, Analysis, Capture, Digest, Durability, Effect, Executable, Mode, OnFailure, Operation,
    Outcome, Principal, Process, Protocol, Relation, Statement, StatementKind, Status, TargetName,
    Via,
};
use tidegate_journal::{Journal, Options, SessionOpening, SystemClock};
use tidegate_ledger::SigningKey;
use tidegate_policy::{Decider, Permit, PolicySet, Ruling, Source, Subject};

const RECORDS: usize = 100_000;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).context("which directory?")?;
    let options = Options {
        agent_id: "bench".to_owned(),
        audit_key: SigningKey::from_bytes(&[1; 32]),
        host: "bench".to_owned(),
        agent_version: "0".to_owned(),
        agent_digest: Digest([0; 32]),
        policy_digest: Digest([0; 32]),
        ebpf_digest: Digest([0; 32]),
        boot_id: [0; 16],
    };
    let (journal, _) =
        Journal::open(&dir, tidegate_spool::Options::default(), options, Arc::new(SystemClock))?;
    let principal = Principal { name: "batch".to_owned(), uid: 991 };
    let target = TargetName("ledger".to_owned());
    let address = "10.0.0.5:5432".parse()?;
    let session = journal.session(&SessionOpening {
        capture: &capture(address),
        principal: &principal,
        target: &target,
        protocol: Protocol::Postgres,
        mode: Mode::Enforce,
        client: address,
        on_failure: OnFailure::Closed,
    })?;
    let operation = statement();
    for _ in 0..ROUNDS {
        let permits = permits(&principal, &target, &operation)?;
        let mut pledges = Vec::with_capacity(RECORDS);
        let start = Instant::now();
        for permit in permits {
            pledges.push(session.operation(&operation, permit)?);
        }
        let operations = start.elapsed();
        let start = Instant::now();
        for pledge in &pledges {
            session.outcome(pledge.seq(), &outcome())?;
        }
        let outcomes = start.elapsed();
        let records = u128::try_from(RECORDS)?;
        writeln!(
            std::io::stdout(),
            "operation {} ns, outcome {} ns",
            operations.as_nanos() / records,
            outcomes.as_nanos() / records
        )?;
        journal.seal_and_sync()?;
    }
    journal.shutdown()?;
    Ok(())
}

fn capture(original: std::net::SocketAddr) -> Capture {
    Capture {
        original,
        process: Process {
            uid: 991,
            gid: 991,
            pid: 1,
            comm: "bench".to_owned(),
            cgroup_id: 1,
            cgroup: None,
            executable: Executable::Unknown("bench".to_owned()),
        },
        socket_cookie: 1,
        netns_cookie: 1,
        connected_ns: 1,
        rule: 0,
    }
}

fn statement() -> Operation {
    let text = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;";
    let relation = Relation { schema: None, name: "pgbench_accounts".to_owned() };
    Operation::Statement(Statement {
        via: Via::Simple,
        text: text.into(),
        text_bytes: 55,
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::new(Analysis {
            kinds: vec![StatementKind("select".to_owned())],
            effects: vec![Effect {
                action: Action::Select,
                relation: Some(relation),
                bounded: true,
            }],
            unknown: None,
            fingerprint: Some(1),
            ..Analysis::default()
        }),
    })
}

fn outcome() -> Outcome {
    Outcome {
        status: Status::Ok,
        rows: 1,
        bytes_out: 20,
        copied: None,
        duration_ns: 100_000,
        tags: "SELECT 1".to_owned(),
        masked: None,
        result: None,
        carried: None,
    }
}

fn permits(
    principal: &Principal,
    target: &TargetName,
    operation: &Operation,
) -> anyhow::Result<Vec<Permit>> {
    let text = "permit(principal, action, resource);".to_owned();
    let Ok(set) = PolicySet::compile(&[Source { name: "bench.cedar".to_owned(), text }]) else {
        bail!("the policy does not compile");
    };
    let subject = Subject {
        principal: principal.clone(),
        executable: None,
        cgroup: None,
        target: target.clone(),
        protocol: Protocol::Postgres,
        mode: Mode::Enforce,
        db_user: "bench".to_owned(),
        database: "bench".to_owned(),
    };
    let set = set.with_durability(Durability::Process);
    let mut decider = Decider::new(Arc::new(set), subject);
    (0..RECORDS)
        .map(|_| match decider.decide(operation, None) {
            Ruling::Permitted(permit) => Ok(permit),
            Ruling::Refused(_) => bail!("refused"),
        })
        .collect()
}
