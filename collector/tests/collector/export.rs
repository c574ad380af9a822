//! The OTLP feed, to receivers that fail, wait and reject on purpose.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tidegate_collector::config::{Export, ExportProtocol, SYSLOG_BYTES_MAX, SyslogFormat};
use tidegate_proto::audit::v1::decision::Verdict;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::agent::FakeAgent;
use crate::home::{Home, within};

/// Fails the first requests, then rejects the denied statements.
#[derive(Clone)]
struct Receiver {
    requests: Arc<AtomicUsize>,
    taken: Arc<Mutex<Vec<LogRecord>>>,
    news: mpsc::UnboundedSender<u64>,
}

const FAILURES: usize = 2;

impl Receiver {
    fn new() -> (Self, mpsc::UnboundedReceiver<u64>) {
        let (news, heard) = mpsc::unbounded_channel();
        (Self { requests: Arc::default(), taken: Arc::default(), news }, heard)
    }

    /// `None`: not now.
    fn take(&self, request: ExportLogsServiceRequest) -> Option<ExportLogsServiceResponse> {
        if self.requests.fetch_add(1, Ordering::SeqCst) < FAILURES {
            return None;
        }
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        let mut rejected = 0;
        for record in scopes.flat_map(|scope| scope.log_records) {
            if record.event_name == "audit.administration" || own_chain(&record) {
                continue;
            }
            if text(&record, "audit.verdict") == "deny" {
                rejected += 1;
                continue;
            }
            self.news.send(seq(&record)).unwrap();
            self.taken.lock().unwrap().push(record);
        }
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: "not this one".to_owned(),
        };
        Some(ExportLogsServiceResponse { partial_success: (rejected > 0).then_some(partial) })
    }
}

fn attribute<'a>(record: &'a LogRecord, key: &str) -> Option<&'a Value> {
    let found = record.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn text(record: &LogRecord, key: &str) -> String {
    match attribute(record, key) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn number(record: &LogRecord, key: &str) -> u64 {
    match attribute(record, key) {
        Some(Value::IntValue(number)) => u64::try_from(*number).unwrap(),
        _ => panic!("a record without {key}"),
    }
}

/// Its place in the agent's chain.
fn seq(record: &LogRecord) -> u64 {
    number(record, "audit.seq")
}

/// The beginning of the collector's own chain, which comes when it likes.
fn own_chain(record: &LogRecord) -> bool {
    use opentelemetry_proto::tonic::common::v1::AnyValue;
    let body = record.body.as_ref().and_then(|AnyValue { value, .. }| value.as_ref());
    matches!(body, Some(Value::StringValue(text)) if text.contains("@collector"))
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        assert_eq!(request.metadata().get("x-tenant").unwrap(), "bank");
        let answer = self.take(request.into_inner());
        answer.map(Response::new).ok_or_else(|| Status::unavailable("not now"))
    }
}

async fn serve_http(listener: TcpListener, receiver: Receiver) {
    while let Ok((mut socket, _)) = listener.accept().await {
        // A collector that stops breaks its request off.
        let Some(post) = read_post(&mut socket).await else {
            continue;
        };
        let answer = match receiver.take(post) {
            None => b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec(),
            Some(response) => {
                let body = response.encode_to_vec();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            }
        };
        socket.write_all(&answer).await.ok();
    }
}

async fn read_post(socket: &mut TcpStream) -> Option<ExportLogsServiceRequest> {
    let mut bytes = Vec::new();
    loop {
        let at = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(at) = at {
            let head = String::from_utf8(bytes[..at].to_vec()).unwrap().to_lowercase();
            assert!(head.starts_with("post /v1/logs http/1.1"), "{head}");
            assert!(head.contains("x-tenant: bank"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            if bytes.len() >= at + 4 + length {
                let body = &bytes[at + 4..at + 4 + length];
                return Some(ExportLogsServiceRequest::decode(body).unwrap());
            }
        }
        if socket.read_buf(&mut bytes).await.ok().is_none_or(|read| read == 0) {
            return None;
        }
    }
}

async fn check(protocol: ExportProtocol) {
    let (receiver, mut heard) = Receiver::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = match protocol {
        ExportProtocol::Grpc => {
            let router = tonic::transport::Server::builder()
                .add_service(LogsServiceServer::new(receiver.clone()));
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() })
        }
        _ => tokio::spawn(serve_http(listener, receiver.clone())),
    };
    let mut home = Home::new();
    home.config.export = vec![Export {
        name: "siem".to_owned(),
        endpoint,
        protocol,
        format: SyslogFormat::Ocsf,
        message_bytes_max: SYSLOG_BYTES_MAX,
        headers: [("x-tenant".to_owned(), "bank".to_owned())].into(),
        ca_file: None,
        records_max: 7,
        timeout_seconds: 10,
    }];

    let running = home.serve().await;
    let mut agent = FakeAgent::new("a", 1);
    let pass = home.enrol(&running, "a", &agent.key).await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    agent.session();
    for _ in 0..5 {
        agent.statement("select 1", "select", "public.accounts", Verdict::Allow);
        agent.statement("delete from t", "delete", "t", Verdict::Deny);
        agent.heartbeat();
        wire.deliver(agent.batch()).await;
    }
    // Genesis, session; then five times four records: the last record is 21.
    while within(heard.recv()).await.unwrap() != 21 {}
    running.stop().await.unwrap();

    // A collector that starts again goes on, and gives nothing up.
    let running = home.serve().await;
    let (mut wire, _) = home.greeted(&running, &pass, None).await;
    wire.deliver(agent.heartbeats(1)).await;
    while within(heard.recv()).await.unwrap() != 22 {}
    running.stop().await.unwrap();
    server.abort();

    judge(&home, &receiver.taken.lock().unwrap());
}

fn judge(home: &Home, taken: &[LogRecord]) {
    let denied = [4, 8, 12, 16, 20];
    let mut first_seen = Vec::new();
    let mut last_index = 0;
    for record in taken {
        if !first_seen.contains(&seq(record)) {
            first_seen.push(seq(record));
            let index = number(record, "audit.log.index");
            assert!(index >= last_index, "out of the log's order");
            last_index = index;
        }
    }
    let expected: Vec<u64> = (0..=22).filter(|at| !denied.contains(at)).collect();
    assert_eq!(first_seen, expected, "each at least once, in the log's order");

    let dead = home.config.paths().dead_letters().join("siem.jsonl");
    let dead = std::fs::read_to_string(dead).unwrap();
    assert_eq!(dead.lines().count(), denied.len(), "{dead}");
    assert!(dead.lines().all(|line| line.contains("\"index\":")), "{dead}");
    assert_eq!(home.state().export_cursor("siem").unwrap().1, 5);

    let statement = taken.iter().find(|record| seq(record) == 2).unwrap();
    assert_eq!(statement.event_name, "audit.db.statement");
    let uid = format!("test.example/log#{}", number(statement, "audit.log.index"));
    for (key, value) in [
        ("log.record.uid", uid.as_str()),
        ("db.query.text", "select 1"),
        ("db.system.name", "postgresql"),
        ("db.collection.name", "accounts"),
        ("user.name", "batch"),
        ("audit.target", "ledger"),
        ("audit.verdict", "allow"),
    ] {
        assert_eq!(text(statement, key), value, "{key}");
    }
    assert_eq!(attribute(statement, "ocsf.type_uid"), Some(&Value::IntValue(600_501)));
}

#[tokio::test]
async fn grpc_receives_each_record_in_order() {
    check(ExportProtocol::Grpc).await;
}

#[tokio::test]
async fn http_receives_each_record_in_order() {
    check(ExportProtocol::Http).await;
}
