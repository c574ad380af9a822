//! Questions, and what happens when they are answered.
//!
//! Promises: bytes of a permitted operation leave under its receipt, those of a refused one never
//! leave. A refusal looks like the server's own error, in its place among the answers, and fails
//! what a real error would fail: where the server has a transaction or a pipeline open, a statement
//! that is sure to fail goes in place of the refused one, and its error is replaced (manual,
//! "Pipelining": an error rolls the implicit transaction back). The server's log then shows
//! [`SUBSTITUTE_TEXT`](crate::SUBSTITUTE_TEXT).

use bytes::Bytes;
use tidegate_event::{Ending, Operation, Outcome, Status};

use super::client::Flow;
use super::server::Reading;
use super::startup::{Login, LoginStep};
use super::statement::Known;
use super::{Arc, Machine, Phase, Pipeline, Portal, Prepared, substitute_query};
use crate::frame::message;
use crate::message::error::{Severity, response};
use crate::message::query::substitute_parse;
use crate::message::status::Transaction;
use crate::names::{Change, Name};
use crate::replies::{Expect, Op, Substitute};
use crate::{Action, Answer, AskId, Authority, Duties};

/// An open question.
pub(super) struct Asking<R> {
    pub id: AskId,
    asked: Asked<R>,
}

/// What was asked, with the bytes that wait for the answer. `left` is what of the message is
/// still to come.
pub(super) enum Asked<R> {
    Login(Bytes),
    Cancel(Bytes),
    Query {
        message: Bytes,
        left: usize,
        known: Known,
    },
    Parse {
        message: Bytes,
        left: usize,
        name: Name,
        known: Known,
        types: Vec<u32>,
    },
    /// With the Bind kept back for it, of which `held_entries` replies are expected. The Execute itself
    /// begins at `at`.
    Execute {
        message: Bytes,
        at: usize,
        held_entries: usize,
        portal_name: Name,
        portal: Option<Arc<Portal<R>>>,
        known: Known,
    },
    Call {
        message: Bytes,
        left: usize,
    },
}

impl<R> Asked<R> {
    const fn bytes(&self) -> &Bytes {
        match self {
            Self::Login(message)
            | Self::Cancel(message)
            | Self::Query { message, .. }
            | Self::Parse { message, .. }
            | Self::Execute { message, .. }
            | Self::Call { message, .. } => message,
        }
    }

    const fn left(&self) -> usize {
        match self {
            Self::Login(_) | Self::Cancel(_) | Self::Execute { .. } => 0,
            Self::Query { left, .. } | Self::Parse { left, .. } | Self::Call { left, .. } => *left,
        }
    }
}

impl<R> Asking<R> {
    pub fn held_bytes(&self) -> usize {
        self.asked.bytes().len()
    }

    /// The CancelRequest that waits for its answer.
    pub fn cancel_request(&self) -> Option<Bytes> {
        match &self.asked {
            Asked::Cancel(request) => Some(request.clone()),
            _ => None,
        }
    }

    /// How many replies are expected of a Bind that waits with its Execute; they count no more.
    pub fn take_held_entries(&mut self) -> usize {
        match &mut self.asked {
            Asked::Execute { held_entries, .. } => std::mem::take(held_entries),
            _ => 0,
        }
    }
}

struct Refusal {
    sqlstate: &'static str,
    message: String,
    hint: Option<String>,
}

impl Refusal {
    fn error(&self, severity: Severity) -> Bytes {
        response(severity, self.sqlstate, &self.message, self.hint.as_deref())
    }
}

impl<R: Clone> Machine<R> {
    pub(super) fn ask(&mut self, asked: Asked<R>, operation: Operation) {
        let id = self.ask_id();
        self.asking = Some(Asking { id, asked });
        self.out.push_back(Action::Ask { id, operation });
    }

    pub(super) fn answered(&mut self, now_ns: u64, asking: Asking<R>, answer: Answer<R>) {
        let Asking { id, asked } = asking;
        match answer {
            Answer::Permit(receipt) => {
                let op = Op::new(id, now_ns, receipt);
                self.permitted(op, asked, None);
            }
            Answer::Refuse { sqlstate, message, hint } => {
                let refusal = Refusal { sqlstate, message, hint };
                match (&self.phase, asked) {
                    (Phase::Closed, _) => {}
                    (_, Asked::Login(_)) => {
                        self.tell_client(refusal.error(Severity::Fatal));
                        self.close(now_ns, Ending::Gate("the login was refused".to_owned()));
                    }
                    // A cancel request is never answered (manual, "Canceling Requests in Progress").
                    (_, Asked::Cancel(_)) => {
                        let why = "the cancel request was refused";
                        self.close(now_ns, Ending::Gate(why.to_owned()));
                    }
                    (_, asked) => self.statement_refused(asked, &refusal),
                }
            }
        }
    }

    pub(super) fn answered_with(
        &mut self,
        now_ns: u64,
        asking: Asking<R>,
        receipt: R,
        duties: &Arc<Duties>,
    ) {
        let Asking { id, asked } = asking;
        let op = Op::new(id, now_ns, receipt);
        self.permitted(op, asked, Some(duties));
    }

    fn permitted(&mut self, op: Op<R>, asked: Asked<R>, duties: Option<&Arc<Duties>>) {
        if matches!(self.phase, Phase::Closed) {
            self.never_sent(&op);
            return;
        }
        match asked {
            Asked::Login(bytes) => {
                self.ordered(duties);
                self.login_permitted(op, bytes);
            }
            Asked::Cancel(bytes) => {
                self.tell_server(Authority::Receipt(op.receipt.clone()), bytes);
                self.phase = Phase::Cancelling(op);
            }
            asked => self.statement_permitted(op, asked, duties),
        }
    }

    /// Permitted, but there is nothing any more that it could be sent to, or would be run by.
    fn never_sent(&mut self, op: &Op<R>) {
        let outcome = Outcome::without_result(Status::Skipped);
        self.out.push_back(Action::Outcome { id: op.id, outcome });
    }

    fn login_permitted(&mut self, op: Op<R>, bytes: Bytes) {
        self.tell_server(Authority::Receipt(op.receipt.clone()), bytes);
        self.phase = Phase::Login(Login { op, step: LoginStep::Exchange });
    }

    fn statement_permitted(
        &mut self,
        mut op: Op<R>,
        asked: Asked<R>,
        duties: Option<&Arc<Duties>>,
    ) {
        let left = asked.left();
        if self.session.pipeline == Pipeline::Discarding {
            self.never_sent(&op);
            self.drop_rest(left);
            return;
        }
        self.ordered(duties);
        // What asks for nothing now still says what a cursor or prepared statement may show later.
        let busy = duties.filter(|duties| !duties.is_idle());
        if let Some(duties) = duties {
            op.how = duties.how();
        }
        let receipt = op.receipt.clone();
        let segment = self.session.segment;
        let message = match asked {
            Asked::Query { message, known, .. } => {
                if let Some(duties) = busy {
                    op.under(self.duty_of_query(duties, &known));
                }
                let seq = self.session.replies.push(Expect::Query(op));
                self.touch(seq, &known.touches, duties);
                message
            }
            Asked::Call { message, .. } => {
                if let Some(duties) = busy {
                    op.under(self.duty_of_call(duties));
                }
                let seq = self.session.replies.push(Expect::Call(op));
                // A function may set anything.
                self.session.doubt = Some(seq);
                message
            }
            Asked::Parse { message, name, known, types, .. } => {
                let prepared = Prepared::new(&name, known, types, duties.cloned(), receipt.clone());
                let seq = self.session.replies.push(Expect::Parse(op));
                self.session.prepared_in_sql.change(seq, segment, Change::Remove(name.clone()));
                let change = Change::Set(name, Arc::new(prepared));
                self.session.statements.change(seq, segment, change);
                self.session.pipeline = Pipeline::Open;
                message
            }
            Asked::Execute { message, at, portal_name, portal, known, .. } => {
                let mut message = message;
                op.portal.clone_from(&portal);
                if let Some(duties) = busy {
                    let (duty, unknown) = self.duty_of_execute(duties, &known, portal.as_ref());
                    if let Some(columns) = unknown {
                        message = self.describe_before(&message, at, &portal_name, columns);
                    }
                    op.under(duty);
                }
                let seq = self.session.replies.push(Expect::Execute(op));
                self.touch(seq, &known.touches, duties);
                self.session.pipeline = Pipeline::Open;
                message
            }
            Asked::Login(_) | Asked::Cancel(_) => return,
        };
        self.tell_server(Authority::Receipt(receipt.clone()), message);
        if left > 0 {
            self.client.flow = Flow::Stream { left, authority: Authority::Receipt(receipt) };
        }
    }

    fn statement_refused(&mut self, asked: Asked<R>, refusal: &Refusal) {
        self.drop_rest(asked.left());
        if self.session.pipeline == Pipeline::Discarding {
            return;
        }
        let error = refusal.error(Severity::Error);
        let substitute = match asked {
            Asked::Query { .. } | Asked::Call { .. } => {
                if self.is_quiet() {
                    self.tell_client(error);
                    self.tell_client(message(b'Z', &[b"I"]));
                    return;
                }
                self.session.replies.push(Expect::Refused { error, by: Substitute::Query });
                substitute_query()
            }
            Asked::Parse { name, .. } => {
                let refused = Expect::Refused { error, by: Substitute::Parse };
                let seq = self.session.replies.push(refused);
                let unnamed = name.is_empty();
                if unnamed {
                    let segment = self.session.segment;
                    self.session.statements.change(seq, segment, Change::Remove(name));
                }
                self.session.pipeline = Pipeline::Discarding;
                substitute_parse(unnamed)
            }
            Asked::Execute { held_entries, .. } => {
                let first = self.session.replies.retract(held_entries);
                self.retract_names(first);
                self.session.replies.push(Expect::Refused { error, by: Substitute::Parse });
                self.session.pipeline = Pipeline::Discarding;
                substitute_parse(false)
            }
            Asked::Login(_) | Asked::Cancel(_) => return,
        };
        self.framing(substitute);
    }

    /// Whether the server has nothing open that an error would have to fail, and says nothing.
    fn is_quiet(&self) -> bool {
        self.session.replies.is_empty()
            && self.session.pipeline == Pipeline::Synced
            && self.session.transaction == Transaction::Idle
            && self.reading == Reading::Message
    }

    fn drop_rest(&mut self, left: usize) {
        if left > 0 {
            self.client.flow = Flow::Drop { left };
        }
    }
}
