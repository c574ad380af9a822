//! The formats of witnesses, policies and proofs, as golden text; and the second verifier against all golden files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message as _;
use tidegate_ledger::SigningKey;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::cosignature::{WitnessKey, cosign};
use tidegate_ledger::policy::{Policy, Witness};
use tidegate_ledger::proof::Proof;
use tidegate_ledger::tree::{in_slice, leaf_hash, prove_inclusion, root_of};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::audit::v1::{Administration, AuditRecord, Equivocation, Heartbeat, Missing};

const ORIGIN: &str = "audit.example/log";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/golden")
}

fn body(body: Body) -> String {
    hex::encode(AuditRecord { body: Some(body), ..AuditRecord::default() }.encode_to_vec())
}

fn witness_text() -> String {
    // The tree and the log key of checkpoint.txt.
    let leaves = [&b""[..], b"\x00", b"\x10", b"\x20\x21", b"\x30\x31"].map(leaf_hash);
    let nodes = in_slice(&leaves);
    let log = SigningKey::from_bytes(&[0x99; 32]);
    let root = root_of(&nodes, 5).unwrap();
    let note = checkpoint::sign(&log, &Checkpoint { origin: ORIGIN.into(), size: 5, root });
    let key = SigningKey::from_bytes(&[0x88; 32]);
    let vkey = WitnessKey::new("witness.example/audit", key.verifying_key().to_bytes()).unwrap();
    let note = note.unwrap();
    let line = cosign(&key, vkey.name(), &note, 1_679_315_147).unwrap();
    let cosigned = format!("{note}{line}");
    let log = VerifierKey::new(ORIGIN, log.verifying_key().to_bytes()).unwrap();
    let url = Some("https://witness.example/audit".to_owned());
    let witness = Witness { name: "audit".to_owned(), key: vkey.clone(), url };
    let policy = Policy::of(log, vec![witness], 1).to_string();
    let hashes = prove_inclusion(&nodes, 3, 5).unwrap();
    let proof = Proof { index: 3, hashes, checkpoint: cosigned.clone() }.write();
    let chain_id = bytes::Bytes::from_static(&[0xaa; 32]);
    let mut text = String::new();
    let json = |text: &str| serde_json::to_string(text).unwrap();
    writeln!(text, "witness.secret = {}", hex::encode([0x88; 32])).unwrap();
    writeln!(text, "vkey = {vkey}").unwrap();
    writeln!(text, "time = 1679315147").unwrap();
    writeln!(text, "cosigned = {}", json(&cosigned)).unwrap();
    writeln!(text, "policy = {}", json(&policy)).unwrap();
    writeln!(text, "leaf.3 = 2021").unwrap();
    writeln!(text, "proof.3 = {}", json(&proof)).unwrap();
    let heartbeat = Heartbeat { checkpoint: note, ..Heartbeat::default() };
    writeln!(text, "body.heartbeat = {}", body(Body::Heartbeat(heartbeat))).unwrap();
    let act = Administration {
        act: "asked".to_owned(),
        who: "uid 0".to_owned(),
        detail: "{}".to_owned(),
        digest: chain_id.clone(),
        act_id: 7,
    };
    writeln!(text, "body.administration = {}", body(Body::Administration(act))).unwrap();
    let fork = Equivocation {
        agent_id: "host-a".to_owned(),
        chain_id: chain_id.clone(),
        seq: 3,
        seal: chain_id.clone(),
        batch_sha256: chain_id.clone(),
        detail: "other".to_owned(),
    };
    writeln!(text, "body.equivocation = {}", body(Body::Equivocation(fork))).unwrap();
    let missing = Missing {
        agent_id: "host-a".to_owned(),
        chain_id,
        from_seq: 3,
        to_seq: 5,
        detail: "gone".to_owned(),
    };
    writeln!(text, "body.missing = {}", body(Body::Missing(missing))).unwrap();
    text
}

#[test]
fn the_formats_of_witnesses_and_proofs_are_those_of_the_golden_file() {
    let (path, text) = (golden().join("witness.txt"), witness_text());
    if std::env::var_os("TIDEGATE_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(golden == text, "witness.txt is not what this version writes:\n{text}");
}

#[test]
fn the_second_verifier_agrees_with_every_golden_file() {
    let script = golden().join("../verify.py");
    let output = Command::new("python3").arg(script).arg("--golden").arg(golden()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("20 values agree"), "{said}{failed}");
}
