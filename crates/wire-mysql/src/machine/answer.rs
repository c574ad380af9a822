//! Questions, and what happens when they are answered.
//!
//! Promises: bytes of a permitted operation leave under its receipt, those of a refused one never
//! leave. A refusal is an ERR packet with the number that comes next: as after any error of the server's
//! own, an open transaction stays open.

use bytes::Bytes;
use tidegate_event::{Ending, Operation, Outcome, Status};

use super::client::{Error, Flow};
use super::infile::AskedInfile;
use super::login::Who;
use super::server::{Awaiting, Running};
use super::statement::Known;
use super::{Machine, Op, Phase};
use crate::delivery::Delivery;
use crate::message::error;
use crate::message::value::Type;
use crate::{Action, Answer, AskId, Authority};

/// What of a command is not held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// Bytes of the packet at hand that are still to come.
    pub left: usize,
    /// Whether another packet of the same command follows.
    pub goes_on: bool,
}

impl Rest {
    pub const fn is_open(self) -> bool {
        self.left > 0 || self.goes_on
    }
}

/// An open question.
pub(super) struct Asking {
    pub id: AskId,
    asked: Asked,
}

/// What was asked, with the bytes that wait for the answer.
pub(super) enum Asked {
    Login(Bytes, Who),
    ChangeUser(Bytes, Who),
    Command { held: Bytes, rest: Rest, then: Then },
    Infile(AskedInfile),
}

/// What the server will answer to a command, and what is noted then.
pub(super) enum Then {
    Plain(Awaiting),
    /// More rows of the cursor of the statement with this number.
    Fetch(u32),
    Text(Awaiting, Known),
    Execute {
        id: u32,
        types: Option<Vec<Type>>,
        cursor: bool,
        known: Known,
    },
    InitDb(String),
    ResetConnection,
}

impl Asking {
    pub fn held_bytes(&self) -> usize {
        match &self.asked {
            Asked::Login(held, _) | Asked::ChangeUser(held, _) | Asked::Command { held, .. } => {
                held.len()
            }
            Asked::Infile(asked) => asked.held_bytes(),
        }
    }

    pub const fn is_infile(&self) -> bool {
        matches!(self.asked, Asked::Infile(_))
    }
}

impl<R: Clone> Machine<R> {
    pub(super) fn ask(&mut self, asked: Asked, operation: Operation) {
        let id = self.ask_id();
        self.asking = Some(Asking { id, asked });
        self.out.push_back(Action::Ask { id, operation });
    }

    pub(super) fn answered(&mut self, now_ns: u64, asking: Asking, answer: Answer<R>) {
        let Asking { id, asked } = asking;
        match answer {
            Answer::Permit(receipt) => {
                let duties = self.duties.take();
                let op = Op { id, released_ns: now_ns, receipt, duties };
                if matches!(self.phase, Phase::Closed) {
                    return self.never_sent(&op);
                }
                match asked {
                    Asked::Login(held, who) => self.login_permitted(op, &held, who),
                    Asked::ChangeUser(held, who) => self.change_permitted(op, held, who),
                    Asked::Command { held, rest, then } => self.permitted(op, held, rest, then),
                    Asked::Infile(asked) => self.infile_permitted(op, asked),
                }
            }
            Answer::Refuse { sqlstate, message, hint } => {
                if matches!(self.phase, Phase::Closed) {
                    return;
                }
                let error = Error { sqlstate, message, hint };
                match asked {
                    Asked::Login(..) | Asked::ChangeUser(..) => self.login_refused(now_ns, &error),
                    Asked::Command { rest, then, .. } => {
                        if matches!(then, Then::Text(Awaiting::Prepared, _)) {
                            // On the server -1 would mean the statement before.
                            self.session.last_prepared = None;
                        }
                        self.refuse(rest, error);
                    }
                    Asked::Infile(asked) => self.infile_refused(&asked, &error),
                }
            }
        }
    }

    /// Permitted, but there is nothing any more that it could be sent to.
    fn never_sent(&mut self, op: &Op<R>) {
        let outcome = Outcome::without_result(Status::Skipped);
        self.out.push_back(Action::Outcome { id: op.id, outcome });
    }

    fn login_refused(&mut self, now_ns: u64, error: &Error) {
        let (seq, hint) = (self.client.next_seq, error.hint.as_deref());
        self.tell_client(error::response(seq, error.sqlstate, &error.message, hint));
        self.close(now_ns, Ending::Gate("the login was refused".to_owned()));
    }

    fn permitted(&mut self, op: Op<R>, held: Bytes, rest: Rest, then: Then) {
        let authority = Authority::Receipt(op.receipt.clone());
        self.tell_server(authority.clone(), held);
        if rest.is_open() {
            self.client.flow = Flow::Stream { rest, authority };
        }
        let awaiting = match &then {
            Then::Plain(awaiting) | Then::Text(awaiting, _) => *awaiting,
            Then::Fetch(_) => Awaiting::Rows,
            Then::Execute { .. } | Then::InitDb(_) | Then::ResetConnection => Awaiting::First,
        };
        if awaiting == Awaiting::Prepared {
            // Until the server has said yes, -1 means nothing.
            self.session.last_prepared = None;
        }
        if let Then::Execute { id, types, .. } = &then
            && let Some(prepared) = self.session.statements.get(*id)
        {
            prepared.long.clear();
            if let Some(types) = types {
                prepared.types.clone_from(types);
            }
        }
        self.session.told_database = false;
        let mut delivery = Delivery::under(op.duties.clone());
        if let Then::Fetch(id) = &then {
            // Where the gate has not seen the cursor opened, its rows are not told.
            if let Some(prepared) = self.session.statements.get(*id) {
                delivery.stage = prepared.cursor.clone();
                delivery.columns.clone_from(&prepared.columns);
            }
        }
        let fetches = matches!(then, Then::Fetch(_));
        self.session.running = Some(Running::new(op, awaiting, then, delivery));
        if fetches {
            self.describe();
        }
    }
}
