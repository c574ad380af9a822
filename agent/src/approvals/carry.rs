//! Carries what waits to the collector, and its answers back.
//!
//! Promises: an answer that got lost on the way is asked for again; a collector that is away releases
//! nothing. It connects only while something waits.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tidegate_proto::uplink::v1::ApprovalExchange;
use tidegate_proto::uplink::v1::approvals_client::ApprovalsClient;
use tonic::transport::Channel;

use super::Approvals;
use crate::uplink::enrolment::{Enrolment, connect_enrolled};

/// How often the collector is asked while something waits, in milliseconds.
const ASK_MS: u64 = 500;
/// The collector has this long for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Runs as long as the agent.
pub async fn carry(approvals: Arc<Approvals>) {
    let mut changed = approvals.changed.subscribe();
    let mut client = None;
    let mut told = String::new();
    loop {
        if approvals.waiting().is_empty() {
            client = None;
            if changed.changed().await.is_err() {
                return;
            }
            continue;
        }
        match exchange(&approvals, client.take()).await {
            Ok(good) => {
                client = Some(good);
                told.clear();
            }
            Err(error) => {
                let text = format!("{error:#}");
                if text != told {
                    tracing::warn!(error = text, "requests for approval don't reach the collector");
                }
                told = text;
            }
        }
        tokio::time::sleep(Duration::from_millis(ASK_MS)).await;
    }
}

async fn exchange(
    approvals: &Approvals,
    client: Option<ApprovalsClient<Channel>>,
) -> anyhow::Result<ApprovalsClient<Channel>> {
    let mut client = match client {
        Some(client) => client,
        None => connect(&approvals.state_dir).await?,
    };
    let requests = approvals.waiting();
    let asking = client.exchange(ApprovalExchange { requests });
    let answers = tokio::time::timeout(ANSWER_MAX, asking)
        .await
        .context("the collector does not answer")?
        .map_err(|status| anyhow::anyhow!("{:?} {}", status.code(), status.message()))?;
    for answer in answers.into_inner().answers {
        if let Err(why) = approvals.answered(&answer) {
            tracing::error!(why, "an answer to a request for approval was not taken");
        }
    }
    Ok(client)
}

async fn connect(state_dir: &Path) -> anyhow::Result<ApprovalsClient<Channel>> {
    let enrolment = Enrolment::load(state_dir)?;
    Ok(ApprovalsClient::new(connect_enrolled(state_dir, &enrolment).await?))
}
