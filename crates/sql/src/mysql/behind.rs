//! What stands behind views, as effects.
//!
//! Promise: with a catalogue, what a statement does to a view it also does to every relation that the view
//! reads, through views within views. A view whose definition is not there or does not parse is unknown.

use std::collections::BTreeSet;

use tidegate_event::{Action, Effect, Relation};

use super::found::Found;
use super::lineage::Place;
use super::names::folded;
use super::{Settings, lexer};
use crate::{KnownRelation, RelationKind};

/// Views within views that are followed.
const DEEP_MAX: usize = 32;

/// Adds to what was found what stands behind its views.
pub(super) fn follow(found: &mut Found) {
    if found.place.catalogue.is_none() {
        return;
    }
    let effects: Vec<Effect> = found.effects.iter().cloned().collect();
    let mut seen = BTreeSet::new();
    for effect in effects {
        behind(&effect, DEEP_MAX, &mut seen, found);
    }
}

fn behind(effect: &Effect, deep: usize, seen: &mut BTreeSet<(u32, Action, bool)>, to: &mut Found) {
    if !on_rows(effect.action) {
        return;
    }
    let Some(known) = effect.relation.as_ref().and_then(|named| view(named, &to.place)) else {
        return;
    };
    if !seen.insert((known.oid, effect.action, effect.bounded)) {
        return;
    }
    let Some(definition) = known.definition.as_deref().filter(|_| deep > 0) else {
        return to.unknown(format!("what the view {} reads is not known", known.name));
    };
    // The server writes definitions in its own way, whatever the session's settings are.
    let settings = Settings { ansi_quotes: false, no_backslash_escapes: false, ..to.settings };
    let Ok(lexed) = lexer::lex(definition.as_bytes(), settings) else {
        return to.unknown(format!("the view {} does not read", known.name));
    };
    let place = Place { database: known.name.schema.clone(), ..to.place.clone() };
    let mut inner = Found::new(settings, place);
    inner.statements(&lexed, definition.as_bytes());
    if inner.unknown.is_some() {
        return to.unknown(format!("the view {} does not parse", known.name));
    }
    for mut one in inner.effects {
        if let Some(relation) = &mut one.relation
            && one.action == Action::Select
        {
            relation.schema = relation.schema.take().or_else(|| known.name.schema.clone());
            let changed = Effect { relation: Some(relation.clone()), ..effect.clone() };
            to.effects.insert(changed.clone());
            behind(&changed, deep - 1, seen, to);
        } else {
            to.effects.insert(one);
        }
    }
}

const fn on_rows(action: Action) -> bool {
    matches!(
        action,
        Action::Select
            | Action::Insert
            | Action::Update
            | Action::Delete
            | Action::CopyFrom
            | Action::Lock
    )
}

fn view(named: &Relation, place: &Place) -> Option<KnownRelation> {
    let folded =
        Relation { schema: named.schema.as_deref().map(folded), name: folded(&named.name) };
    let known = place.known(&folded)?;
    (known.kind == RelationKind::View).then(|| KnownRelation::clone(known))
}
