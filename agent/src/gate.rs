//! Decide, record, send: for each operation the policy's ruling, the record, and what lets its
//! bytes leave.
//!
//! Promises: an operation is permitted only with a [`Pledge`] that its record is written, or, where
//! the journal cannot record and the target's owner chose `on_failure = "open"`, with the journal's
//! own bracketed exception. A refusal is recorded too. What cannot be recorded is refused.

pub mod approval;
mod budget;
pub mod masking;
mod recorded;
pub mod sight;

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_event::{
    Executable, Login, Mode, NotKept, OnFailure, Operation, Outcome, Principal, Protocol, Seq,
    Status, Stream, TargetName,
};
use tidegate_journal::{Journal, JournalError, Pledge, Receipt, Recorded, SessionLog};
use tidegate_policy::{Decider, Decision, Denial, Permit, PolicySet, Ruling, Subject, Verdict};
use tidegate_wire::AskId;
use tidegate_wire_postgres::Duties;
use tokio::sync::watch;

use crate::approvals::Approvals;
use crate::budget::Given;
use crate::catalogue::Source;
use crate::telemetry::{Decided, Labels, Metrics};
use masking::{Known, Masking};

/// SQLSTATE insufficient_privilege: what drivers neither retry nor drop the connection for.
const REFUSED: &str = "42501";

/// SQLSTATE invalid_authorization_specification: for a session that may not open.
const LOGIN_REFUSED: &str = "28000";

/// SQLSTATE disk_full.
const DISK_FULL: &str = "53100";

/// SQLSTATE io_error.
pub(crate) const IO_ERROR: &str = "58030";

/// SQLSTATE configuration_limit_exceeded: what a policy gives in an hour.
const USED_UP: &str = "53400";

/// Hint beside an error over the journal.
pub(crate) const NOTHING_SENT: &str =
    "What waited for its record was not sent to the server. Tell the operators of this host.";

/// What one session adds up.
#[derive(Debug, Default, Clone, Copy)]
pub struct SessionTotals {
    /// Operations asked for.
    pub operations: u64,
    /// Of them refused.
    pub refused: u64,
}

/// What a permitted operation holds until its bytes leave.
#[derive(Debug, Clone)]
pub enum Token {
    /// Its record is written, and becomes durable.
    Pledged(Pledge),
    /// Passed by `on_failure = "open"`.
    Open(Arc<Receipt>),
}

/// The answer to one operation.
pub enum Answer {
    /// It may pass.
    Permit {
        /// What lets its bytes leave.
        token: Token,
        /// What must be done to its results; `None` where nothing must.
        duties: Option<Arc<Duties>>,
    },
    /// It may not.
    Refuse {
        /// SQLSTATE of the error that the client gets.
        sqlstate: &'static str,
        /// Its message.
        message: String,
        /// Its hint.
        hint: Option<String>,
    },
    /// It waits for people.
    Hold(Box<approval::Hold>),
}

/// What is the same for all operations of a session.
pub struct Standing {
    /// Who.
    pub principal: Principal,
    /// By which program.
    pub executable: Executable,
    /// From which cgroup.
    pub cgroup: Option<String>,
    /// To which target.
    pub target: TargetName,
    /// By which protocol.
    pub protocol: Protocol,
    /// Whether decisions bind.
    pub mode: Mode,
    /// What happens when nothing can be recorded.
    pub on_failure: OnFailure,
}

/// What a session is watched by beside the policy.
pub struct Watch {
    /// What is protected at its target; `None` where nothing is.
    pub masking: Option<Masking>,
    /// What its principal was given by its target.
    pub given: Arc<Given>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where approvals are asked for; `None` where no collector is configured.
    pub approvals: Option<Arc<Approvals>>,
}

/// A permitted operation without an outcome.
#[derive(Debug, Clone, Copy)]
struct Pending {
    id: AskId,
    /// Its record; `None` where it passed without one.
    seq: Option<Seq>,
    /// Its errors may tell of what is protected.
    concerns: bool,
    /// What it gives counts for the hour.
    counted: bool,
    /// Bytes of its result that are recorded, up to the first that could not be.
    kept: u64,
    /// Some could not be.
    unkept: bool,
}

/// The gate of one session.
pub struct Gate {
    journal: Journal,
    log: SessionLog,
    policy: watch::Receiver<Arc<PolicySet>>,
    standing: Standing,
    login: (String, String),
    decider: Option<Decider>,
    /// In the order in which they were asked, which is nearly that of their outcomes.
    pending: VecDeque<Pending>,
    masking: Option<Masking>,
    given: Arc<Given>,
    metrics: Arc<Metrics>,
    approvals: Option<Arc<Approvals>>,
    labels: Labels,
    totals: SessionTotals,
}

impl Gate {
    /// A gate for a session that the journal has opened.
    pub fn new(
        journal: Journal,
        log: SessionLog,
        policy: watch::Receiver<Arc<PolicySet>>,
        standing: Standing,
        watch: Watch,
    ) -> Self {
        let Watch { masking, given, metrics, approvals } = watch;
        let labels = Labels::target(&standing.target.0);
        Self {
            journal,
            log,
            policy,
            standing,
            login: Default::default(),
            decider: None,
            pending: VecDeque::new(),
            masking,
            given,
            metrics,
            approvals,
            labels,
            totals: SessionTotals::default(),
        }
    }

    /// Decides one operation and records it with the decision.
    pub fn ask(&mut self, id: AskId, operation: &Operation) -> Answer {
        self.totals.operations += 1;
        if let Operation::Login(login) = operation {
            self.login = (login.user.clone(), login.database.clone());
            self.decider = None;
        }
        let renewed = self.masking.as_ref().and_then(|masking| masking.renewed(operation));
        let operation = renewed.as_ref().unwrap_or(operation);
        let known = self.masking.as_mut().and_then(|masking| masking.of(operation));
        let known = known.as_deref();
        let ruling = self.decider().decide(operation, known.map(|known| &known.asked));
        let mut would_deny = false;
        let answer = match ruling {
            Ruling::Permitted(permit) => {
                self.alert(permit.decision());
                would_deny = permit.decision().verdict == Verdict::WouldDeny;
                self.permitted(id, operation, permit, known)
            }
            Ruling::Refused(denial) => {
                self.alert(denial.decision());
                self.held_or_refused(id, operation, denial, known)
            }
        };
        self.totals.refused += u64::from(matches!(answer, Answer::Refuse { .. }));
        let decided = match answer {
            Answer::Refuse { .. } => Decided::Refused,
            Answer::Hold(_) => return answer,
            Answer::Permit { .. } if would_deny => Decided::WouldRefuse,
            Answer::Permit { .. } => Decided::Passed,
        };
        self.metrics.operation(&self.labels, decided);
        answer
    }

    fn permitted(
        &mut self,
        id: AskId,
        operation: &Operation,
        permit: Permit,
        known: Option<&Known>,
    ) -> Answer {
        let decision = Arc::clone(permit.decision());
        let masked =
            known.and_then(|known| recorded::masked(operation, &known.values, known.protocol));
        let record = masked.as_ref().map_or_else(|| Recorded::from(operation), Recorded::masked);
        let record = match known.and_then(|known| recorded::masked_reason(operation, &known.values))
        {
            Some(reason) => record.because(reason),
            None => record,
        };
        let mut cause = None;
        let token = match self.log.operation(record, permit) {
            Ok(pledge) => {
                cause = Some(pledge.seq());
                Token::Pledged(pledge)
            }
            Err(error) => match self.unrecorded(&error) {
                Ok(token) => token,
                Err(refusal) => return refusal,
            },
        };
        if let Some(why) = known.and_then(|known| known.carries(operation, &decision)) {
            let hint = "A policy that permits to unmask these columns would permit it.";
            return self.not_run(cause, REFUSED, why, hint);
        }
        let left = match budget::left(operation, &decision.duties, &self.given) {
            Err(_) if decision.mode == Mode::Shadow => budget::Left::default(),
            Err(used_up) => {
                let hint = "A policy bounds what this account may be given in an hour.";
                return self.not_run(cause, USED_UP, &used_up, hint);
            }
            Ok(left) => left,
        };
        let order = known.and_then(|known| known.order(operation, &decision));
        let hides = known.is_some_and(masking::Known::hides_text);
        let duties = masking::duties(order, hides, &decision, left);
        let elsewhere = self.standing.protocol == Protocol::Ssh;
        let undone = duties.as_ref().is_some_and(|duties| {
            !duties.shadow && (duties.rows_max.is_some() || duties.bytes_max.is_some())
        });
        if elsewhere && undone {
            let why = "bounds on results can't be kept over SSH";
            let hint = "They are for PostgreSQL and MySQL; @record(\"rows\") is for SSH too.";
            return self.not_run(cause, REFUSED, why, hint);
        }
        let counted = budget::is_bounded(operation, &decision.duties);
        if cause.is_some() || counted {
            let concerns = known.is_some_and(Known::concerns);
            let (kept, unkept) = (0, false);
            self.pending.push_back(Pending { id, seq: cause, concerns, counted, kept, unkept });
        }
        if let Some(masking) = &self.masking {
            masking.sight().sent(operation);
        }
        Answer::Permit { token, duties }
    }

    fn refused(&self, operation: &Operation, denial: &Denial, known: Option<&Known>) -> Answer {
        let masked =
            known.and_then(|known| recorded::masked(operation, &known.values, known.protocol));
        let record = masked.as_ref().map_or_else(|| Recorded::from(operation), Recorded::masked);
        let record = match known.and_then(|known| recorded::masked_reason(operation, &known.values))
        {
            Some(reason) => record.because(reason),
            None => record,
        };
        let recorded = self.log.refusal(record, denial);
        if let Err(error) = recorded.and_then(|pledge| self.journal.write_out(&pledge)) {
            tracing::error!(%error, "a refusal could not be recorded");
        }
        refusal(operation, denial.decision())
    }

    /// An operation that policy permits, and that does not run all the same.
    fn not_run(&self, cause: Option<Seq>, sqlstate: &'static str, why: &str, hint: &str) -> Answer {
        let message = format!("refused by tidegate: {why}");
        let code = sqlstate.to_owned();
        let outcome = Outcome::without_result(Status::Failed { code, message: message.clone() });
        if let Some(cause) = cause
            && let Err(error) = self.log.outcome(cause, &outcome)
        {
            tracing::error!(%error, operation = cause.0, "an outcome could not be recorded");
        }
        Answer::Refuse { sqlstate, message, hint: Some(hint.to_owned()) }
    }

    fn alert(&self, decision: &Decision) {
        if let Some(alert) = &decision.alert {
            self.metrics.alert(&self.labels);
            tracing::warn!(
                principal = self.standing.principal.name,
                target_name = %self.standing.target,
                session = %self.log.id(),
                alert,
                "alert"
            );
        }
    }

    /// The login is permitted: the database's catalogue, whose first reading can be waited for.
    pub fn logged_in(&self, login: &Login) -> Option<Arc<Source>> {
        let sight = self.masking.as_ref()?.sight();
        sight.logged_in(login);
        sight.source()
    }

    /// Whether the session's own DDL is under way, so that [`Self::settled`] is to be called.
    pub fn is_changing(&self) -> bool {
        self.masking.as_ref().is_some_and(|masking| masking.sight().is_changing())
    }

    /// No operation is under way, and no transaction open.
    pub fn settled(&self) {
        if let Some(masking) = &self.masking {
            masking.sight().settled();
        }
    }

    /// The catalogue that this session has changed: the next operation waits for its reading.
    pub fn behind(&self) -> Option<Arc<Source>> {
        self.masking.as_ref().and_then(|masking| masking.sight().behind())
    }

    /// What is asked from now on is read in this database.
    pub fn in_database(&mut self, database: &str) {
        if self.login.1 != database {
            database.clone_into(&mut self.login.1);
            self.decider = None;
        }
    }

    /// Records a part of a permitted operation's result. Behind one that could not be recorded nothing
    /// more of that result is: the outcome says how far it goes.
    pub fn rows(&mut self, id: AskId, stream: Stream, (offset, data): (u64, &[u8])) {
        let log = &self.log;
        let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) else {
            return;
        };
        let Some(seq) = pending.seq.filter(|_| !pending.unkept) else { return };
        match log.rows(seq, stream, (offset, data)) {
            Ok(()) if stream == Stream::Size => {}
            Ok(()) => pending.kept += u64::try_from(data.len()).unwrap_or(u64::MAX),
            Err(error) => {
                pending.unkept = true;
                tracing::error!(%error, operation = seq.0, "rows could not be recorded");
            }
        }
    }

    /// Records what became of a permitted operation.
    pub fn outcome(&mut self, id: AskId, mut outcome: Outcome) {
        let Some(at) = self.pending.iter().position(|pending| pending.id == id) else { return };
        let Some(pending) = self.pending.remove(at) else { return };
        if pending.counted {
            self.given.add(budget::given_by(&outcome));
        }
        if let Some(result) = outcome.result.as_mut().filter(|_| pending.unkept) {
            result.kept = pending.kept;
            result.not_kept = Some(NotKept::Unrecorded);
        }
        self.record_outcome(pending, &outcome);
    }

    /// Gives every permitted operation that has none yet this outcome.
    pub fn lose_pending(&mut self, outcome: &Outcome) {
        for pending in std::mem::take(&mut self.pending) {
            self.record_outcome(pending, outcome);
        }
    }

    fn record_outcome(&self, pending: Pending, outcome: &Outcome) {
        let Some(seq) = pending.seq else { return };
        let masked = pending.concerns.then(|| recorded::masked_outcome(outcome)).flatten();
        if let Err(error) = self.log.outcome(seq, masked.as_ref().unwrap_or(outcome)) {
            tracing::error!(%error, operation = seq.0, "an outcome could not be recorded");
        }
    }

    /// The journal behind this gate.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// This session's log, for its last record.
    pub const fn log(&self) -> &SessionLog {
        &self.log
    }

    /// The labels of this session's counts.
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What this session adds up to so far.
    pub const fn totals(&self) -> SessionTotals {
        self.totals
    }

    /// The decider of this session, made anew when the policy has changed.
    fn decider(&mut self) -> &mut Decider {
        if self.policy.has_changed().unwrap_or(false) {
            self.decider = None;
        }
        let (policy, standing, login) = (&mut self.policy, &self.standing, &self.login);
        self.decider.get_or_insert_with(|| {
            let subject = Subject {
                principal: standing.principal.clone(),
                executable: standing.executable.path().map(str::to_owned),
                cgroup: standing.cgroup.clone(),
                target: standing.target.clone(),
                protocol: standing.protocol,
                mode: standing.mode,
                db_user: login.0.clone(),
                database: login.1.clone(),
            };
            Decider::new(Arc::clone(&policy.borrow_and_update()), subject)
        })
    }

    /// Leave to pass without a record, where the target's owner chose so and nothing can be recorded.
    pub fn pass_open(&self) -> Option<Arc<Receipt>> {
        let open = self.standing.on_failure == OnFailure::Open;
        open.then(|| self.journal.pass_open(&self.standing.target)).flatten().map(Arc::new)
    }

    /// So many more operations passed by the same leave.
    pub fn passed_open_too(&self, operations: u64) {
        self.journal.passed_open(&self.standing.target, 0, operations, 0);
    }

    /// What becomes of a permitted operation that could not be recorded.
    fn unrecorded(&self, error: &JournalError) -> Result<Token, Answer> {
        if let Some(receipt) = self.pass_open() {
            return Ok(Token::Open(receipt));
        }
        let sqlstate = if error.is_full() { DISK_FULL } else { IO_ERROR };
        Err(Answer::Refuse {
            sqlstate,
            message: format!("refused by tidegate: this cannot be recorded: {error}"),
            hint: Some(NOTHING_SENT.to_owned()),
        })
    }
}

fn refusal(operation: &Operation, decision: &Decision) -> Answer {
    let sqlstate = match operation {
        Operation::Login(_) => LOGIN_REFUSED,
        _ => REFUSED,
    };
    let hint = (!decision.policies.is_empty())
        .then(|| format!("Decided by policy {}.", decision.policies.join(", ")));
    Answer::Refuse { sqlstate, message: format!("refused by tidegate: {}", decision.reason), hint }
}
