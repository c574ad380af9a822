//! The leg to the real server. Bytes leave only with a [`Clearance`].
//!
//! Promises: nothing is written without a Receipt or a named exemption; the address dialled is the
//! one that the client asked for, in the client's network namespace; TLS is verified in full or not spoken at all, as the target says.
//!
//! Cannot: client certificates and GSS encryption towards the server (`docs/OPERATING.md`).

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tidegate_journal::Receipt;
use tidegate_wire::Exempt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::capture::netns::Netns;
use crate::counted::Counted;
use crate::ingress::unpaced;
use crate::session::leg::Leg;
use crate::session::queue::Queue;
use crate::tls::ServerVerification;

/// How long the server may take to accept a connection, and again to finish the TLS handshake.
pub const DIAL_SECONDS_MAX: u64 = 15;

/// Silence after which the server is asked whether it is there, in seconds.
const KEEPALIVE_IDLE_SECONDS: u64 = 60;

/// Time between two such questions, in seconds.
const KEEPALIVE_INTERVAL_SECONDS: u64 = 10;

/// Questions without an answer until the connection counts as dead.
const KEEPALIVE_RETRIES: u32 = 6;

/// SSLRequest (PostgreSQL manual, "Message Formats"): length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What lets bytes leave.
#[derive(Debug, Clone, Copy)]
pub enum Clearance<'a> {
    /// The operation that they belong to is recorded at its level.
    Receipt(&'a Receipt),
    /// They carry no operation.
    Exempt(Exempt),
}

/// Why the server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// TCP failed.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing answered in time.
    #[error("{address} did not answer within {DIAL_SECONDS_MAX} s")]
    TimedOut {
        /// The server.
        address: SocketAddr,
    },
    /// The server refuses TLS although the target asks for it.
    #[error(
        "{address} does not offer TLS, and the target asks for it: turn ssl on there, or set \
         tls.server = \"off\" for this target"
    )]
    NoTls {
        /// The server.
        address: SocketAddr,
    },
    /// The handshake failed, or the certificate was not right.
    #[error("TLS with {address} failed: {source}")]
    Tls {
        /// The server.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The connection to the server.
pub struct Upstream {
    leg: Leg,
    queue: Queue,
}

impl Upstream {
    /// Dials `address` from a network namespace, and speaks TLS where `verification` asks for it.
    pub async fn dial(
        address: SocketAddr,
        namespace: Option<&Netns>,
        verification: Option<&ServerVerification>,
    ) -> Result<Self, DialError> {
        Ok(Self { leg: dial(address, namespace, verification).await?, queue: Queue::default() })
    }

    /// Dials `address` without TLS, for a protocol in which the server speaks first and TLS begins later.
    pub async fn dial_plain(
        address: SocketAddr,
        namespace: Option<&Netns>,
    ) -> Result<Self, DialError> {
        Ok(Self { leg: Leg::Plain(connect(address, namespace).await?), queue: Queue::default() })
    }

    /// Begins TLS on a connection without it, and verifies the server; the protocol has asked for it.
    pub async fn start_tls(
        self,
        address: SocketAddr,
        verification: &ServerVerification,
    ) -> Result<Self, DialError> {
        let Leg::Plain(stream) = self.leg else {
            return Err(DialError::NoTls { address });
        };
        let leg = secured(stream, address, verification).await?;
        Ok(Self { leg, queue: self.queue })
    }

    /// Queues bytes for the server. The clearance is what makes this call possible.
    pub fn send(&mut self, _clearance: Clearance<'_>, bytes: Bytes) {
        self.queue.push(bytes);
    }

    /// Writes what is queued. Ready when everything has left.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.queue.poll_write(&mut self.leg, cx)
    }

    /// Whether so much waits that the client should not be read.
    pub const fn is_congested(&self) -> bool {
        self.queue.is_congested()
    }

    /// Reads into `buffer`; `Ready(0)` at the server's end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<std::io::Result<usize>> {
        crate::session::poll_read_into(&mut self.leg, cx, buffer)
    }

    /// Says goodbye (TLS `close_notify`, then FIN).
    pub async fn close(&mut self) -> std::io::Result<()> {
        self.leg.shutdown().await
    }
}

/// A stream to `address`, under TLS where `verification` asks for it. What a client asks goes through an
/// [`Upstream`] alone; this is for what the agent itself asks a server (its catalogue, a cancel request).
pub(crate) async fn dial(
    address: SocketAddr,
    namespace: Option<&Netns>,
    verification: Option<&ServerVerification>,
) -> Result<Leg, DialError> {
    let stream = connect(address, namespace).await?;
    let limit = Duration::from_secs(DIAL_SECONDS_MAX);
    match verification {
        None => Ok(Leg::Plain(stream)),
        Some(verification) => tokio::time::timeout(limit, secure(stream, address, verification))
            .await
            .map_err(|_| DialError::TimedOut { address })?,
    }
}

/// TLS over a stream on which the protocol has asked for it; the server is verified.
pub(crate) async fn secured(
    stream: Counted,
    address: SocketAddr,
    verification: &ServerVerification,
) -> Result<Leg, DialError> {
    let limit = Duration::from_secs(DIAL_SECONDS_MAX);
    let name = verification.name_for(address);
    let tls = tokio::time::timeout(limit, verification.connector().connect(name, stream))
        .await
        .map_err(|_| DialError::TimedOut { address })?
        .map_err(|source| DialError::Tls { address, source })?;
    Ok(Leg::Tls(Box::new(tls.into())))
}

/// Sends a cancel request, and waits until the server has closed that connection: only then it has done
/// what it will do (manual, "Canceling Requests in Progress").
pub(crate) async fn cancel(
    address: SocketAddr,
    namespace: Option<&Netns>,
    verification: Option<&ServerVerification>,
    request: &[u8],
) -> Result<(), DialError> {
    let failed = |source| DialError::Connect { address, source };
    let mut leg = dial(address, namespace, verification).await?;
    let limit = Duration::from_secs(DIAL_SECONDS_MAX);
    let exchange = async {
        leg.write_all(request).await?;
        leg.flush().await?;
        // It answers nothing; what it says all the same is not for us.
        while leg.read(&mut [0; 64]).await? > 0 {}
        Ok(())
    };
    let ended = tokio::time::timeout(limit, exchange).await;
    ended.map_err(|_| DialError::TimedOut { address })?.map_err(failed)
}

/// A connection from that namespace, or from the agent's own.
pub(crate) async fn connect(
    address: SocketAddr,
    namespace: Option<&Netns>,
) -> Result<Counted, DialError> {
    let limit = Duration::from_secs(DIAL_SECONDS_MAX);
    let connecting = async {
        let Some(namespace) = namespace else { return TcpStream::connect(address).await };
        let kind = Type::STREAM.nonblocking().cloexec();
        let domain = Domain::for_address(address);
        let socket = namespace.inside(|| Socket::new(domain, kind, Some(Protocol::TCP)))?;
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    };
    let stream = tokio::time::timeout(limit, connecting)
        .await
        .map_err(|_| DialError::TimedOut { address })?
        .map_err(|source| DialError::Connect { address, source })?;
    stay_alive(&stream).map_err(|source| DialError::Connect { address, source })?;
    if address.ip().is_loopback() {
        unpaced(&SockRef::from(&stream));
    }
    Ok(Counted::without_account(stream))
}

/// The client's own keepalives end at the gate, so the gate watches the way to the server.
fn stay_alive(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(KEEPALIVE_IDLE_SECONDS))
        .with_interval(Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS))
        .with_retries(KEEPALIVE_RETRIES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    let unanswered = KEEPALIVE_IDLE_SECONDS
        + KEEPALIVE_INTERVAL_SECONDS.saturating_mul(u64::from(KEEPALIVE_RETRIES));
    socket.set_tcp_user_timeout(Some(Duration::from_secs(unanswered)))
}

/// Asks the server for TLS and verifies it.
async fn secure(
    mut stream: Counted,
    address: SocketAddr,
    verification: &ServerVerification,
) -> Result<Leg, DialError> {
    let failed = |source| DialError::Tls { address, source };
    stream.write_all(&SSL_REQUEST).await.map_err(failed)?;
    // One byte exactly: what the server sends behind it must be inside TLS (CVE-2021-23222).
    let answer = stream.read_u8().await.map_err(failed)?;
    if answer != b'S' {
        return Err(DialError::NoTls { address });
    }
    secured(stream, address, verification).await
}
