//! Policies in words, for `check` and for reviewers.

use cedar_policy::{ActionConstraint, Policy, PrincipalConstraint, ResourceConstraint};
use tidegate_event::Durability;

use crate::compile::{Notes, PolicySet, forbids};

impl PolicySet {
    /// Each policy in one sentence, in the order of its place in the files.
    pub fn explain(&self) -> Vec<String> {
        let mut all: Vec<_> = self.policies().collect();
        all.sort_by_key(|(_, notes)| (notes.file.clone(), notes.line));
        let mut lines: Vec<String> =
            all.into_iter().map(|(policy, notes)| explain(policy, notes)).collect();
        if lines.is_empty() {
            lines.push("There is no policy: everything is refused.".to_owned());
        }
        lines
    }
}

fn explain(policy: &Policy, notes: &Notes) -> String {
    let verb = if forbids(policy) { "forbids" } else { "permits" };
    let id: &str = policy.id().as_ref();
    let name = if id == notes.place { id.to_owned() } else { format!("{id} ({})", notes.place) };
    let mut text = format!(
        "{name} {verb} {} to {} on {}",
        actions(&policy.action_constraint()),
        principals(&policy.principal_constraint()),
        resources(&policy.resource_constraint()),
    );
    if policy.has_non_scope_constraint() {
        text.push_str(&conditions(policy));
    }
    if let Some(level) = notes.durability {
        text.push_str(&durability(level));
    }
    let duties = notes.duties.words();
    if !duties.is_empty() {
        text.push_str("; ");
        text.push_str(&duties.join(", "));
    }
    if let Some(alert) = &notes.alert {
        text.push_str("; it raises an alert: ");
        text.push_str(alert);
    }
    if let Some(reason) = &notes.reason {
        text.push_str("; a refusal says: ");
        text.push_str(reason);
    }
    text.push('.');
    text
}

fn actions(constraint: &ActionConstraint) -> String {
    match constraint {
        ActionConstraint::Any => "every action but unknown, unmask and filter".to_owned(),
        ActionConstraint::Eq(action) => action.id().unescaped().to_owned(),
        ActionConstraint::In(actions) => {
            actions.iter().map(|action| action.id().unescaped()).collect::<Vec<_>>().join(", ")
        }
    }
}

fn principals(constraint: &PrincipalConstraint) -> String {
    match constraint {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => "every account".to_owned(),
        PrincipalConstraint::Eq(uid)
        | PrincipalConstraint::In(uid)
        | PrincipalConstraint::IsIn(_, uid) => uid.id().unescaped().to_owned(),
    }
}

fn resources(constraint: &ResourceConstraint) -> String {
    match constraint {
        ResourceConstraint::Any => "everything".to_owned(),
        ResourceConstraint::Is(kind) => format!("every {}", kind.to_string().to_lowercase()),
        ResourceConstraint::Eq(uid) => uid.id().unescaped().to_owned(),
        ResourceConstraint::In(uid) => format!("all of {}", uid.id().unescaped()),
        ResourceConstraint::IsIn(kind, uid) => {
            format!("every {} in {}", kind.to_string().to_lowercase(), uid.id().unescaped())
        }
    }
}

/// The conditions as they are written, on one line.
fn conditions(policy: &Policy) -> String {
    let text = policy.to_cedar().unwrap_or_default();
    let from = ["when", "unless"]
        .iter()
        .filter_map(|word| {
            text.find(&format!("{word} {{")).or_else(|| text.find(&format!("{word}{{")))
        })
        .min();
    let written = from.and_then(|from| text.get(from..)).unwrap_or("under a condition");
    let words: Vec<&str> = written.trim_end().trim_end_matches(';').split_whitespace().collect();
    format!(", {}", words.join(" "))
}

fn durability(level: Durability) -> String {
    match level {
        Durability::Process => "; its record need not wait for the disk".to_owned(),
        Durability::Host => "; its record waits for the disk".to_owned(),
        Durability::Collector => "; its record waits for the collector".to_owned(),
    }
}
