//! Who may come in: enrolment by a one-time token, and whose certificate this is.
//!
//! Promises: a token is good once and for one agent; the audit key is pinned only after a proof
//! that the agent holds it; a certificate that is not the agent's newest is nobody's.
//!
//! Each enrolment is an act in the collector's own chain.
//!
//! Known gap: roles for people come later.

use std::sync::Arc;

use tidegate_ledger::checkpoint::VerifierKey;
use tidegate_ledger::enrol;
use tidegate_proto::uplink::v1::{EnrolRequest, EnrolResponse, enrolment_server};
use tonic::{Request, Response, Status};

use crate::acts::Act;
use crate::config::{Paths, is_plain_name};
use crate::state::{Agent, Enrolment, State};
use crate::{clock, keys, pki};

/// Longest certificate request, in bytes.
const CSR_BYTES_MAX: usize = 16 * 1024;

/// The `Enrolment` service.
#[derive(Clone)]
pub struct EnrolmentService {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    ca: pki::Pair,
    log_key: VerifierKey,
    origin: String,
    paths: Paths,
}

impl EnrolmentService {
    /// A service that signs with this CA.
    pub fn new(
        state: Arc<State>,
        ca: pki::Pair,
        log_key: VerifierKey,
        origin: &str,
        paths: Paths,
    ) -> Self {
        let origin = origin.to_owned();
        Self { inner: Arc::new(Inner { state, ca, log_key, origin, paths }) }
    }
}

#[tonic::async_trait]
impl enrolment_server::Enrolment for EnrolmentService {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let inner = Arc::clone(&self.inner);
        let request = request.into_inner();
        let work = tokio::task::spawn_blocking(move || inner.enrol(&request));
        let response = work.await.map_err(|_| Status::internal("enrolment failed"))??;
        Ok(Response::new(response))
    }
}

impl Inner {
    fn enrol(&self, request: &EnrolRequest) -> Result<EnrolResponse, Status> {
        let agent_id = &request.agent_id;
        if !is_plain_name(agent_id) {
            return Err(Status::invalid_argument("agent_id: letters, digits, '.', '_', '-' only"));
        }
        let Ok(audit_key) = <[u8; 32]>::try_from(request.audit_key.as_ref()) else {
            return Err(Status::invalid_argument("audit_key: 32 bytes expected"));
        };
        if !enrol::verify(&request.token, &request.audit_key_proof, &audit_key) {
            return Err(Status::invalid_argument("audit_key_proof: not signed by audit_key"));
        }
        if request.csr_pem.len() > CSR_BYTES_MAX {
            return Err(Status::invalid_argument("csr_pem: too long"));
        }
        let now_ns = clock::now_ns();
        let certificate = pki::sign_agent(&self.ca, &request.csr_pem, agent_id, now_ns)
            .map_err(|error| Status::invalid_argument(format!("csr_pem: {error}")))?;
        let enrolment = Enrolment {
            token: &request.token,
            agent_id,
            audit_key: &audit_key,
            fingerprint: &certificate.fingerprint,
            expires_ns: certificate.expires_ns,
        };
        match self.state.enrol(&enrolment, now_ns) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(agent = %agent_id, "enrolment refused: no such token for this agent");
                return Err(Status::permission_denied(
                    "the token is unknown, used, expired or for another agent; \
                     make a new one with: tidegate-collector enrol",
                ));
            }
            Err(error) => return Err(failed(&error)),
        }
        let key = hex::encode(audit_key);
        let act = Act::new("agent_enrolled", format!("agent {agent_id}, audit key {key}"));
        self.state.act(&act).map_err(|error| failed(&error))?;
        keys::publish(&self.paths.keys(), &self.log_key, &self.state)
            .map_err(|error| failed(&error))?;
        tracing::info!(agent = %agent_id, "agent enrolled");
        Ok(EnrolResponse {
            certificate_pem: certificate.pem,
            ca_pem: self.ca.certificate.clone(),
            log_key: self.log_key.to_string(),
            origin: self.origin.clone(),
        })
    }
}

fn failed(error: &anyhow::Error) -> Status {
    tracing::error!(error = format!("{error:#}"), "enrolment failed");
    Status::unavailable("the collector cannot keep the enrolment now")
}

/// The enrolled agent behind a request's client certificate, which TLS has checked against our CA.
pub fn agent_of<T>(request: &Request<T>, state: &State) -> Result<Agent, Status> {
    let certificates = request.peer_certs();
    let Some(leaf) = certificates.as_ref().and_then(|chain| chain.first()) else {
        return Err(Status::unauthenticated("a client certificate is needed; enrol the agent"));
    };
    match state.agent_of(&pki::fingerprint(leaf)) {
        Ok(Some(agent)) => Ok(agent),
        Ok(None) => Err(Status::permission_denied(
            "the certificate is no enrolled agent's (any more); enrol the agent again",
        )),
        Err(error) => Err(failed(&error)),
    }
}
