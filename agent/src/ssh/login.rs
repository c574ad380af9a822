//! How a client gets in: by whose process it is, or by what it says to the server.
//!
//! Promises: no secret of the client's is looked at, kept or recorded; where it goes on to the server, it goes only once the
//! login is permitted and recorded, and each try is a login of its own in the record. A key that the client has shown to hold is
//! recorded by its fingerprint.
//!
//! Limits: what the client says to the server goes over a connection that the gate has verified; keys can't go on,
//! since they sign for one connection (RFC 4252 section 7).

use std::sync::Arc;

use russh::client::KeyboardInteractiveAuthResponse as Step;
use russh::server::Auth;
use russh::{Disconnect, MethodKind, MethodSet};
use tidegate_event::{Outcome, Status};
use tidegate_wire::AskId;
use tidegate_wire_ssh::request;

use super::Client;
use super::door::{Door, Way};
use crate::config::SshLogin;
use crate::upstream::Clearance;

/// What the client offers.
pub enum Offer<'a> {
    /// Nothing: the kernel has said whose process it is.
    Nothing,
    /// A key that it holds, by its fingerprint.
    Key(String),
    /// A password.
    Password(&'a str),
    /// It wants to be asked, by these methods.
    Asked(&'a str),
    /// Its answers.
    Answers(Vec<String>),
}

impl Client {
    /// What comes of an offer.
    pub(super) async fn offered(&mut self, user: &str, offer: Offer<'_>) -> Auth {
        if self.target.is_some() {
            return Auth::Accept;
        }
        if self.refused {
            return Auth::reject();
        }
        let goes_on = self.settings.target.login == SshLogin::Client;
        match offer {
            Offer::Nothing | Offer::Key(_) if goes_on => says_more(),
            Offer::Key(print) => self.log_in(user, Some(&print)).await,
            _ if !goes_on => self.log_in(user, None).await,
            offer => self.pass_on(user, offer).await,
        }
    }

    /// Decides the login, and makes it at the server by the gate's own means.
    async fn log_in(&mut self, user: &str, key: Option<&str>) -> Auth {
        let id = self.shared.id();
        let door = match self.door(id, user, key).await {
            Ok(door) => door,
            Err(why) => return self.turn_away(why).await,
        };
        let about = format!("tidegate session {}", self.shared.gate().log().id());
        match door.enter(&self.settings, user, &about).await {
            Ok((target, gone)) => {
                self.enters(id, target, gone);
                Auth::Accept
            }
            Err(error) => {
                self.shared.failed(id, &error.to_string());
                self.turn_away(format!("tidegate: {error}")).await
            }
        }
    }

    /// Decides the login `id`, and opens the way to the server; the error is for the client.
    async fn door(&self, id: AskId, user: &str, key: Option<&str>) -> Result<Door, String> {
        let receipt = self.shared.clear(id, &request::login(user, "", key)).await?;
        let way = Way {
            server: self.server,
            host: &self.host,
            namespace: self.namespace.as_ref(),
            back: &self.back,
        };
        let opened = Door::open(&Clearance::Receipt(&receipt), &self.settings, way).await;
        opened.map_err(|error| {
            self.shared.failed(id, &error.to_string());
            format!("tidegate: {error}")
        })
    }

    /// Has the server decide by what the client says.
    async fn pass_on(&mut self, user: &str, offer: Offer<'_>) -> Auth {
        let answers = matches!(offer, Offer::Answers(_));
        let (id, mut door) = match self.door.take() {
            Some((Some(id), door)) if answers => (id, door),
            Some((_, door)) if !answers => {
                let id = self.shared.id();
                if let Err(why) = self.shared.clear(id, &request::login(user, "", None)).await {
                    return self.turn_away(why).await;
                }
                (id, door)
            }
            _ if answers => return says_more(),
            _ => {
                let id = self.shared.id();
                match self.door(id, user, None).await {
                    Ok(door) => (id, door),
                    Err(why) => return self.turn_away(why).await,
                }
            }
        };
        let step = match offer {
            Offer::Password(password) => door.password(user, password).await.map(|let_in| {
                let remaining_methods = methods();
                if let_in {
                    Step::Success
                } else {
                    Step::Failure { remaining_methods, partial_success: false }
                }
            }),
            Offer::Asked(submethods) => door.questions(user, submethods).await,
            Offer::Answers(answers) => door.answers(answers).await,
            Offer::Nothing | Offer::Key(_) => return says_more(),
        };
        match step {
            Ok(Step::Success) => {
                let (target, gone) = door.opened();
                self.enters(id, target, gone);
                Auth::Accept
            }
            Ok(Step::InfoRequest { name, instructions, prompts }) => {
                self.door = Some((Some(id), door));
                let prompts = prompts.into_iter().map(|one| (one.prompt.into(), one.echo));
                Auth::Partial {
                    name: name.into(),
                    instructions: instructions.into(),
                    prompts: prompts.collect::<Vec<_>>().into(),
                }
            }
            Ok(Step::Failure { partial_success, .. }) => {
                self.shared.failed(id, "the server does not let this account in with that");
                self.door = Some((None, door));
                Auth::Reject { proceed_with_methods: Some(methods()), partial_success }
            }
            Err(error) => {
                self.shared.failed(id, &error.to_string());
                self.turn_away(format!("tidegate: {error}")).await
            }
        }
    }

    /// The server has let the login `id` in.
    fn enters(
        &mut self,
        id: AskId,
        target: super::target::Target,
        gone: tokio::sync::oneshot::Receiver<()>,
    ) {
        self.target = Some(Arc::new(target));
        if let Some(sender) = self.gone.take() {
            _ = sender.send(gone);
        }
        self.shared.gate().outcome(id, Outcome::without_result(Status::Ok));
    }

    /// Ends the connection with a reason. Behind a failure OpenSSH's client ends without reading on, and nobody would
    /// read why. So the connection is let in, and ended with the reason; nothing can be asked on it.
    async fn turn_away(&mut self, why: String) -> Auth {
        self.refused = true;
        if let Some(handle) = self.handle.get().cloned() {
            let code = Disconnect::NoMoreAuthMethodsAvailable;
            _ = handle.disconnect(code, why, String::new()).await;
        }
        Auth::Accept
    }
}

/// By what a client can get in that has to say something.
fn methods() -> MethodSet {
    MethodSet::from(&[MethodKind::Password, MethodKind::KeyboardInteractive][..])
}

fn says_more() -> Auth {
    Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false }
}
