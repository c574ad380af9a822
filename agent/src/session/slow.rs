//! What the pump stops for: logins, cancel requests, TLS, catalogues.
//!
//! Promises: each of it is bounded in time, and only its own session waits.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidegate_event::{Ending, Operation, Outcome, Status};
use tidegate_wire::{AskId, Machine};
use tidegate_wire_postgres::Duties;

use super::leg::Leg;
use super::{HANDSHAKE_SECONDS_MAX, REDEEM_SECONDS_MAX, Session, Surroundings, UNREACHABLE};
use crate::catalogue::Source;
use crate::gate::approval::CANCELLED;
use crate::gate::{Answer, IO_ERROR, NOTHING_SENT, Token};
use crate::upstream::{self, Upstream};

impl<M: Machine<Token, Duties = Duties>> Session<M> {
    /// Decides a login or a cancel, and dials the server once it is recorded.
    pub(super) async fn open(
        &mut self,
        id: AskId,
        operation: &Operation,
        around: &Surroundings,
    ) -> Result<(), Ending> {
        let (mut token, duties) = match self.gate.ask(id, operation) {
            Answer::Permit { token, duties } => (token, duties),
            refusal @ (Answer::Refuse { .. } | Answer::Hold(_)) => {
                self.answer(id, refusal);
                return Ok(());
            }
        };
        if matches!(operation, Operation::Cancel(_))
            && let Some(key) = self.machine.cancel_key()
            && self.gate.cancel_held(&key)
        {
            // The server runs nothing of what it would cancel.
            self.gate.outcome(id, Outcome::without_result(Status::Ok));
            let message = "tidegate: what was held is cancelled".to_owned();
            self.answer(id, Answer::Refuse { sqlstate: CANCELLED, message, hint: None });
            return Ok(());
        }
        if let Token::Pledged(pledge) = &token {
            let limit = Duration::from_secs(REDEEM_SECONDS_MAX);
            let why = match tokio::time::timeout(limit, self.gate.journal().redeem(pledge)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("not within {REDEEM_SECONDS_MAX} s")),
            };
            if let (Some(_), Some(receipt)) = (&why, self.gate.pass_open()) {
                token = Token::Open(receipt);
            } else if let Some(why) = why {
                self.gate.outcome(id, Outcome::without_result(Status::Skipped));
                let message = format!("tidegate: the record did not become durable: {why}");
                self.answer(id, Answer::Refuse { sqlstate: IO_ERROR, message, hint: None });
                return Ok(());
            }
        }
        match Upstream::dial(
            around.server,
            around.namespace.as_ref(),
            around.verification.as_deref(),
        )
        .await
        {
            Ok(upstream) => {
                self.upstream = Some(upstream);
                if let Operation::Login(login) = operation
                    && let Some(catalogue) = self.gate.logged_in(login)
                {
                    catalogue.first_reading().await;
                }
                self.answer(id, Answer::Permit { token, duties });
            }
            Err(error) => {
                let message = error.to_string();
                let code = UNREACHABLE.to_owned();
                let status = Status::Failed { code, message: message.clone() };
                self.gate.outcome(id, Outcome::without_result(status));
                let message = format!("tidegate: {message}");
                self.answer(id, Answer::Refuse { sqlstate: UNREACHABLE, message, hint: None });
            }
        }
        Ok(())
    }

    /// Dials a server that speaks first: only its greeting is read before the login is decided.
    pub(super) async fn dial_first(&mut self, around: &Surroundings) -> Result<(), Ending> {
        match Upstream::dial_plain(around.server, around.namespace.as_ref()).await {
            Ok(upstream) => {
                self.upstream = Some(upstream);
                self.machine.server_connected();
            }
            Err(error) => {
                let message = format!("tidegate: {error}");
                self.machine.abort(self.now_ns, UNREACHABLE, &message, NOTHING_SENT);
            }
        }
        Ok(())
    }

    /// Starts TLS towards the server, where the target asks for it and the protocol has agreed on it:
    /// once the login's record is durable and the request for TLS has left.
    pub(super) async fn start_server_tls(&mut self, around: &Surroundings) -> Result<(), Ending> {
        let gone = |why: String| Ending::Gate(why);
        let Some(mut upstream) = self.upstream.take() else {
            return Err(gone("the server leg is gone".into()));
        };
        let limit = Duration::from_secs(REDEEM_SECONDS_MAX);
        let (outbox, journal) = (&mut self.outbox, self.gate.journal());
        let release = std::future::poll_fn(|cx| {
            if let Err(error) = outbox.poll_release(cx, journal, &mut upstream) {
                return Poll::Ready(Err(error));
            }
            match upstream.poll_write(cx) {
                Poll::Ready(Ok(())) if outbox.is_empty() => Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        });
        let released = tokio::time::timeout(limit, release).await;
        self.upstream = Some(upstream);
        match released {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.not_durable(&error);
                return Ok(());
            }
            Err(_) => return Err(gone(format!("no record within {REDEEM_SECONDS_MAX} s"))),
        }
        let secured = match (self.upstream.take(), around.verification.as_deref()) {
            (Some(upstream), Some(verification)) => {
                upstream.start_tls(around.server, verification).await
            }
            _ => return Err(gone("TLS was asked for where none is spoken".into())),
        };
        match secured {
            Ok(upstream) => {
                self.upstream = Some(upstream);
                self.machine.server_tls_started();
                self.offer_again = true;
            }
            Err(error) => {
                let message = format!("tidegate: {error}");
                self.machine.abort(self.now_ns, UNREACHABLE, &message, NOTHING_SENT);
            }
        }
        Ok(())
    }

    pub(super) async fn start_client_tls(&mut self, around: &Surroundings) -> Result<(), Ending> {
        let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        let gone = |why: String| Ending::Gate(why);
        let mut leg = self.client.take().ok_or_else(|| gone("the client leg is gone".into()))?;
        let queue = &mut self.to_client;
        let flushed = std::future::poll_fn(|cx| queue.poll_write(&mut leg, cx));
        flushed.await.map_err(|error| gone(format!("cannot answer the client: {error}")))?;
        let Leg::Plain(stream) = leg else {
            return Err(gone("the client asked for TLS inside TLS".into()));
        };
        let accept = around.host_ca.accept(stream, around.server.ip(), &around.names);
        let leg = tokio::time::timeout(limit, accept)
            .await
            .map_err(|_| gone(format!("no TLS handshake within {HANDSHAKE_SECONDS_MAX} s")))?
            .map_err(|error| gone(error.to_string()))?;
        self.client = Some(leg);
        self.machine.client_tls_started();
        self.offer_again = true;
        Ok(())
    }

    /// Decides an operation once the catalogue that this session has changed was read anew.
    pub(super) async fn catch_up(&mut self, id: AskId, operation: Operation, source: &Source) {
        source.caught_up().await;
        let answer = self.gate.ask(id, &operation);
        self.asked(id, operation, answer);
    }

    /// Asks the server, on a connection of its own, to stop what it runs. The session goes on meanwhile.
    pub(super) fn cancel(&mut self, request: Bytes, around: &Surroundings) {
        let (server, verification) = (around.server, around.verification.clone());
        let namespace = around.namespace.clone();
        self.cancelling = Some(Box::pin(async move {
            let (namespace, verification) = (namespace.as_ref(), verification.as_deref());
            if let Err(error) = upstream::cancel(server, namespace, verification, &request).await {
                tracing::warn!(%server, %error, "a result that is cut could not be cancelled there");
            }
        }));
    }
}
