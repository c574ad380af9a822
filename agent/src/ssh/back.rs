//! Connections that the server opens towards the client: of ports and sockets that it listens on for the client, to the
//! client's key agent, and to its display.
//!
//! Promises: one comes through only where its listening, or the lending of agent or display, was permitted on this
//! connection, and each is decided and recorded itself; the server's own session is not held up meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use russh::client::{ChannelOpenHandle, Msg};
use russh::server::{self, Handle};
use russh::{Channel, ChannelOpenFailure};
use tidegate_event::SshKind;
use tidegate_wire_ssh::request;

use super::Shared;
use super::channel::Live;
use super::target::Running;
use crate::upstream::Clearance;

/// What was permitted on a connection.
#[derive(Debug, Default)]
struct Permitted {
    ports: HashSet<(String, u32)>,
    sockets: HashSet<String>,
    agent: bool,
    display: bool,
}

/// Where a connection of the server's comes from.
pub enum Origin {
    /// An address and port on which it listens; and who connected there.
    Port((String, u32), (String, u32)),
    /// A socket of its file system.
    Socket(String),
    /// Something that wants a signature of the key agent.
    Agent,
    /// A program that draws; and who it is.
    Display(String, u32),
}

/// The way back of one connection.
pub struct Back {
    permitted: Mutex<Permitted>,
    client: Arc<OnceLock<Handle>>,
    shared: Shared,
}

impl Back {
    /// Towards `client`.
    pub fn new(client: Arc<OnceLock<Handle>>, shared: Shared) -> Self {
        Self { permitted: Mutex::default(), client, shared }
    }

    fn permitted(&self) -> MutexGuard<'_, Permitted> {
        self.permitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server listens there, or does not any more.
    pub fn port(&self, address: &str, port: u32, listens: bool) {
        let place = (address.to_owned(), port);
        let mut permitted = self.permitted();
        if listens {
            permitted.ports.insert(place);
        } else {
            permitted.ports.remove(&place);
        }
    }

    /// The server listens at this socket, or does not any more.
    pub fn socket(&self, path: &str, listens: bool) {
        let mut permitted = self.permitted();
        if listens {
            permitted.sockets.insert(path.to_owned());
        } else {
            permitted.sockets.remove(path);
        }
    }

    /// The client lends its key agent, or its display.
    pub fn lends(&self, kind: SshKind) {
        let mut permitted = self.permitted();
        permitted.agent |= kind == SshKind::AgentForward;
        permitted.display |= kind == SshKind::X11;
    }

    fn permits(&self, origin: &Origin) -> bool {
        let permitted = self.permitted();
        match origin {
            Origin::Port(place, _) => permitted.ports.contains(place),
            Origin::Socket(path) => permitted.sockets.contains(path),
            Origin::Agent => permitted.agent,
            Origin::Display(..) => permitted.display,
        }
    }

    /// The server opens a connection.
    pub fn open(self: &Arc<Self>, channel: Channel<Msg>, origin: Origin, reply: ChannelOpenHandle) {
        let own = Arc::clone(self);
        tokio::spawn(async move { own.serve(channel, origin, reply).await });
    }

    async fn serve(&self, channel: Channel<Msg>, origin: Origin, reply: ChannelOpenHandle) {
        if !self.permits(&origin) {
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        }
        let (kind, about) = match &origin {
            Origin::Port((address, port), _) => {
                (SshKind::Forward, request::address(address, *port))
            }
            Origin::Socket(path) => (SshKind::Forward, path.clone()),
            Origin::Agent => (SshKind::AgentForward, String::new()),
            Origin::Display(..) => (SshKind::X11, String::new()),
        };
        let ask = self.shared.id();
        let asked = request::request(kind, 0, about.as_bytes(), "");
        let Ok(receipt) = self.shared.clear(ask, &asked).await else {
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        };
        let Some(client) = self.client.get() else { return };
        let Ok(to_client) = open_at_client(client, &origin).await else {
            self.shared.failed(ask, "the client did not open it");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        };
        reply.accept().await;
        let (from_server, to_server) = channel.split();
        let (from_client, to_client) = to_client.split();
        let mut live = Live::forward((from_server, to_client), client.clone(), &self.shared);
        live.begin(ask);
        live.run(Running::back(&Clearance::Receipt(&receipt), to_server), &self.shared);
        live.carry_from(from_client, &self.shared).await;
    }
}

async fn open_at_client(
    client: &Handle,
    origin: &Origin,
) -> Result<Channel<server::Msg>, russh::Error> {
    match origin {
        Origin::Port((address, port), (from, from_port)) => {
            client.channel_open_forwarded_tcpip(address, *port, from, *from_port).await
        }
        Origin::Socket(path) => client.channel_open_forwarded_streamlocal(path).await,
        Origin::Agent => client.channel_open_agent().await,
        Origin::Display(from, port) => client.channel_open_x11(from, *port).await,
    }
}
