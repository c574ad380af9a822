//! A collector in a directory of its own, and an enrolled agent's connection to it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_collector::config::Config;
use tidegate_collector::keys::Keys;
use tidegate_collector::serve::{self, Running};
use tidegate_collector::state::State;
use tidegate_collector::{init, verify};
use tidegate_event::{ChainId, Seq};
use tidegate_ledger::receipt::{self, ReceiptFacts};
use tidegate_ledger::verify::Report;
use tidegate_ledger::{SigningKey, enrol};
use tidegate_proto::uplink::v1::agent_message::Message as ToCollector;
use tidegate_proto::uplink::v1::collector_message::Message;
use tidegate_proto::uplink::v1::enrolment_client::EnrolmentClient;
use tidegate_proto::uplink::v1::uplink_client::UplinkClient;
use tidegate_proto::uplink::v1::{
    AgentMessage, Batch, CollectorMessage, EnrolRequest, EnrolResponse, Hello, HelloAck, Refused,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

/// Longer than anything here takes; a test that waits so long has failed.
const STUCK: Duration = Duration::from_mins(1);
const FAR_FUTURE_NS: u64 = 4_000_000_000_000_000_000;

pub struct Home {
    pub dir: TempDir,
    pub config: Config,
}

/// An enrolled agent's transport identity.
#[derive(Clone)]
pub struct Pass {
    pub agent: String,
    certificate: String,
    key: String,
}

pub struct Wire {
    pub out: mpsc::Sender<AgentMessage>,
    pub input: Streaming<CollectorMessage>,
    log_key: [u8; 32],
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = init::Options {
            data_dir: &dir.path().join("data"),
            origin: "test.example/log",
            listen: "127.0.0.1:0".parse().unwrap(),
            names: &[],
        };
        init::init(&options).unwrap();
        let mut config = Config::load(&dir.path().join("data/collector.toml")).unwrap();
        config.log.segment_bytes = 1024 * 1024;
        Self { dir, config }
    }

    pub async fn serve(&self) -> Running {
        serve::start(&self.config).await.unwrap()
    }

    pub fn log(&self) -> PathBuf {
        self.config.paths().log()
    }

    pub fn keys(&self) -> Keys {
        Keys::read(&self.config.paths().keys()).unwrap()
    }

    pub fn verify(&self) -> Report {
        verify::verify(&self.log(), &self.keys()).unwrap()
    }

    pub fn state(&self) -> State {
        State::open(&self.config.paths().state()).unwrap()
    }

    fn tls(&self) -> ClientTlsConfig {
        let ca = std::fs::read(self.config.paths().ca_certificate()).unwrap();
        ClientTlsConfig::new().domain_name("localhost").ca_certificate(Certificate::from_pem(ca))
    }

    pub async fn channel(
        &self,
        running: &Running,
        identity: Option<Identity>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = self.tls();
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        Endpoint::from_shared(format!("https://{}", running.uplink))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
    }

    pub fn token(&self, agent: &str) -> String {
        let now = FAR_FUTURE_NS;
        self.state().new_token(agent, now, 3600).unwrap()
    }

    /// One call of Enrol, with everything as it must be but what the caller gets wrong.
    pub async fn try_enrol(
        &self,
        running: &Running,
        agent: &str,
        key: &SigningKey,
        token: &str,
        proof_by: &SigningKey,
    ) -> Result<(Pass, EnrolResponse), Status> {
        let transport = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&transport).unwrap();
        let channel = self.channel(running, None).await.unwrap();
        let response = EnrolmentClient::new(channel)
            .enrol(EnrolRequest {
                token: token.to_owned(),
                agent_id: agent.to_owned(),
                csr_pem: csr.pem().unwrap(),
                audit_key: Bytes::copy_from_slice(key.verifying_key().as_bytes()),
                audit_key_proof: Bytes::copy_from_slice(&enrol::prove(proof_by, token)),
            })
            .await?
            .into_inner();
        let pass = Pass {
            agent: agent.to_owned(),
            certificate: response.certificate_pem.clone(),
            key: transport.serialize_pem(),
        };
        Ok((pass, response))
    }

    pub async fn enrol(&self, running: &Running, agent: &str, key: &SigningKey) -> Pass {
        let token = self.token(agent);
        self.try_enrol(running, agent, key, &token, key).await.unwrap().0
    }

    /// Opens a stream and sends this Hello; the answers are not read yet.
    pub async fn open(
        &self,
        running: &Running,
        pass: &Pass,
        agent: &str,
        oldest: Option<(ChainId, u64)>,
    ) -> Result<Wire, Status> {
        let identity = Identity::from_pem(&pass.certificate, &pass.key);
        let channel = self.channel(running, Some(identity)).await.unwrap();
        self.open_on(channel, agent, oldest).await
    }

    pub async fn open_on(
        &self,
        channel: Channel,
        agent: &str,
        oldest: Option<(ChainId, u64)>,
    ) -> Result<Wire, Status> {
        let hello = Hello {
            agent_id: agent.to_owned(),
            chain_id: oldest.map_or(Bytes::new(), |(id, _)| Bytes::copy_from_slice(&id.0)),
            next_seq: oldest.map_or(0, |(_, seq)| seq),
            ..Hello::default()
        };
        self.say_hello(channel, hello).await
    }

    /// A stream on which this is said first.
    pub async fn hello(&self, running: &Running, pass: &Pass, hello: Hello) -> Wire {
        let identity = Identity::from_pem(&pass.certificate, &pass.key);
        let channel = self.channel(running, Some(identity)).await.unwrap();
        self.say_hello(channel, hello).await.unwrap()
    }

    async fn say_hello(&self, channel: Channel, hello: Hello) -> Result<Wire, Status> {
        let (out, outgoing) = mpsc::channel(64);
        out.send(AgentMessage { message: Some(ToCollector::Hello(hello)) }).await.unwrap();
        let mut client = UplinkClient::new(channel);
        let input = within(client.stream(ReceiverStream::new(outgoing))).await?.into_inner();
        let log_key = *self.keys().verifier().unwrap().key();
        Ok(Wire { out, input, log_key })
    }

    /// A stream that was greeted.
    pub async fn greeted(
        &self,
        running: &Running,
        pass: &Pass,
        oldest: Option<(ChainId, u64)>,
    ) -> (Wire, HelloAck) {
        let mut wire = self.open(running, pass, &pass.agent, oldest).await.unwrap();
        let ack = wire.ack().await;
        (wire, ack)
    }
}

impl Wire {
    pub async fn send(&self, batch: Batch) {
        let message = AgentMessage { message: Some(ToCollector::Batch(batch)) };
        self.out.send(message).await.unwrap();
    }

    pub async fn message(&mut self) -> Message {
        within(self.input.message()).await.unwrap().unwrap().message.unwrap()
    }

    pub async fn ack(&mut self) -> HelloAck {
        match self.message().await {
            Message::HelloAck(ack) => ack,
            other => panic!("no HelloAck: {other:?}"),
        }
    }

    /// The next checkpoint that it is shown.
    pub async fn checkpoint(&mut self) -> String {
        loop {
            if let Message::Checkpoint(note) = self.message().await {
                return note;
            }
        }
    }

    /// The next receipt as it came.
    pub async fn raw_receipt(&mut self) -> tidegate_proto::uplink::v1::Receipt {
        loop {
            if let Message::Receipt(receipt) = self.message().await {
                return receipt;
            }
        }
    }

    /// The next receipt, verified.
    pub async fn receipt(&mut self) -> ReceiptFacts {
        match self.message().await {
            Message::Receipt(receipt) => {
                receipt::verify(&receipt.body, &receipt.signature, &self.log_key).unwrap()
            }
            other => panic!("no receipt: {other:?}"),
        }
    }

    pub async fn refused(&mut self) -> Refused {
        match self.message().await {
            Message::Refused(refused) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends one batch and takes its receipt.
    pub async fn deliver(&mut self, batch: Batch) -> Seq {
        self.send(batch).await;
        self.receipt().await.durable
    }
}

/// Records of agents; those of the collector's own chain come at times of their own.
pub fn of_agents(report: &Report) -> u64 {
    let chains = report.chains.iter();
    let agents = chains.filter(|chain| chain.agent_id.as_deref() != Some("@collector"));
    agents.map(|chain| chain.records).sum()
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(STUCK, work).await.unwrap()
}

/// Waits until the index has all that is durable.
pub async fn indexed(running: &Running) -> u64 {
    let durable = *running.durable.borrow();
    let mut indexed = running.indexed.clone();
    *within(indexed.wait_for(|at| *at >= durable)).await.unwrap()
}
