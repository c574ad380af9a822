//! An agent without a host: it makes records, seals and chains as a real one does.

use bytes::Bytes;
use prost::Message as _;
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::seal::SealFacts;
use tidegate_ledger::{Chain, Hash, SigningKey, chain_id, seal};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::decision::Verdict;
use tidegate_proto::audit::v1::operation::What;
use tidegate_proto::audit::v1::{
    AuditRecord, Decision, Effect, Genesis, Heartbeat, Operation, Outcome, SessionOpen, Statement,
};
use tidegate_proto::uplink::v1::Batch;

pub const SESSION: [u8; 16] = *b"session-00000001";

/// One agent with one open chain.
#[derive(Clone)]
pub struct FakeAgent {
    pub id: String,
    pub key: SigningKey,
    pub chain: Chain,
    pub nonce: u8,
    /// Time of record 0; each one is a second later.
    pub wall_ns: u64,
    /// Not yet in a batch.
    pub loose: Vec<Bytes>,
}

impl FakeAgent {
    /// An agent whose first record, the Genesis, waits for its first batch.
    pub fn new(id: &str, seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let chain = Chain::begin(ChainId([0; 32]));
        let wall_ns = 1_700_000_000_000_000_000;
        let mut agent =
            Self { id: id.to_owned(), key, chain, nonce: 0, wall_ns, loose: Vec::new() };
        agent.begin(None);
        agent
    }

    /// A new chain that follows the one before, as after a restart of the agent.
    pub fn next_chain(&mut self) {
        let before = (self.chain.id(), self.chain.head(), self.chain.records());
        self.begin(Some(before));
    }

    /// A new chain with this link.
    pub fn begin(&mut self, before: Option<(ChainId, Hash, u64)>) {
        self.nonce += 1;
        let (boot, nonce) = ([7; 16], [self.nonce; 16]);
        let audit_key = self.key.verifying_key().to_bytes();
        self.chain = Chain::begin(chain_id(&self.id, &boot, &audit_key, &nonce));
        let (prev_id, prev_head, records) = match before {
            Some((id, head, records)) => (id.0.to_vec(), head.to_vec(), records),
            None => Default::default(),
        };
        self.record(Body::Genesis(Genesis {
            agent_id: self.id.clone(),
            boot_id: boot.to_vec().into(),
            nonce: nonce.to_vec().into(),
            audit_key: audit_key.to_vec().into(),
            prev_chain_id: prev_id.into(),
            prev_chain_head: prev_head.into(),
            prev_chain_records: records,
            host: "host-1".to_owned(),
            ..Genesis::default()
        }));
    }

    /// Adds a record and gives its sequence number.
    pub fn record(&mut self, body: Body) -> Seq {
        let seq = self.chain.next_seq().0;
        self.record_at(body, self.wall_ns + seq * 1_000_000_000, seq + 1)
    }

    /// Adds a record with these times.
    pub fn record_at(&mut self, body: Body, wall_ns: u64, boot_ns: u64) -> Seq {
        let seq = self.chain.next_seq();
        let in_session = matches!(
            body,
            Body::SessionOpen(_) | Body::Operation(_) | Body::Outcome(_) | Body::SessionClose(_)
        );
        let cause = matches!(body, Body::Outcome(_)).then(|| seq.0 - 1);
        let record = AuditRecord {
            v: 1,
            chain_id: self.chain.id().0.to_vec().into(),
            seq: seq.0,
            prev: self.chain.head().to_vec().into(),
            wall_ns,
            boot_ns,
            session_id: if in_session { SESSION.to_vec().into() } else { Bytes::new() },
            cause_seq: cause,
            body: Some(body),
            ..AuditRecord::default()
        };
        let bytes = Bytes::from(record.encode_to_vec());
        self.chain.link(&bytes).unwrap();
        self.loose.push(bytes);
        seq
    }

    pub fn heartbeat(&mut self) {
        self.record(Body::Heartbeat(Heartbeat::default()));
    }

    pub fn session(&mut self) {
        self.record(Body::SessionOpen(SessionOpen {
            principal: "batch".to_owned(),
            target: "ledger".to_owned(),
            protocol: "postgresql".to_owned(),
            mode: "enforce".to_owned(),
            ..SessionOpen::default()
        }));
    }

    /// A statement and its outcome.
    pub fn statement(&mut self, text: &str, action: &str, relation: &str, verdict: Verdict) {
        let (schema, name) = relation.rsplit_once('.').unwrap_or(("", relation));
        self.record(Body::Operation(Operation {
            decision: Some(Decision {
                verdict: verdict.into(),
                reason: "by policy".to_owned(),
                policies: vec!["p1".to_owned()],
                durability: "host".to_owned(),
                ..Decision::default()
            }),
            effects: vec![Effect {
                action: action.to_owned(),
                schema: schema.to_owned(),
                relation: name.to_owned(),
                unbounded: false,
            }],
            what: Some(What::Statement(Statement {
                via: "query".to_owned(),
                text: text.to_owned(),
                text_bytes: u64::try_from(text.len()).unwrap(),
                kinds: vec![action.to_uppercase()],
                ..Statement::default()
            })),
            ..Operation::default()
        }));
        if verdict == Verdict::Allow {
            self.record(Body::Outcome(Outcome {
                status: "ok".to_owned(),
                rows: 3,
                ..Outcome::default()
            }));
        }
    }

    /// Seals what is loose into a batch.
    pub fn batch(&mut self) -> Batch {
        let records = std::mem::take(&mut self.loose);
        let count = u64::try_from(records.len()).unwrap();
        let facts = SealFacts {
            chain_id: self.chain.id(),
            first: Seq(self.chain.next_seq().0 - count),
            last: Seq(self.chain.next_seq().0 - 1),
            chain_value: self.chain.head(),
            wall_ns: 1,
            boot_ns: 1,
        };
        Batch { records, seal: seal::sign(&self.key, &facts).into() }
    }

    /// A batch of so many heartbeats.
    pub fn heartbeats(&mut self, count: usize) -> Batch {
        for _ in 0..count {
            self.heartbeat();
        }
        self.batch()
    }
}
