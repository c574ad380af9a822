//! Connections to the review pages: TLS, limits, an end in order.
//!
//! Promise: a peer that sends nothing, or too much, costs one of [`CONNECTIONS_MAX`] places for a
//! bounded time and nothing else. HTTP/1.1 only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::Paths;
use crate::files;

/// Connections at the same time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 128;
/// A TLS handshake may take this long.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a request to the end of its head, also between two requests.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// After a failed accept (no file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// TLS with the uplink's certificate, which the collector's own CA signed.
pub fn tls(paths: &Paths) -> anyhow::Result<TlsAcceptor> {
    let mut chain = Vec::new();
    for file in [paths.server_certificate(), paths.ca_certificate()] {
        let pem = files::read(&file)?;
        chain.push(
            CertificateDer::from_pem_slice(pem.as_bytes())
                .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?,
        );
    }
    let file = paths.server_key();
    let key = PrivateKeyDer::from_pem_slice(files::read(&file)?.as_bytes())
        .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate of the review pages")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until the collector stops; requests that have begun are answered.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let end = stopping.clone();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A sender that is gone means a stop, too.
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (tls, router, end) = (tls.clone(), router.clone(), end.clone());
                connections.spawn(async move {
                    connection(stream, tls, router, end).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "the review pages cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    end: watch::Receiver<bool>,
) {
    let Some(tls) = tls else { return http(stream, router, end).await };
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        http(stream, router, end).await;
    }
}

async fn http<S>(stream: S, router: Router, mut end: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // A peer that goes away in the middle is no event.
    tokio::select! {
        _ended = served.as_mut() => return,
        _ = end.wait_for(|stop| *stop) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ended = served.await;
}
