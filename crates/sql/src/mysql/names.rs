//! Reading along tokens: words, names, lists of names; and names of character sets.

use sqlparser::tokenizer::Token;
use tidegate_event::Relation;

use super::Charset;
use super::lexer::Item;

/// Schemas whose names are never told apart by case.
const FOLDED_SCHEMAS: [&str; 2] = ["information_schema", "performance_schema"];

/// Words that stand for values and look like columns, and that no column can have for a name without quotes: reserved in
/// MySQL and in MariaDB ("Keywords and Reserved Words").
const RESERVED_VALUES: [&str; 10] = [
    "TRUE",
    "FALSE",
    "NULL",
    "DEFAULT",
    "CURRENT_USER",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
];

/// Whether a name without quotes is sure to be no column's.
pub(super) fn is_never_a_column(word: &str) -> bool {
    RESERVED_VALUES.iter().any(|one| word.eq_ignore_ascii_case(one))
}

/// A place among the tokens of one statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    rest: &'a [Item],
}

impl<'a> Tokens<'a> {
    pub const fn new(rest: &'a [Item]) -> Self {
        Self { rest }
    }

    pub const fn rest(&self) -> &'a [Item] {
        self.rest
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn peek(&self) -> Option<&'a Token> {
        self.rest.first().map(|item| &item.token)
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(&first.token)
    }

    /// The plain word that comes, in upper case.
    pub fn word(&self) -> Option<String> {
        self.word_at(0)
    }

    /// The plain word that many tokens ahead, in upper case.
    pub fn word_at(&self, ahead: usize) -> Option<String> {
        self.rest.get(ahead).and_then(|item| plain_word(&item.token))
    }

    /// Takes the word if it comes.
    pub fn take(&mut self, word: &str) -> bool {
        let taken = self.rest.first().is_some_and(|item| is_word(&item.token, word));
        if taken {
            self.next();
        }
        taken
    }

    /// Takes the words if all come.
    pub fn take_all(&mut self, words: &[&str]) -> bool {
        let come = words
            .iter()
            .enumerate()
            .all(|(at, word)| self.rest.get(at).is_some_and(|item| is_word(&item.token, word)));
        if come {
            self.rest = self.rest.get(words.len()..).unwrap_or_default();
        }
        come
    }

    /// Takes any of the words, as often as they come.
    pub fn skip(&mut self, words: &[&str]) {
        while words.iter().any(|word| self.take(word)) {}
    }

    /// Takes the token if it comes.
    pub fn take_token(&mut self, token: &Token) -> bool {
        let comes = self.peek() == Some(token);
        if comes {
            self.next();
        }
        comes
    }

    /// Takes a name, with or without schema.
    pub fn name(&mut self) -> Option<Relation> {
        let first = match self.next()? {
            Token::Word(word) if !word.value.starts_with('@') => word.value.clone(),
            _ => return None,
        };
        if self.peek() != Some(&Token::Period) {
            return Some(Relation { schema: None, name: first });
        }
        self.next();
        match self.next()? {
            Token::Word(word) => Some(relation(Some(first), word.value.clone())),
            _ => None,
        }
    }

    /// Takes a string.
    pub fn string(&mut self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                self.next();
                Some(text)
            }
            _ => None,
        }
    }

    /// What stands before the first plain `word` outside parentheses, leaving what is behind it.
    pub fn until(&mut self, word: &str) -> Option<Tokens<'a>> {
        let at = self.find(word)?;
        let before = self.rest.get(..at).unwrap_or_default();
        self.rest = self.rest.get(at + 1..).unwrap_or_default();
        Some(Tokens::new(before))
    }

    /// Where the first plain `word` outside parentheses stands.
    pub fn find(&self, word: &str) -> Option<usize> {
        let mut depth = 0_usize;
        self.rest.iter().position(|item| {
            match item.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && is_word(&item.token, word)
        })
    }

    /// Whether the plain word stands anywhere.
    pub fn has(&self, word: &str) -> bool {
        self.rest.iter().any(|item| is_word(&item.token, word))
    }

    /// The parts between commas outside parentheses.
    pub fn parts(self) -> Vec<Tokens<'a>> {
        let mut depth = 0_usize;
        self.rest
            .split(|item| {
                match item.token {
                    Token::LParen => depth += 1,
                    Token::RParen => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && item.token == Token::Comma
            })
            .map(Tokens::new)
            .collect()
    }
}

/// A relation whose schema may be one that is never told apart by case.
pub(super) fn relation(schema: Option<String>, name: String) -> Relation {
    match schema {
        Some(schema) if FOLDED_SCHEMAS.iter().any(|one| schema.eq_ignore_ascii_case(one)) => {
            let schema = Some(schema.to_ascii_lowercase());
            Relation { schema, name: name.to_ascii_lowercase() }
        }
        schema => Relation { schema, name },
    }
}

/// A name in lower case, character by character: as the server folds names where it does, a sigma at the
/// end like any other.
pub fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// A word without quotes, in upper case.
pub(super) fn plain_word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

/// Whether the token is that word, without quotes.
pub(super) fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// Character sets with one byte a character.
const SINGLE_BYTE: [&str; 27] = [
    "armscii8", "ascii", "binary", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852",
    "cp866", "dec8", "geostd8", "greek", "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin1",
    "latin2", "latin5", "latin7", "macce", "macroman", "swe7", "tis620", "latin9",
];

/// How the bytes of that character set are read.
pub fn charset_of_name(name: &str) -> Charset {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "utf8" | "utf8mb3" | "utf8mb4" => Charset::Utf8,
        name if SINGLE_BYTE.contains(&name) => Charset::SingleByte,
        _ => Charset::Other,
    }
}
