//! Names seen through a catalogue: which relation an unqualified name is, and what stands behind it.
//!
//! Promises: an effect on a view is one on every relation behind it too, with the same action; a call
//! of a function in SQL or PL/pgSQL has the effects of its body besides `execute`. The schema of an
//! unqualified name is filled in where the search path tells. Nothing is taken away but the `execute`
//! of a cast to what the catalogue knows for an enumerated type.
//!
//! Limits: [`DEEP_MAX`] definitions inside each other, [`DEFINITIONS_MAX`] for one text; beyond them
//! the statement is unknown.
//!
//! A text of several statements of which one may change the search path has no path: its unqualified
//! names stay as they are.
//!
//! A temporary view that hides another relation of its name counts for every session, for whose it is
//! can't be told.
//!
//! Known gaps: a temporary table that hides another of its name is taken for the other. Triggers,
//! rules and defaults are not followed. An overloaded function has the effects of all of its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_event::{Action, Analysis, Effect, Relation, Unknown};

use crate::catalogue::{Catalogue, KnownFunction, KnownRelation, RelationKind};
use crate::collect::Nested;
use crate::lineage::known::is_system;
use crate::{Settings, parse};

/// Definitions of views and functions inside each other.
const DEEP_MAX: usize = 32;

/// The function that [`parse::function_with`] puts around a body.
const SHELL: &str = "tidegate_body";

/// Definitions looked into for one text.
const DEFINITIONS_MAX: usize = 1_024;

/// A catalogue, as a session with its search path sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) path: &'a [String],
}

impl<'a> Names<'a> {
    /// The same catalogue where every name must give its schema.
    pub(crate) const fn qualified_only(self) -> Self {
        Self { path: &[], ..self }
    }

    /// Where a text holds several statements, one may change the path for those behind it: then an
    /// unqualified name can't be told.
    pub(crate) fn for_statements(self, kinds: &[&str], effects: &BTreeSet<Effect>) -> Self {
        let changes = |effect: &Effect| match effect.action {
            Action::Set => {
                effect.relation.as_ref().is_none_or(|setting| setting.name == "search_path")
            }
            Action::Execute | Action::SetRole | Action::Unknown => true,
            _ => false,
        };
        let turns_back = |kind: &&str| kind.starts_with("rollback");
        let several = kinds.len() > 1;
        if several && (effects.iter().any(changes) || kinds.iter().any(turns_back)) {
            return self.qualified_only();
        }
        self
    }

    /// Names that the server would look for in turn. `pg_catalog` comes first unless the path has it.
    fn candidates(self, name: &Relation) -> impl Iterator<Item = Relation> + use<'a> {
        const FIRST: &str = "pg_catalog";
        let first = (!self.path.iter().any(|schema| schema == FIRST)).then_some(FIRST);
        let path = first.into_iter().chain(self.path.iter().map(String::as_str));
        let path = match &name.schema {
            Some(schema) => vec![schema.clone()],
            None => path.map(str::to_owned).collect(),
        };
        let name = name.name.clone();
        path.into_iter().map(move |schema| Relation { schema: Some(schema), name: name.clone() })
    }

    pub(crate) fn relation(self, name: &Relation) -> Option<&'a KnownRelation> {
        self.candidates(name).find_map(|name| self.catalogue.relation(&name)).map(Arc::as_ref)
    }

    /// Temporary relations that some session has under that name: the server looks there first.
    fn hiding(self, name: &Relation) -> impl Iterator<Item = &'a KnownRelation> + use<'a> {
        let unqualified = name.schema.is_none() && self.catalogue.may_be_temporary(&name.name);
        let named = if unqualified { self.catalogue.named(&name.name) } else { &[] };
        let is_temporary = |known: &&KnownRelation| {
            known.name.schema.as_deref().is_some_and(|schema| schema.starts_with("pg_temp_"))
        };
        named.iter().map(Arc::as_ref).filter(is_temporary)
    }

    /// The functions of that name in the first schema that has one.
    pub(crate) fn functions(self, name: &Relation) -> &'a [Arc<KnownFunction>] {
        let mut found = self.candidates(name).map(|name| self.catalogue.functions(&name));
        found.find(|functions| !functions.is_empty()).unwrap_or_default()
    }

    /// Whether a name is that of an enumerated type.
    fn is_enum(self, name: &Relation) -> bool {
        self.candidates(name).any(|name| self.catalogue.is_enum(&name))
    }

    /// Writes what of the names may change an answer.
    pub(crate) fn write(self, key: &mut Vec<u8>) {
        key.extend_from_slice(&self.catalogue.version().to_le_bytes());
        for schema in self.path {
            // A name has at most 63 bytes on the server; a zero ends it in the key.
            key.extend_from_slice(schema.as_bytes());
            key.push(0);
        }
        key.push(0);
    }
}

/// Adds to an analysis what stands behind its relations and functions.
pub(crate) fn behind(analysis: &mut Analysis, names: Names<'_>) {
    let kinds: Vec<_> = analysis.kinds.iter().map(|kind| kind.0.as_str()).collect();
    let all = analysis.effects.iter().cloned().collect();
    let names = names.for_statements(&kinds, &all);
    let effects = std::mem::take(&mut analysis.effects);
    let mut follower =
        Follower { names, found: BTreeSet::new(), seen: BTreeSet::new(), unknown: None };
    for effect in effects {
        follower.effect(effect, DEEP_MAX);
    }
    if let Some(reason) = follower.unknown {
        follower.found.insert(Effect { action: Action::Unknown, relation: None, bounded: true });
        analysis.unknown.get_or_insert(Unknown { reason });
    }
    if follower.found.is_empty() && !kinds.is_empty() {
        // No statement that runs may be without an effect to decide on.
        follower.found.insert(Effect { action: Action::Select, relation: None, bounded: true });
    }
    analysis.effects = follower.found.into_iter().collect();
}

struct Follower<'a> {
    names: Names<'a>,
    found: BTreeSet<Effect>,
    /// What was looked into, by OID and for which action.
    seen: BTreeSet<(u32, Action, bool)>,
    unknown: Option<String>,
}

impl Follower<'_> {
    fn effect(&mut self, effect: Effect, deep: usize) {
        let Some(named) = &effect.relation else {
            self.found.insert(effect);
            return;
        };
        if effect.action == Action::Execute {
            let functions = self.names.functions(named);
            if functions.is_empty() && self.names.is_enum(named) {
                // It is a cast, or a call of what isn't there.
                return;
            }
            for function in functions {
                self.function(function, deep);
            }
            self.found.insert(effect);
            return;
        }
        let Some(known) = self.names.relation(named).filter(|_| on_relation(effect.action)) else {
            self.found.insert(effect);
            return;
        };
        self.view(known, &effect, deep);
        for hiding in self.names.hiding(named) {
            self.view(hiding, &effect, deep);
        }
        self.found.insert(Effect { relation: Some(known.name.clone()), ..effect });
    }

    /// What stands behind `known`, where it is a view.
    fn view(&mut self, known: &KnownRelation, effect: &Effect, deep: usize) {
        let is_view = matches!(known.kind, RelationKind::View | RelationKind::MaterializedView);
        if is_view
            && !is_system(&known.name)
            && self.enter(known.oid, effect.action, effect.bounded, deep)
        {
            let definition = known.definition.as_deref().unwrap_or_default();
            let found = parse::nested(definition, Nested::Statements, Settings::default(), 0);
            if let Some(reason) = found.unknown {
                self.unknown.get_or_insert(reason);
            }
            for inner in found.effects {
                let action =
                    if inner.action == Action::Select { effect.action } else { inner.action };
                let bounded = inner.bounded && effect.bounded;
                self.inner(Effect { action, bounded, ..inner }, deep);
            }
        }
    }

    fn function(&mut self, function: &KnownFunction, deep: usize) {
        let (Some(source), true) =
            (&function.source, self.enter(function.oid, Action::Execute, true, deep))
        else {
            return;
        };
        let grammar = match function.language.as_str() {
            "sql" => Nested::Statements,
            "plpgsql" => Nested::Block,
            _ => return,
        };
        // `execute` says already that it may do more than its text shows.
        let source = match grammar {
            Nested::Statements => parse::function_with(source),
            Nested::Block => source.as_str().into(),
        };
        let found = parse::nested(&source, grammar, Settings::default(), 0);
        for inner in found.effects {
            let is_shell = inner.relation.as_ref().is_some_and(|named| named.name == SHELL);
            if inner.action != Action::Unknown && !is_shell {
                self.inner(inner, deep);
            }
        }
    }

    fn inner(&mut self, effect: Effect, deep: usize) {
        match deep.checked_sub(1) {
            Some(deep) => self.effect(effect, deep),
            None => self.give_up(),
        }
    }

    /// Whether this has still to be looked into.
    fn enter(&mut self, oid: u32, action: Action, bounded: bool, deep: usize) -> bool {
        if deep == 0 || self.seen.len() >= DEFINITIONS_MAX {
            self.give_up();
            return false;
        }
        self.seen.insert((oid, action, bounded))
    }

    fn give_up(&mut self) {
        let reason = "its views and functions stand too deep on each other";
        self.unknown.get_or_insert_with(|| reason.to_owned());
    }
}

/// Actions whose relation is a table or view, and reaches what is behind it.
const fn on_relation(action: Action) -> bool {
    matches!(
        action,
        Action::Select
            | Action::Insert
            | Action::Update
            | Action::Delete
            | Action::Truncate
            | Action::CopyTo
            | Action::CopyFrom
            | Action::Lock
            | Action::Show
    )
}
