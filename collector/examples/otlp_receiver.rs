//! A receiver of OTLP logs for demos and tests: one JSON line a record.
//!
//! Promises: takes `ExportLogsServiceRequest` over gRPC (`--grpc ADDR`) or over HTTP/1.1 with binary
//! protobuf at `/v1/logs` (`--http ADDR`), appends each record to `--out FILE` before it answers, and
//! says `ready: grpc=ADDR` or `ready: http=ADDR` once it listens. `--fail-first N` answers the first N
//! requests with "unavailable", to see whether the sender tries again.
//!
//! Limits: no TLS, no compression, requests up to [`REQUEST_BYTES_MAX`]; not meant for production.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Parser as _;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message as _;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Largest request.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(clap::Parser)]
struct Args {
    /// Listen for gRPC here.
    #[arg(long, required_unless_present = "http")]
    grpc: Option<SocketAddr>,
    /// Listen for HTTP here.
    #[arg(long, conflicts_with = "grpc")]
    http: Option<SocketAddr>,
    /// Append records to this file.
    #[arg(long)]
    out: PathBuf,
    /// Answer so many requests with "unavailable" first.
    #[arg(long, default_value_t = 0)]
    fail_first: u64,
}

/// Where records go.
#[derive(Clone)]
struct Sink(Arc<(Mutex<File>, AtomicU64)>);

impl Sink {
    /// Whether this request is one of those that are to fail.
    fn fails(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.0.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn take(&self, request: &ExportLogsServiceRequest) -> std::io::Result<()> {
        let mut lines = Vec::new();
        for resource_logs in &request.resource_logs {
            let resource = resource_logs.resource.as_ref().map(|r| attributes(&r.attributes));
            for scope_logs in &resource_logs.scope_logs {
                for record in &scope_logs.log_records {
                    let line = json!({
                        "event_name": record.event_name,
                        "time_unix_nano": record.time_unix_nano,
                        "observed_time_unix_nano": record.observed_time_unix_nano,
                        "severity_text": record.severity_text,
                        "body": record.body.as_ref().map(value),
                        "attributes": attributes(&record.attributes),
                        "resource": resource,
                    });
                    writeln!(lines, "{line}")?;
                }
            }
        }
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&lines)
    }
}

fn attributes(pairs: &[KeyValue]) -> Value {
    let pair = |kv: &KeyValue| (kv.key.clone(), kv.value.as_ref().map_or(Value::Null, value));
    Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>())
}

fn value(any: &AnyValue) -> Value {
    match &any.value {
        Some(any_value::Value::StringValue(text)) => json!(text),
        Some(any_value::Value::BoolValue(flag)) => json!(flag),
        Some(any_value::Value::IntValue(number)) => json!(number),
        Some(any_value::Value::DoubleValue(number)) => json!(number),
        Some(any_value::Value::ArrayValue(array)) => array.values.iter().map(value).collect(),
        Some(any_value::Value::KvlistValue(list)) => attributes(&list.values),
        Some(any_value::Value::BytesValue(bytes)) => json!(hex::encode(bytes)),
        _ => Value::Null,
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        if self.fails() {
            return Err(tonic::Status::unavailable("asked to fail"));
        }
        self.take(request.get_ref()).map_err(|error| tonic::Status::internal(error.to_string()))?;
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

/// One HTTP/1.1 connection, request by request.
async fn http(stream: TcpStream, sink: Sink) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0_usize;
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, field)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = field.trim().parse()?;
            }
        }
        anyhow::ensure!(length <= REQUEST_BYTES_MAX, "a request of {length} bytes");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let status = if !first.starts_with("POST /v1/logs ") {
            "404 Not Found"
        } else if sink.fails() {
            "503 Service Unavailable"
        } else {
            sink.take(&ExportLogsServiceRequest::decode(body.as_slice())?)?;
            "200 OK"
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn ready(kind: &str, address: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready: {kind}={address}")?;
    Ok(out.flush()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let out = OpenOptions::new().create(true).append(true).open(&args.out);
    let out = out.with_context(|| format!("opening {}", args.out.display()))?;
    let sink = Sink(Arc::new((Mutex::new(out), AtomicU64::new(args.fail_first))));
    if let Some(address) = args.grpc {
        let listener = TcpListener::bind(address).await?;
        ready("grpc", listener.local_addr()?)?;
        let service = LogsServiceServer::new(sink).max_decoding_message_size(REQUEST_BYTES_MAX);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await?;
        return Ok(());
    }
    let listener = TcpListener::bind(args.http.context("--grpc or --http")?).await?;
    ready("http", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let sink = sink.clone();
        tokio::spawn(async move {
            if let Err(error) = http(stream, sink).await {
                let _ = writeln!(std::io::stderr(), "otlp_receiver: {error:#}");
            }
        });
    }
}
