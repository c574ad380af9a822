//! What the gate does where a statement is denied as it stands, and allowed with an approval.
//!
//! Promises: a held statement has no permit; it gets one only from the decider, for the answer that its
//! ticket holds. A statement that was held and does not run is recorded as refused.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_event::{Operation, Parameter};
use tidegate_policy::approval::{Binding, operation_digest};
use tidegate_policy::{Denial, Ruling};
use tidegate_wire::AskId;

use super::masking::Known;
use super::{Answer, Gate, REFUSED, recorded};
use crate::approvals::{Approvals, Waited, Wanted};

/// SQLSTATE query_canceled.
pub(crate) const CANCELLED: &str = "57014";

/// Longest statement that people are shown, in bytes.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// A statement that waits.
pub struct Hold {
    approvals: Arc<Approvals>,
    id: String,
    binding: Binding,
    wait_seconds: u64,
    needs: String,
    denial: Denial,
}

/// Why a held statement is held no more, without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheld {
    /// The policy's time to wait is over.
    TooLong,
    /// The client cancelled it.
    Cancelled,
    /// The client, or the server, is gone.
    Gone,
}

impl Hold {
    /// Waits for the answer. `key` is what a cancel request of this session holds.
    pub fn wait(&self, key: Option<Bytes>) -> impl Future<Output = Waited> + Send + use<> {
        Arc::clone(&self.approvals).wait(self.id.clone(), key, self.wait_seconds)
    }

    /// What the client is told.
    pub fn notice(&self) -> String {
        let (id, seconds) = (&self.id, self.wait_seconds);
        format!(
            "tidegate: held for approval by {}; request {id}; it waits for {seconds} s",
            self.needs
        )
    }
}

impl Gate {
    /// What becomes of an operation that is denied as it stands.
    pub(super) fn held_or_refused(
        &mut self,
        id: AskId,
        operation: &Operation,
        denial: Denial,
        known: Option<&Known>,
    ) -> Answer {
        if denial.decision().approval.is_some() && self.approvals.is_some() {
            let touched = known.map(|known| &known.asked);
            if let Some(Ruling::Permitted(permit)) =
                self.decider().decide_prepared(operation, touched)
            {
                return self.permitted(id, operation, permit, known);
            }
        }
        match self.hold(operation, denial, known) {
            Ok(hold) => Answer::Hold(hold),
            Err((denial, None)) => self.refused(operation, &denial, known),
            Err((denial, Some(why))) => {
                self.still_refused(operation, &denial, known, REFUSED, &why)
            }
        }
    }

    /// Holds a refused operation where an approval would let it pass; the refusal otherwise.
    fn hold(
        &mut self,
        operation: &Operation,
        denial: Denial,
        known: Option<&Known>,
    ) -> Result<Box<Hold>, (Denial, Option<String>)> {
        let decision = Arc::clone(denial.decision());
        let (Some(approvals), Some(need)) = (self.approvals.clone(), &decision.approval) else {
            return Err((denial, None));
        };
        let Some(digest) = operation_digest(operation) else { return Err((denial, None)) };
        let masked =
            known.and_then(|known| recorded::masked(operation, &known.values, known.protocol));
        let subject = self.decider().subject();
        let binding = Binding {
            principal: subject.principal.name.clone(),
            target: subject.target.0.clone(),
            db_user: subject.db_user.clone(),
            database: subject.database.clone(),
            operation: digest,
        };
        let effects = operation.effects();
        let wanted = Wanted {
            binding: binding.clone(),
            need: need.clone(),
            statement: shown(masked.as_ref().unwrap_or(operation)),
            effects: effects
                .iter()
                .map(|effect| {
                    let all = if effect.bounded { "" } else { " of all rows" };
                    let on = effect.relation.as_ref().map(|on| format!(" on {on}"));
                    format!("{}{all}{}", effect.action.name(), on.unwrap_or_default())
                })
                .collect(),
            reason: decision.reason.clone(),
            policies: decision.policies.clone(),
        };
        match approvals.ask(&wanted) {
            Ok(id) => {
                let (wait_seconds, needs) = (need.wait_seconds, need.words());
                Ok(Box::new(Hold { approvals, id, binding, wait_seconds, needs, denial }))
            }
            Err(why) => Err((denial, Some(why))),
        }
    }

    /// The answer to a held operation has come.
    pub fn answered(&mut self, id: AskId, operation: &Operation, hold: Hold) -> Answer {
        let Hold { approvals, id: ticket, binding, denial, .. } = hold;
        let known = self.masking.as_mut().and_then(|masking| masking.of(operation));
        let known = known.as_deref();
        let touched = known.map(|known| &known.asked);
        let answer = match approvals.redeem(&ticket, &binding) {
            Err(why) => {
                let why = format!("request {ticket}: {why}");
                self.still_refused(operation, &denial, known, REFUSED, &why)
            }
            Ok(approved) => match self.decider().decide_approved(operation, touched, &approved) {
                Ruling::Permitted(permit) => self.permitted(id, operation, permit, known),
                Ruling::Refused(denial) => self.refused(operation, &denial, known),
            },
        };
        self.totals.refused += u64::from(matches!(answer, Answer::Refuse { .. }));
        answer
    }

    /// Ends the waiting of the session that a cancel request with this key is for; whether there is one.
    pub fn cancel_held(&self, key: &Bytes) -> bool {
        self.approvals.as_ref().is_some_and(|approvals| approvals.cancel(key))
    }

    /// A held operation is held no more, and does not run.
    pub fn unheld(&mut self, operation: &Operation, hold: Hold, why: Unheld) -> Answer {
        let Hold { id, denial, wait_seconds, .. } = hold;
        let known = self.masking.as_mut().and_then(|masking| masking.of(operation));
        let words = match why {
            Unheld::TooLong => format!(
                "not approved within {wait_seconds} s; request {id} stays: the same statement \
                 passes once it is approved"
            ),
            Unheld::Cancelled => format!("cancelled while request {id} waited for approval"),
            Unheld::Gone => format!("the session ended while request {id} waited for approval"),
        };
        self.totals.refused += 1;
        self.still_refused(operation, &denial, known.as_deref(), CANCELLED, &words)
    }

    fn still_refused(
        &self,
        operation: &Operation,
        denial: &Denial,
        known: Option<&Known>,
        sqlstate: &'static str,
        why: &str,
    ) -> Answer {
        match self.refused(operation, denial, known) {
            Answer::Refuse { message, hint, .. } => {
                Answer::Refuse { sqlstate, message: format!("{message}: {why}"), hint }
            }
            other => other,
        }
    }
}

/// The statement with its parameters, as people are shown it.
fn shown(operation: &Operation) -> String {
    let Operation::Statement(statement) = operation else { return String::new() };
    let (text, was_cut) = tidegate_event::limits::cut(&statement.text, SHOWN_BYTES_MAX);
    let whole = u64::try_from(text.len()).is_ok_and(|bytes| bytes >= statement.text_bytes);
    let more = if was_cut || !whole { " ..(cut)" } else { "" };
    let values = statement.parameters.iter().zip(1_u32..).map(|(parameter, number)| {
        let value = match parameter {
            Parameter::Null => "NULL".to_owned(),
            Parameter::Text(value) => format!("{:?}", String::from_utf8_lossy(value)),
            Parameter::Binary { value, .. } => format!("binary {}", hex::encode(value)),
            Parameter::Cut { .. } => "..".to_owned(),
        };
        format!(" ${number} = {}", tidegate_event::limits::cut(&value, 256).0)
    });
    format!("{text}{more}{}", values.collect::<String>())
}
