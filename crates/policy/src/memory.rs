//! Decisions that hold for every session of the same subject, so that short connections do not ask
//! Cedar the same things again and again.
//!
//! Promise: a decision is found again only under everything that it was made from: the policy set
//! (which owns its memory), the whole subject, and the analysis with the way its statement came, or
//! all of a login that a policy can see. Policies see no clock.
//!
//! Limits: [`SUBJECTS_MAX`] subjects, and [`DECISIONS_MAX`] statements and as many logins each; when
//! full, all of that kind are forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{Analysis, Login, Via};

use crate::decide::{DECISIONS_MAX, Decision, Subject};

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
    statements: Mutex<HashMap<(usize, Via), Remembered>>,
    logins: Mutex<HashMap<LoginFacts, Arc<Decision>>>,
}

#[derive(Debug)]
struct Remembered {
    /// Held so that its address stays its own.
    _analysis: Arc<Analysis>,
    decision: Arc<Decision>,
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
        analysis: &Arc<Analysis>,
        via: Via,
        fresh: impl FnOnce() -> Decision,
    ) -> Arc<Decision> {
        let key = (Arc::as_ptr(analysis).addr(), via);
        if let Some(known) = lock(&self.statements).get(&key) {
            return Arc::clone(&known.decision);
        }
        // Not under the lock: Cedar may take long. Who is second overwrites with the same.
        let decision = Arc::new(fresh());
        let known = Remembered { _analysis: Arc::clone(analysis), decision: Arc::clone(&decision) };
        insert(&mut lock(&self.statements), key, known);
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
        insert(&mut lock(&self.logins), facts, Arc::clone(&decision));
        decision
    }
}

fn insert<K: Eq + std::hash::Hash, V>(known: &mut HashMap<K, V>, key: K, value: V) {
    if known.len() >= DECISIONS_MAX {
        known.clear();
    }
    known.insert(key, value);
}

/// A map is whole between calls, so a panic elsewhere cannot have broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
