//! Decisions that hold for every session of the same subject, so that short connections do not ask
//! Cedar the same things again and again.
//!
//! Promises: a decision is found again only under everything that it was made from: the policy set
//! (which owns its memory), the whole subject, and the analysis with the way its statement came and
//! the protected columns that it touches, or all of a login that a policy can see. Policies see no
//! clock and no parameter. Configuration, catalogue and `search_path` count by what they change:
//! the analysis and the columns touched. To find a statement's decision again allocates nothing.
//!
//! Limits: [`SUBJECTS_MAX`] subjects, and [`DECISIONS_MAX`] statements and as many logins each; when
//! full, all of that kind are forgotten.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHasher;
use tidegate_event::{Analysis, Login, Via};

use crate::decide::{DECISIONS_MAX, Decision, Subject};
use crate::touched::Touched;

/// Subjects remembered under one policy set.
pub(crate) const SUBJECTS_MAX: usize = 256;

/// What one policy set has decided.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<HashMap<Subject, Arc<OfSubject>>>);

impl Memory {
    /// What was decided for this subject.
    pub(crate) fn of(&self, subject: &Subject) -> Arc<OfSubject> {
        let mut subjects = lock(&self.0);
        if let Some(known) = subjects.get(subject) {
            return Arc::clone(known);
        }
        if subjects.len() >= SUBJECTS_MAX {
            subjects.clear();
        }
        Arc::clone(subjects.entry(subject.clone()).or_default())
    }
}

/// What was decided for one subject.
#[derive(Debug, Default)]
pub(crate) struct OfSubject {
    statements: Mutex<Statements>,
    logins: Mutex<HashMap<LoginFacts, Arc<Decision>>>,
}

/// All that the decision on a statement depends on, within one subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Address of the analysis: equal texts share one.
    analysis: usize,
    via: Via,
    touched: Option<Arc<Touched>>,
}

/// Decisions on statements of one subject.
///
/// By addresses of ours and names in the configuration, which no client chooses: a cheap hash is
/// enough.
#[derive(Debug, Default)]
pub(crate) struct Statements(HashMap<Key, Remembered, BuildHasherDefault<FxHasher>>);

#[derive(Debug)]
struct Remembered {
    /// Held so that its address stays its own.
    _analysis: Arc<Analysis>,
    decision: Arc<Decision>,
}

impl Statements {
    /// What was decided on this, where it is known.
    pub(crate) fn get(&self, statement: &Asked<'_>) -> Option<Arc<Decision>> {
        self.0.get(&statement.key()).map(|known| Arc::clone(&known.decision))
    }

    /// Remembers.
    pub(crate) fn put(&mut self, statement: &Asked<'_>, decision: &Arc<Decision>) {
        if self.0.len() >= DECISIONS_MAX {
            self.0.clear();
        }
        let known = Remembered {
            _analysis: Arc::clone(statement.analysis),
            decision: Arc::clone(decision),
        };
        self.0.insert(statement.key(), known);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A statement as it is remembered.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) analysis: &'a Arc<Analysis>,
    pub(crate) via: Via,
    pub(crate) touched: Option<&'a Arc<Touched>>,
}

impl Asked<'_> {
    fn key(&self) -> Key {
        let touched = self.touched.cloned();
        Key { analysis: Arc::as_ptr(self.analysis).addr(), via: self.via, touched }
    }
}

/// All that a policy, or the reason of a refusal, can see of a login.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LoginFacts {
    user: String,
    database: String,
    application: Option<String>,
    replication: bool,
    client_tls: bool,
}

impl OfSubject {
    /// The decision on a statement, made by `fresh` where it is not known.
    pub(crate) fn statement(
        &self,
        statement: &Asked<'_>,
        fresh: impl FnOnce() -> Decision,
    ) -> Arc<Decision> {
        if let Some(known) = lock(&self.statements).get(statement) {
            return known;
        }
        // Not under the lock: Cedar may take long. Who is second overwrites with the same.
        let decision = Arc::new(fresh());
        lock(&self.statements).put(statement, &decision);
        decision
    }

    /// The decision on a login, likewise.
    pub(crate) fn login(&self, login: &Login, fresh: impl FnOnce() -> Decision) -> Arc<Decision> {
        let facts = LoginFacts {
            user: login.user.clone(),
            database: login.database.clone(),
            application: login.application.clone(),
            replication: login.replication,
            client_tls: login.client_tls,
        };
        if let Some(known) = lock(&self.logins).get(&facts) {
            return Arc::clone(known);
        }
        let decision = Arc::new(fresh());
        let mut logins = lock(&self.logins);
        if logins.len() >= DECISIONS_MAX {
            logins.clear();
        }
        logins.insert(facts, Arc::clone(&decision));
        decision
    }
}

/// A map is whole between calls, so a panic elsewhere cannot have broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
