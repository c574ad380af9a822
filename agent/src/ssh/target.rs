//! The leg to the real SSH server. A request that runs something leaves only with a [`Clearance`].
//!
//! Promises: the server's key is in the target's known_hosts file, under the name or address that it is
//! configured with, or certified by an authority there ([`super::known_hosts`]), or nothing is sent to it; the login
//! is with the target's own key file, which is read for each connection and kept no longer, with a key of an agent's, or with
//! a certificate that is made for it. Data goes to a channel only where something was permitted to run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use russh::client::{self, Msg};
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{Algorithm, HashAlg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use super::Settings;
use super::back::{Back, Origin};
use super::host::HostError;
use super::known_hosts::{KnownHost, Unknown};
use crate::capture::netns::Netns;
use crate::config::SshLogin;
use crate::upstream::{Clearance, DIAL_SECONDS_MAX};

/// Silence after which the server is asked whether it is there, in seconds.
const KEEPALIVE_SECONDS: u64 = 60;

/// Keys of an agent that are tried: sshd's own limit is 6 (sshd_config(5), `MaxAuthTries`).
const TRIES_MAX: usize = 5;

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
    /// The server is not known.
    #[error("{path}: {why}")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Why.
        why: Unknown,
    },
    /// The agent of keys is of no use.
    #[error("identity_agent {path}: {why}")]
    Agent {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] HostError),
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
    path: PathBuf,
    known: KnownHost,
    gone: Option<tokio::sync::oneshot::Sender<()>>,
    back: Arc<Back>,
}

impl client::Handler for Verifier {
    type Error = TargetError;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let known = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.known.key(key.key_data()),
            PublicKeyOrCertificate::Certificate(certificate) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.known.certificate(certificate, now.as_secs())
            }
        };
        match known {
            Ok(()) => Ok(true),
            Err(why) => Err(TargetError::Unknown { path: self.path.clone(), why }),
        }
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let origin = Origin::Port((address.to_owned(), port), (from.to_owned(), from_port));
        self.back.open(channel, origin, reply);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        self.back.open(channel, Origin::Socket(path.to_owned()), reply);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        self.back.open(channel, Origin::Agent, reply);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        from: &str,
        from_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        self.back.open(channel, Origin::Display(from.to_owned(), from_port), reply);
        Ok(())
    }

    // What a client never asked for is not opened.
    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        reply: client::ChannelOpenHandle,
        _session: &mut client::Session,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
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

/// Logs in; whether the server lets us in.
async fn log_in(
    handle: &mut client::Handle<Verifier>,
    settings: &Settings,
    user: &str,
    about: &str,
) -> Result<bool, TargetError> {
    match &settings.target.login {
        SshLogin::Key(path) => {
            let key = load_secret_key(path, None)
                .map_err(|source| TargetError::Identity { path: path.clone(), source })?;
            let hash = rsa_hash(handle, key.algorithm()).await?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
            Ok(handle.authenticate_publickey(user, key).await?.success())
        }
        SshLogin::Certificate => {
            let (key, certificate) = settings.host.user(user, about)?;
            let tried = handle.authenticate_openssh_cert(user, Arc::new(key), certificate).await?;
            Ok(tried.success())
        }
        SshLogin::Agent(path) => {
            let bad = |why: &dyn std::fmt::Display| TargetError::Agent {
                path: path.clone(),
                why: why.to_string(),
            };
            let mut agent = AgentClient::connect_uds(path).await.map_err(|error| bad(&error))?;
            let identities = agent.request_identities().await.map_err(|error| bad(&error))?;
            if identities.is_empty() {
                return Err(bad(&"it holds no key"));
            }
            for identity in identities.iter().take(TRIES_MAX) {
                let key = identity.public_key().into_owned();
                let hash = rsa_hash(handle, key.algorithm()).await?;
                let tried = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
                if tried.map_err(|error| bad(&error))?.success() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// What an RSA key signs with: the best that the server takes.
async fn rsa_hash(
    handle: &client::Handle<Verifier>,
    algorithm: Algorithm,
) -> Result<Option<HashAlg>, TargetError> {
    if !algorithm.is_rsa() {
        return Ok(None);
    }
    Ok(handle.best_supported_rsa_hash().await?.flatten())
}

/// A connection on which the server has let us in.
pub struct Target {
    handle: client::Handle<Verifier>,
}

impl Target {
    /// Dials `server`, verifies it as `host`, and logs in as `user`; `about` says for whom, in the servers' logs. The
    /// clearance is the login's. The second value resolves when the server is gone.
    pub async fn connect(
        _clearance: &Clearance<'_>,
        settings: &Settings,
        (server, host, namespace): (SocketAddr, &str, Option<&Netns>),
        (user, about): (&str, &str),
        back: &Arc<Back>,
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<()>), TargetError> {
        let limit = Duration::from_secs(DIAL_SECONDS_MAX);
        let connecting =
            Self::connect_unbounded(settings, (server, host, namespace), (user, about), back);
        tokio::time::timeout(limit, connecting).await.map_err(|_| TargetError::TimedOut(server))?
    }

    async fn connect_unbounded(
        settings: &Settings,
        (server, host, namespace): (SocketAddr, &str, Option<&Netns>),
        (user, about): (&str, &str),
        back: &Arc<Back>,
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
        let path = settings.target.known_hosts_file.clone();
        let known = KnownHost::read(&path, host, server.port());
        let known = known.map_err(|why| TargetError::Unknown { path: path.clone(), why })?;
        let config = client::Config {
            preferred: russh::Preferred {
                key: known.algorithms().into(),
                host_key_certificates: known.certificates().into(),
                ..russh::Preferred::default()
            },
            ..config
        };
        let verifier = Verifier { path, known, gone: Some(gone), back: Arc::clone(back) };
        let mut handle = client::connect_stream(Arc::new(config), stream, verifier).await?;
        if !log_in(&mut handle, settings, user, about).await? {
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
