//! The uplink against a collector that drops, refuses and lies on purpose.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests: a failure here is the test's verdict"
)]

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidegate_agent::uplink::stream::BATCHES_IN_FLIGHT_MAX;
use tidegate_agent::uplink::{self, Batch, Handle, Source, enrolment};
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::SigningKey;
use tidegate_ledger::checkpoint::{self, Checkpoint, VerifierKey};
use tidegate_ledger::receipt::{self, ReceiptFacts};
use tidegate_proto::uplink::v1::agent_message::Message as FromAgent;
use tidegate_proto::uplink::v1::collector_message::Message;
use tidegate_proto::uplink::v1::enrolment_server::{Enrolment, EnrolmentServer};
use tidegate_proto::uplink::v1::refused::Why;
use tidegate_proto::uplink::v1::uplink_server::{Uplink, UplinkServer};
use tidegate_proto::uplink::v1::{
    AgentMessage, CollectorMessage, EnrolRequest, EnrolResponse, HelloAck, Receipt, Refused,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

const STUCK: Duration = Duration::from_mins(1);
const CHAIN: ChainId = ChainId([5; 32]);
const TOKEN: &str = "token-1";

/// What the collector does with one connection.
#[derive(Clone, Copy)]
enum Act {
    /// Holds receipts back until so many batches wait, and ends after so many receipts.
    Serve { hold: usize, end_after: usize },
    /// Refuses after the Hello.
    Refuse(Why),
    /// Signs its first receipt with another key.
    WrongKey,
    /// Its first receipt names another chain value.
    OtherHistory,
    /// Shows a checkpoint, and then a smaller one.
    SetBack,
}

struct Inner {
    acts: Mutex<VecDeque<Act>>,
    key: SigningKey,
    /// Last sequence number of each batch, as it came.
    came: Mutex<Vec<u64>>,
    waiting_max: Mutex<usize>,
    /// Whether the agent showed a receipt that it holds.
    shown: Mutex<bool>,
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

#[derive(Clone)]
struct Collector(Arc<Inner>);

#[tonic::async_trait]
impl Enrolment for Collector {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let key: [u8; 32] = request.audit_key.as_ref().try_into().unwrap();
        assert!(tidegate_ledger::enrol::verify(TOKEN, &request.audit_key_proof, &key));
        if request.token != TOKEN {
            return Err(Status::permission_denied("no such token"));
        }
        let csr = rcgen::CertificateSigningRequestParams::from_pem(&request.csr_pem).unwrap();
        Ok(Response::new(EnrolResponse {
            certificate_pem: csr.signed_by(&self.0.issuer).unwrap().pem(),
            ca_pem: self.0.ca_pem.clone(),
            log_key: VerifierKey::new("t.example", self.0.key.verifying_key().to_bytes())
                .unwrap()
                .to_string(),
            origin: "t.example".to_owned(),
        }))
    }
}

type Answers = Pin<Box<ReceiverStream<Result<CollectorMessage, Status>>>>;

#[tonic::async_trait]
impl Uplink for Collector {
    type StreamStream = Answers;

    async fn stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Answers>, Status> {
        assert!(request.peer_certs().is_some_and(|chain| !chain.is_empty()), "no certificate");
        let act = self.0.acts.lock().unwrap().pop_front();
        let act = act.ok_or_else(|| Status::unavailable("the play is over"))?;
        let (out, answers) = mpsc::channel(1024);
        let this = self.clone();
        tokio::spawn(async move { this.play(act, request.into_inner(), out).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

impl Collector {
    async fn play(
        &self,
        act: Act,
        mut input: Streaming<AgentMessage>,
        out: mpsc::Sender<Result<CollectorMessage, Status>>,
    ) {
        let answer = async |message| {
            let message = CollectorMessage { message: Some(message) };
            out.send(Ok(message)).await.ok();
        };
        let first = input.message().await.unwrap().unwrap().message.unwrap();
        let FromAgent::Hello(hello) = first else { panic!("no Hello first") };
        assert_eq!(hello.agent_id, "a");
        assert!(hello.takes_checkpoints);
        *self.0.shown.lock().unwrap() |= hello.receipt.is_some();
        if let Act::Refuse(why) = act {
            let refused = Refused { why: why.into(), detail: "on purpose".into(), expected_seq: 0 };
            answer(Message::Refused(refused)).await;
            return;
        }
        let newest = self.0.came.lock().unwrap().last().copied();
        answer(Message::HelloAck(HelloAck {
            known: newest.is_some(),
            durable_seq: newest.unwrap_or(0),
            chain_value: Bytes::new(),
        }))
        .await;
        if matches!(act, Act::SetBack) {
            for size in [9, 9, 8] {
                let head = Checkpoint { origin: "t.example".into(), size, root: [1; 32] };
                answer(Message::Checkpoint(checkpoint::sign(&self.0.key, &head).unwrap())).await;
            }
        }
        let (mut waiting, mut given) = (VecDeque::new(), 0);
        while let Ok(Some(message)) = input.message().await {
            let Some(FromAgent::Batch(batch)) = message.message else { panic!("no Batch") };
            let last = u64::from_le_bytes(batch.seal[..].try_into().unwrap());
            self.0.came.lock().unwrap().push(last);
            waiting.push_back(last);
            let most = *self.0.waiting_max.lock().unwrap();
            *self.0.waiting_max.lock().unwrap() = most.max(waiting.len());
            let (hold, end_after) = match act {
                Act::Serve { hold, end_after } => (hold, end_after),
                _ => (1, usize::MAX),
            };
            if waiting.len() < hold {
                continue;
            }
            for last in std::mem::take(&mut waiting) {
                answer(Message::Receipt(self.receipt(act, last))).await;
                given += 1;
            }
            if given >= end_after {
                return;
            }
        }
    }

    fn receipt(&self, act: Act, last: u64) -> Receipt {
        let other = SigningKey::from_bytes(&[99; 32]);
        let key = if matches!(act, Act::WrongKey) { &other } else { &self.0.key };
        let facts = ReceiptFacts {
            chain_id: CHAIN,
            durable: Seq(last),
            chain_value: if matches!(act, Act::OtherHistory) { [0; 32] } else { value(last) },
            first_index: last,
            last_index: last,
            received_ns: 1,
        };
        let (body, signature) = receipt::sign(key, &facts);
        Receipt { body: body.into(), signature: Bytes::copy_from_slice(&signature) }
    }
}

fn value(last: u64) -> [u8; 32] {
    let [low, ..] = (last + 1).to_le_bytes();
    [low; 32]
}

/// A spool in memory: batch `n` holds record `n`.
struct Queue {
    batches: u64,
    at: u64,
    oldest: u64,
    acknowledged: watch::Sender<Vec<u64>>,
}

impl Source for Queue {
    async fn oldest(&mut self) -> anyhow::Result<Option<(ChainId, Seq)>> {
        Ok((self.oldest < self.batches).then_some((CHAIN, Seq(self.oldest))))
    }

    async fn seek(&mut self, chain: ChainId, next: Seq) -> anyhow::Result<()> {
        assert_eq!(chain, CHAIN);
        self.at = next.0;
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Batch> {
        if self.at == self.batches {
            std::future::pending::<()>().await;
        }
        let seq = Seq(self.at);
        self.at += 1;
        Ok(Batch {
            chain_id: CHAIN,
            first: seq,
            last: seq,
            records: vec![Bytes::from_static(b"record")],
            seal: seq.0.to_le_bytes().to_vec().into(),
            chain_value: value(seq.0),
        })
    }

    fn acknowledge(&mut self, chain: ChainId, durable: Seq) -> anyhow::Result<()> {
        assert_eq!(chain, CHAIN);
        self.oldest = durable.0 + 1;
        self.acknowledged.send_modify(|all| all.push(durable.0));
        Ok(())
    }
}

struct Stage {
    dir: TempDir,
    collector: Collector,
    address: String,
}

async fn stage(acts: &[Act]) -> Stage {
    rustls::crypto::ring::default_provider().install_default().ok();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(server.pem(), key.serialize_pem()))
        .client_ca_root(Certificate::from_pem(&ca_pem))
        .client_auth_optional(true);
    let collector = Collector(Arc::new(Inner {
        acts: Mutex::new(acts.iter().copied().collect()),
        key: SigningKey::from_bytes(&[7; 32]),
        came: Mutex::default(),
        waiting_max: Mutex::default(),
        shown: Mutex::default(),
        issuer,
        ca_pem,
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let router = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(EnrolmentServer::new(collector.clone()))
        .add_service(UplinkServer::new(collector.clone()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Stage { dir: tempfile::tempdir().unwrap(), collector, address }
}

impl Stage {
    fn enrol_file(&self, agent: &str, token: &str) -> std::path::PathBuf {
        let path = self.dir.path().join("enrol.json");
        let text = serde_json::json!({
            "v": 1, "agent": agent, "address": self.address, "server_name": "localhost",
            "origin": "t.example", "ca_pem": self.collector.0.ca_pem, "token": token,
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    /// Enrols and starts an uplink over a spool of so many batches.
    async fn start(&self, batches: u64) -> (Handle, watch::Receiver<Vec<u64>>, Ended) {
        let file = self.enrol_file("a", TOKEN);
        enrolment::enrol_at(&self.state(), "a", &file).await.unwrap();
        let (acknowledged, seen) = watch::channel(Vec::new());
        let queue = Queue { batches, at: 0, oldest: 0, acknowledged };
        let handle = Handle::new();
        let task = uplink::start(&self.state(), "a", queue, handle.clone()).unwrap();
        (handle, seen, task)
    }
}

type Ended = tokio::task::JoinHandle<()>;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn enrolment_leaves_whole_files_and_secret_keys() {
    let stage = stage(&[]).await;
    let dir = stage.state();
    let other = stage.enrol_file("b", TOKEN);
    let error = enrolment::enrol_at(&dir, "a", &other).await.unwrap_err();
    assert!(error.to_string().contains("is for agent \"b\""), "{error}");
    assert!(!dir.join(enrolment::ENROLMENT).exists());

    let file = stage.enrol_file("a", TOKEN);
    let before = uplink::audit_key(&dir).unwrap();
    enrolment::enrol_at(&dir, "a", &file).await.unwrap();
    assert_eq!(uplink::audit_key(&dir).unwrap().to_bytes(), before.to_bytes());
    for name in [enrolment::AUDIT_KEY, enrolment::AGENT_KEY] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    let enrolment = enrolment::Enrolment::load(&dir).unwrap();
    assert_eq!((enrolment.address, enrolment.origin), (stage.address, "t.example".to_owned()));
}

#[tokio::test]
async fn everything_arrives_in_order_over_broken_streams_and_a_bounded_window() {
    let full = BATCHES_IN_FLIGHT_MAX;
    let batches = u64::try_from(full + 36).unwrap();
    let acts = [
        Act::Serve { hold: full, end_after: full },
        Act::Serve { hold: 1, end_after: 5 },
        Act::WrongKey,
        Act::Serve { hold: 1, end_after: usize::MAX },
    ];
    let stage = stage(&acts).await;
    let (handle, mut seen, _task) = stage.start(batches).await;
    let all = seen.wait_for(|all| all.last() == Some(&(batches - 1)));
    tokio::time::timeout(STUCK, all).await.unwrap().unwrap();

    let acknowledged = seen.borrow().clone();
    assert!(acknowledged.is_sorted(), "{acknowledged:?}");
    let mut came = stage.collector.0.came.lock().unwrap().clone();
    assert!(came.len() < full + 36 + acts.len(), "only the last batch held is sent again");
    came.dedup();
    assert_eq!(came, (0..batches).collect::<Vec<_>>());
    assert_eq!(*stage.collector.0.waiting_max.lock().unwrap(), full);
    assert!(*stage.collector.0.shown.lock().unwrap(), "no Hello held a receipt");
    let status = handle.status();
    assert!(status.connected && status.last_error.is_none(), "{status:?}");
    assert_eq!(status.acknowledged, Some((CHAIN, Seq(batches - 1))));
}

#[tokio::test]
async fn a_collector_with_another_history_stops_the_uplink_and_frees_nothing() {
    for act in
        [Act::Refuse(Why::Fork), Act::Refuse(Why::UnknownAgent), Act::OtherHistory, Act::SetBack]
    {
        let stage = stage(&[act, Act::Serve { hold: 1, end_after: usize::MAX }]).await;
        let batches = if matches!(act, Act::SetBack) { 0 } else { 3 };
        let (handle, seen, task) = stage.start(batches).await;
        tokio::time::timeout(STUCK, task).await.unwrap().unwrap();
        let status = handle.status();
        assert!(status.stopped && !status.connected, "{status:?}");
        assert!(seen.borrow().is_empty(), "something was let go of");
    }
}

#[tokio::test]
async fn a_receipt_by_another_key_frees_nothing() {
    let stage = stage(&[Act::WrongKey, Act::Refuse(Why::Fork)]).await;
    let (_, seen, task) = stage.start(3).await;
    tokio::time::timeout(STUCK, task).await.unwrap().unwrap();
    assert!(seen.borrow().is_empty());
}
