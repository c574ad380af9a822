//! From policy files to a validated set.
//!
//! Promises: what compiles has passed Cedar's strict validation without error or warning, holds
//! only annotations that are known, and has a name for each policy: its `@id`, or `file:line`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use cedar_policy::{Effect, Entities, Policy, PolicyId, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use sha2::{Digest as _, Sha256};
use tidegate_event::{Digest, Durability};

use crate::memory::Memory;
use crate::name;

mod notes;

pub(crate) use notes::Notes;

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its path, for error messages and names of policies.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Something wrong in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PolicyError {
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a policy says of what the configuration protects, so that a misspelt name can be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mention {
    /// A class, by its name.
    Class(String),
    /// A column.
    Column {
        /// The target.
        target: String,
        /// The schema, where the policy names one.
        schema: Option<String>,
        /// The relation.
        relation: String,
        /// The column.
        column: String,
    },
}

/// Validated policies, ready to decide.
#[derive(Debug)]
pub struct PolicySet {
    pub(crate) cedar: cedar_policy::PolicySet,
    /// Those with an `@alert`, each as a permit, so that Cedar names all that match.
    pub(crate) alerts: cedar_policy::PolicySet,
    schema: Schema,
    /// The actions with their groups, which every request needs.
    pub(crate) actions: Entities,
    pub(crate) notes: HashMap<PolicyId, Notes>,
    /// For each target, the schemas that policies mention.
    pub(crate) schemas: BTreeMap<String, BTreeSet<String>>,
    /// For each target and name, the schemas in which policies mention that name.
    pub(crate) qualified: BTreeMap<(String, String), BTreeSet<String>>,
    /// What they say of protected columns.
    mentions: BTreeSet<Mention>,
    /// Whether any of them can ask for an approval.
    pub(crate) asks_approvals: bool,
    pub(crate) floor: Durability,
    /// What it has decided so far.
    pub(crate) memory: Memory,
    digest: Digest,
}

impl PolicySet {
    /// Compiles the sources into one set. No source at all is a set that denies everything.
    pub fn compile(sources: &[Source]) -> Result<Self, Vec<PolicyError>> {
        let (schema, _) = Schema::from_cedarschema_str(crate::schema())
            .map_err(|error| vec![at_start("the built-in schema", &error.to_string())])?;
        let actions = schema
            .action_entities()
            .map_err(|error| vec![at_start("the built-in schema", &error.to_string())])?;
        let mut set = Self {
            actions,
            cedar: cedar_policy::PolicySet::new(),
            alerts: cedar_policy::PolicySet::new(),
            schema,
            notes: HashMap::new(),
            schemas: BTreeMap::new(),
            qualified: BTreeMap::new(),
            mentions: BTreeSet::new(),
            asks_approvals: false,
            floor: Durability::Process,
            memory: Memory::default(),
            digest: digest(sources),
        };
        let mut errors = Vec::new();
        let mut places = HashMap::new();
        for source in sources {
            set.add_source(source, &mut places, &mut errors);
        }
        set.validate(&places, &mut errors);
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    /// Makes `floor` the least durability of every decision.
    #[must_use]
    pub fn with_durability(mut self, floor: Durability) -> Self {
        self.floor = floor;
        self.memory = Memory::default();
        self
    }

    /// SHA-256 over the sources, sorted by name: the version of the policy in every record.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The classes and columns that policies name, each once.
    pub fn mentions(&self) -> impl Iterator<Item = &Mention> {
        self.mentions.iter()
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether it has no policy, so that it denies everything.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    fn add_source<'a>(
        &mut self,
        source: &'a Source,
        places: &mut HashMap<PolicyId, (&'a Source, usize)>,
        errors: &mut Vec<PolicyError>,
    ) {
        let parsed = match cedar_policy::PolicySet::from_str(&source.text) {
            Ok(parsed) => parsed,
            Err(found) => {
                errors.extend(
                    found
                        .iter()
                        .map(|error| at(source, offset(error).unwrap_or(0), &describe(error))),
                );
                return;
            }
        };
        if parsed.num_of_templates() > 0 {
            errors
                .push(at_start(&source.name, "templates (?principal, ?resource) have no use here"));
        }
        let mut from = 0;
        for policy in parsed.policies() {
            let text = policy.to_cedar().unwrap_or_default();
            let start = find(&source.text, from, &text);
            from = start.saturating_add(text.len());
            self.add_policy(policy, source, start, places, errors);
        }
    }

    fn add_policy<'a>(
        &mut self,
        policy: &Policy,
        source: &'a Source,
        start: usize,
        places: &mut HashMap<PolicyId, (&'a Source, usize)>,
        errors: &mut Vec<PolicyError>,
    ) {
        let (line, _) = line_column(&source.text, start);
        let mut wrong = |message: &str| errors.push(at(source, start, message));
        let notes = Notes::read(policy, (&source.name, line), &mut wrong);
        let id = PolicyId::new(policy.annotation("id").unwrap_or(&notes.place));
        for literal in policy.entity_literals() {
            if let Err(message) =
                self.mention(&literal.type_name().to_string(), literal.id().unescaped())
            {
                wrong(&message);
            }
        }
        if notes.alert.is_some()
            && let Err(message) = self.add_alert(policy, &id)
        {
            wrong(&message);
        }
        if self.cedar.add(policy.new_id(id.clone())).is_err() {
            let first = places
                .get(&id)
                .map(|(file, at)| format!("{}:{}", file.name, line_column(&file.text, *at).0));
            wrong(&format!(
                "a second policy named {id:?}; the first is at {}",
                first.unwrap_or_default(),
                id = id.to_string(),
            ));
            return;
        }
        places.insert(id.clone(), (source, start));
        self.asks_approvals |= notes.approval.is_some();
        self.notes.insert(id, notes);
    }

    /// Adds a policy, as a permit, to those that raise an alert.
    fn add_alert(&mut self, policy: &Policy, id: &PolicyId) -> Result<(), String> {
        let permit = || -> Result<Policy, Box<dyn std::error::Error>> {
            let mut json = policy.to_json()?;
            let effect = json.get_mut("effect").ok_or("it has no effect")?;
            *effect = "permit".into();
            Ok(Policy::from_json(Some(id.clone()), json)?)
        };
        let permit = permit().map_err(|error| format!("@alert can't be used here: {error}"))?;
        // A second one of that name is complained of where it joins the set.
        let _ = self.alerts.add(permit);
        Ok(())
    }

    /// Notes the schemas that a policy's literals mention.
    fn mention(&mut self, kind: &str, id: &str) -> Result<(), String> {
        let (parts, example) = match kind {
            "Relation" | "Function" => (name::parse(id), "target/name or target/schema.name"),
            "Class" => {
                self.mentions.insert(Mention::Class(id.to_owned()));
                return Ok(());
            }
            "Column" => {
                let read = name::parse_column(id);
                self.mentions.extend(read.iter().map(|(parts, column)| Mention::Column {
                    target: parts.target.clone(),
                    schema: parts.schema.clone(),
                    relation: parts.name.clone(),
                    column: column.clone(),
                }));
                let parts = read.map(|(parts, _)| parts);
                (parts, "target/relation.column or target/schema.relation.column")
            }
            "Schema" => (name::parse(id).filter(|parts| parts.schema.is_none()), "target/schema"),
            _ => return Ok(()),
        };
        let parts =
            parts.ok_or_else(|| format!("{kind}::{id:?} can match nothing: write {example}"))?;
        if kind == "Schema" {
            self.schemas.entry(parts.target).or_default().insert(parts.name);
        } else if let Some(schema) = parts.schema {
            self.qualified.entry((parts.target, parts.name)).or_default().insert(schema);
        }
        Ok(())
    }

    fn validate(
        &self,
        places: &HashMap<PolicyId, (&Source, usize)>,
        errors: &mut Vec<PolicyError>,
    ) {
        let validator = Validator::new(self.schema.clone());
        let result = validator.validate(&self.cedar, ValidationMode::Strict);
        let found = result
            .validation_errors()
            .map(|error| (error.policy_id(), offset(error), describe(error)))
            .chain(
                result
                    .validation_warnings()
                    .map(|warning| (warning.policy_id(), offset(warning), describe(warning))),
            );
        for (id, offset, message) in found {
            match places.get(id) {
                Some((source, start)) => {
                    errors.push(at(source, offset.unwrap_or(*start), &message));
                }
                None => errors.push(at_start("policies", &message)),
            }
        }
    }

    pub(crate) fn policies(&self) -> impl Iterator<Item = (&Policy, &Notes)> {
        self.cedar.policies().filter_map(|policy| Some((policy, self.notes.get(policy.id())?)))
    }
}

/// Whether it is a `forbid`.
pub(crate) fn forbids(policy: &Policy) -> bool {
    policy.effect() == Effect::Forbid
}

fn digest(sources: &[Source]) -> Digest {
    let mut sorted: Vec<_> = sources.iter().collect();
    sorted.sort_by(|one, other| (&one.name, &one.text).cmp(&(&other.name, &other.text)));
    let mut hash = Sha256::new();
    hash.update(b"tidegate/policy/v1\0");
    for source in sorted {
        for text in [&source.name, &source.text] {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    Digest(hash.finalize().into())
}

/// Where `text` begins at or behind byte `from`.
fn find(source: &str, from: usize, text: &str) -> usize {
    source.get(from..).and_then(|rest| rest.find(text)).map_or(from, |at| from.saturating_add(at))
}

fn offset(error: &dyn Diagnostic) -> Option<usize> {
    error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset())
}

/// Cedar's message, with what its label and help add.
fn describe(error: &(impl Diagnostic + ?Sized)) -> String {
    let mut message = error.to_string();
    let label = error.labels().and_then(|mut labels| labels.next());
    if let Some(label) = label.as_ref().and_then(|label| label.label()) {
        message = format!("{message}: {label}");
    }
    if let Some(help) = error.help() {
        message = format!("{message} ({help})");
    }
    message
}

fn at(source: &Source, offset: usize, message: &str) -> PolicyError {
    let (line, column) = line_column(&source.text, offset);
    PolicyError { file: source.name.clone(), line, column, message: message.to_owned() }
}

fn at_start(file: &str, message: &str) -> PolicyError {
    PolicyError { file: file.to_owned(), line: 1, column: 1, message: message.to_owned() }
}

fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before: String =
        text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, char)| char).collect();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.chars().rev().take_while(|char| *char != '\n').count().saturating_add(1);
    (line, column)
}
