//! The text as the server's lexer sees it (MySQL manual, "Lexical Structure", "Comments"; MariaDB
//! Knowledge Base, "Comment Syntax").
//!
//! Promises: strings, quoted names and comments end where the server ends them, under the settings given;
//! executable comments are text or comment as the server's version says. What can be read in two ways is
//! refused: an executable comment with a version where the server's is not known, nested executable
//! comments, a comment or string without an end, a zero byte, a name in a character set that is not
//! UTF-8, and in a set with bytes that may be second bytes, a byte that could be one.

use sqlparser::tokenizer::Token;

use super::rows::Rows;
use super::{Charset, Settings};

/// Most tokens of one text.
const TOKENS_MAX: usize = 200_000;
/// What MariaDB takes for a comment although its own version is higher: MySQL 5.7 and 8.
const NOT_FOR_MARIADB: std::ops::RangeInclusive<u32> = 50_700..=50_999;

/// One token, and where it begins and ends in the text.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub token: Token,
    pub at: usize,
    pub end: usize,
}

impl Item {
    /// Whether it is a string or a number.
    pub const fn is_literal(&self) -> bool {
        matches!(self.token, Token::Number(..) | Token::SingleQuotedString(_))
    }

    /// Whether it stands for a parameter.
    pub const fn is_placeholder(&self) -> bool {
        matches!(self.token, Token::Placeholder(_))
    }
}

/// A text's tokens, without comments.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    pub items: Vec<Item>,
    /// Rows of literals were left out.
    pub left_out: bool,
}

impl Lexed {
    /// The text without its literals: equal for texts of one shape.
    pub fn shape(&self) -> Vec<u8> {
        let mut shape = Vec::with_capacity(self.items.len() * 6);
        for item in &self.items {
            match &item.token {
                Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => {
                    shape.push(b'?');
                }
                Token::Word(word) => {
                    shape.push(if word.quote_style.is_some() { b'`' } else { b'_' });
                    shape.extend(word.value.as_bytes());
                    shape.push(0);
                }
                other => shape.extend(other.to_string().as_bytes()),
            }
        }
        shape
    }

    /// What tells texts of one shape apart whose values stand in other places: where parameters are among
    /// the literals, and whether rows were left out.
    pub fn places(&self) -> Vec<u8> {
        let values = self.items.iter().filter(|item| is_value(&item.token));
        let mut places = vec![u8::from(self.left_out)];
        for (at, item) in values.enumerate() {
            if item.is_placeholder() {
                places.extend(u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        places
    }
}

const fn is_value(token: &Token) -> bool {
    matches!(token, Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_))
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    settings: Settings,
    items: Vec<Item>,
    rows: Rows,
    /// Within an executable comment that is executed.
    in_comment: bool,
}

type Refused = String;

/// Reads a text; rows of literals behind the first are left out.
pub(super) fn lex(text: &[u8], settings: Settings) -> Result<Lexed, Refused> {
    read(text, settings, Rows::default())
}

/// Reads a text with all of its tokens.
pub(super) fn lex_all(text: &[u8], settings: Settings) -> Result<Lexed, Refused> {
    read(text, settings, Rows::kept())
}

fn read(text: &[u8], settings: Settings, rows: Rows) -> Result<Lexed, Refused> {
    if text.contains(&0) {
        return Err("it holds a zero byte".to_owned());
    }
    if settings.charset == Charset::Other {
        let pairs = text.iter().zip(text.iter().skip(1));
        let mut second =
            pairs.filter(|(first, second)| !first.is_ascii() && matches!(second, b'\\' | b'`'));
        if second.next().is_some() {
            return Err("in its character set a quote may be a part of a character".to_owned());
        }
    }
    let mut lexer = Lexer { text, at: 0, settings, items: Vec::new(), rows, in_comment: false };
    while lexer.next()? {
        if lexer.items.len() > TOKENS_MAX {
            return Err(format!("it has more than {TOKENS_MAX} tokens"));
        }
    }
    if lexer.in_comment {
        return Err("its last comment has no end".to_owned());
    }
    Ok(Lexed { items: lexer.items, left_out: lexer.rows.left_out })
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, token: Token, at: usize) {
        self.items.push(Item { token, at, end: self.at });
        self.rows.added(&mut self.items);
    }

    /// Reads one token or comment; `false` at the end.
    fn next(&mut self) -> Result<bool, Refused> {
        let Some(byte) = self.peek(0) else {
            return Ok(false);
        };
        let begin = self.at;
        match byte {
            _ if is_space(byte) => self.at += 1,
            b'#' => self.line_comment(),
            b'-' if self.peek(1) == Some(b'-')
                && self.peek(2).is_none_or(|third| is_space(third) || third.is_ascii_control()) =>
            {
                self.line_comment();
            }
            b'/' if self.peek(1) == Some(b'*') => self.comment()?,
            b'*' if self.in_comment && self.peek(1) == Some(b'/') => {
                self.in_comment = false;
                self.at += 2;
            }
            b'\'' => {
                let text = self.string(b'\'')?;
                self.literal(text, begin);
            }
            b'"' if !self.settings.ansi_quotes => {
                let text = self.string(b'"')?;
                self.literal(text, begin);
            }
            b'"' | b'`' => {
                let name = self.quoted(byte)?;
                self.push(Token::make_word(&name, Some('`')), begin);
            }
            b'@' => self.variable()?,
            b'0'..=b'9' => self.number()?,
            b'.' if self.peek(1).is_some_and(|next| next.is_ascii_digit())
                && !self.is_behind_name() =>
            {
                self.number()?;
            }
            _ if is_word(byte) => self.word()?,
            _ => self.symbol()?,
        }
        Ok(true)
    }

    fn line_comment(&mut self) {
        let length = self.rest().iter().position(|byte| *byte == b'\n');
        self.at += length.unwrap_or(self.rest().len());
    }

    fn comment(&mut self) -> Result<(), Refused> {
        let (executable, maria, head) = match self.rest() {
            [_, _, b'!', ..] => (true, false, 3),
            [_, _, b'M', b'!', ..] if self.settings.server.mariadb => (true, true, 4),
            _ => (false, false, 2),
        };
        if !executable {
            let body = self.rest().get(2..).unwrap_or_default();
            let end = find(body, *b"*/").ok_or("its comment has no end")?;
            self.at += end + 4;
            return Ok(());
        }
        if self.in_comment {
            return Err("it has an executable comment within another".to_owned());
        }
        let behind = self.rest().get(head..).unwrap_or_default();
        let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let taken = match digits {
            0..5 => 0,
            5 => 5,
            6 if self.settings.server.mariadb => 6,
            _ => return Err("the version of its executable comment is doubtful".to_owned()),
        };
        let version = behind
            .iter()
            .take(taken)
            .fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
        let runs = match self.settings.server.version {
            _ if taken == 0 => true,
            None => return Err("it depends on the server's version, which is not known".to_owned()),
            Some(server) => {
                let foreign = self.settings.server.mariadb && !maria;
                version <= server && !(foreign && NOT_FOR_MARIADB.contains(&version))
            }
        };
        if runs {
            self.in_comment = true;
            self.at += head + taken;
            return Ok(());
        }
        let end = find(behind, *b"*/").ok_or("its comment has no end")?;
        if find(behind.get(..end).unwrap_or_default(), *b"/*").is_some() {
            return Err("it has a comment within an executable comment".to_owned());
        }
        self.at += head + end + 2;
        Ok(())
    }

    /// A string; its content is not needed to the letter.
    fn string(&mut self, quote: u8) -> Result<String, Refused> {
        let escapes = !self.settings.no_backslash_escapes;
        let mut content = Vec::new();
        self.at += 1;
        loop {
            let byte = self.peek(0).ok_or("its string has no end")?;
            self.at += 1;
            if byte == b'\\' && escapes {
                let behind = self.peek(0).ok_or("its string has no end")?;
                self.at += 1;
                content.push(unescaped(behind));
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return Ok(String::from_utf8_lossy(&content).into_owned());
                }
                self.at += 1;
                content.push(quote);
            } else {
                content.push(byte);
            }
        }
    }

    /// A string follows: a character set before it (`_utf8'..'`), or `x`, `b` and `n`, belong to it.
    fn literal(&mut self, text: String, begin: usize) {
        let introduced = self.items.last().is_some_and(|last| match &last.token {
            Token::Word(word) if word.quote_style.is_none() => {
                let adjacent = last.at + word.value.len() == begin;
                let prefix = matches!(word.value.as_str(), "x" | "X" | "b" | "B" | "n" | "N");
                word.value.starts_with('_') || (adjacent && prefix)
            }
            _ => false,
        });
        if introduced {
            self.items.pop();
        }
        // Strings in a row are one string.
        if let Some(Item { token: Token::SingleQuotedString(before), end, .. }) =
            self.items.last_mut()
        {
            before.push_str(&text);
            *end = self.at;
        } else {
            self.push(Token::SingleQuotedString(text), begin);
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<String, Refused> {
        let mut name = Vec::new();
        self.at += 1;
        loop {
            let byte = self.peek(0).ok_or("its quoted name has no end")?;
            self.at += 1;
            if byte == quote {
                if self.peek(0) != Some(quote) {
                    return self.name(name);
                }
                self.at += 1;
            }
            name.push(byte);
        }
    }

    fn name(&self, bytes: Vec<u8>) -> Result<String, Refused> {
        if !bytes.is_ascii() && self.settings.charset != Charset::Utf8 {
            return Err("it has a name in a character set that is not UTF-8".to_owned());
        }
        String::from_utf8(bytes).map_err(|_| "it has a name that is not UTF-8".to_owned())
    }

    fn take_word(&mut self) -> Result<String, Refused> {
        let length = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        let word = self.rest().get(..length).unwrap_or_default().to_vec();
        self.at += length;
        self.name(word)
    }

    fn word(&mut self) -> Result<(), Refused> {
        let begin = self.at;
        let word = self.take_word()?;
        self.push(Token::make_word(&word, None), begin);
        Ok(())
    }

    /// `@name`, `@'name'`, `@@name`, `@@global.name`.
    fn variable(&mut self) -> Result<(), Refused> {
        let begin = self.at;
        self.at += 1;
        let mut name = "@".to_owned();
        if self.peek(0) == Some(b'@') {
            self.at += 1;
            name.push('@');
        }
        loop {
            match self.peek(0) {
                Some(quote @ (b'\'' | b'"')) if name == "@" => name += &self.string(quote)?,
                Some(b'`') => name += &self.quoted(b'`')?,
                Some(byte) if is_word(byte) || byte == b'.' => {
                    let part = |byte: &&u8| is_word(**byte) || **byte == b'.';
                    let length = self.rest().iter().take_while(part).count();
                    let bytes = self.rest().get(..length).unwrap_or_default().to_vec();
                    self.at += length;
                    name += &self.name(bytes)?;
                }
                _ => break,
            }
        }
        self.push(Token::make_word(&name, None), begin);
        Ok(())
    }

    /// Whether a dot here is one between names.
    fn is_behind_name(&self) -> bool {
        self.items.last().is_some_and(|last| {
            matches!(&last.token, Token::Word(word) if word.quote_style.is_some()
                || last.at + word.value.len() == self.at)
        })
    }

    /// A number; a name may begin with digits, too, and does behind a dot.
    fn number(&mut self) -> Result<(), Refused> {
        let begin = self.at;
        let behind_dot = self
            .items
            .last()
            .is_some_and(|last| last.token == Token::Period && last.at + 1 == begin);
        let length = self.rest().iter().take_while(|byte| is_word(**byte)).count();
        let word = self.rest().get(..length).unwrap_or_default();
        let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_radix = |letters: &[u8], of: fn(&u8) -> bool| {
            word.first() == Some(&b'0')
                && word.get(1).is_some_and(|second| letters.contains(second))
                && word.len() > 2
                && word.iter().skip(2).all(of)
        };
        if behind_dot {
            return self.word();
        }
        if is_radix(b"x", u8::is_ascii_hexdigit) || is_radix(b"b", |b| matches!(b, b'0' | b'1')) {
            self.at += length;
            self.push(Token::Number("0".to_owned(), false), begin);
            return Ok(());
        }
        let exponent = |at: usize| {
            let rest = self.text.get(at..).unwrap_or_default();
            match rest {
                [b'e' | b'E', b'+' | b'-', digit, ..] if digit.is_ascii_digit() => Some(2),
                [b'e' | b'E', digit, ..] if digit.is_ascii_digit() => Some(1),
                _ => None,
            }
        };
        let digits_at = |at: usize| {
            let rest = self.text.get(at..).unwrap_or_default();
            rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
        };
        let mut end = begin + digits;
        let fraction = self.text.get(end) == Some(&b'.');
        if fraction {
            end += 1;
            end += digits_at(end);
        }
        if let Some(skip) = exponent(end) {
            end += skip;
            end += digits_at(end);
        }
        let runs_on = self.text.get(end).is_some_and(|byte| is_word(*byte));
        if runs_on && !fraction {
            // `1st` is a name.
            return self.word();
        }
        if runs_on {
            return Err("it has a number that runs into a name".to_owned());
        }
        let number = String::from_utf8_lossy(self.text.get(begin..end).unwrap_or_default());
        let number = number.into_owned();
        self.at = end;
        self.push(Token::Number(number, false), begin);
        Ok(())
    }

    fn symbol(&mut self) -> Result<(), Refused> {
        let begin = self.at;
        let word = |word: &str| Token::make_word(word, None);
        let (token, length) = match self.rest() {
            [b'<', b'=', b'>', ..] => (Token::Spaceship, 3),
            [b'-', b'>', b'>', ..] => (Token::LongArrow, 3),
            [b'-', b'>', ..] => (Token::Arrow, 2),
            [b'<', b'<', ..] => (Token::ShiftLeft, 2),
            [b'>', b'>', ..] => (Token::ShiftRight, 2),
            [b'<', b'=', ..] => (Token::LtEq, 2),
            [b'>', b'=', ..] => (Token::GtEq, 2),
            [b'<', b'>', ..] | [b'!', b'=', ..] => (Token::Neq, 2),
            [b':', b'=', ..] => (Token::Assignment, 2),
            [b'|', b'|', ..] => (word("OR"), 2),
            [b'&', b'&', ..] => (word("AND"), 2),
            [b'\\', b'N', ..] => (word("NULL"), 2),
            [byte, ..] => (
                match byte {
                    b'(' => Token::LParen,
                    b')' => Token::RParen,
                    b',' => Token::Comma,
                    b';' => Token::SemiColon,
                    b'.' => Token::Period,
                    b'=' => Token::Eq,
                    b'<' => Token::Lt,
                    b'>' => Token::Gt,
                    b'+' => Token::Plus,
                    b'-' => Token::Minus,
                    b'*' => Token::Mul,
                    b'/' => Token::Div,
                    b'%' => Token::Mod,
                    b'&' => Token::Ampersand,
                    b'|' => Token::Pipe,
                    b'^' => Token::Caret,
                    b'~' => Token::Tilde,
                    b'!' => word("NOT"),
                    b':' => Token::Colon,
                    b'?' => Token::Placeholder("?".to_owned()),
                    b'{' => Token::LBrace,
                    b'}' => Token::RBrace,
                    _ => return Err("it has a character that means nothing".to_owned()),
                },
                1,
            ),
            [] => return Ok(()),
        };
        self.at += length;
        self.push(token, begin);
        Ok(())
    }
}

const fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'0' => 0,
        b'b' => 8,
        b'Z' => 26,
        other => other,
    }
}

fn find(text: &[u8], what: [u8; 2]) -> Option<usize> {
    text.windows(2).position(|pair| pair == what)
}
