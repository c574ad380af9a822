//! Decides operations, and remembers decisions.
//!
//! Promises: each effect is allowed on its own, or the operation is refused. A hit in the cache
//! allocates nothing and runs no policy. An entry keeps its [`Analysis`] alive, so that the
//! analysis' address can't come to mean another.
//!
//! Limits: [`DECISIONS_MAX`] remembered decisions a session; when full, all are forgotten.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use cedar_policy::{ActionConstraint, Authorizer, Decision as Cedar, PolicyId};
use rustc_hash::FxHasher;
use tidegate_event::{
    Action, Analysis, Digest, Durability, Effect, Mode, Operation, Principal, Protocol, TargetName,
    Via,
};

use crate::compile::PolicySet;
use crate::memory::OfSubject;
use crate::request::{self, Asked, LoginFacts, Question};

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
    /// Why, as a sentence for the client; empty when allowed.
    pub reason: String,
    /// The policies that made it, each once.
    pub policies: Vec<String>,
    /// Version of the policies.
    pub digest: Digest,
    /// How durable the record must be before the bytes leave.
    pub durability: Durability,
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
    /// By addresses of ours, which nobody outside chooses: a cheap hash is enough.
    remembered: HashMap<(usize, Via), Remembered, BuildHasherDefault<FxHasher>>,
}

#[derive(Debug)]
struct Remembered {
    /// Held so that its address stays its own.
    _analysis: Arc<Analysis>,
    decision: Arc<Decision>,
}

impl Decider {
    /// A decider for a session.
    pub fn new(set: Arc<PolicySet>, subject: Subject) -> Self {
        let (authorizer, shared) = (Authorizer::new(), set.memory.of(&subject));
        Self { set, subject, authorizer, shared, remembered: HashMap::default() }
    }

    /// Whom it decides for.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Decides one operation.
    pub fn decide(&mut self, operation: &Operation) -> Ruling {
        let Operation::Statement(statement) = operation else {
            let Operation::Login(login) = operation else {
                return ruling(Arc::new(self.fresh(operation)));
            };
            let decision = self.shared.login(login, || self.fresh(operation));
            if decision.verdict != Verdict::Deny {
                self.subject.db_user.clone_from(&login.user);
                self.subject.database.clone_from(&login.database);
                self.shared = self.set.memory.of(&self.subject);
                self.remembered.clear();
            }
            return ruling(decision);
        };
        let key = (Arc::as_ptr(&statement.analysis).addr(), statement.via);
        if let Some(known) = self.remembered.get(&key) {
            return ruling(Arc::clone(&known.decision));
        }
        let (analysis, via) = (&statement.analysis, statement.via);
        let decision = self.shared.statement(analysis, via, || self.fresh(operation));
        if self.remembered.len() >= DECISIONS_MAX {
            self.remembered.clear();
        }
        let entry = Remembered {
            _analysis: Arc::clone(&statement.analysis),
            decision: Arc::clone(&decision),
        };
        self.remembered.insert(key, entry);
        ruling(decision)
    }

    fn fresh(&self, operation: &Operation) -> Decision {
        let mut tally = Tally::default();
        let asked = self.asked(operation);
        for effect in operation.effects() {
            self.judge(asked, &effect, &mut tally);
        }
        let refused = tally.refusal.is_some();
        let mut reason = tally.refusal.unwrap_or_default();
        if refused && let Some(why) = not_understood(operation) {
            reason = format!("{reason}: {why}");
        }
        let verdict = match (refused, self.subject.mode) {
            (false, _) => Verdict::Allow,
            (true, Mode::Enforce) => Verdict::Deny,
            (true, Mode::Shadow) => Verdict::WouldDeny,
        };
        let least = if refused { Durability::Host } else { Durability::Process };
        Decision {
            verdict,
            reason,
            policies: tally.policies,
            digest: self.set.digest(),
            durability: tally.durability.max(least).max(self.set.floor),
        }
    }

    fn asked<'a>(&'a self, operation: &'a Operation) -> Asked<'a> {
        let (db_user, database, login) = match operation {
            Operation::Login(login) => {
                let application = login.application.as_deref();
                let facts = LoginFacts { application, client_tls: login.client_tls };
                (&login.user, &login.database, Some(facts))
            }
            _ => (&self.subject.db_user, &self.subject.database, None),
        };
        Asked { via: operation.kind(), db_user, database, login }
    }

    fn judge(&self, asked: Asked<'_>, effect: &Effect, tally: &mut Tally) {
        let questions = match request::questions(&self.set, &self.subject, asked, effect) {
            Ok(questions) => questions,
            Err(error) => return tally.refuse(error.to_string()),
        };
        for question in questions {
            self.ask(&question, effect, tally);
        }
    }

    fn ask(&self, question: &Question, effect: &Effect, tally: &mut Tally) {
        let answer =
            self.authorizer.is_authorized(&question.request, &self.set.cedar, &question.entities);
        let diagnostics = answer.diagnostics();
        let mut policies: Vec<&PolicyId> = diagnostics.reason().collect();
        policies.sort_unstable();
        if let Some(error) = diagnostics.errors().next() {
            let reason = format!("{} is refused, for {error}", self.words(effect, question));
            return tally.refuse(reason);
        }
        if answer.decision() == Cedar::Deny {
            tally.name(&policies);
            tally.level(self.annotated(&policies).max());
            return tally.refuse(self.refusal(&policies, effect, question));
        }
        if effect.action == Action::Unknown && !policies.iter().any(|id| self.names_unknown(id)) {
            return tally.refuse(format!(
                "no policy permits {}; only one that names Action::\"unknown\" can",
                self.words(effect, question)
            ));
        }
        tally.name(&policies);
        let default = if effect.action.changes() { Durability::Host } else { Durability::Process };
        let level = policies.iter().map(|id| self.durability(id).unwrap_or(default)).max();
        tally.level(level);
    }

    fn durability(&self, id: &PolicyId) -> Option<Durability> {
        self.set.notes.get(id).and_then(|notes| notes.durability)
    }

    fn annotated(&self, ids: &[&PolicyId]) -> impl Iterator<Item = Durability> {
        ids.iter().filter_map(|id| self.durability(id))
    }

    /// Whether the policy's scope names the action `unknown` itself.
    fn names_unknown(&self, id: &PolicyId) -> bool {
        let unknown = Action::Unknown.name();
        match self.set.cedar.policy(id).map(cedar_policy::Policy::action_constraint) {
            Some(ActionConstraint::Eq(action)) => action.id().unescaped() == unknown,
            Some(ActionConstraint::In(actions)) => {
                actions.iter().any(|action| action.id().unescaped() == unknown)
            }
            Some(ActionConstraint::Any) | None => false,
        }
    }

    fn refusal(&self, policies: &[&PolicyId], effect: &Effect, question: &Question) -> String {
        let reason = policies
            .iter()
            .find_map(|id| self.set.notes.get(id).and_then(|notes| notes.reason.as_deref()));
        match (reason, policies.first()) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(policy)) => {
                format!("policy {policy} forbids {}", self.words(effect, question))
            }
            (None, None) => format!("no policy permits {}", self.words(effect, question)),
        }
    }

    /// The effect, in words.
    fn words(&self, effect: &Effect, question: &Question) -> String {
        let action = effect.action.name();
        let by = &self.subject.principal.name;
        let of_all_rows = if effect.bounded { "" } else { " of all rows" };
        match (&effect.relation, &question.assumed_schema) {
            (Some(relation), Some(schema)) => {
                format!(
                    "{action}{of_all_rows} on {relation} (as it may be in schema {schema}) by {by}"
                )
            }
            (Some(relation), None) => format!("{action}{of_all_rows} on {relation} by {by}"),
            (None, _) => format!("{action}{of_all_rows} on {} by {by}", self.subject.target),
        }
    }
}

fn ruling(decision: Arc<Decision>) -> Ruling {
    match decision.verdict {
        Verdict::Allow | Verdict::WouldDeny => Ruling::Permitted(Permit(decision)),
        Verdict::Deny => Ruling::Refused(Denial(decision)),
    }
}

fn not_understood(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::Statement(statement) => {
            statement.analysis.unknown.as_ref().map(|unknown| unknown.reason.as_str())
        }
        Operation::FunctionCall(_) => Some("a fast-path call names its function by number only"),
        Operation::Login(_) | Operation::Cancel(_) => None,
    }
}

/// What the effects of an operation come to.
#[derive(Debug, Default)]
struct Tally {
    /// Why, for the first effect that is refused.
    refusal: Option<String>,
    policies: Vec<String>,
    durability: Durability,
}

impl Tally {
    fn refuse(&mut self, reason: String) {
        self.refusal.get_or_insert(reason);
    }

    fn name(&mut self, ids: &[&PolicyId]) {
        for id in ids {
            let id: &str = id.as_ref();
            if !self.policies.iter().any(|known| known == id) {
                self.policies.push(id.to_owned());
            }
        }
    }

    fn level(&mut self, level: Option<Durability>) {
        self.durability = self.durability.max(level.unwrap_or_default());
    }
}
