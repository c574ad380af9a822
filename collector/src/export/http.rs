//! OTLP over HTTP/1.1 with binary protobuf.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;

use super::Delivery;
use crate::config::Export;
use crate::http::{Answer, Client};

const LOGS_PATH: &str = "/v1/logs";

/// A receiver.
pub struct Sink {
    client: Client,
    path: String,
    headers: HeaderMap,
}

impl Sink {
    /// Reads the configuration; connects at each request.
    pub fn new(config: &Export) -> anyhow::Result<Self> {
        let timeout = Duration::from_secs(config.timeout_seconds);
        let client = Client::new(&config.endpoint, config.ca_file.as_deref(), timeout)?;
        let path = match client.path() {
            "" => LOGS_PATH.to_owned(),
            path => path.to_owned(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &config.headers {
            let key: HeaderName = name.parse().with_context(|| format!("header {name:?}"))?;
            let mut value: HeaderValue =
                value.parse().with_context(|| format!("the value of header {name:?}"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        Ok(Self { client, path, headers })
    }

    /// Sends one request.
    pub async fn send(&self, request: &ExportLogsServiceRequest) -> Delivery {
        let body = Bytes::from(request.encode_to_vec());
        let answer = self.client.send(Method::POST, &self.path, &self.headers, body).await;
        match answer.and_then(judge) {
            Ok(delivery) => delivery,
            Err(error) => Delivery::Retry(format!("{error:#}"), None),
        }
    }
}

fn judge(answer: Answer) -> anyhow::Result<Delivery> {
    let wait = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let status = answer.status;
    Ok(match status {
        StatusCode::OK => Delivery::of(&ExportLogsServiceResponse::decode(answer.body)?),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Delivery::Rejected(format!("HTTP {status}")),
        // 401, 404 and the like are a configuration's fault: waiting loses nothing.
        _ => Delivery::Retry(format!("HTTP {status}"), wait),
    })
}
