//! What the commands below `policy` decide with: policies, what is protected, and the analyser.
//!
//! Promises: a statement goes the way that the gate sends it, from text over effects and lineage to
//! the decider; only that nothing is permitted by it.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_event::{
    Analysis, Lineage, Mode, Operation, Principal, Protocol, Relation, Statement, TargetName, Via,
};
use tidegate_mask::{Detectors, Mask, Protection, Unresolved};
use tidegate_policy::{Decider, Explanation, PolicySet, ProtectedColumn, Subject, Touched};
use tidegate_sql::{Analyzer, Catalogue, Settings, mysql};

use crate::config::ProtectConfig;

/// Decides without a gate.
pub(super) struct Bench {
    set: Arc<PolicySet>,
    protections: HashMap<TargetName, Protection>,
    analyzer: Analyzer,
    mysql_analyzer: mysql::Analyzer,
}

/// What is known of the protected columns that a statement touches.
#[derive(Debug, Default)]
pub(super) struct Protected {
    /// As the policies are asked; `None` where nothing is protected.
    pub(super) touched: Option<Touched>,
    /// Why its result may show more than is named.
    pub(super) opaque: Option<String>,
    /// Why it may filter by more than is named.
    pub(super) filters_opaque: Option<String>,
}

impl Bench {
    /// A bench for these policies; `protect` is what is protected at which target.
    pub(super) fn new<'a>(
        set: Arc<PolicySet>,
        protect: impl IntoIterator<Item = (&'a TargetName, &'a [ProtectConfig])>,
    ) -> anyhow::Result<Self> {
        let mut protections = HashMap::new();
        for (target, entries) in protect {
            if !entries.is_empty() {
                protections.insert(target.clone(), protection(entries)?);
            }
        }
        Ok(Self {
            set,
            protections,
            analyzer: Analyzer::new(),
            mysql_analyzer: mysql::Analyzer::new(),
        })
    }

    /// The policies.
    pub(super) fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The statement with what it does, as a server of that protocol reads it: MySQL in UTF-8 and
    /// without `ANSI_QUOTES`.
    pub(super) fn statement_in(&self, protocol: Protocol, text: &str, via: Via) -> Operation {
        if protocol != Protocol::Mysql {
            return self.statement(text, via);
        }
        let settings = mysql::Settings { charset: mysql::Charset::Utf8, ..Default::default() };
        analysed(text, via, self.mysql_analyzer.analyze(text.as_bytes(), settings))
    }

    /// The same in PostgreSQL.
    pub(super) fn statement(&self, text: &str, via: Via) -> Operation {
        analysed(text, via, self.analyzer.analyze(text.as_bytes(), Settings::default()))
    }

    /// The protected columns of `target` that an operation touches.
    pub(super) fn protected(&self, target: &TargetName, operation: &Operation) -> Protected {
        match (operation, self.protections.get(target)) {
            (Operation::Statement(statement), Some(protection)) => {
                touched(protection, &statement.analysis.lineage, None)
            }
            _ => Protected::default(),
        }
    }

    /// What would be decided, and why.
    pub(super) fn explain(
        &self,
        subject: &Subject,
        operation: &Operation,
    ) -> (Explanation, Protected) {
        let protected = self.protected(&subject.target, operation);
        let decider = Decider::new(Arc::clone(&self.set), subject.clone());
        (decider.explain(operation, protected.touched.as_ref()), protected)
    }
}

fn analysed(text: &str, via: Via, analysis: Arc<Analysis>) -> Operation {
    Operation::Statement(Statement {
        via,
        text: text.into(),
        text_bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis,
    })
}

/// What the masks are does not matter here, so none needs a key.
fn protection(entries: &[ProtectConfig]) -> anyhow::Result<Protection> {
    let columns = entries.iter().flat_map(|entry| {
        entry.columns.iter().map(|column| tidegate_mask::ProtectedColumn {
            schema: column.schema.clone(),
            relation: column.relation.clone(),
            column: column.column.clone(),
            class: entry.class.clone(),
            mask: Mask::Redact,
        })
    });
    let columns = columns.collect();
    Ok(Protection::new(columns, Detectors::default(), Unresolved::Withhold, None)?)
}

fn touched(protection: &Protection, lineage: &Lineage, catalogue: Option<&Catalogue>) -> Protected {
    let found = protection.touched(lineage, catalogue);
    let named = |places: &std::collections::BTreeSet<usize>| {
        let columns = places.iter().filter_map(|place| protection.columns().get(*place));
        columns.map(column).collect()
    };
    let touched = Touched::new(named(&found.shown), named(&found.filtered), found.opaque.is_some())
        .with_filters_opaque(found.filters_opaque.is_some());
    Protected { touched: Some(touched), opaque: found.opaque, filters_opaque: found.filters_opaque }
}

fn column(column: &tidegate_mask::ProtectedColumn) -> ProtectedColumn {
    ProtectedColumn {
        relation: Relation { schema: column.schema.clone(), name: column.relation.clone() },
        column: column.column.clone(),
        class: column.class.clone(),
    }
}

/// The analysis of a statement.
pub(super) fn analysis(operation: &Operation) -> Option<&Analysis> {
    match operation {
        Operation::Statement(statement) => Some(&statement.analysis),
        _ => None,
    }
}

/// Somebody, as the policies see them.
pub(super) fn subject(
    principal: Principal,
    target: TargetName,
    mode: Mode,
    (db_user, database): (String, String),
) -> Subject {
    Subject {
        principal,
        executable: None,
        cgroup: None,
        target,
        protocol: Protocol::Postgres,
        mode,
        db_user,
        database,
    }
}

#[cfg(test)]
mod tests;
