//! OTLP over HTTP/1.1 with binary protobuf, one connection a request.
//!
//! Known gap: no connection reuse; a request holds hundreds of records, so a handshake for each
//! is a small part of its cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Delivery;
use crate::config::Export;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const LOGS_PATH: &str = "/v1/logs";

/// A receiver.
pub struct Sink {
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
    timeout: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Sink {
    /// Reads the configuration; connects at each request.
    pub fn new(config: &Export) -> anyhow::Result<Self> {
        let uri: Uri = config.endpoint.parse().context("endpoint")?;
        let secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().context("endpoint: no host")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = match uri.path() {
            "" | "/" => LOGS_PATH.to_owned(),
            path => path.to_owned(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &config.headers {
            let key: HeaderName = name.parse().with_context(|| format!("header {name:?}"))?;
            let mut value: HeaderValue =
                value.parse().with_context(|| format!("the value of header {name:?}"))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).context("endpoint's host")?;
            Some((connector(config)?, name))
        } else {
            None
        };
        let timeout = Duration::from_secs(config.timeout_seconds);
        Ok(Self { host, port, path, headers, timeout, tls })
    }

    /// Sends one request.
    pub async fn send(&self, request: &ExportLogsServiceRequest) -> Delivery {
        let body = Bytes::from(request.encode_to_vec());
        match tokio::time::timeout(self.timeout, self.exchange(body)).await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err(error)) => Delivery::Retry(format!("{error:#}"), None),
            Err(_) => Delivery::Retry("no answer in time".to_owned(), None),
        }
    }

    async fn exchange(&self, body: Bytes) -> anyhow::Result<Delivery> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.context("connect")?;
        match &self.tls {
            None => self.ask(tcp, body).await,
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), tcp).await.context("TLS")?;
                self.ask(tls, body).await
            }
        }
    }

    async fn ask<S>(&self, stream: S, body: Bytes) -> anyhow::Result<Delivery>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.path.as_str())
            .body(Full::new(body))?;
        *request.headers_mut() = self.headers.clone();
        let response = sender.send_request(request).await?;
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!("the answer: {error}"))?.to_bytes();
        Ok(match status {
            StatusCode::OK => Delivery::of(&ExportLogsServiceResponse::decode(body)?),
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Delivery::Rejected(format!("HTTP {status}")),
            // 401, 404 and the like are a configuration's fault: waiting loses nothing.
            _ => Delivery::Retry(format!("HTTP {status}"), wait),
        })
    }
}

fn connector(config: &Export) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = &config.ca_file {
        let certificates = CertificateDer::pem_file_iter(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        for certificate in certificates {
            roots.add(certificate.with_context(|| format!("in {}", file.display()))?)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(tls)))
}
