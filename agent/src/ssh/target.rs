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
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};

use super::Settings;
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
    ) -> Result<(Self, tokio::sync::oneshot::Receiver<()>), TargetError> {
        let limit = Duration::from_secs(DIAL_SECONDS_MAX);
        let connecting =
            Self::connect_unbounded(settings, (server, host, namespace), (user, about));
        tokio::time::timeout(limit, connecting).await.map_err(|_| TargetError::TimedOut(server))?
    }

    async fn connect_unbounded(
        settings: &Settings,
        (server, host, namespace): (SocketAddr, &str, Option<&Netns>),
        (user, about): (&str, &str),
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
        let verifier = Verifier { path, known, gone: Some(gone) };
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
