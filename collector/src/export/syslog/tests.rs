//! Messages as they are written, and receivers that read them to the end, or do not.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::ExportProtocol;

fn text(key: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn list(key: &str, values: &[&str]) -> KeyValue {
    let values = values
        .iter()
        .map(|text| AnyValue { value: Some(any_value::Value::StringValue((*text).to_owned())) });
    let value = any_value::Value::ArrayValue(ArrayValue { values: values.collect() });
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// A refused statement, with this text.
fn refused(statement: &str) -> Item {
    let body = any_value::Value::StringValue("statement deny: no = never".to_owned());
    let record = LogRecord {
        time_unix_nano: 1_764_151_200_123_456_789,
        observed_time_unix_nano: 1_764_151_200_200_000_000,
        severity_text: "WARN".to_owned(),
        event_name: "audit.db.statement".to_owned(),
        body: Some(AnyValue { value: Some(body) }),
        attributes: vec![
            text("log.record.uid", "log.example/1#7"),
            text("audit.log.origin", "log.example/1"),
            number("audit.log.index", 7),
            text("session.id", "00ff"),
            text("user.name", "batch"),
            text("audit.target", "ledger"),
            text("db.system.name", "postgresql"),
            text("server.address", "10.0.0.5"),
            number("server.port", 5432),
            text("audit.db.user", "app"),
            text("db.namespace", "bank"),
            text("process.executable.path", "/usr/bin/psql"),
            number("process.pid", 42),
            text("audit.verdict", "deny"),
            text("audit.reason", "no = never"),
            list("security_rule.name", &["a|b", "c"]),
            text("security_rule.version", "aa"),
            list("audit.effects", &["delete public.t"]),
            text("db.collection.name", "t"),
            text("db.query.text", statement),
            number("ocsf.action_id", 2),
            number("ocsf.disposition_id", 2),
            number("ocsf.class_uid", 6005),
            number("ocsf.activity_id", 7),
            number("ocsf.type_uid", 600_507),
        ],
        ..LogRecord::default()
    };
    Item { index: 7, agent: "a".to_owned(), host: "host one".to_owned(), record }
}

fn sink(endpoint: &str, format: SyslogFormat) -> Sink {
    Sink::new(&Export {
        name: "siem".to_owned(),
        endpoint: endpoint.to_owned(),
        protocol: ExportProtocol::Syslog,
        format,
        message_bytes_max: crate::config::SYSLOG_BYTES_MIN,
        headers: [].into(),
        ca_file: None,
        records_max: 1,
        timeout_seconds: 30,
    })
    .unwrap()
}

#[test]
fn a_message_is_one_line_whatever_a_client_wrote() {
    let hostile = "delete from t -- |act=allow\n<14>1 - - - - - - \\ \"";
    let ocsf = sink("tcp://h:1", SyslogFormat::Ocsf).message(&refused(hostile));
    let head = "<108>1 2025-11-26T10:00:00.123456Z hostone tidegate - audit.db.statement - ";
    let event: Value = serde_json::from_str(ocsf.strip_prefix(head).unwrap()).unwrap();
    let expected = serde_json::json!({
        "activity_id": 7, "category_uid": 6, "class_uid": 6005, "type_uid": 600_507,
        "time": 1_764_151_200_123_u64, "severity_id": 3, "message": "statement deny: no = never",
        "metadata": {
            "version": "1.8.0", "uid": "log.example/1#7", "sequence": 7, "log_name": "log.example/1",
            "logged_time": 1_764_151_200_200_u64, "event_code": "audit.db.statement",
            "correlation_uid": "00ff", "profiles": ["security_control"],
            "product": {
                "name": "Tidegate", "vendor_name": "Tidegate", "version": env!("CARGO_PKG_VERSION"),
            },
        },
        "actor": {
            "user": {"name": "batch"}, "session": {"uid": "00ff"},
            "process": {"pid": 42, "file": {"path": "/usr/bin/psql"}},
        },
        "src_endpoint": {"hostname": "host one", "agent_uid": "a"},
        "dst_endpoint": {"ip": "10.0.0.5", "port": 5432, "svc_name": "ledger"},
        "database": {"name": "bank", "type_id": 1, "type": "Relational", "desc": "postgresql"},
        "table": {"name": "t"}, "query_info": {"query_string": hostile},
        "action_id": 2, "disposition_id": 2,
        "authorizations": [
            {"decision": "deny", "policy": {"name": "a|b", "version": "aa", "desc": "no = never"}},
            {"decision": "deny", "policy": {"name": "c", "version": "aa", "desc": "no = never"}},
        ],
        "unmapped": {"audit.db.user": "app", "audit.effects": ["delete public.t"]},
    });
    assert_eq!(event, expected);
    let cef = sink("tcp://h:1", SyslogFormat::Cef).message(&refused(hostile));
    let line = cef.strip_prefix(head).unwrap();
    assert_eq!(
        line,
        format!(
            "CEF:0|Tidegate|Tidegate|{}|600507|audit.db.statement|6|rt=1764151200123 dvchost=host one \
             externalId=log.example/1#7 suser=batch spid=42 sproc=/usr/bin/psql dst=10.0.0.5 dpt=5432 \
             destinationServiceName=ledger duser=app act=deny reason=no \\= never \
             msg=statement deny: no \\= never cs1Label=statement \
             cs1=delete from t -- |act\\=allow\\n<14>1 - - - - - - \\\\ \" cs2Label=session cs2=00ff \
             cs3Label=database cs3=bank cs4Label=table cs4=t cs6Label=policies cs6=a|b,c",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert!(!ocsf.contains('\n') && !cef.contains('\n'));
}

#[test]
fn a_long_statement_is_cut_to_fit_and_says_so() {
    for statement in ["x".repeat(90_000), "\u{1}\"ä€".repeat(9_000)] {
        for format in [SyslogFormat::Ocsf, SyslogFormat::Cef] {
            let message = sink("tcp://h:1", format).message(&refused(&statement));
            assert!(message.len() <= crate::config::SYSLOG_BYTES_MIN, "{}", message.len());
            assert!(message.contains(MARK), "{message}");
        }
    }
    let message = sink("tcp://h:1", SyslogFormat::Ocsf).message(&refused("select 1"));
    assert!(!message.contains("cut"), "{message}");
}

/// What a receiver got on one connection.
async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_batch_counts_when_the_receiver_has_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let sink = sink(&endpoint, SyslogFormat::Ocsf);
    let items = [refused("select 1"), refused("select 2")];
    let (sent, got) = tokio::join!(sink.send(&items), async {
        read_to_end(listener.accept().await.unwrap().0).await
    });
    assert!(matches!(sent, Delivery::Taken), "{sent:?}");
    let mut rest = got.as_str();
    for statement in ["select 1", "select 2"] {
        let (length, behind) = rest.split_once(' ').unwrap();
        let (message, behind) = behind.split_at(length.parse().unwrap());
        assert!(message.starts_with("<108>1 ") && message.contains(statement), "{message}");
        rest = behind;
    }
    assert_eq!(rest, "");

    // One that closes with bytes unread, or without having read at all, has not got them.
    for peeked in [1, 0] {
        let (sent, ()) = tokio::join!(sink.send(&items), async {
            let (stream, _) = listener.accept().await.unwrap();
            stream.peek(&mut [0; 1][..peeked]).await.unwrap();
        });
        assert!(matches!(sent, Delivery::Retry(..)), "{sent:?}");
    }
    drop(listener);
    assert!(matches!(sink.send(&items).await, Delivery::Retry(..)));
}

#[tokio::test]
async fn tls_is_verified_with_the_ca_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let with = |ca_file| {
        Sink::new(&Export {
            name: "siem".to_owned(),
            endpoint: format!("tls://localhost:{port}"),
            protocol: ExportProtocol::Syslog,
            format: SyslogFormat::Cef,
            message_bytes_max: crate::config::SYSLOG_BYTES_MAX,
            headers: [].into(),
            ca_file,
            records_max: 1,
            timeout_seconds: 30,
        })
        .unwrap()
    };
    let items = [refused("select 1")];
    let accept = || async {
        match acceptor.accept(listener.accept().await.unwrap().0).await {
            Ok(mut stream) => {
                let got = read_to_end(&mut stream).await;
                stream.shutdown().await.unwrap();
                got
            }
            Err(_) => String::new(),
        }
    };
    let trusting = with(Some(ca_file));
    let (sent, got) = tokio::join!(trusting.send(&items), accept());
    assert!(matches!(sent, Delivery::Taken), "{sent:?}");
    assert!(got.contains("CEF:0|Tidegate|"), "{got}");
    let stranger = with(None);
    let (sent, got) = tokio::join!(stranger.send(&items), accept());
    assert!(matches!(sent, Delivery::Retry(..)), "{sent:?}");
    assert_eq!(got, "");
}
