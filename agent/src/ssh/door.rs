//! The way to a server, up to where it lets somebody in.
//!
//! Promises: the server's key is in the target's known_hosts file, under the name or address that it is
//! configured with, or certified by an authority there ([`super::known_hosts`]), or nothing is sent to it. The login is
//! with the target's own key file, which is read for each connection and kept no longer; with a key of an agent's; with a
//! certificate that is made for it; or with what the client says, which is neither kept nor recorded.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::client::{self, KeyboardInteractiveAuthResponse as Step, Msg};
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{Algorithm, HashAlg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key};
use russh::{Channel, ChannelOpenFailure};
use tokio::sync::oneshot;

use super::Settings;
use super::back::{Back, Origin};
use super::host::{HostError, preferred};
use super::known_hosts::{KnownHost, Unknown};
use super::target::Target;
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
pub struct Verifier {
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

/// Where a server is, and what goes back from it.
pub struct Way<'a> {
    /// Its address.
    pub server: SocketAddr,
    /// The name under which it is known.
    pub host: &'a str,
    /// The network namespace in which the address means it.
    pub namespace: Option<&'a Netns>,
    /// Where connections go that it opens.
    pub back: &'a Arc<Back>,
}

/// A server that is verified, and has let nobody in.
pub struct Door {
    handle: client::Handle<Verifier>,
    gone: oneshot::Receiver<()>,
}

impl Door {
    /// Dials and verifies the server. The clearance is the login's.
    pub async fn open(
        _clearance: &Clearance<'_>,
        settings: &Settings,
        way: Way<'_>,
    ) -> Result<Self, TargetError> {
        let limit = Duration::from_secs(DIAL_SECONDS_MAX);
        let server = way.server;
        let opening = Self::open_unbounded(settings, way);
        tokio::time::timeout(limit, opening).await.map_err(|_| TargetError::TimedOut(server))?
    }

    async fn open_unbounded(settings: &Settings, way: Way<'_>) -> Result<Self, TargetError> {
        let Way { server, host, namespace, back } = way;
        let stream = crate::upstream::connect(server, namespace).await?;
        let (sender, gone) = oneshot::channel();
        let path = settings.target.known_hosts_file.clone();
        let known = KnownHost::read(&path, host, server.port());
        let known = known.map_err(|why| TargetError::Unknown { path: path.clone(), why })?;
        let config = client::Config {
            client_id: russh::SshId::Standard("SSH-2.0-Tidegate".into()),
            keepalive_interval: Some(Duration::from_secs(KEEPALIVE_SECONDS)),
            inactivity_timeout: None,
            channel_buffer_size: MESSAGES_MAX,
            nodelay: true,
            preferred: russh::Preferred {
                key: known.algorithms().into(),
                host_key_certificates: known.certificates().into(),
                ..preferred()
            },
            ..client::Config::default()
        };
        let verifier = Verifier { path, known, gone: Some(sender), back: Arc::clone(back) };
        let handle = client::connect_stream(Arc::new(config), stream, verifier).await?;
        Ok(Self { handle, gone })
    }

    /// Logs in as `user` by the target's own means; `about` says for whom, in the servers' logs. The second value
    /// resolves when the server is gone.
    pub async fn enter(
        mut self,
        settings: &Settings,
        user: &str,
        about: &str,
    ) -> Result<(Target, oneshot::Receiver<()>), TargetError> {
        let limit = Duration::from_secs(DIAL_SECONDS_MAX);
        let entering = log_in(&mut self.handle, settings, user, about);
        let slow = |_| TargetError::NotLetIn { user: user.to_owned() };
        if tokio::time::timeout(limit, entering).await.map_err(slow)?? {
            return Ok(self.opened());
        }
        Err(TargetError::NotLetIn { user: user.to_owned() })
    }

    /// What it leads to, once it has let somebody in.
    pub fn opened(self) -> (Target, oneshot::Receiver<()>) {
        (Target::new(self.handle), self.gone)
    }

    /// Tries the client's password.
    pub async fn password(&mut self, user: &str, password: &str) -> Result<bool, TargetError> {
        Ok(self.handle.authenticate_password(user, password).await?.success())
    }

    /// Asks for the server's questions (RFC 4256).
    pub async fn questions(&mut self, user: &str, submethods: &str) -> Result<Step, TargetError> {
        let submethods = submethods.to_owned();
        Ok(self.handle.authenticate_keyboard_interactive_start(user, submethods).await?)
    }

    /// Gives the client's answers.
    pub async fn answers(&mut self, answers: Vec<String>) -> Result<Step, TargetError> {
        Ok(self.handle.authenticate_keyboard_interactive_respond(answers).await?)
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
        // Only what the client says lets it in.
        SshLogin::Client => Ok(false),
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
