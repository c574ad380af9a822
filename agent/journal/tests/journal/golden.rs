//! The formats, byte by byte: `docs/formats/golden/` holds what this version writes. A change of
//! these files is a change of the format, and of its document.
//!
//! TIDEGATE_GOLDEN=write writes them anew.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use tidegate_event::*;
use tidegate_ledger::checkpoint::{Checkpoint, VerifierKey};
use tidegate_ledger::seal::{self, SealFacts};
use tidegate_ledger::tree::{Frontier, leaf_hash};
use tidegate_ledger::{
    Chain, SigningKey, ZERO, chain_id, chain_value, checkpoint, receipt, receipt::ReceiptFacts,
};
use tidegate_proto::audit::v1::{self, audit_record::Body, collector_entry::Kind, decision};
use tidegate_proto::{entry, write};
use tidegate_recording::{How, Recorder, messages};

const WALL_NS: u64 = 1_767_225_600_000_000_000;

struct Golden {
    key: SigningKey,
    chain: Chain,
    text: String,
}

impl Golden {
    fn record(
        &mut self,
        name: &str,
        session: Option<&SessionId>,
        cause: Option<Seq>,
        body: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        write::Header {
            chain_id: &self.chain.id(),
            seq: self.chain.next_seq(),
            prev: &self.chain.head(),
            wall_ns: WALL_NS + self.chain.records(),
            boot_ns: 1_000_000_000 + self.chain.records(),
            session,
            cause,
        }
        .write(&mut bytes);
        bytes.extend_from_slice(body);
        self.chain.link(&bytes).unwrap();
        self.line(name, &bytes);
        self.line(&format!("{name}.chain_value"), &chain_value(&bytes));
        bytes
    }

    fn line(&mut self, name: &str, bytes: &[u8]) {
        writeln!(self.text, "{name} = {}", hex::encode(bytes)).unwrap();
    }
}

fn statement() -> Operation {
    Operation::Statement(Statement {
        via: Via::Execute,
        text: "UPDATE bank.accounts SET balance = $1 WHERE id = $2".into(),
        text_bytes: 51,
        text_sha256: None,
        prepared: "s1".to_owned(),
        parameters: vec![
            Parameter::Text(b"100".to_vec()),
            Parameter::Binary { type_oid: 23, value: vec![0, 0, 0, 7] },
            Parameter::Null,
        ],
        analysis: Arc::new(Analysis {
            kinds: vec![StatementKind("update".to_owned())],
            effects: vec![Effect {
                action: Action::Update,
                relation: Some(Relation {
                    schema: Some("bank".to_owned()),
                    name: "accounts".to_owned(),
                }),
                bounded: true,
            }],
            unknown: None,
            fingerprint: Some(0x1122_3344_5566_7788),
            ..Analysis::default()
        }),
    })
}

fn genesis(public: &[u8; 32], boot_id: [u8; 16], nonce: [u8; 16]) -> Body {
    Body::Genesis(v1::Genesis {
        agent_id: "host-a".to_owned(),
        boot_id: boot_id.to_vec().into(),
        nonce: nonce.to_vec().into(),
        audit_key: public.to_vec().into(),
        agent_version: "0.1.0".to_owned(),
        agent_digest: vec![0x44; 32].into(),
        policy_digest: vec![0x55; 32].into(),
        ebpf_digest: vec![0x66; 32].into(),
        host: "host-a.example".to_owned(),
        ..v1::Genesis::default()
    })
}

/// A chain with its Genesis, whose bytes are given, too.
fn begun() -> (Golden, Vec<u8>) {
    let key = SigningKey::from_bytes(&[0x11; 32]);
    let public = key.verifying_key().to_bytes();
    let (boot_id, nonce) = ([0x22; 16], [0x33; 16]);
    let id = chain_id("host-a", &boot_id, &public, &nonce);
    let mut golden = Golden { key, chain: Chain::begin(id), text: String::new() };
    golden.line("audit_key.secret", &[0x11; 32]);
    golden.line("audit_key.public", &public);
    golden.line("chain_id", &id.0);
    let mut body = Vec::new();
    write::body(&mut body, &genesis(&public, boot_id, nonce), false);
    let genesis = golden.record("genesis", None, None, &body);
    (golden, genesis)
}

fn chain_text() -> String {
    let (mut golden, genesis) = begun();
    let (id, public) = (golden.chain.id(), golden.key.verifying_key().to_bytes());
    let mut body = Vec::new();
    let session = SessionId([0x77; 16]);
    write::operation(
        &mut body,
        &statement(),
        &write::Decided {
            verdict: decision::Verdict::Allow,
            reason: "permitted by batch-writes",
            policies: &["batch-writes".to_owned()],
            policy_digest: &Digest([0x55; 32]),
            durability: Durability::Host,
            alert: "",
            unmasked: &[],
            masked: false,
        },
    );
    golden.record("operation", Some(&session), None, &body);
    body.clear();
    write::outcome(
        &mut body,
        &Outcome {
            status: Status::Failed { code: "23514".to_owned(), message: "check".to_owned() },
            rows: 0,
            bytes_out: 0,
            copied: None,
            duration_ns: 1_500_000,
            tags: String::new(),
            masked: None,
            result: None,
            carried: None,
        },
    );
    golden.record("outcome", Some(&session), Some(Seq(1)), &body);
    let facts = SealFacts {
        chain_id: id,
        first: Seq(0),
        last: Seq(2),
        chain_value: golden.chain.head(),
        wall_ns: WALL_NS + 2,
        boot_ns: 1_000_000_002,
    };
    let seal = seal::sign(&golden.key, &facts);
    assert_eq!(seal::verify(&seal, &public), Ok(facts));
    golden.line("seal", &seal);
    golden.line("entry.genesis", &entry::encode(Kind::Record, &id, WALL_NS, &genesis));
    assert_eq!(ZERO, [0; 32]);
    golden.text
}

/// A result of two columns and one row, kept whole: its messages, digests, and the two records about it.
fn recording_text() -> String {
    let stream = [
        &b"T\0\0\0\x31\0\x02id\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"[..],
        b"ssn\0\0\0\x40\0\0\x02\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b"D\0\0\0\x13\0\x02\0\0\0\x017\0\0\0\x04****",
    ]
    .concat();
    assert!(matches!(messages(&stream), Ok((read, true)) if read.len() == 2));
    let how = How { keep: true, ..How::default() };
    let mut taking = Recorder::new(how);
    let column = |name: &str, type_oid| Column { name: name.to_owned(), type_oid, binary: false };
    taking.described(|| vec![column("id", 23), column("ssn", 25)]);
    taking.take(&stream, |_| unreachable!("it is less than a chunk"));
    let (chunk, recorded) = taking.finish();
    let chunk = chunk.unwrap();
    let keyed = Recorder::new(How { secret: true, key: Some([0xcc; 32]), ..how });
    let keyed = {
        let mut keyed = keyed;
        keyed.take(&stream, |_| unreachable!("it is not kept"));
        keyed.finish().1
    };
    let (mut golden, _) = begun();
    golden.line("result", &stream);
    golden.line("result.digest", &recorded.digest.unwrap());
    golden.line("key", &[0xcc; 32]);
    golden.line("result.keyed_digest", &keyed.digest.unwrap());
    let session = SessionId([0x77; 16]);
    let mut body = Vec::new();
    write::result_rows(&mut body, Stream::Rows, chunk.offset, &chunk.data);
    golden.record("result_rows", Some(&session), Some(Seq(1)), &body);
    body.clear();
    let outcome = Outcome {
        rows: 1,
        bytes_out: 19,
        duration_ns: 1_500_000,
        tags: "SELECT 1".to_owned(),
        result: Some(Box::new(recorded)),
        ..Outcome::without_result(Status::Ok)
    };
    write::outcome(&mut body, &outcome);
    golden.record("outcome", Some(&session), Some(Seq(1)), &body);
    golden.text
}

fn checkpoint_text() -> String {
    let key = SigningKey::from_bytes(&[0x99; 32]);
    let public = key.verifying_key().to_bytes();
    let mut text = String::new();
    let mut frontier = Frontier::new();
    for leaf in [&b""[..], b"\x00", b"\x10", b"\x20\x21", b"\x30\x31"] {
        frontier.push(leaf_hash(leaf));
    }
    let verifier = VerifierKey::new("audit.example/log", public).unwrap();
    let head = Checkpoint {
        origin: "audit.example/log".to_owned(),
        size: frontier.size(),
        root: frontier.root(),
    };
    let note = checkpoint::sign(&key, &head).unwrap();
    assert_eq!(checkpoint::open(&note, &verifier), Ok(head));
    let facts = ReceiptFacts {
        chain_id: ChainId([0xaa; 32]),
        durable: Seq(2),
        chain_value: [0xbb; 32],
        first_index: 0,
        last_index: 3,
        received_ns: WALL_NS,
    };
    let (body, signature) = receipt::sign(&key, &facts);
    writeln!(text, "log_key.secret = {}", hex::encode([0x99; 32])).unwrap();
    writeln!(text, "vkey = {verifier}").unwrap();
    writeln!(text, "leaves = [empty] 00 10 2021 3031").unwrap();
    writeln!(text, "root = {}", hex::encode(frontier.root())).unwrap();
    writeln!(text, "receipt.body = {}", hex::encode(body)).unwrap();
    writeln!(text, "receipt.signature = {}", hex::encode(signature)).unwrap();
    writeln!(text, "note follows, to the end of the file\n{note}").unwrap();
    text
}

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/golden").join(name);
    if std::env::var_os("TIDEGATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(golden == text, "{name} is not what this version writes:\n{text}");
}

#[test]
fn the_formats_are_those_of_the_golden_files() {
    check("chain.txt", &chain_text());
    check("checkpoint.txt", &checkpoint_text());
    check("recording.txt", &recording_text());
}
