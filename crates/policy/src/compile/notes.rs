//! What the annotations of a policy say.
//!
//! Promises: an annotation that isn't known, can't be read, or has no use where it stands is an
//! error, never skipped.

use cedar_policy::{Effect, Policy};
use tidegate_event::Durability;

use crate::approval::{self, Need};
use crate::duties::{self, Duties};

/// Annotations that policies may have, beside the duties.
const ANNOTATIONS: [&str; 5] = ["id", "reason", "durability", "description", "alert"];

/// What the decider needs to know of a policy beside what Cedar evaluates.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    pub(crate) reason: Option<String>,
    pub(crate) durability: Option<Durability>,
    pub(crate) duties: Duties,
    pub(crate) alert: Option<String>,
    /// What it asks of an approval.
    pub(crate) approval: Option<Need>,
    pub(crate) place: String,
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl Notes {
    /// Reads the annotations; each complaint goes to `wrong`.
    pub(super) fn read(
        policy: &Policy,
        (file, line): (&str, usize),
        mut wrong: impl FnMut(&str),
    ) -> Self {
        let mut notes = Self {
            reason: policy.annotation("reason").filter(|text| !text.is_empty()).map(str::to_owned),
            durability: None,
            duties: Duties::default(),
            alert: policy.annotation("alert").map(str::to_owned),
            approval: None,
            place: format!("{file}:{line}"),
            file: file.to_owned(),
            line,
        };
        let mut approvals = approval::Written::default();
        let permits = policy.effect() == Effect::Permit;
        for (key, value) in policy.annotations() {
            let done = match key {
                "durability" => match Durability::from_name(value) {
                    Some(level) => {
                        notes.durability = Some(level);
                        Ok(())
                    }
                    None => Err(format!(
                        "unknown durability {value:?}: use \"process\", \"host\" or \"collector\""
                    )),
                },
                "alert" if value.is_empty() => Err("@alert needs a text for who reads it".into()),
                _ if ANNOTATIONS.contains(&key) => Ok(()),
                _ if approval::ANNOTATIONS.contains(&key) => approvals.set(key, value),
                _ if !duties::ANNOTATIONS.contains(&key) => Err(format!(
                    "unknown annotation @{key}: use one of @{}",
                    [ANNOTATIONS.as_slice(), &duties::ANNOTATIONS, &approval::ANNOTATIONS]
                        .concat()
                        .join(", @")
                )),
                _ if permits => notes.duties.set(key, value),
                _ => Err(format!("@{key} has no use on a forbid: write it on a permit")),
            };
            if let Err(message) = done {
                wrong(&message);
            }
        }
        match approvals.finish(approval::mentions(policy)) {
            Ok(need) => notes.approval = need,
            Err(message) => wrong(&message),
        }
        notes
    }
}
