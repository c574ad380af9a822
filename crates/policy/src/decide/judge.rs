//! Puts an operation to Cedar, question by question, and adds up the answers.
//!
//! Promises: every effect and every column that filters must be permitted, or the operation is
//! refused; so is what may filter unseen, unless each function called is permitted by a policy that
//! names `execute` and this function. A column is shown clear, and what can't be named is shown clear, only by a policy that
//! names `unmask`. A policy that fails counts as a refusal. Alerts are raised whatever is decided.
//!
//! Known gap: whether an alert's or a forbid's condition would hold of what a function does inside
//! can't be known; such a forbid of `unmask` counts as holding, such an alert isn't raised.

use cedar_policy::{
    ActionConstraint, Authorizer, Decision as Cedar, PolicyId, PrincipalConstraint,
    ResourceConstraint,
};
use tidegate_event::{Action, Durability, Effect, Mode, Operation, SshRequest};

use super::{Decision, Step, Subject, Verdict};
use crate::approval::{self, Need};
use crate::compile::{PolicySet, forbids};
use crate::duties::Duties;
use crate::request::{self, Asked, Command, LoginFacts, Question};
use crate::touched::{ProtectedColumn, Touched};

/// See the clear value of a protected column.
const UNMASK: &str = "unmask";

/// Let a protected column decide without being shown.
const FILTER: &str = "filter";

/// Judges operations of one subject under one policy set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) subject: &'a Subject,
    pub(super) authorizer: &'a Authorizer,
    /// Whether it is asked as if it were approved.
    pub(super) approved: bool,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum About<'a> {
    Effect(&'a Effect),
    Filter(&'a ProtectedColumn),
    Unmask(&'a ProtectedColumn),
    /// Unmask, on what the result may show without naming it.
    UnmaskUnseen,
    /// Filter, by what can't be told.
    FilterUnseen,
}

impl About<'_> {
    const fn action(&self) -> &'static str {
        match self {
            Self::Effect(effect) => effect.action.name(),
            Self::Filter(_) | Self::FilterUnseen => FILTER,
            Self::Unmask(_) | Self::UnmaskUnseen => UNMASK,
        }
    }

    /// Whether only a permit that names the action covers it.
    const fn must_be_named(&self) -> bool {
        match self {
            Self::Effect(effect) => matches!(
                effect.action,
                Action::Unknown | Action::Forward | Action::AgentForward | Action::X11
            ),
            Self::Filter(_) | Self::FilterUnseen | Self::Unmask(_) | Self::UnmaskUnseen => true,
        }
    }

    /// Durability by default.
    const fn durability(&self) -> Durability {
        match self {
            Self::Effect(effect) if effect.action.changes() => Durability::Host,
            _ => Durability::Process,
        }
    }
}

/// What the policies say to one question.
enum Answer<'a> {
    Yes(Vec<&'a PolicyId>),
    No { policies: Vec<&'a PolicyId>, why: String },
}

impl Judge<'_> {
    /// Judges; where `steps` is given, notes each question and its answer there.
    pub(super) fn judge(
        self,
        operation: &Operation,
        touched: Option<&Touched>,
        steps: Option<&mut Vec<Step>>,
    ) -> Decision {
        let mut decision = self.once(operation, touched, steps);
        if decision.verdict == Verdict::Deny && self.set.asks_approvals {
            let denied = decision.approval.take();
            if approval::is_approvable(operation) {
                let with = Self { approved: true, ..self }.once(operation, touched, None);
                decision.approval = with.needed(denied);
            }
        } else {
            decision.approval = None;
        }
        decision
    }

    /// Judges with `approved` as it is; `approval` is then what the policies that answered ask for.
    pub(super) fn once(
        self,
        operation: &Operation,
        touched: Option<&Touched>,
        steps: Option<&mut Vec<Step>>,
    ) -> Decision {
        let mut tally = Tally { steps, ..Tally::default() };
        let asked = self.asked(operation);
        for effect in operation.effects() {
            let questions = request::questions(self.set, self.subject, asked, &effect);
            self.demand(About::Effect(&effect), questions, &mut tally);
        }
        if let Some(touched) = touched {
            self.judge_columns(asked, touched, &mut tally);
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
            mode: self.subject.mode,
            reason,
            policies: tally.policies,
            digest: self.set.digest(),
            durability: tally.durability.max(least).max(self.set.floor),
            unmasked: tally.unmasked,
            masked: tally.masked,
            unseen_unmasked: tally.unseen_unmasked,
            duties: tally.duties,
            approval: tally.approval,
            alert: (!tally.alerts.is_empty()).then(|| tally.alerts.join("; ")),
        }
    }

    fn judge_columns(self, asked: Asked<'_>, touched: &Touched, tally: &mut Tally<'_>) {
        for column in touched.filtered() {
            let questions =
                request::column_questions(self.set, self.subject, asked, FILTER, column);
            self.demand(About::Filter(column), questions, tally);
        }
        for column in touched.shown() {
            let questions =
                request::column_questions(self.set, self.subject, asked, UNMASK, column);
            if self.grants(About::Unmask(column), questions, tally) {
                tally.unmasked.push(column.clone());
            } else {
                tally.masked.push(column.clone());
            }
        }
        if touched.filters_opaque() && tally.trusted != Some(true) {
            let question = request::target_question(self.set, self.subject, asked, FILTER);
            self.demand(About::FilterUnseen, question.map(|question| vec![question]), tally);
        }
        if touched.opaque() {
            let question = request::target_question(self.set, self.subject, asked, UNMASK);
            let questions = question.map(|question| vec![question]);
            let granted = self.grants(About::UnmaskUnseen, questions, tally);
            // What is masked where it is named must not be clear where it is not.
            tally.unseen_unmasked =
                granted && tally.masked.is_empty() && self.unmask_forbid().is_none();
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
        let analysis = match operation {
            Operation::Statement(statement) => Some(&*statement.analysis),
            _ => None,
        };
        let command = match operation {
            Operation::Ssh(request) => command(request),
            _ => None,
        };
        let approved = self.approved;
        Asked { via: operation.kind(), db_user, database, analysis, login, command, approved }
    }

    /// What is refused refuses the operation.
    fn demand(
        self,
        about: About<'_>,
        questions: Result<Vec<Question>, request::RequestError>,
        tally: &mut Tally<'_>,
    ) {
        let questions = match questions {
            Ok(questions) => questions,
            Err(error) => return tally.refuse(error.to_string()),
        };
        for question in questions {
            match self.ask(about, &question, tally) {
                Answer::Yes(policies) => {
                    self.trust(about, &policies, tally);
                    self.hold(about, &policies, tally);
                }
                Answer::No { policies, why } => {
                    tally.trusted = Some(false);
                    tally.name(&policies);
                    let levels = policies.iter().filter_map(|id| self.durability(id));
                    tally.level(levels.max());
                    self.approvals(&policies, tally);
                    tally.refuse(why);
                }
            }
        }
    }

    /// Whether all are permitted; what is not refuses nothing.
    fn grants(
        self,
        about: About<'_>,
        questions: Result<Vec<Question>, request::RequestError>,
        tally: &mut Tally<'_>,
    ) -> bool {
        let Ok(questions) = questions else { return false };
        let mut granted = Vec::new();
        let mut all = true;
        for question in questions {
            match self.ask(about, &question, tally) {
                Answer::Yes(policies) => granted.extend(policies),
                Answer::No { policies, .. } => {
                    tally.name(&policies);
                    all = false;
                }
            }
        }
        if all {
            self.hold(about, &granted, tally);
        }
        all
    }

    /// Notes whether what can't be seen inside is a function that a permit names.
    fn trust(self, about: About<'_>, policies: &[&PolicyId], tally: &mut Tally<'_>) {
        let About::Effect(effect) = about else { return };
        let named = match effect.action {
            Action::Execute => policies.iter().any(|id| self.names_function(id)),
            Action::Unknown => false,
            _ => return,
        };
        tally.trusted = Some(named && tally.trusted != Some(false));
    }

    /// Whether the policy's scope names `execute`, and a function.
    fn names_function(self, id: &PolicyId) -> bool {
        let resource = self.set.cedar.policy(id).map(cedar_policy::Policy::resource_constraint);
        let uid = match &resource {
            Some(
                ResourceConstraint::Eq(uid)
                | ResourceConstraint::In(uid)
                | ResourceConstraint::IsIn(_, uid),
            ) => uid,
            Some(ResourceConstraint::Any | ResourceConstraint::Is(_)) | None => return false,
        };
        self.names(id, Action::Execute.name()) && uid.type_name().basename() == "Function"
    }

    /// What permits that matched ask for.
    fn hold(self, about: About<'_>, policies: &[&PolicyId], tally: &mut Tally<'_>) {
        tally.name(policies);
        let default = about.durability();
        tally.level(policies.iter().map(|id| self.durability(id).unwrap_or(default)).max());
        for notes in policies.iter().filter_map(|id| self.set.notes.get(*id)) {
            tally.duties.tighten(&notes.duties);
        }
        self.approvals(policies, tally);
    }

    /// What these policies ask of an approval.
    fn approvals(self, policies: &[&PolicyId], tally: &mut Tally<'_>) {
        let notes = policies.iter().filter_map(|id| self.set.notes.get(*id));
        for need in notes.filter_map(|notes| notes.approval.as_ref()) {
            match &mut tally.approval {
                Some(all) => all.tighten(need),
                none => *none = Some(need.clone()),
            }
        }
    }

    fn ask<'a>(&'a self, about: About<'_>, question: &Question, tally: &mut Tally<'_>) -> Answer<'a>
    where
        Self: 'a,
    {
        self.alarm(question, tally);
        let answer = self.answer(about, question);
        if let Some(steps) = &mut tally.steps {
            let (permitted, policies, why) = match &answer {
                Answer::Yes(policies) => (true, policies, ""),
                Answer::No { policies, why } => (false, policies, why.as_str()),
            };
            steps.push(Step {
                action: about.action().to_owned(),
                asked: self.words(about, question),
                permitted,
                policies: policies.iter().map(ToString::to_string).collect(),
                why: why.to_owned(),
            });
        }
        answer
    }

    fn answer(&self, about: About<'_>, question: &Question) -> Answer<'_> {
        let response =
            self.authorizer.is_authorized(&question.request, &self.set.cedar, &question.entities);
        let diagnostics = response.diagnostics();
        // Ours, not the response's: it doesn't live long enough.
        let mut policies: Vec<&PolicyId> = diagnostics
            .reason()
            .filter_map(|id| self.set.notes.get_key_value(id).map(|(known, _)| known))
            .collect();
        policies.sort_unstable();
        if let Some(error) = diagnostics.errors().next() {
            let why = format!("{} is refused, for {error}", self.words(about, question));
            return Answer::No { policies: Vec::new(), why };
        }
        if response.decision() == Cedar::Deny {
            let why = self.refusal(&policies, about, question);
            return Answer::No { policies, why };
        }
        let action = about.action();
        if about.must_be_named() && !policies.iter().any(|id| self.names(id, action)) {
            let why = self.refusal(&[], about, question);
            return Answer::No { policies: Vec::new(), why };
        }
        Answer::Yes(policies)
    }

    /// Notes the alerts that a question raises.
    fn alarm(&self, question: &Question, tally: &mut Tally<'_>) {
        if self.set.alerts.is_empty() {
            return;
        }
        let response =
            self.authorizer.is_authorized(&question.request, &self.set.alerts, &question.entities);
        let mut matched: Vec<&PolicyId> = response.diagnostics().reason().collect();
        matched.sort_unstable();
        for alert in matched.into_iter().filter_map(|id| self.set.notes.get(id)?.alert.as_ref()) {
            if !tally.alerts.contains(alert) {
                tally.alerts.push(alert.clone());
            }
        }
        for error in response.diagnostics().errors() {
            tally.alerts.push(format!("a policy with an alert can't be evaluated: {error}"));
        }
    }

    fn durability(&self, id: &PolicyId) -> Option<Durability> {
        self.set.notes.get(id).and_then(|notes| notes.durability)
    }

    /// Whether the policy's scope names this very action.
    fn names(&self, id: &PolicyId, action: &str) -> bool {
        let scope = self.set.cedar.policy(id).map(cedar_policy::Policy::action_constraint);
        scope.is_some_and(|scope| matches!(covers(&scope, action), Covers::ByName))
    }

    /// A forbid that may hold of what can't be seen.
    fn unmask_forbid(&self) -> Option<&cedar_policy::Policy> {
        let who = &self.subject.principal.name;
        self.set.cedar.policies().find(|policy| {
            let others = matches!(
                policy.principal_constraint(),
                PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid)
                    if uid.id().unescaped() != who
            );
            forbids(policy)
                && !others
                && !matches!(covers(&policy.action_constraint(), UNMASK), Covers::No)
        })
    }

    fn refusal(&self, policies: &[&PolicyId], about: About<'_>, question: &Question) -> String {
        let reason = policies
            .iter()
            .find_map(|id| self.set.notes.get(*id).and_then(|notes| notes.reason.as_deref()));
        let words = self.words(about, question);
        match (reason, policies.first()) {
            (Some(reason), _) => reason.to_owned(),
            (None, Some(policy)) => format!("policy {policy} forbids {words}"),
            (None, None) if about.must_be_named() => {
                let because = match about {
                    About::Filter(_) => ": which rows come would tell its value",
                    About::FilterUnseen => {
                        ": what a function does inside may tell of protected values"
                    }
                    _ => "",
                };
                let action = about.action();
                format!(
                    "no policy permits {words}; only one that names Action::\"{action}\" \
                     can{because}"
                )
            }
            (None, None) => format!("no policy permits {words}"),
        }
    }

    /// What is asked, in words.
    fn words(&self, about: About<'_>, question: &Question) -> String {
        let by = &self.subject.principal.name;
        let target = &self.subject.target;
        let what = match about {
            About::Effect(effect) => {
                let of_all_rows = if effect.bounded { "" } else { " of all rows" };
                let on = effect
                    .relation
                    .as_ref()
                    .map_or_else(|| target.to_string(), ToString::to_string);
                format!("{}{of_all_rows} on {on}", effect.action.name())
            }
            About::Filter(column) | About::Unmask(column) => {
                format!("{} on {column}", about.action())
            }
            About::UnmaskUnseen | About::FilterUnseen => {
                format!("{} on all of {target}", about.action())
            }
        };
        match &question.assumed_schema {
            Some(schema) => format!("{what} (as it may be in schema {schema}) by {by}"),
            None => format!("{what} by {by}"),
        }
    }
}

/// How a policy's scope relates to an action that is in no group.
enum Covers {
    No,
    ByName,
    AsAny,
}

fn covers(scope: &ActionConstraint, action: &str) -> Covers {
    let named = match scope {
        ActionConstraint::Any => return Covers::AsAny,
        ActionConstraint::Eq(named) => named.id().unescaped() == action,
        ActionConstraint::In(named) => named.iter().any(|named| named.id().unescaped() == action),
    };
    if named { Covers::ByName } else { Covers::No }
}

fn command(request: &SshRequest) -> Option<Command<'_>> {
    let (program, arguments) = request.words.split_first()?;
    Some(Command { text: request.command.as_deref()?, program, arguments })
}

fn not_understood(operation: &Operation) -> Option<&str> {
    match operation {
        Operation::Statement(statement) => {
            statement.analysis.unknown.as_ref().map(|unknown| unknown.reason.as_str())
        }
        Operation::FunctionCall(_) => Some("a fast-path call names its function by number only"),
        Operation::Ssh(request) => Some(request.unclear.as_str()).filter(|why| !why.is_empty()),
        Operation::Login(_) | Operation::Cancel(_) | Operation::File(_) => None,
    }
}

/// What the answers come to.
#[derive(Debug, Default)]
struct Tally<'a> {
    /// Why, for the first that is refused.
    refusal: Option<String>,
    policies: Vec<String>,
    durability: Durability,
    unmasked: Vec<ProtectedColumn>,
    masked: Vec<ProtectedColumn>,
    unseen_unmasked: bool,
    /// Whether every function that is called is permitted by a policy that names it.
    trusted: Option<bool>,
    duties: Duties,
    approval: Option<Need>,
    alerts: Vec<String>,
    steps: Option<&'a mut Vec<Step>>,
}

impl Tally<'_> {
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
