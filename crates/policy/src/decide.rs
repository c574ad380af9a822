//! Decides operations, and remembers decisions.
//!
//! Promises: each effect is allowed on its own, and each protected column that filters, or the
//! operation is refused. A hit in the cache allocates nothing and runs no policy. An entry keeps its
//! [`tidegate_event::Analysis`] alive, so that the analysis' address can't come to mean another.
//!
//! Limits: [`DECISIONS_MAX`] remembered decisions a session; when full, all are forgotten.

use std::sync::Arc;

use cedar_policy::Authorizer;
use tidegate_event::{Digest, Durability, Mode, Operation, Principal, Protocol, TargetName};

use crate::approval::{self, Approved, Need};
use crate::compile::PolicySet;
use crate::duties::Duties;
use crate::memory::{Asked, OfSubject, Statements};
use crate::touched::{ProtectedColumn, Touched};

mod judge;

/// Remembered decisions in one session.
pub(crate) const DECISIONS_MAX: usize = 256;

/// Whom a session is for, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The account that the process runs under.
    pub principal: Principal,
    /// Path of its executable, where it could be read.
    pub executable: Option<String>,
    /// Path of its control group, where it could be read.
    pub cgroup: Option<String>,
    /// The protected system.
    pub target: TargetName,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether a refusal is enforced.
    pub mode: Mode,
    /// Database user; a permitted [`Operation::Login`] sets it.
    pub db_user: String,
    /// Database; a permitted [`Operation::Login`] sets it.
    pub database: String,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Permitted.
    Allow,
    /// Refused.
    Deny,
    /// Would be refused, but the target is in shadow mode: permitted.
    WouldDeny,
}

impl Verdict {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would_deny",
        }
    }
}

/// A verdict with all that a record says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub verdict: Verdict,
    /// Whether it binds.
    pub mode: Mode,
    /// Why, as a sentence for the client; empty when allowed.
    pub reason: String,
    /// The policies that made it, each once.
    pub policies: Vec<String>,
    /// Version of the policies.
    pub digest: Digest,
    /// How durable the record must be before the bytes leave.
    pub durability: Durability,
    /// Protected columns in the result whose clear value the policies permit, sorted.
    pub unmasked: Vec<ProtectedColumn>,
    /// Protected columns in the result that must be masked, sorted.
    pub masked: Vec<ProtectedColumn>,
    /// Whether protected values that the result may show without naming them may be clear.
    pub unseen_unmasked: bool,
    /// Bounds on the result.
    pub duties: Duties,
    /// What would be allowed if it were approved: by whom. Only where it is denied as it stands.
    pub approval: Option<Need>,
    /// What to alert people of, whatever was decided.
    pub alert: Option<String>,
}

impl Decision {
    /// What an approval needs, where this is a decision as if approved that allows; `denied` is what
    /// the policies that denied it ask.
    fn needed(self, denied: Option<Need>) -> Option<Need> {
        if self.verdict != Verdict::Allow {
            return None;
        }
        match (self.approval, denied) {
            (Some(mut need), Some(other)) => {
                need.tighten(&other);
                Some(need)
            }
            (need, other) => need.or(other),
        }
    }

    /// Whether the clear value of `column` may leave. In shadow mode everything may: nothing binds.
    pub fn shows(&self, column: &ProtectedColumn) -> bool {
        self.mode == Mode::Shadow || self.unmasked.binary_search(column).is_ok()
    }

    /// Whether what the result shows without naming it may leave as it is.
    pub fn shows_unseen(&self) -> bool {
        self.mode == Mode::Shadow || self.unseen_unmasked
    }
}

/// A decision with the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What [`Decider::decide`] would decide.
    pub decision: Decision,
    /// Every question that was put to the policies, in order.
    pub steps: Vec<Step>,
}

/// One question to the policies, and their answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The action, by its name in the schema.
    pub action: String,
    /// What was asked, in words: "select on public.accounts by batch".
    pub asked: String,
    /// Whether it is permitted.
    pub permitted: bool,
    /// The policies that say so, sorted; none where no policy permits it.
    pub policies: Vec<String>,
    /// Why it is not permitted, as a sentence; empty where it is.
    pub why: String,
}

/// Leave to do one operation. Only [`Decider::decide`] makes it; it is spent on one record.
///
/// Nobody else makes one:
///
/// ```compile_fail,E0423
/// fn forge(decision: std::sync::Arc<tidegate_policy::Decision>) -> tidegate_policy::Permit {
///     tidegate_policy::Permit(decision)
/// }
/// ```
///
/// Nor copies it:
///
/// ```compile_fail,E0599
/// # use tidegate_policy::Permit;
/// fn twice(permit: Permit) -> (Permit, Permit) {
///     (permit.clone(), permit)
/// }
/// ```
#[derive(Debug)]
pub struct Permit(Arc<Decision>);

impl Permit {
    /// The decision behind it.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.0
    }
}

/// A refusal of one operation.
#[derive(Debug)]
pub struct Denial(Arc<Decision>);

impl Denial {
    /// The decision behind it.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.0
    }
}

/// The answer to an operation.
#[derive(Debug)]
#[must_use]
pub enum Ruling {
    /// It may go on, with this permit.
    Permitted(Permit),
    /// It may not.
    Refused(Denial),
}

/// Decides the operations of one session.
#[derive(Debug)]
pub struct Decider {
    set: Arc<PolicySet>,
    subject: Subject,
    authorizer: Authorizer,
    /// What other sessions of this subject have asked.
    shared: Arc<OfSubject>,
    remembered: Statements,
}

impl Decider {
    /// A decider for a session.
    pub fn new(set: Arc<PolicySet>, subject: Subject) -> Self {
        let (authorizer, shared) = (Authorizer::new(), set.memory.of(&subject));
        Self { set, subject, authorizer, shared, remembered: Statements::default() }
    }

    /// Whom it decides for.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Decides one operation. `touched` are the protected columns that it touches; `None` is none.
    pub fn decide(&mut self, operation: &Operation, touched: Option<&Arc<Touched>>) -> Ruling {
        let touched = touched.filter(|touched| !touched.is_empty());
        let Operation::Statement(statement) = operation else {
            let Operation::Login(login) = operation else {
                return ruling(Arc::new(self.fresh(operation, touched)));
            };
            let decision = self.shared.login(login, || self.fresh(operation, None));
            if decision.verdict != Verdict::Deny {
                self.subject.db_user.clone_from(&login.user);
                self.subject.database.clone_from(&login.database);
                self.shared = self.set.memory.of(&self.subject);
                self.remembered.clear();
            }
            return ruling(decision);
        };
        let asked = Asked { analysis: &statement.analysis, via: statement.via, touched };
        if let Some(known) = self.remembered.get(&asked) {
            return ruling(known);
        }
        let decision = self.shared.statement(&asked, || self.fresh(operation, touched));
        self.remembered.put(&asked, &decision);
        ruling(decision)
    }

    /// Decides an operation that was approved. The policies are asked anew: where they ask for another
    /// approval by now, or the operation is another one, it is refused.
    pub fn decide_approved(
        &self,
        operation: &Operation,
        touched: Option<&Arc<Touched>>,
        approved: &Approved,
    ) -> Ruling {
        let touched = touched.filter(|touched| !touched.is_empty());
        let mut plain = self.fresh(operation, touched);
        let Some(need) = &plain.approval else { return ruling(Arc::new(plain)) };
        if !approved.fits(operation, need) {
            plain.reason = format!("{}: what was approved does not fit it any more", plain.reason);
            return ruling(Arc::new(plain));
        }
        ruling(Arc::new(Decision { reason: approved.words(), ..self.as_if(operation, touched) }))
    }

    /// Decides the preparing of a statement that can be run only with an approval: it runs nothing, and
    /// what runs it is asked for itself. `None` for what is more than that.
    pub fn decide_prepared(
        &self,
        operation: &Operation,
        touched: Option<&Arc<Touched>>,
    ) -> Option<Ruling> {
        if !approval::only_prepares(operation) {
            return None;
        }
        let touched = touched.filter(|touched| !touched.is_empty());
        self.fresh(operation, touched).approval?;
        let reason = "prepared only: what runs it waits for an approval".to_owned();
        Some(ruling(Arc::new(Decision { reason, ..self.as_if(operation, touched) })))
    }

    /// The decision as if it were approved.
    fn as_if(&self, operation: &Operation, touched: Option<&Arc<Touched>>) -> Decision {
        let judge = judge::Judge { approved: true, ..self.judge() };
        let decision = judge.once(operation, touched.map(AsRef::as_ref), None);
        Decision { approval: None, ..decision }
    }

    /// What [`Self::decide`] would say, and why; it gives no leave and remembers nothing.
    pub fn explain(&self, operation: &Operation, touched: Option<&Touched>) -> Explanation {
        let mut steps = Vec::new();
        let decision = self.judge().judge(operation, touched, Some(&mut steps));
        Explanation { decision, steps }
    }

    fn fresh(&self, operation: &Operation, touched: Option<&Arc<Touched>>) -> Decision {
        self.judge().judge(operation, touched.map(AsRef::as_ref), None)
    }

    fn judge(&self) -> judge::Judge<'_> {
        let (set, subject, authorizer) = (&self.set, &self.subject, &self.authorizer);
        judge::Judge { set, subject, authorizer, approved: false }
    }
}

fn ruling(decision: Arc<Decision>) -> Ruling {
    match decision.verdict {
        Verdict::Allow | Verdict::WouldDeny => Ruling::Permitted(Permit(decision)),
        Verdict::Deny => Ruling::Refused(Denial(decision)),
    }
}
