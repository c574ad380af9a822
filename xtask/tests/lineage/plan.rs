//! What can be read off a plan in JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::make::RELATIONS;

/// Properties that hold conditions or keys.
const CONDITIONS: [&str; 13] = [
    "Filter",
    "Join Filter",
    "Hash Cond",
    "Merge Cond",
    "Index Cond",
    "Recheck Cond",
    "One-Time Filter",
    "Sort Key",
    "Group Key",
    "Presorted Key",
    "TID Cond",
    "Cache Key",
    "Order By",
];

#[derive(Debug, Default)]
pub struct Plan {
    /// `schema.relation` of all nodes.
    pub relations: BTreeSet<String>,
    /// What each output of the top node shows, as `schema.relation.column`.
    pub outputs: Vec<BTreeSet<String>>,
    /// Columns in conditions and keys.
    pub conditions: BTreeSet<String>,
    /// Relations by their alias in the plan; `None` where one stands for several.
    aliases: BTreeMap<String, Option<String>>,
}

impl Plan {
    pub fn read(json: &Value) -> Self {
        let mut plan = Self::default();
        let top = &json[0]["Plan"];
        plan.names(top);
        plan.conditions_of(top);
        plan.outputs = plan.outputs_of(top);
        plan
    }

    /// The outputs of a node; one that only passes its inputs on has none of its own.
    fn outputs_of(&self, node: &Value) -> Vec<BTreeSet<String>> {
        if let Some(outputs) = node["Output"].as_array() {
            let texts = outputs.iter().map(|output| output.as_str().unwrap_or_default());
            return texts.map(|text| self.columns(text)).collect();
        }
        let mut all: Vec<BTreeSet<String>> = Vec::new();
        for inner in node["Plans"].as_array().into_iter().flatten() {
            // Plans of subqueries in expressions are listed beside the inputs.
            if !matches!(inner["Parent Relationship"].as_str(), Some("InitPlan" | "SubPlan")) {
                let outputs = self.outputs_of(inner);
                all.resize(all.len().max(outputs.len()), BTreeSet::new());
                all.iter_mut().zip(outputs).for_each(|(all, output)| all.extend(output));
            }
        }
        all
    }

    fn names(&mut self, node: &Value) {
        let base = node["Schema"].as_str().zip(node["Relation Name"].as_str());
        let base = base.map(|(schema, name)| format!("{schema}.{name}"));
        self.relations.extend(base.clone());
        if let Some(alias) = node["Alias"].as_str() {
            let known = self.aliases.entry(alias.to_owned()).or_insert_with(|| base.clone());
            if *known != base {
                *known = None;
            }
        }
        for inner in node["Plans"].as_array().into_iter().flatten() {
            self.names(inner);
        }
    }

    fn conditions_of(&mut self, node: &Value) {
        for name in CONDITIONS {
            let texts: Vec<_> = match &node[name] {
                Value::String(text) => vec![text.as_str()],
                Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            for text in texts {
                // The planner adds these for the greatest and least of an index.
                if !(name == "Index Cond" && text.ends_with("IS NOT NULL)")) {
                    let columns = self.columns(text);
                    self.conditions.extend(columns);
                }
            }
        }
        for inner in node["Plans"].as_array().into_iter().flatten() {
            self.conditions_of(inner);
        }
    }

    /// The columns of base relations that an expression names as `alias.column`.
    fn columns(&self, text: &str) -> BTreeSet<String> {
        let outside: String = text.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
        let words = outside.split(|char: char| !(char.is_alphanumeric() || "_.".contains(char)));
        let columns = words.filter_map(|word| {
            let (alias, column) = word.split_once('.')?;
            let relation = self.aliases.get(alias)?.as_ref()?;
            (!column.contains('.')).then(|| match column {
                // `alias.*` is the whole row; `z` is what the alias calls the first column.
                "" => all_columns(relation).map(|column| format!("{relation}.{column}")).collect(),
                "z" => vec![format!("{relation}.id")],
                _ => vec![format!("{relation}.{column}")],
            })
        });
        columns.flatten().collect()
    }
}

fn all_columns(relation: &str) -> impl Iterator<Item = &'static str> {
    let name = relation.rsplit('.').next().unwrap_or_default();
    let of = move |known: &&(&str, _)| known.0.rsplit('.').next() == Some(name);
    RELATIONS.iter().find(of).map(|(_, columns)| *columns).unwrap_or_default().iter().copied()
}
