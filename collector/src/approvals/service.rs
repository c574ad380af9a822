//! The `Approvals` service: agents ask, and are told what was decided.
//!
//! Promises: an agent is answered only about its own requests. A request that is not taken is named in
//! the status, so that the agent asks on.

use std::sync::Arc;

use tidegate_ledger::SigningKey;
use tidegate_proto::uplink::v1::{ApprovalAnswers, ApprovalExchange, approvals_server};
use tonic::{Request, Response, Status};

use super::Approver;
use crate::access::agent_of;
use crate::clock;
use crate::state::{Agent, State};

/// Largest exchange, in bytes.
pub const EXCHANGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Clone)]
pub struct ApprovalsService {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    roster: Vec<Approver>,
    key: SigningKey,
}

impl ApprovalsService {
    /// Answers are signed by this key.
    pub fn new(state: Arc<State>, roster: Vec<Approver>, key: SigningKey) -> Self {
        Self { inner: Arc::new(Inner { state, roster, key }) }
    }
}

#[tonic::async_trait]
impl approvals_server::Approvals for ApprovalsService {
    async fn exchange(
        &self,
        request: Request<ApprovalExchange>,
    ) -> Result<Response<ApprovalAnswers>, Status> {
        let agent = agent_of(&request, &self.inner.state)?;
        let (inner, exchange) = (Arc::clone(&self.inner), request.into_inner());
        let work = tokio::task::spawn_blocking(move || inner.exchange(&agent, &exchange));
        let answers = work.await.map_err(|_| Status::internal("the exchange failed"))?;
        Ok(Response::new(answers.map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "requests for approval were not taken");
            Status::failed_precondition(format!("{error:#}"))
        })?))
    }
}

impl Inner {
    fn exchange(
        &self,
        agent: &Agent,
        exchange: &ApprovalExchange,
    ) -> anyhow::Result<ApprovalAnswers> {
        let mut answers = Vec::new();
        for request in &exchange.requests {
            let now_ns = clock::now_ns();
            self.state.approval_asked(&agent.agent_id, request, now_ns)?;
            let (roster, key) = (&self.roster, &self.key);
            answers.extend(self.state.approval_answer(roster, key, &request.id, now_ns)?);
        }
        Ok(ApprovalAnswers { answers })
    }
}
