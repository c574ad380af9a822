//! What the walk of a text has found so far, and the way from a text to its statements.

use std::collections::BTreeSet;
use std::rc::Rc;

use sqlparser::ast::Statement;
use sqlparser::tokenizer::Token;
use tidegate_event::{Action, ColumnRef, Effect, Later, Output, Relation, Rows, Sources};

use super::lexer::{self, Item, Lexed};
use super::names::{Tokens, folded};
use super::touches::{self, Touch};
use super::{Settings, admin, lineage, routine};
use crate::lineage::notes::Notes;
use lineage::{Place, Tracing, Values};

/// Statements in one text; more are unknown.
const STATEMENTS_MAX: usize = 4096;
/// Longest SQL in a string that is looked into.
const NESTED_BYTES_MAX: usize = 64 * 1024;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub kinds: Vec<String>,
    pub effects: BTreeSet<Effect>,
    pub unknown: Option<String>,
    /// Whether a literal's value may have decided something.
    pub literals_matter: bool,
    pub settings: Settings,
    /// Statements that the one at hand stands in.
    pub depth: u8,
    /// The statement at hand is the definition of a routine, and its end was found.
    pub delimited: bool,
    /// Within SQL in a string.
    nested: bool,
    /// Where names are looked up.
    pub place: Place,
    /// Columns and values of the whole text.
    pub notes: Notes,
    /// Where the text's values stand.
    values: Values,
    /// What the statement at hand returns.
    pub rows: Rows,
    /// What each statement of the text returns.
    pub all: Vec<Rows>,
    /// Prepared statements that the text makes.
    pub later: Vec<Later>,
}

impl Found {
    pub fn new(settings: Settings, place: Place) -> Self {
        Self {
            place,
            notes: Notes::new(),
            values: Values::default(),
            rows: Rows::None,
            all: Vec::new(),
            later: Vec::new(),
            kinds: Vec::new(),
            effects: BTreeSet::new(),
            unknown: None,
            literals_matter: false,
            settings,
            depth: 0,
            delimited: false,
            nested: false,
        }
    }

    pub fn add(&mut self, action: Action) {
        self.effects.insert(Effect { action, relation: None, bounded: true });
    }

    pub fn add_on(&mut self, action: Action, relation: Relation) {
        self.add_bounded(action, relation, true);
    }

    /// Notes an effect on a name, and where that has capitals, also on the one in lower case: whether the
    /// server tells them apart is not known.
    pub fn add_bounded(&mut self, action: Action, relation: Relation, bounded: bool) {
        let lower = Relation {
            schema: relation.schema.as_deref().map(folded),
            name: folded(&relation.name),
        };
        if lower != relation {
            self.effects.insert(Effect { action, relation: Some(lower), bounded });
        }
        self.effects.insert(Effect { action, relation: Some(relation), bounded });
    }

    /// Notes an effect on something that is no relation.
    pub fn add_word(&mut self, action: Action, word: &str) {
        let relation = Some(Relation { schema: None, name: folded(word) });
        self.effects.insert(Effect { action, relation, bounded: true });
    }

    pub fn unknown(&mut self, reason: impl Into<String>) {
        self.add(Action::Unknown);
        self.unknown.get_or_insert_with(|| reason.into());
    }

    pub fn kind(&mut self, kind: impl Into<String>) {
        if !self.nested {
            self.kinds.push(kind.into());
        }
    }

    /// Looks into SQL in a string.
    pub fn absorb(&mut self, text: &str) {
        if self.nested || text.len() > NESTED_BYTES_MAX {
            return self.unknown("it runs SQL in a string within a string, or a long one");
        }
        let utf8 = Settings { charset: super::Charset::Utf8, ..self.settings };
        match lexer::lex(text.as_bytes(), utf8) {
            Ok(lexed) => {
                self.nested = true;
                self.statements(&lexed, text.as_bytes());
                self.nested = false;
            }
            Err(reason) => self.unknown(reason),
        }
    }

    /// Notes what all statements of a text do.
    pub fn statements(&mut self, lexed: &Lexed, text: &[u8]) {
        if !self.nested {
            self.values = Values::of(lexed);
            if lexed.left_out {
                self.notes.values_are_opaque("it has many rows of values");
            }
        }
        let Split { pieces, not_found } = split(&lexed.items);
        if not_found {
            self.unknown("a routine whose body has no end that is found");
        }
        if pieces.len() > STATEMENTS_MAX {
            self.kind("unknown");
            return self.unknown(format!("it has more than {STATEMENTS_MAX} statements"));
        }
        let count = pieces.len();
        for (at, piece) in pieces.into_iter().enumerate() {
            let before = self.effects.len();
            self.delimited = !not_found && routine::definition(piece).is_some();
            self.rows = Rows::None;
            self.statement(piece);
            if self.nested && count > 1 {
                self.rows = Rows::Opaque("several statements in a string".to_owned());
            }
            if !self.nested {
                self.all.push(std::mem::take(&mut self.rows));
            }
            if self.effects.len() == before && self.effects.is_empty() {
                // No statement that runs may be without an effect to decide on.
                self.add(Action::Select);
            }
            if at + 1 < count {
                self.rest_reads_otherwise(piece, text);
            }
        }
    }

    /// Notes what one statement does.
    pub fn statement(&mut self, items: &[Item]) {
        let kinds = self.kinds.len();
        admin::statement(Tokens::new(items), self);
        if self.kinds.len() == kinds {
            self.kind("unknown");
        }
    }

    /// Follows the columns of a statement's tree.
    pub fn trace(&mut self, tree: &Statement, result: lineage::Result) {
        let rows = lineage::rows(
            tree,
            result,
            Tracing {
                notes: &mut self.notes,
                place: &self.place,
                values: (!self.nested).then_some(&self.values),
                settings: self.settings,
                literals_matter: &mut self.literals_matter,
            },
        );
        if result == lineage::Result::Returned {
            self.rows = rows;
        }
    }

    /// The statement returns rows that tell of no row of a relation.
    pub fn tells_nothing(&mut self) {
        self.rows = Rows::Known(vec![Output::Several(Sources::default())]);
    }

    /// The statement returns rows that can't be told.
    pub fn returns_opaque(&mut self, reason: &str) {
        self.rows = Rows::Opaque(reason.to_owned());
    }

    /// What the statement would return goes elsewhere: its columns decide.
    pub fn carried(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let all = all_sources(&rows);
        self.notes.filters.extend(all.columns.into_iter().map(Rc::new));
        if let Some(reason) = all.opaque {
            self.notes.filters_are_opaque(&reason);
        }
    }

    /// The statement is only planned: the plan is made of all that it reads.
    pub fn planned(&mut self) {
        let mut all = all_sources(&std::mem::take(&mut self.rows));
        all.columns.extend(self.notes.filters.iter().map(|column| ColumnRef::clone(column)));
        all.opaque = all.opaque.or_else(|| self.notes.filters_opaque.clone());
        self.rows = Rows::Known(vec![Output::Several(all)]);
    }

    /// All of the relation's columns decide something.
    pub fn filter_row(&mut self, relation: &Relation) {
        let relation =
            Relation {
                schema: relation.schema.as_deref().map(folded).or_else(|| {
                    self.place.database.clone().filter(|database| !database.is_empty())
                }),
                name: folded(&relation.name),
            };
        self.notes.filters.insert(Rc::new(ColumnRef { relation, column: None }));
    }

    /// A server reads each statement only when the one before has run, under the settings that it left.
    fn rest_reads_otherwise(&mut self, piece: &[Item], text: &[u8]) {
        let touches = touches::of_statement(Tokens::new(piece));
        if touches.database != Touch::Keeps {
            self.unknown("it changes the database for the statements behind it");
        }
        let begin = piece.last().map_or(0, |item| item.at);
        let rest = text.get(begin..).unwrap_or_default();
        let doubtful = |byte: &u8| matches!(byte, b'"' | b'\\') || !byte.is_ascii();
        if touches.reading != Touch::Keeps && rest.iter().any(doubtful) {
            self.unknown("it changes how the statements behind it are read");
        }
    }
}

/// Everything that rows are made of.
fn all_sources(rows: &Rows) -> Sources {
    let mut all = Sources::default();
    match rows {
        Rows::None => {}
        Rows::Known(outputs) => {
            for output in outputs {
                match output {
                    Output::One { sources, .. } | Output::Several(sources) => {
                        all.columns.extend(sources.columns.iter().cloned());
                        all.opaque = all.opaque.or_else(|| sources.opaque.clone());
                    }
                    Output::Star(relation) => {
                        let relation = relation.clone();
                        all.columns.insert(ColumnRef { relation, column: None });
                    }
                }
            }
        }
        Rows::Cursor(name) | Rows::Prepared(name) => {
            all.opaque = Some(format!("what {name} returns is not known"));
        }
        Rows::Opaque(reason) => all.opaque = Some(reason.clone()),
    }
    all
}

/// The statements of a text.
pub(super) struct Split<'a> {
    /// All, without empty ones.
    pub pieces: Vec<&'a [Item]>,
    /// Whether one is the definition of a routine whose end is not found: that and what follows is split
    /// at every semicolon.
    pub not_found: bool,
}

/// Tells the statements of a text apart.
pub(super) fn split(items: &[Item]) -> Split<'_> {
    let (mut pieces, mut rest, mut not_found) = (Vec::new(), items, false);
    while !rest.is_empty() {
        let definition = if not_found { None } else { routine::definition(rest) };
        not_found |= matches!(definition, Some(Err(_)));
        let length = match definition {
            Some(Ok(length)) => length,
            _ => rest.iter().position(|item| item.token == Token::SemiColon).unwrap_or(rest.len()),
        };
        let (piece, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if !piece.is_empty() {
            pieces.push(piece);
        }
        rest = behind.split_first().map_or(behind, |(_, behind)| behind);
    }
    Split { pieces, not_found }
}
