//! Decide, record, send: for each operation the policy's ruling, the record, and what lets its
//! bytes leave.
//!
//! Promises: an operation is permitted only with a [`Pledge`] that its record is written, or, where
//! the journal cannot record and the target's owner chose `on_failure = "open"`, with the journal's
//! own bracketed exception. A refusal is recorded too. What cannot be recorded is refused.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_event::{
    Executable, Mode, OnFailure, Operation, Outcome, Principal, Protocol, Seq, TargetName,
};
use tidegate_journal::{Journal, JournalError, Pledge, Receipt, SessionLog};
use tidegate_policy::{Decider, Decision, PolicySet, Ruling, Subject, Verdict};
use tidegate_wire::AskId;
use tokio::sync::watch;

use crate::telemetry::{Decided, Labels, Metrics};

/// SQLSTATE insufficient_privilege: what drivers neither retry nor drop the connection for.
const REFUSED: &str = "42501";

/// SQLSTATE invalid_authorization_specification: for a session that may not open.
const LOGIN_REFUSED: &str = "28000";

/// SQLSTATE disk_full.
const DISK_FULL: &str = "53100";

/// SQLSTATE io_error.
pub(crate) const IO_ERROR: &str = "58030";

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
#[derive(Debug)]
pub enum Answer {
    /// It may pass.
    Permit(Token),
    /// It may not.
    Refuse {
        /// SQLSTATE of the error that the client gets.
        sqlstate: &'static str,
        /// Its message.
        message: String,
        /// Its hint.
        hint: Option<String>,
    },
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

/// The gate of one session.
pub struct Gate {
    journal: Journal,
    log: SessionLog,
    policy: watch::Receiver<Arc<PolicySet>>,
    standing: Standing,
    login: (String, String),
    decider: Option<Decider>,
    /// In the order in which they were asked, which is nearly that of their outcomes.
    pending: VecDeque<(AskId, Seq)>,
    metrics: Arc<Metrics>,
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
        metrics: Arc<Metrics>,
    ) -> Self {
        let labels = Labels::target(&standing.target.0);
        Self {
            journal,
            log,
            policy,
            standing,
            login: Default::default(),
            decider: None,
            pending: VecDeque::new(),
            metrics,
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
        let ruling = self.decider().decide(operation);
        let would_deny = matches!(
            &ruling,
            Ruling::Permitted(permit) if permit.decision().verdict == Verdict::WouldDeny
        );
        let answer = match ruling {
            Ruling::Permitted(permit) => match self.log.operation(operation, permit) {
                Ok(pledge) => {
                    self.pending.push_back((id, pledge.seq()));
                    Answer::Permit(Token::Pledged(pledge))
                }
                Err(error) => self.unrecorded(&error),
            },
            Ruling::Refused(denial) => {
                let recorded = self.log.refusal(operation, &denial);
                if let Err(error) = recorded.and_then(|pledge| self.journal.write_out(&pledge)) {
                    tracing::error!(%error, "a refusal could not be recorded");
                }
                refusal(operation, denial.decision())
            }
        };
        self.totals.refused += u64::from(matches!(answer, Answer::Refuse { .. }));
        let decided = match answer {
            Answer::Refuse { .. } => Decided::Refused,
            Answer::Permit(_) if would_deny => Decided::WouldRefuse,
            Answer::Permit(_) => Decided::Passed,
        };
        self.metrics.operation(&self.labels, decided);
        answer
    }

    /// What is asked from now on is read in this database.
    pub fn in_database(&mut self, database: &str) {
        if self.login.1 != database {
            database.clone_into(&mut self.login.1);
            self.decider = None;
        }
    }

    /// Records what became of a permitted operation.
    pub fn outcome(&mut self, id: AskId, outcome: &Outcome) {
        let Some(at) = self.pending.iter().position(|(asked, _)| *asked == id) else { return };
        let Some((_, cause)) = self.pending.remove(at) else { return };
        if let Err(error) = self.log.outcome(cause, outcome) {
            tracing::error!(%error, operation = cause.0, "an outcome could not be recorded");
        }
    }

    /// Gives every permitted operation that has none yet this outcome.
    pub fn lose_pending(&mut self, outcome: &Outcome) {
        for (_, cause) in std::mem::take(&mut self.pending) {
            if let Err(error) = self.log.outcome(cause, outcome) {
                tracing::error!(%error, operation = cause.0, "an outcome could not be recorded");
            }
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
    fn unrecorded(&self, error: &JournalError) -> Answer {
        if let Some(receipt) = self.pass_open() {
            return Answer::Permit(Token::Open(receipt));
        }
        let sqlstate = if error.is_full() { DISK_FULL } else { IO_ERROR };
        Answer::Refuse {
            sqlstate,
            message: format!("refused by tidegate: this cannot be recorded: {error}"),
            hint: Some(NOTHING_SENT.to_owned()),
        }
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
