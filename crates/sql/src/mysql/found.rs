//! What the walk of a text has found so far, and the way from a text to its statements.

use std::collections::BTreeSet;

use sqlparser::tokenizer::Token;
use tidegate_event::{Action, Effect, Relation};

use super::lexer::{self, Item, Lexed};
use super::names::Tokens;
use super::touches::{self, Touch};
use super::{Settings, admin, routine};

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
}

impl Found {
    pub const fn new(settings: Settings) -> Self {
        Self {
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
            schema: relation.schema.as_ref().map(|schema| schema.to_lowercase()),
            name: relation.name.to_lowercase(),
        };
        if lower != relation {
            self.effects.insert(Effect { action, relation: Some(lower), bounded });
        }
        self.effects.insert(Effect { action, relation: Some(relation), bounded });
    }

    /// Notes an effect on something that is no relation.
    pub fn add_word(&mut self, action: Action, word: &str) {
        let relation = Some(Relation { schema: None, name: word.to_lowercase() });
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
            self.statement(piece);
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
