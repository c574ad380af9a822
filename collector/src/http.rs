//! A small HTTP/1.1 client, one connection a request: for OTLP over HTTP, and for witnesses.
//!
//! Known gap: no connection reuse. A request of the feed holds hundreds of records, and a witness is
//! asked once a second, so a handshake for each is a small part of the cost.
//! Limits: [`ANSWER_BYTES_MAX`]; redirects are not followed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// One server, and the path that its requests begin with.
pub struct Client {
    host: String,
    port: u16,
    authority: HeaderValue,
    path: String,
    timeout: Duration,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What it said.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Client {
    /// For `http://` or `https://`; connects at each request. Without `ca_file`, the system's
    /// certificates are trusted.
    pub fn new(url: &str, ca_file: Option<&Path>, timeout: Duration) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("address {url:?}"))?;
        let secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().with_context(|| format!("address {url:?}: no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).context("the address's host")?;
            Some((connector(ca_file)?, name))
        } else {
            None
        };
        let authority = HeaderValue::from_str(authority.as_str())?;
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port, authority, path, timeout, tls })
    }

    /// The path that the address names, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// One request; `path` is absolute.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).body(Full::new(body))?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.authority.clone());
        let exchange = async {
            let tcp =
                TcpStream::connect((self.host.as_str(), self.port)).await.context("connect")?;
            match &self.tls {
                None => ask(tcp, request).await,
                Some((connector, name)) => {
                    let tls = connector.connect(name.clone(), tcp).await.context("TLS")?;
                    ask(tls, request).await
                }
            }
        };
        tokio::time::timeout(self.timeout, exchange).await.context("no answer in time")?
    }
}

async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|error| anyhow::anyhow!("the answer: {error}"))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// TLS that trusts the CA in the file, or the system's.
pub(crate) fn connector(ca_file: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = ca_file {
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
