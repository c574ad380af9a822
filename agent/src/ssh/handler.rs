//! What the SSH library asks of the client's side: each call becomes a decision, or goes to what runs.
//!
//! Promise: requests of a connection are answered in their order, since none is looked at before the one before it is
//! answered (RFC 4254 sections 4 and 5.4).

use russh::keys::ssh_key::{Certificate, HashAlg};
use russh::server::{self, Auth, ChannelOpenHandle, Msg};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use tidegate_event::{Outcome, SshKind, Status};
use tidegate_wire_ssh::request;

use super::channel::{self, Live, State};
use super::login::Offer;
use super::paced::TRICKLE_BYTES;
use super::target::Display;
use super::{Client, TRICKLE, To, host, within};
use crate::upstream::Clearance;

impl server::Handler for Client {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.offered(user, Offer::Nothing).await)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(self.offered(user, Offer::Password(password)).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let print = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        Ok(self.offered(user, Offer::Key(print)).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        let print = certificate.public_key().fingerprint(HashAlg::Sha256).to_string();
        Ok(self.offered(user, Offer::Key(print)).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        submethods: &str,
        response: Option<server::Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let offer = match response {
            None => Offer::Asked(submethods),
            Some(answers) => Offer::Answers(
                answers.map(|answer| String::from_utf8_lossy(&answer).into_owned()).collect(),
            ),
        };
        Ok(self.offered(user, offer).await)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        if self.refused {
            self.unanswered.push(reply);
            return Ok(());
        }
        let _asking = self.shared.slack.asking();
        let opened = match &self.target {
            Some(target) => within(target.open_session()).await,
            None => None,
        };
        let Some((waiting, from_server)) = opened else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let (id, (_, to_client)) = (channel.id(), channel.split());
        let Some(handle) = self.handle.get().cloned() else { return Ok(()) };
        reply.accept().await;
        let live = Live::waiting(waiting, (from_server, to_client), handle, &self.shared);
        self.channels.insert(id, live);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let about = request::address(host, port);
        let from = (from.to_owned(), from_port);
        self.forward(channel, about, reply, To::Address((host.to_owned(), port), from));
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let path = socket_path.to_owned();
        self.forward(channel, path.clone(), reply, To::Socket(path));
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        let _asking = self.shared.slack.asking();
        let about = request::address(address, *port);
        let Some((ask, receipt, target)) = self.listening(&about).await else { return Ok(false) };
        let listens = within(target.listen(&Clearance::Receipt(&receipt), address, *port)).await;
        let Some(chosen) = listens else {
            self.shared.failed(ask, "the server does not listen there");
            return Ok(false);
        };
        *port = chosen;
        self.back.port(address, chosen, true);
        let tags = format!("port {chosen}");
        let outcome = Outcome { tags, ..Outcome::without_result(Status::Ok) };
        self.shared.gate().outcome(ask, outcome);
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        let _asking = self.shared.slack.asking();
        self.back.port(address, port, false);
        let Some(target) = &self.target else { return Ok(false) };
        Ok(within(target.listen_no_more(address, port)).await.is_some())
    }

    async fn streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        let _asking = self.shared.slack.asking();
        let Some((ask, receipt, target)) = self.listening(socket_path).await else {
            return Ok(false);
        };
        let clearance = Clearance::Receipt(&receipt);
        if within(target.listen_at_socket(&clearance, socket_path)).await.is_none() {
            self.shared.failed(ask, "the server does not listen there");
            return Ok(false);
        }
        self.back.socket(socket_path, true);
        self.shared.gate().outcome(ask, Outcome::without_result(Status::Ok));
        Ok(true)
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        let _asking = self.shared.slack.asking();
        self.back.socket(socket_path, false);
        let Some(target) = &self.target else { return Ok(false) };
        Ok(within(target.listen_at_socket_no_more(socket_path)).await.is_some())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.lend(channel, SshKind::AgentForward, None).await)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        single_connection: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let display = Display { single: single_connection, protocol, cookie, screen };
        if self.lend(channel, SshKind::X11, Some(display)).await {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let _asking = self.shared.slack.asking();
        let id = self.shared.id();
        let asked = request::request(SshKind::Env, channel.into(), name.as_bytes(), "");
        let Some(Live { state: State::Waiting(waiting), .. }) = self.channels.get(&channel) else {
            return session.channel_failure(channel);
        };
        let Ok(receipt) = self.shared.clear(id, &asked).await else {
            return session.channel_failure(channel);
        };
        if waiting.env(&Clearance::Receipt(&receipt), name, value).await.is_err() {
            self.shared.failed(id, "the connection to the server has ended");
            return session.channel_failure(channel);
        }
        self.shared.gate().outcome(id, Outcome::without_result(Status::Ok));
        session.channel_success(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        let size = [columns, rows, width, height];
        let _asking = self.shared.slack.asking();
        let granted = match self.channels.get_mut(&channel) {
            Some(live) => live.ask_terminal(term, size, modes).await,
            None => false,
        };
        if granted { session.channel_success(channel) } else { session.channel_failure(channel) }
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.run((channel, SshKind::Shell, b""), session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.run((channel, SshKind::Exec, command), session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.run((channel, SshKind::Subsystem, name.as_bytes()), session).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.up(channel, channel::Up::Resize([columns, rows, width, height]));
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.up(channel, channel::Up::Signal(signal));
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.up(channel, channel::Up::Data(bytes::Bytes::copy_from_slice(data)));
        if self.shared.backlog.is_full() {
            // It gets two bytes' leave at a time: that must not keep a processor busy.
            tokio::time::sleep(TRICKLE).await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        if self.shared.backlog.is_full() { TRICKLE_BYTES } else { host::WINDOW_BYTES }
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.up(channel, channel::Up::Eof);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        self.up(channel, channel::Up::Close);
        let _asking = self.shared.slack.asking();
        if let Some(waiting) =
            self.channels.remove(&channel).and_then(|mut live| live.take_waiting())
        {
            waiting.close().await;
        }
        Ok(())
    }
}
