//! The leg to the real SSH server, behind its [`super::door`]. A request that runs something leaves only with a
//! [`Clearance`].
//!
//! Promise: data goes to a channel only where something was permitted to run.

use bytes::Bytes;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use super::door::{TargetError, Verifier};
use crate::upstream::Clearance;

/// A connection on which the server has let us in.
pub struct Target {
    handle: Handle<Verifier>,
}

impl Target {
    /// Behind a door that was opened.
    pub const fn new(handle: Handle<Verifier>) -> Self {
        Self { handle }
    }

    /// A session channel on which nothing runs yet.
    pub async fn open_session(&self) -> Result<(Waiting, ChannelReadHalf), TargetError> {
        let (read, write) = self.handle.channel_open_session().await?.split();
        Ok((Waiting(write), read))
    }

    /// A connection from the server to `host` and `port`. The clearance is that of this forward.
    pub async fn forward(
        &self,
        _clearance: &Clearance<'_>,
        (host, port): (&str, u32),
        (from, from_port): (&str, u32),
    ) -> Result<(Running, ChannelReadHalf), TargetError> {
        let channel: Channel<Msg> =
            self.handle.channel_open_direct_tcpip(host, port, from, from_port).await?;
        let (read, write) = channel.split();
        Ok((Running(write), read))
    }

    /// A connection from the server to the socket at `path`. The clearance is that of this forward.
    pub async fn forward_to_socket(
        &self,
        _clearance: &Clearance<'_>,
        path: &str,
    ) -> Result<(Running, ChannelReadHalf), TargetError> {
        let channel: Channel<Msg> = self.handle.channel_open_direct_streamlocal(path).await?;
        let (read, write) = channel.split();
        Ok((Running(write), read))
    }

    /// Has the server listen at `address` and `port`; says the port, which it chooses where `port` is 0.
    pub async fn listen(
        &self,
        _clearance: &Clearance<'_>,
        address: &str,
        port: u32,
    ) -> Result<u32, TargetError> {
        let chosen = self.handle.tcpip_forward(address, port).await?;
        Ok(if port == 0 { chosen } else { port })
    }

    /// Has it listen there no more.
    pub async fn listen_no_more(&self, address: &str, port: u32) -> Result<(), TargetError> {
        Ok(self.handle.cancel_tcpip_forward(address, port).await?)
    }

    /// Has the server listen at the socket `path`.
    pub async fn listen_at_socket(
        &self,
        _clearance: &Clearance<'_>,
        path: &str,
    ) -> Result<(), TargetError> {
        Ok(self.handle.streamlocal_forward(path).await?)
    }

    /// Has it listen there no more.
    pub async fn listen_at_socket_no_more(&self, path: &str) -> Result<(), TargetError> {
        Ok(self.handle.cancel_streamlocal_forward(path).await?)
    }

    /// Says goodbye.
    pub async fn close(&self) {
        _ = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }
}

/// A display that is lent (RFC 4254 section 6.3.1).
#[derive(Clone, Copy)]
pub struct Display<'a> {
    /// Only one connection.
    pub single: bool,
    /// How a program shows that it may draw.
    pub protocol: &'a str,
    /// What it shows.
    pub cookie: &'a str,
    /// The screen's number.
    pub screen: u32,
}

/// A channel on which nothing runs, and which takes no data.
pub struct Waiting(ChannelWriteHalf<Msg>);

impl Waiting {
    /// Sets a variable; the server is not asked for an answer.
    pub async fn env(
        &self,
        _clearance: &Clearance<'_>,
        name: &str,
        value: &str,
    ) -> Result<(), TargetError> {
        Ok(self.0.set_env(false, name, value).await?)
    }

    /// Ends the channel: nothing will run on it.
    pub async fn close(self) {
        _ = self.0.close().await;
    }

    /// Asks for a terminal, which runs nothing.
    pub async fn terminal(
        &self,
        name: &str,
        [columns, rows, width, height]: [u32; 4],
        modes: &[(Pty, u32)],
    ) -> Result<(), TargetError> {
        Ok(self.0.request_pty(true, name, columns, rows, width, height, modes).await?)
    }

    /// Lends the client's key agent.
    pub async fn lend_agent(&self, _clearance: &Clearance<'_>) -> Result<(), TargetError> {
        Ok(self.0.agent_forward(true).await?)
    }

    /// Lends the client's display.
    pub async fn lend_display(
        &self,
        _clearance: &Clearance<'_>,
        display: &Display<'_>,
    ) -> Result<(), TargetError> {
        let Display { single, protocol, cookie, screen } = *display;
        Ok(self.0.request_x11(true, single, protocol, cookie, screen).await?)
    }

    /// Runs a command.
    pub async fn exec(
        self,
        _clearance: &Clearance<'_>,
        command: &[u8],
    ) -> Result<Running, TargetError> {
        self.0.exec(true, command).await?;
        Ok(Running(self.0))
    }

    /// Runs the account's shell.
    pub async fn shell(self, _clearance: &Clearance<'_>) -> Result<Running, TargetError> {
        self.0.request_shell(true).await?;
        Ok(Running(self.0))
    }

    /// Starts a subsystem.
    pub async fn subsystem(
        self,
        _clearance: &Clearance<'_>,
        name: &str,
    ) -> Result<Running, TargetError> {
        self.0.request_subsystem(true, name).await?;
        Ok(Running(self.0))
    }
}

/// A channel on which something runs that was permitted.
pub struct Running(ChannelWriteHalf<Msg>);

impl Running {
    /// A connection that the server opened. The clearance is that of this connection.
    pub const fn back(_clearance: &Clearance<'_>, to_server: ChannelWriteHalf<Msg>) -> Self {
        Self(to_server)
    }

    /// Sends data as far as the server's window allows; waits for the rest.
    pub async fn data(&self, bytes: Bytes) -> Result<(), TargetError> {
        Ok(self.0.data_bytes(bytes).await?)
    }

    /// Sends a request that was decided by itself, such as one of SFTP's. The clearance is this request's.
    pub async fn request(
        &self,
        _clearance: &Clearance<'_>,
        packet: Bytes,
    ) -> Result<(), TargetError> {
        self.data(packet).await
    }

    /// No more data will come.
    pub async fn eof(&self) -> Result<(), TargetError> {
        Ok(self.0.eof().await?)
    }

    /// The client has closed the channel.
    pub async fn close(&self) -> Result<(), TargetError> {
        Ok(self.0.close().await?)
    }

    /// The terminal's size has changed.
    pub async fn resize(
        &self,
        [columns, rows, width, height]: [u32; 4],
    ) -> Result<(), TargetError> {
        Ok(self.0.window_change(columns, rows, width, height).await?)
    }

    /// Signals what runs.
    pub async fn signal(&self, signal: Sig) -> Result<(), TargetError> {
        Ok(self.0.signal(signal).await?)
    }
}
