//! Connections of strict accounts to what is no target, where the configuration lets them pass:
//! relayed unread, with their bytes, their beginning and their TLS server name on record.
//!
//! Promises: the client's first bytes leave only behind the record of what they are; both
//! directions keep their order; the end is recorded with the number of bytes.
//!
//! Limits: a client that says nothing for [`SILENT_MS_MAX`] is recorded as silent, and what it says
//! later passes.
//!
//! Known gaps: one direction that is shut down ends the other only at its own end, or at the gate's
//! stop.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tidegate_event::{Capture, Ending, Principal};
use tidegate_journal::{Found, OpaqueOpening, Receipt, SessionCounts, SessionLog};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::capture::netns::Netns;
use crate::counted::Counted;
use crate::findings::plain;
use crate::ingress::{Door, Shared};
use crate::upstream::{Clearance, Upstream};

pub mod first;

use first::First;

/// How long the client's first bytes are waited for, in milliseconds.
pub const SILENT_MS_MAX: u64 = 2_000;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Relays one connection to its end. The error is why it did not begin.
pub async fn serve(
    client: Counted,
    from: SocketAddr,
    capture: &Capture,
    principal: &Principal,
    shared: &Shared,
    door: &Door,
) -> Result<(), String> {
    let opening = OpaqueOpening { capture, principal, client: from };
    let log = shared
        .journal
        .opaque_session(&opening)
        .map_err(|error| format!("the session cannot be recorded: {error}"))?;
    let (counts, namespace) = (SessionCounts::default(), door.namespace.clone());
    let mut relay = Relay { client, namespace, log, counts };
    let mut stop = door.guard.stop();
    let ending = tokio::select! {
        ending = relay.run(capture, principal, shared) => ending,
        _ = stop.wait_for(|stop| *stop) => Ending::Gate("the agent stops".to_owned()),
    };
    if let Err(error) = relay.log.close(&ending, relay.counts) {
        tracing::error!(%error, "the end of a session could not be recorded");
    }
    Ok(())
}

struct Relay {
    client: Counted,
    namespace: Option<Netns>,
    log: SessionLog,
    counts: SessionCounts,
}

impl Relay {
    async fn run(&mut self, capture: &Capture, principal: &Principal, shared: &Shared) -> Ending {
        let mut server = match Upstream::dial(capture.original, self.namespace.as_ref(), None).await
        {
            Ok(server) => server,
            Err(error) => return Ending::Gate(error.to_string()),
        };
        let mut waiting = BytesMut::with_capacity(READ_BYTES);
        let first = match self.begin(&mut server, &mut waiting).await {
            Ok(first) => first,
            Err(ending) => return ending,
        };
        let receipt = match self.record(&first, capture, principal, shared).await {
            Ok(receipt) => receipt,
            Err(error) => return Ending::Gate(format!("it cannot be recorded: {error}")),
        };
        self.count_up(waiting.len());
        server.send(Clearance::Receipt(&receipt), waiting.split().freeze());
        self.relay(server, &receipt).await
    }

    /// Waits for the client's first bytes; what the server says meanwhile passes.
    async fn begin(
        &mut self,
        server: &mut Upstream,
        waiting: &mut BytesMut,
    ) -> Result<First, Ending> {
        let silence = tokio::time::sleep(Duration::from_millis(SILENT_MS_MAX));
        tokio::pin!(silence);
        let mut answer = BytesMut::with_capacity(READ_BYTES);
        loop {
            tokio::select! {
                read = self.client.read_buf(waiting) => match read {
                    Ok(0) => return Ok(first::told(waiting)),
                    Ok(_) => if let Some(first) = first::tell(waiting) { return Ok(first) },
                    Err(_) => return Err(Ending::Client),
                },
                read = std::future::poll_fn(|cx| server.poll_read(cx, &mut answer)) => {
                    self.answer(read, &mut answer).await?;
                }
                () = &mut silence => return Ok(first::told(waiting)),
            }
        }
    }

    /// The record of what begins, synced before a byte of the client's leaves.
    async fn record(
        &self,
        first: &First,
        capture: &Capture,
        principal: &Principal,
        shared: &Shared,
    ) -> Result<Receipt, tidegate_journal::JournalError> {
        let name = first.server_name.as_deref().unwrap_or("none");
        let detail = format!("begins with {}, TLS server name {name}", first.class);
        let found = Found {
            principal: &principal.name,
            process: Some(&capture.process),
            remote: Some(capture.original),
            ..plain("opaque", "passed", &detail)
        };
        let pledge = self.log.opaque(&found)?;
        shared.journal.redeem(&pledge).await
    }

    /// Both directions until one side ends.
    async fn relay(&mut self, mut server: Upstream, receipt: &Receipt) -> Ending {
        let mut asked = BytesMut::with_capacity(READ_BYTES);
        let mut answer = BytesMut::with_capacity(READ_BYTES);
        let mut client_ended = false;
        loop {
            let congested = server.is_congested();
            tokio::select! {
                read = self.client.read_buf(&mut asked), if !client_ended && !congested => {
                    match read {
                        Ok(0) => client_ended = true,
                        Ok(count) => {
                            self.count_up(count);
                            server.send(Clearance::Receipt(receipt), asked.split().freeze());
                        }
                        Err(_) => return Ending::Client,
                    }
                    if client_ended && drained(&mut server).await.is_err() {
                        return Ending::Server;
                    }
                    if client_ended && server.close().await.is_err() {
                        return Ending::Client;
                    }
                }
                read = both(&mut server, &mut answer) => {
                    if let Err(ending) = self.answer(read, &mut answer).await {
                        return if client_ended { Ending::Client } else { ending };
                    }
                }
            }
        }
    }

    /// Hands on what the server said; its end is the session's.
    async fn answer(
        &mut self,
        read: std::io::Result<usize>,
        answer: &mut BytesMut,
    ) -> Result<(), Ending> {
        match read {
            Ok(0) => {
                let _ = self.client.shutdown().await;
                Err(Ending::Server)
            }
            Ok(count) => {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.counts.bytes_from_server = self.counts.bytes_from_server.saturating_add(count);
                let bytes = answer.split();
                self.client.write_all(&bytes).await.map_err(|_| Ending::Client)
            }
            Err(_) => Err(Ending::Server),
        }
    }

    fn count_up(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.counts.bytes_from_client = self.counts.bytes_from_client.saturating_add(count);
    }
}

/// Writes what waits for the server, and reads what comes from it.
async fn both(server: &mut Upstream, answer: &mut BytesMut) -> std::io::Result<usize> {
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(Err(error)) = server.poll_write(cx) {
            return std::task::Poll::Ready(Err(error));
        }
        server.poll_read(cx, answer)
    })
    .await
}

/// Writes all that waits for the server.
async fn drained(server: &mut Upstream) -> std::io::Result<()> {
    std::future::poll_fn(|cx| server.poll_write(cx)).await
}
