//! What is written from borrowed data is what the messages encode to.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message as _;
use sha2::Digest as _;
use tidegate_event::limits::{RECORD_BYTES_MAX, STATEMENT_TEXT_BYTES_MAX};
use tidegate_event::{
    Access, Action, Analysis, Cancel, Carried, Column, Copied, FileKind, FileRequest, FunctionCall,
    Masked, Parameter, Range, Relation, SshKind, SshRequest, StatementKind, Stream, Unknown, Via,
    file_effect,
};

use super::*;
use crate::audit::v1::{self, AuditRecord};
use crate::record;

fn result() -> impl Strategy<Value = Recorded> {
    let column = (any_text(), any::<u32>(), any::<bool>())
        .prop_map(|(name, type_oid, binary)| Column { name, type_oid, binary });
    let not_kept = prop_oneof![Just(NotKept::Limit), Just(NotKept::Protected)];
    (
        prop::option::of(any::<[u8; 32]>()),
        any::<bool>(),
        any::<[u64; 2]>(),
        any::<u32>(),
        prop::collection::vec(column, 0..4),
        prop::option::of(not_kept),
    )
        .prop_map(|(digest, keyed, [bytes, kept], results, columns, not_kept)| Recorded {
            digest,
            keyed,
            bytes,
            results,
            columns,
            kept,
            not_kept,
        })
}

fn masked() -> impl Strategy<Value = Masked> {
    let stopped = prop::option::of(prop_oneof![Just(Stopped::Withheld), Just(Stopped::Cut)]);
    (any::<u32>(), any::<[u64; 2]>(), any::<bool>(), stopped).prop_map(
        |(columns, [values, detected], shadow, stopped)| Masked {
            columns,
            values,
            detected,
            shadow,
            stopped,
        },
    )
}

fn check(operation: &Operation, decided: &Decided<'_>) -> AuditRecord {
    let header = Header {
        chain_id: &ChainId([7; 32]),
        seq: Seq(u64::MAX),
        prev: &[9; 32],
        wall_ns: u64::MAX,
        boot_ns: u64::MAX,
        session: Some(&SessionId([1; 16])),
        cause: Some(Seq(0)),
    };
    let mut ours = Vec::new();
    header.write(&mut ours);
    super::operation(&mut ours, operation, decided);
    let made = record::operation(operation, decided);
    let message = AuditRecord {
        v: 1,
        chain_id: vec![7; 32].into(),
        seq: u64::MAX,
        prev: vec![9; 32].into(),
        wall_ns: u64::MAX,
        boot_ns: u64::MAX,
        session_id: vec![1; 16].into(),
        cause_seq: Some(0),
        cut: made.cut,
        body: Some(audit_record::Body::Operation(made.message)),
    };
    assert!(ours == message.encode_to_vec(), "the two encodings differ");
    assert!(ours.len() <= RECORD_BYTES_MAX, "{} bytes", ours.len());
    message
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zé]{0,12}",
        1 => (0_usize..3000).prop_map(|length| "é".repeat(length)),
    ]
}

fn any_parameter() -> impl Strategy<Value = Parameter> {
    let bytes = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (0_usize..3000).prop_map(|length| vec![b'x'; length]),
    ];
    prop_oneof![
        Just(Parameter::Null),
        bytes.clone().prop_map(Parameter::Text),
        (any::<u32>(), bytes.clone())
            .prop_map(|(type_oid, value)| Parameter::Binary { type_oid, value }),
        (bytes, any::<u64>()).prop_map(|(head, bytes)| Parameter::Cut { head, bytes }),
    ]
}

fn any_effect() -> impl Strategy<Value = Effect> {
    (0_usize..23, prop::option::of((prop::option::of(any_text()), any_text())), any::<bool>())
        .prop_map(|(action, relation, bounded)| Effect {
            action: Action::ALL[action],
            relation: relation.map(|(schema, name)| Relation { schema, name }),
            bounded,
        })
}

fn any_statement() -> impl Strategy<Value = Operation> {
    let analysis = (
        prop::collection::vec(any_text().prop_map(StatementKind), 0..40),
        prop::collection::vec(any_effect(), 0..40),
        prop::option::of(any_text().prop_map(|reason| Unknown { reason })),
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(kinds, effects, unknown, fingerprint)| Analysis {
            kinds,
            effects,
            unknown,
            fingerprint,
            ..Analysis::default()
        });
    let text = prop_oneof![
        any_text(),
        (0_usize..3).prop_map(|more| "a".repeat(STATEMENT_TEXT_BYTES_MAX + more)),
    ];
    (
        prop_oneof![
            Just(Via::Simple),
            Just(Via::Parse),
            Just(Via::Execute),
            Just(Via::Fetch),
            Just(Via::Command)
        ],
        text,
        0_u64..3,
        prop::option::of(any::<[u8; 32]>()),
        any_text(),
        prop::collection::vec(any_parameter(), 0..300),
        analysis,
    )
        .prop_map(|(via, text, more, text_sha256, prepared, parameters, analysis)| {
            Operation::Statement(Statement {
                via,
                text_bytes: text.len() as u64 + more,
                text: text.into(),
                text_sha256,
                prepared,
                parameters,
                analysis: Arc::new(analysis),
            })
        })
}

fn any_file() -> impl Strategy<Value = FileRequest> {
    let texts =
        (any_text(), prop::option::of(any_text()), prop::option::of(any_text()), any_text());
    (any::<u32>(), texts, any::<[bool; 6]>(), prop::option::of(any::<[u8; 32]>()), any::<bool>())
        .prop_map(|(channel, (path, sent, to, attributes), flags, sha256, renames)| {
            let [read, write, append, create, truncate, exclusive] = flags;
            FileRequest {
                kind: if renames { FileKind::Rename } else { FileKind::Open },
                channel,
                path,
                sent,
                to,
                access: Access { read, write, append, create, truncate, exclusive },
                attributes,
                sha256,
            }
        })
}

fn any_ranges() -> impl Strategy<Value = Vec<Range>> {
    let range = any::<(u64, u64)>().prop_map(|(offset, bytes)| Range { offset, bytes });
    prop::collection::vec(range, 0..100)
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let login = (
        any_text(),
        any_text(),
        prop::option::of(any_text()),
        prop::collection::vec((any_text(), any_text()), 0..40),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(user, database, application, options, replication, client_tls)| {
            Operation::Login(Login {
                user,
                database,
                application,
                options,
                replication,
                client_tls,
            })
        });
    prop_oneof![
        4 => any_statement(),
        1 => login,
        1 => (any::<u32>(), any::<u16>())
            .prop_map(|(oid, arguments)| Operation::FunctionCall(FunctionCall { oid, arguments })),
        1 => any::<u32>().prop_map(|backend_pid| Operation::Cancel(Cancel { backend_pid })),
        1 => (
            any::<u32>(),
            any_text(),
            any::<u64>(),
            prop::option::of(any::<[u8; 32]>()),
            any_text(),
            prop::option::of(any_text()),
            any_text(),
        )
            .prop_map(|(channel, about, bytes, sha256, terminal, command, unclear)| {
                let kind = SshKind::Exec;
                let carries = vec![file_effect(Action::FileRead, &about)];
                Operation::Ssh(SshRequest {
                    kind,
                    channel,
                    about,
                    bytes,
                    sha256,
                    terminal,
                    words: Vec::new(),
                    command,
                    unclear,
                    carries,
                })
            }),
        1 => any_file().prop_map(Operation::File),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_operation_has_the_bytes_that_prost_writes_and_fits(
        operation in any_operation(),
        reason in any_text(),
        policies in prop::collection::vec(any_text(), 0..40),
        verdict in 0_i32..5,
        alert in any_text(),
        unmasked in prop::collection::vec(any_text(), 0..40),
        masked in any::<bool>(),
    ) {
        check(&operation, &Decided {
            verdict: Verdict::try_from(verdict).unwrap(),
            reason: &reason,
            policies: &policies,
            policy_digest: &Digest([4; 32]),
            durability: Durability::Host,
            alert: &alert,
            unmasked: &unmasked,
            masked,
        });
    }

    #[test]
    fn an_outcome_has_the_bytes_that_prost_writes(
        failed in prop::option::of((any_text(), any_text())),
        counts in any::<[u64; 3]>(),
        copied in prop::option::of(any::<[u64; 2]>()),
        tags in any_text(),
        masked in prop::option::of(masked()),
        result in prop::option::of(result()),
        carried in prop::option::of((any_ranges(), any_ranges(), any::<Option<[u8; 32]>>())),
    ) {
        let outcome = Outcome {
            status: failed
                .map_or(Status::Skipped, |(code, message)| Status::Failed { code, message }),
            rows: counts[0],
            bytes_out: counts[1],
            duration_ns: counts[2],
            copied: copied.map(|[bytes_in, bytes_out]| Copied { bytes_in, bytes_out }),
            tags,
            masked,
            result: result.map(Box::new),
            carried: carried.map(|(read, written, sha256)| {
                let (read_total, written_total) = (7, 0);
                Box::new(Carried { read, read_total, written, written_total, sha256 })
            }),
        };
        let mut ours = Vec::new();
        super::outcome(&mut ours, &outcome);
        let made = record::outcome(&outcome);
        let message = AuditRecord {
            cut: made.cut,
            body: Some(audit_record::Body::Outcome(made.message)),
            ..AuditRecord::default()
        };
        prop_assert_eq!(ours, message.encode_to_vec());
    }
}

#[test]
fn the_largest_statement_fits_and_says_what_was_cut() {
    let long = "ü".repeat(5000);
    let relation = Relation { schema: Some(long.clone()), name: long.clone() };
    let effect = Effect { action: Action::ServerFile, relation: Some(relation), bounded: false };
    let text = "s".repeat(1 << 20);
    let operation = Operation::Statement(Statement {
        via: Via::Execute,
        text_bytes: text.len() as u64,
        text: text.as_str().into(),
        text_sha256: None,
        prepared: long.clone(),
        parameters: vec![Parameter::Binary { type_oid: u32::MAX, value: vec![1; 4096] }; 65_535],
        analysis: Arc::new(Analysis {
            kinds: vec![StatementKind(long.clone()); 4096],
            effects: vec![effect; 4096],
            unknown: Some(Unknown { reason: long.clone() }),
            fingerprint: Some(u64::MAX),
            ..Analysis::default()
        }),
    });
    let record = check(
        &operation,
        &Decided {
            verdict: Verdict::WouldDeny,
            reason: &long,
            policies: &vec![long.clone(); 4096],
            policy_digest: &Digest([4; 32]),
            durability: Durability::Collector,
            alert: &long,
            unmasked: &vec![long.clone(); 4096],
            masked: true,
        },
    );
    assert!(record.cut);
    let Some(audit_record::Body::Operation(operation)) = record.body else {
        panic!("no operation")
    };
    assert_eq!((operation.effects_total, operation.unmasked_total), (4096, 4096));
    assert_eq!(operation.decision.unwrap().policies_total, 4096);
    let Some(crate::audit::v1::operation::What::Statement(statement)) = operation.what else {
        panic!("no statement")
    };
    assert_eq!(statement.text_sha256[..], sha2::Sha256::digest(text.as_bytes())[..]);
    assert_eq!((statement.parameters_total, statement.kinds_total), (65_535, 4096));
}

#[test]
fn kept_rows_have_the_bytes_that_prost_writes() {
    for (stream, offset, data) in [
        (Stream::Rows, 0, &b""[..]),
        (Stream::Rows, 49_152, b"D\0\0\0\x06\0\0"),
        (Stream::Errors, 1, b"no such file"),
    ] {
        let mut ours = Vec::new();
        super::result_rows(&mut ours, stream, offset, data);
        let data = bytes::Bytes::copy_from_slice(data);
        let message = v1::ResultRows { offset, data, stream: stream.name().to_owned() };
        let record = AuditRecord {
            body: Some(audit_record::Body::ResultRows(message)),
            ..AuditRecord::default()
        };
        assert_eq!(ours, record.encode_to_vec());
    }
}
