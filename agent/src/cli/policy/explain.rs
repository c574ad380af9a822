//! `policy explain`: a statement, an account, a target: what would be decided, and why.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use tidegate_event::{Effect, Mode, Operation, TargetName};
use tidegate_mask::Unresolved;
use tidegate_policy::{Decision, Explanation, ProtectedColumn, Subject, Verdict};

use super::bench::{self, Bench, Protected};
use super::{Explain, policies, standard_input};
use crate::cli::print;
use crate::config::Config;

/// Longest statement that is read from standard input: twice what the analyser takes.
const STATEMENT_BYTES_MAX: u64 = 2 << 20;

/// Says it. Exits with 0 whatever is decided.
pub(super) fn run(args: &Explain) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config.config)?;
    let set = policies(&config, &args.policy)?;
    let target =
        config.targets.iter().find(|target| target.name.0 == args.target).with_context(|| {
            format!("no target \"{}\" in {}", args.target, config.path.display())
        })?;
    let principal =
        config.principals.iter().find(|principal| principal.name == args.principal).with_context(
            || format!("no principal \"{}\" in {}", args.principal, config.path.display()),
        )?;
    let sql = match args.sql.as_str() {
        "-" => standard_input(STATEMENT_BYTES_MAX)?,
        sql => sql.to_owned(),
    };
    let db_user = args.db_user.clone().unwrap_or_else(|| principal.name.clone());
    let database = args.database.clone().unwrap_or_else(|| db_user.clone());
    let names = (db_user, database);
    let mut subject = bench::subject(principal.clone(), target.name.clone(), target.mode, names);
    subject.protocol = target.protocol;
    subject.executable.clone_from(&args.executable);
    let protect = config.targets.iter().map(|target| (&target.name, target.protect.as_slice()));
    let bench = Bench::new(set.into(), protect)?;
    let operation = bench.statement_in(target.protocol, &sql, args.via.into());
    let (explanation, protected) = bench.explain(&subject, &operation);
    let told = Told {
        subject: &subject,
        operation: &operation,
        explanation: &explanation,
        protected: &protected,
        unresolved: target.masking.unresolved,
    };
    if args.json {
        print::json(&told.json())?;
    } else {
        print::line(told.words().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All that there is to tell.
struct Told<'a> {
    subject: &'a Subject,
    operation: &'a Operation,
    explanation: &'a Explanation,
    protected: &'a Protected,
    unresolved: Unresolved,
}

impl Told<'_> {
    fn words(&self) -> String {
        let Subject { principal, target, db_user, database, .. } = self.subject;
        let mut text = format!(
            "{} asks {target}, as {db_user} in {database} ({}):\n",
            principal.name,
            self.operation.kind()
        );
        section(&mut text, "It does", &self.effects());
        let shown = self.columns(tidegate_policy::Touched::shown);
        let filtered = self.columns(tidegate_policy::Touched::filtered);
        section(&mut text, "It shows, of what is protected", &shown);
        section(&mut text, "It filters, orders or copies by what is protected", &filtered);
        let steps: Vec<String> = self.explanation.steps.iter().map(step).collect();
        section(&mut text, "The policies", &steps);
        if self.explanation.decision.verdict != Verdict::Deny {
            section(&mut text, "The result", &self.result());
        }
        let _ = writeln!(text, "{}", verdict(&self.explanation.decision, target));
        text
    }

    fn effects(&self) -> Vec<String> {
        let mut effects: Vec<String> = self.operation.effects().iter().map(effect).collect();
        let analysis = bench::analysis(self.operation);
        if let Some(unknown) = analysis.and_then(|analysis| analysis.unknown.as_ref()) {
            effects.push(format!("what could not be understood: {}", unknown.reason));
        }
        effects
    }

    fn columns(
        &self,
        which: impl Fn(&tidegate_policy::Touched) -> &[ProtectedColumn],
    ) -> Vec<String> {
        let touched = self.protected.touched.as_ref();
        touched.map_or(&[][..], which).iter().map(ToString::to_string).collect()
    }

    /// What becomes of the rows.
    fn result(&self) -> Vec<String> {
        let decision = &self.explanation.decision;
        let shadow = decision.mode == Mode::Shadow;
        let mut lines = decision.duties.words();
        for column in &decision.unmasked {
            lines.push(format!("{column} is shown clear"));
        }
        for column in &decision.masked {
            let word = if shadow { "would be" } else { "is" };
            lines.push(format!("{column} {word} masked"));
        }
        if let Some(why) = &self.protected.opaque {
            let becomes = match self.unresolved {
                _ if decision.unseen_unmasked => "it is shown clear",
                Unresolved::Withhold => "what can't be resolved is withheld",
                Unresolved::Detect => "what looks protected is masked",
                Unresolved::Clear => "what can't be resolved passes (masking.unresolved)",
            };
            lines.push(format!("it may show more than is named ({why}): {becomes}"));
        }
        lines
    }

    fn json(&self) -> Value {
        let decision = &self.explanation.decision;
        let Subject { principal, target, db_user, database, .. } = self.subject;
        let names = |columns: &[ProtectedColumn]| -> Vec<Value> {
            columns.iter().map(column_json).collect()
        };
        let touched = self.protected.touched.as_ref();
        let effects: Vec<Value> = self
            .operation
            .effects()
            .iter()
            .map(|effect| {
                let relation = effect.relation.as_ref();
                json!({
                    "action": effect.action.name(),
                    "schema": relation.and_then(|relation| relation.schema.as_ref()),
                    "relation": relation.map(|relation| &relation.name),
                    "bounded": effect.bounded,
                })
            })
            .collect();
        let unknown = bench::analysis(self.operation)
            .and_then(|analysis| analysis.unknown.as_ref())
            .map(|unknown| &unknown.reason);
        let steps: Vec<Value> = self
            .explanation
            .steps
            .iter()
            .map(|step| {
                json!({
                    "action": step.action, "asked": step.asked, "permitted": step.permitted,
                    "policies": step.policies, "why": step.why,
                })
            })
            .collect();
        json!({
            "principal": principal.name,
            "target": target.0,
            "db_user": db_user,
            "database": database,
            "via": self.operation.kind(),
            "effects": effects,
            "unknown": unknown,
            "protected": {
                "shown": names(touched.map_or(&[], |touched| touched.shown())),
                "filtered": names(touched.map_or(&[], |touched| touched.filtered())),
                "opaque": self.protected.opaque,
                "filters_opaque": self.protected.filters_opaque,
            },
            "steps": steps,
            "verdict": decision.verdict.name(),
            "reason": decision.reason,
            "policies": decision.policies,
            "policy_digest": decision.digest.to_string(),
            "durability": decision.durability.name(),
            "unmasked": names(&decision.unmasked),
            "masked": names(&decision.masked),
            "unseen_unmasked": decision.unseen_unmasked,
            "duties": {
                "rows_max": decision.duties.rows_max,
                "bytes_max": decision.duties.bytes_max,
                "rows_per_hour": decision.duties.rows_per_hour,
                "bytes_per_hour": decision.duties.bytes_per_hour,
            },
            "alert": decision.alert,
        })
    }
}

fn column_json(column: &ProtectedColumn) -> Value {
    json!({
        "schema": column.relation.schema, "relation": column.relation.name,
        "column": column.column, "class": column.class,
    })
}

fn section(text: &mut String, head: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{head}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

/// An effect in words.
fn effect(effect: &Effect) -> String {
    let all = if effect.bounded { "" } else { " of all rows" };
    match &effect.relation {
        Some(relation) => format!("{}{all} on {relation}", effect.action.name()),
        None => format!("{}{all}", effect.action.name()),
    }
}

fn step(step: &tidegate_policy::Step) -> String {
    let by = match step.policies.as_slice() {
        [] => String::new(),
        policies => format!(" (by {})", policies.join(", ")),
    };
    if step.permitted {
        format!("permit {}{by}", step.asked)
    } else {
        format!("do not permit {}{by}", step.asked)
    }
}

fn verdict(decision: &Decision, target: &TargetName) -> String {
    let mut text = match decision.verdict {
        Verdict::Allow => format!(
            "It passes, once its record is as durable as \"{}\" says.",
            decision.durability.name()
        ),
        Verdict::Deny => format!("It is refused: {}.", decision.reason),
        Verdict::WouldDeny => {
            format!(
                "It passes, since {target} is in shadow mode; else refused: {}.",
                decision.reason
            )
        }
    };
    if let Some(alert) = &decision.alert {
        let _ = write!(text, "\nIt raises an alert: {alert}.");
    }
    text
}
