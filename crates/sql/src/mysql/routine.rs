//! Where the definition of a routine, trigger or event ends, in a text that may go on behind it
//! (MySQL manual, "CREATE PROCEDURE and CREATE FUNCTION", "Compound Statement Syntax"; MariaDB adds `FOR`).
//!
//! Promise: a definition reaches exactly as far as the server's grammar takes it, or its end is *not
//! found*. No statement of the server's holds a semicolon but a compound one, and a compound one begins
//! only where a statement may; so this walks from one such place to the next, and reads conditions, which
//! stand between, up to the word that ends them. Whatever does not fit to the letter is not found.
//!
//! Not found on purpose: `sql_mode = ORACLE`, packages, bodies in other languages, `RETURNS TYPE OF`,
//! definitions within `SET STATEMENT .. FOR`, a variable called `end` in a condition.

use sqlparser::tokenizer::Token;

use super::ddl;
use super::lexer::Item;
use super::names::{Tokens, is_word, plain_word};
use super::touches::KEEP;

/// Kinds of objects whose definition holds statements.
const KINDS: [&str; 5] = ["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"];
/// Words of a type behind its first.
const TYPE_WORDS: [&str; 14] = [
    "CHAR",
    "VARCHAR",
    "VARCHARACTER",
    "VARYING",
    "VARBINARY",
    "PRECISION",
    "UNSIGNED",
    "SIGNED",
    "ZEROFILL",
    "BINARY",
    "BYTE",
    "ASCII",
    "UNICODE",
    "TEXT",
];
/// Words behind which an operand stands, so that `END` there would be a name.
const BEFORE_OPERAND: [&str; 33] = [
    "ALL", "AND", "ANY", "AS", "BETWEEN", "BINARY", "BY", "CASE", "COLLATE", "DISTINCT", "DIV",
    "ELSE", "ESCAPE", "EXISTS", "FROM", "IN", "INTERVAL", "IS", "LIKE", "MEMBER", "MOD", "NOT",
    "OF", "ON", "OR", "REGEXP", "RLIKE", "SELECT", "SOME", "SOUNDS", "THEN", "WHEN", "XOR",
];

/// Verbs of statements in a body, beside [`KEEP`].
const WITHIN: [&str; 9] =
    ["CALL", "CLOSE", "EXECUTE", "FETCH", "ITERATE", "LEAVE", "OPEN", "RESIGNAL", "RETURN"];

/// The end of a definition is not found.
pub(super) struct NotFound;

type Walk<T> = Result<T, NotFound>;

/// How many of the tokens belong to the definition that they begin with; `None` where they begin with
/// another statement.
pub(super) fn definition(items: &[Item]) -> Option<Walk<usize>> {
    let mut tokens = Tokens::new(items);
    let kind = kind(&mut tokens)?;
    // A function from a library has no body.
    let piece = items.split(|item| item.token == Token::SemiColon).next().unwrap_or_default();
    if kind == "FUNCTION" && Tokens::new(piece).has("SONAME") {
        return None;
    }
    let begin = header(&kind, &mut tokens).map(|()| items.len() - tokens.rest().len());
    Some(begin.and_then(|begin| Body { items, at: begin, open: Vec::new() }.end()))
}

/// The kind of object that a `CREATE` is about, if that holds statements.
fn kind(tokens: &mut Tokens<'_>) -> Option<String> {
    if !tokens.take("CREATE") {
        return None;
    }
    ddl::skip_before_kind(tokens);
    let kind = tokens.word().filter(|word| KINDS.contains(&word.as_str()))?;
    tokens.next();
    Some(kind)
}

/// Takes what stands before the body.
fn header(kind: &str, tokens: &mut Tokens<'_>) -> Walk<()> {
    if tokens.take("IF") {
        must(tokens.take_all(&["NOT", "EXISTS"]))?;
    }
    must(tokens.name().is_some())?;
    match kind {
        "PROCEDURE" => parentheses(tokens)?,
        "FUNCTION" => {
            parentheses(tokens)?;
            must(tokens.take("RETURNS"))?;
            data_type(tokens)?;
        }
        "TRIGGER" => {
            must(tokens.take("BEFORE") || tokens.take("AFTER"))?;
            must(["INSERT", "UPDATE", "DELETE"].iter().any(|word| tokens.take(word)))?;
            must(tokens.take("ON") && tokens.name().is_some())?;
            must(tokens.take_all(&["FOR", "EACH", "ROW"]))?;
            if tokens.take("FOLLOWS") || tokens.take("PRECEDES") {
                must(tokens.name().is_some())?;
            }
            return Ok(());
        }
        "EVENT" => return schedule(tokens),
        _ => return Err(NotFound),
    }
    characteristics(tokens)
}

const fn must(is: bool) -> Walk<()> {
    if is { Ok(()) } else { Err(NotFound) }
}

/// Takes parentheses and what is within.
fn parentheses(tokens: &mut Tokens<'_>) -> Walk<()> {
    must(tokens.peek() == Some(&Token::LParen))?;
    let mut depth = 0_usize;
    loop {
        match tokens.next().ok_or(NotFound)? {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::SemiColon => return Err(NotFound),
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

fn data_type(tokens: &mut Tokens<'_>) -> Walk<()> {
    let first = tokens.word().ok_or(NotFound)?;
    must(!matches!(first.as_str(), "TYPE" | "ROW"))?;
    tokens.next();
    loop {
        if tokens.peek() == Some(&Token::LParen) {
            parentheses(tokens)?;
        } else if tokens.take("COLLATE")
            || tokens.take("CHARSET")
            || tokens.take_all(&["CHARACTER", "SET"])
        {
            must(matches!(tokens.next(), Some(Token::Word(_) | Token::SingleQuotedString(_))))?;
        } else if !TYPE_WORDS.iter().any(|word| tokens.take(word)) {
            return Ok(());
        }
    }
}

fn characteristics(tokens: &mut Tokens<'_>) -> Walk<()> {
    const PLAIN: [&[&str]; 8] = [
        &["LANGUAGE", "SQL"],
        &["NOT", "DETERMINISTIC"],
        &["DETERMINISTIC"],
        &["CONTAINS", "SQL"],
        &["NO", "SQL"],
        &["READS", "SQL", "DATA"],
        &["MODIFIES", "SQL", "DATA"],
        &["SQL", "SECURITY"],
    ];
    loop {
        if tokens.take("COMMENT") {
            must(tokens.string().is_some())?;
        } else if let Some(words) = PLAIN.iter().find(|words| tokens.take_all(words)) {
            if words.last() == Some(&"SECURITY") {
                must(tokens.take("DEFINER") || tokens.take("INVOKER"))?;
            }
        } else {
            return Ok(());
        }
    }
}

/// Of an event, up to its `DO`.
fn schedule(tokens: &mut Tokens<'_>) -> Walk<()> {
    must(tokens.take_all(&["ON", "SCHEDULE"]))?;
    loop {
        match tokens.peek().ok_or(NotFound)? {
            Token::LParen => parentheses(tokens)?,
            // Behind a dot, a word is a name.
            Token::SemiColon | Token::Period => return Err(NotFound),
            _ if tokens.take("DO") => return Ok(()),
            _ => {
                tokens.next();
            }
        }
    }
}

/// A compound statement that has begun.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Begin(Option<String>),
    If,
    Case,
    /// `LOOP`, `WHILE`, `REPEAT` and `FOR`, with that word.
    Loop(&'static str, Option<String>),
}

/// A walk through a body.
struct Body<'a> {
    items: &'a [Item],
    at: usize,
    open: Vec<Block>,
}

impl<'a> Body<'a> {
    fn token(&self) -> Option<&'a Token> {
        self.items.get(self.at).map(|item| &item.token)
    }

    fn word(&self) -> Option<String> {
        self.token().and_then(plain_word)
    }

    fn take(&mut self, word: &str) -> bool {
        let comes = self.token().is_some_and(|token| is_word(token, word));
        self.at += usize::from(comes);
        comes
    }

    /// Walks to the end: the index behind the last token.
    fn end(mut self) -> Walk<usize> {
        loop {
            // Here a statement begins.
            if self.begins_or_ends_block()? {
                continue;
            }
            if self.open.is_empty() {
                return match self.token() {
                    None | Some(Token::SemiColon) => Ok(self.at),
                    Some(_) => Err(NotFound),
                };
            }
            must(self.token() == Some(&Token::SemiColon))?;
            self.at += 1;
        }
    }

    /// Takes what begins or goes on with a block, and tells that a statement must follow; or a whole
    /// statement, or the end of a block.
    fn begins_or_ends_block(&mut self) -> Walk<bool> {
        let label = self.label()?;
        let word = self.word();
        let word = word.as_deref().unwrap_or_default();
        if label.is_some() && !matches!(word, "BEGIN" | "LOOP" | "WHILE" | "REPEAT" | "FOR") {
            return Err(NotFound);
        }
        match (word, self.open.last()) {
            ("BEGIN", _) => {
                self.at += 1;
                let next = self.word();
                must(!next.is_some_and(|next| matches!(&*next, "NOT" | "WORK")))?;
                self.open.push(Block::Begin(label));
            }
            ("IF", _) => self.opens(Block::If, &["THEN"])?,
            ("CASE", _) => {
                self.opens(Block::Case, &["WHEN"])?;
                self.condition("THEN")?;
            }
            ("LOOP", _) => self.opens(Block::Loop("LOOP", label), &[])?,
            ("REPEAT", _) => self.opens(Block::Loop("REPEAT", label), &[])?,
            ("WHILE", _) => self.opens(Block::Loop("WHILE", label), &["DO"])?,
            ("FOR", _) => self.opens(Block::Loop("FOR", label), &["DO"])?,
            ("ELSEIF", Some(Block::If)) | ("WHEN", Some(Block::Case)) => {
                self.at += 1;
                self.condition("THEN")?;
            }
            ("ELSE", Some(Block::If | Block::Case)) => self.at += 1,
            ("UNTIL", Some(Block::Loop("REPEAT", _))) => {
                self.at += 1;
                self.condition("END")?;
                self.closes()?;
                return Ok(false);
            }
            ("END", Some(block)) if !matches!(block, Block::Loop("REPEAT", _)) => {
                self.at += 1;
                self.closes()?;
                return Ok(false);
            }
            ("DECLARE", Some(Block::Begin(_))) if self.is_handler() => self.handler()?,
            _ => {
                self.simple(word)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn opens(&mut self, block: Block, until: &[&str]) -> Walk<()> {
        self.at += 1;
        self.open.push(block);
        until.iter().try_for_each(|word| self.condition(word))
    }

    /// `name:` before a block.
    fn label(&mut self) -> Walk<Option<String>> {
        let colon = self.items.get(self.at + 1).map(|item| &item.token);
        let (Some(Token::Word(word)), Some(Token::Colon)) = (self.token(), colon) else {
            return Ok(None);
        };
        must(!matches!(self.word().as_deref(), Some("BEGIN" | "END")))?;
        self.at += 2;
        Ok(Some(word.value.to_lowercase()))
    }

    /// What stands behind `END`.
    fn closes(&mut self) -> Walk<()> {
        let label = match self.open.pop().ok_or(NotFound)? {
            Block::If => return must(self.take("IF")),
            Block::Case => return must(self.take("CASE")),
            Block::Begin(label) => label,
            Block::Loop(word, label) => {
                must(self.take(word))?;
                label
            }
        };
        if let Some(Token::Word(word)) = self.token() {
            must(label.is_some_and(|label| word.value.to_lowercase() == label))?;
            self.at += 1;
        }
        Ok(())
    }

    /// Takes an expression and the word that ends it.
    fn condition(&mut self, until: &str) -> Walk<()> {
        let (begin, mut depth) = (self.at, 0_usize);
        // The depth of each CASE.
        let mut cases = Vec::new();
        loop {
            let token = self.token().ok_or(NotFound)?;
            let word = plain_word(token);
            match (token, word.as_deref()) {
                (Token::SemiColon | Token::Colon, _) | (_, Some("BEGIN")) => return Err(NotFound),
                (Token::LParen, _) => depth += 1,
                (Token::RParen, _) => depth = depth.checked_sub(1).ok_or(NotFound)?,
                (_, Some("CASE")) => cases.push(depth),
                (_, Some("END")) if !cases.is_empty() => {
                    must(cases.pop() == Some(depth) && self.is_behind_operand())?;
                }
                (_, Some(word)) if word == until && cases.is_empty() => {
                    let empty = until == "WHEN" && self.at == begin;
                    must(depth == 0 && (empty || self.is_behind_operand()))?;
                    self.at += 1;
                    return Ok(());
                }
                (_, Some("END")) => return Err(NotFound),
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Whether an expression may have ended before the token at hand.
    fn is_behind_operand(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.items.get(at));
        before.is_some_and(|item| match &item.token {
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::RParen => true,
            Token::Word(word) => {
                word.quote_style.is_some()
                    || !BEFORE_OPERAND.iter().any(|one| word.value.eq_ignore_ascii_case(one))
            }
            _ => false,
        })
    }

    fn is_handler(&self) -> bool {
        let rest = Tokens::new(self.items.get(self.at..).unwrap_or_default());
        matches!(rest.word_at(1).as_deref(), Some("CONTINUE" | "EXIT" | "UNDO"))
            && rest.word_at(2).is_some_and(|word| word == "HANDLER")
    }

    /// `DECLARE .. HANDLER FOR condition, ..`; its statement follows.
    fn handler(&mut self) -> Walk<()> {
        self.at += 3;
        must(self.take("FOR"))?;
        loop {
            if self.take("SQLSTATE") {
                self.take("VALUE");
                must(matches!(self.token(), Some(Token::SingleQuotedString(_))))?;
                self.at += 1;
            } else if self.take("NOT") {
                must(self.take("FOUND"))?;
            } else {
                must(matches!(self.token(), Some(Token::Number(..) | Token::Word(_))))?;
                self.at += 1;
            }
            if self.token() != Some(&Token::Comma) {
                return Ok(());
            }
            self.at += 1;
        }
    }

    /// Takes a statement that is not compound, up to its semicolon.
    fn simple(&mut self, word: &str) -> Walk<()> {
        let rest = self.items.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|item| item.token == Token::SemiColon);
        must(length.is_some() || self.open.is_empty())?;
        let length = length.unwrap_or(rest.len());
        let own = Tokens::new(rest.get(..length).unwrap_or_default());
        must(match word {
            "" => own.peek() == Some(&Token::LParen),
            "DECLARE" => !self.open.is_empty(),
            // These may hold another.
            "CREATE" => kind(&mut { own }).is_none(),
            "ALTER" => !own.has("EVENT"),
            "SET" => own.word_at(1).is_none_or(|second| second != "STATEMENT"),
            _ => KEEP.contains(&word) || WITHIN.contains(&word),
        })?;
        self.at += length;
        Ok(())
    }
}
