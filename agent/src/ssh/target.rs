//! The leg to the real SSH server. A request that runs something leaves only with a [`Clearance`].
//!
//! Promises: the server's key is in the target's known_hosts file, under the name or address that it is
//! configured with, or nothing is sent to it; the login is with the target's own key file, which is
//! read for each connection and kept no longer. Data goes to a channel only where something was
//! permitted to run.
//!
//! Cannot: host certificates of the server, `@revoked` and pattern lines of known_hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::{self, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use crate::capture::netns::Netns;
use crate::config::TargetSsh;
use crate::upstream::{Clearance, DIAL_SECONDS_MAX};

/// Silence after which the server is asked whether it is there, in seconds.
const KEEPALIVE_SECONDS: u64 = 60;

/// Messages of one channel that may wait for the client.
const MESSAGES_MAX: usize = 256;

/// Why the server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing answered in time.
    #[error("{0} did not answer within {DIAL_SECONDS_MAX} s")]
    TimedOut(SocketAddr),
    /// TCP failed.
    #[error("cannot connect: {0}")]
    Connect(#[from] crate::upstream::DialError),
    /// The connection or its protocol failed.
    #[error("SSH with the server failed: {0}")]
    Ssh(#[from] russh::Error),
    /// The server's key is not in the known_hosts file.
    #[error(
        "the server's key is not in {path} under {host} port {port}: add it, once you have verified it"
    )]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The name looked for.
        host: String,
        /// The port looked for.
        port: u16,
    },
    /// The identity file is of no use.
    #[error("{path}: {source}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: russh::keys::Error,
    },
    /// The server doesn't take the key.
    #[error("the server does not let {user} in with the target's key")]
    NotLetIn {
        /// The account.
        user: String,
    },
}

/// Verifies the server.
struct Verifier {
    known_hosts: PathBuf,
    host: String,
    port: u16,
    gone: Option<tokio::sync::oneshot::Sender<()>>,
}

impl client::Handler for Verifier {
    type Error = TargetError;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let known = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                russh::keys::known_hosts::check_known_hosts_path(
                    &self.host,
                    self.port,
                    key,
                    &self.known_hosts,
                )
                .unwrap_or(false)
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        };
        if known {
            return Ok(true);
        }
        let (path, host) = (self.known_hosts.clone(), self.host.clone());
        Err(TargetError::UnknownKey { path, host, port: self.port })
    }

    async fn disconnected(
        &mut self,
        reason: client::DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        if let Some(gone) = self.gone.take() {
            _ = gone.send(());
        }
        match reason {
            client::DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            client::DisconnectReason::Error(error) => Err(error),
        }
    }
}

/// A connection on which the server has let us in.
pub struct Target {
    handle: client::Handle<Verifier>,
}

impl Target {
    /// Dials `server`, verifies it as `host`, and logs in as `user`. The clearance is the login's. The second
    /// value resolves when the server is gone.
    pub async fn connect(
        _clearance: &Clearance<'_>,
        settings: &TargetSsh,
        (server, host, namespace): (SocketAddr, &str, Option<&Netns>),
        user: &str,
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<()>), TargetError> {
        let limit = Duration::from_secs(DIAL_SECONDS_MAX);
        let connecting = Self::connect_unbounded(settings, (server, host, namespace), user);
        tokio::time::timeout(limit, connecting).await.map_err(|_| TargetError::TimedOut(server))?
    }

    async fn connect_unbounded(
        settings: &TargetSsh,
        (server, host, namespace): (SocketAddr, &str, Option<&Netns>),
        user: &str,
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<()>), TargetError> {
        let stream = crate::upstream::connect(server, namespace).await?;
        let config = client::Config {
            client_id: russh::SshId::Standard("SSH-2.0-Tidegate".into()),
            keepalive_interval: Some(Duration::from_secs(KEEPALIVE_SECONDS)),
            inactivity_timeout: None,
            channel_buffer_size: MESSAGES_MAX,
            nodelay: true,
            ..client::Config::default()
        };
        let (gone, is_gone) = tokio::sync::oneshot::channel();
        let verifier = Verifier {
            known_hosts: settings.known_hosts_file.clone(),
            host: host.to_owned(),
            port: server.port(),
            gone: Some(gone),
        };
        let mut handle = client::connect_stream(Arc::new(config), stream, verifier).await?;
        let path = &settings.identity_file;
        let key = load_secret_key(path, None)
            .map_err(|source| TargetError::Identity { path: path.clone(), source })?;
        let hash = if key.algorithm().is_rsa() {
            handle.best_supported_rsa_hash().await?.flatten()
        } else {
            None
        };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        if !handle.authenticate_publickey(user, key).await?.success() {
            return Err(TargetError::NotLetIn { user: user.to_owned() });
        }
        Ok((Self { handle }, is_gone))
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

    /// Says goodbye.
    pub async fn close(&self) {
        _ = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }
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
