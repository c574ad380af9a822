//! Who may look at what: roles, and the scope of an examiner.
//!
//! Promise: a scope only ever narrows; every answer of a page passes [`Scope::covers`]. The role
//! `admin` sees how the collector stands and who looked, never a statement.

use serde::{Deserialize, Serialize};

use crate::query::{Answer, Filter, parse_time};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Asks, reads, signs off.
    Reviewer,
    /// Reads within a scope, and takes exam packs.
    Examiner,
    /// Sees accounts and looks, ends sessions; reads no evidence.
    Admin,
}

impl Role {
    /// The name on pages and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reviewer => "reviewer",
            Self::Examiner => "examiner",
            Self::Admin => "admin",
        }
    }

    /// What it means, for a page.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Reviewer => "asks, reads evidence, signs off in the review queue",
            Self::Examiner => "reads evidence within a scope, takes exam packs; changes nothing",
            Self::Admin => "sees accounts and looks, ends sessions; reads no evidence",
        }
    }

    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reviewer, Self::Examiner, Self::Admin];
}

/// What a person may see; an absent field does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// This target only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// This agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// From then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<i64>,
    /// Before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ns: Option<i64>,
}

impl Scope {
    /// Whether it narrows at all.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The filter within this scope; `None` where nothing of it is.
    pub fn narrow(&self, mut filter: Filter) -> Option<Filter> {
        narrow_name(&mut filter.target, self.target.as_ref())?;
        narrow_name(&mut filter.agent, self.agent.as_ref())?;
        filter.since_ns = filter.since_ns.max(self.since_ns);
        filter.until_ns = match (filter.until_ns, self.until_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Some(filter)
    }

    /// Whether this answer may be shown.
    pub fn covers(&self, answer: &Answer) -> bool {
        let named = |wanted: Option<&String>, found: &str| wanted.is_none_or(|name| name == found);
        if !named(self.target.as_ref(), &answer.target)
            || !named(self.agent.as_ref(), &answer.agent)
        {
            return false;
        }
        if self.since_ns.is_none() && self.until_ns.is_none() {
            return true;
        }
        // A time that cannot be read is outside.
        let Ok(at) = parse_time(&answer.time, 0) else { return false };
        self.since_ns.is_none_or(|since| at >= since)
            && self.until_ns.is_none_or(|until| at < until)
    }
}

/// `None` where the two exclude each other.
fn narrow_name(wanted: &mut Option<String>, scope: Option<&String>) -> Option<()> {
    let Some(scope) = scope else { return Some(()) };
    if wanted.as_ref().is_some_and(|wanted| wanted != scope) {
        return None;
    }
    *wanted = Some(scope.clone());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_only_narrows() {
        let scope = Scope {
            target: Some("core".into()),
            since_ns: Some(10),
            until_ns: Some(20),
            ..Scope::default()
        };
        let narrowed = scope.narrow(Filter::default()).unwrap();
        assert_eq!(narrowed.target.as_deref(), Some("core"));
        assert_eq!((narrowed.since_ns, narrowed.until_ns), (Some(10), Some(20)));
        let wide = Filter { since_ns: Some(5), until_ns: Some(50), ..Filter::default() };
        let narrowed = scope.narrow(wide).unwrap();
        assert_eq!((narrowed.since_ns, narrowed.until_ns), (Some(10), Some(20)));
        let close = Filter { since_ns: Some(12), until_ns: Some(13), ..Filter::default() };
        let narrowed = scope.narrow(close).unwrap();
        assert_eq!((narrowed.since_ns, narrowed.until_ns), (Some(12), Some(13)));
        let other = Filter { target: Some("cards".into()), ..Filter::default() };
        assert!(scope.narrow(other).is_none());
    }

    #[test]
    fn an_answer_outside_is_not_covered() {
        let scope = Scope {
            target: Some("core".into()),
            since_ns: Some(1_000_000_000),
            until_ns: Some(3_000_000_000),
            ..Scope::default()
        };
        for (target, time, expected) in [
            ("core", "1970-01-01T00:00:02.000000Z", true),
            ("core", "1970-01-01T00:00:01.000000Z", true),
            ("core", "1970-01-01T00:00:03.000000Z", false),
            ("core", "1970-01-01T00:00:00.000000Z", false),
            ("core", "no time", false),
            ("cards", "1970-01-01T00:00:02.000000Z", false),
        ] {
            let answer = Answer { target: target.into(), time: time.into(), ..Answer::default() };
            assert_eq!(scope.covers(&answer), expected, "{target} {time}");
        }
    }
}
