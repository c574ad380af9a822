//! Rows of literals behind `VALUES`: all but the first are left out.
//!
//! A row of nothing but literals has no effect of its own, so that an `INSERT` of a million rows reads
//! like one of a single row, in the memory of that.

use sqlparser::tokenizer::Token;

use super::lexer::Item;

/// Where the lexer stands with regard to `VALUES`.
#[derive(Debug, Default)]
pub(super) struct Rows {
    state: Option<State>,
    keep: bool,
    /// Some row was taken away.
    pub left_out: bool,
}

#[derive(Debug, Default)]
struct State {
    depth: usize,
    /// Index of the opening parenthesis of the row.
    begin: usize,
    literal: bool,
    kept: bool,
}

impl Rows {
    /// One that takes nothing away.
    pub fn kept() -> Self {
        Self { keep: true, ..Self::default() }
    }

    /// Notes that the last of `items` was added; takes a row away that is not needed.
    pub fn added(&mut self, items: &mut Vec<Item>) {
        let Some(Item { token, .. }) = items.last() else { return };
        if self.keep {
            return;
        }
        let Some(state) = &mut self.state else {
            if is_word(token, &["VALUES", "VALUE"]) {
                self.state = Some(State::default());
            }
            return;
        };
        let before = items.len().checked_sub(2).and_then(|at| items.get(at));
        let unsure = before.is_some_and(|item| may_introduce(&item.token));
        match token {
            Token::LParen => {
                state.literal = state.depth == 0;
                if state.depth == 0 {
                    state.begin = items.len() - 1;
                }
                state.depth += 1;
            }
            Token::RParen if state.depth == 0 => self.state = None,
            Token::RParen => {
                state.depth -= 1;
                state.literal &= !unsure;
                if state.depth == 0 && state.literal {
                    let behind_comma = state.begin.checked_sub(1).filter(|at| {
                        state.kept && items.get(*at).is_some_and(|item| item.token == Token::Comma)
                    });
                    state.kept = true;
                    if let Some(at) = behind_comma {
                        items.truncate(at);
                        self.left_out = true;
                    }
                }
            }
            Token::Comma if state.depth == 0 => {}
            _ if state.depth == 0 => self.state = None,
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Comma
            | Token::Minus
            | Token::Plus
            | Token::Placeholder(_) => state.literal &= !unsure,
            other => {
                let harmless = is_word(other, &["NULL", "DEFAULT", "TRUE", "FALSE"]);
                state.literal &= harmless || may_introduce(other);
                state.literal &= !unsure;
            }
        }
    }
}

/// Whether a word may belong to the string behind it, and is then taken away again.
fn may_introduce(token: &Token) -> bool {
    match token {
        Token::Word(word) if word.quote_style.is_none() => {
            word.value.starts_with('_') || matches!(&*word.value, "x" | "X" | "b" | "B" | "n" | "N")
        }
        _ => false,
    }
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none()
        && words.iter().any(|one| word.value.eq_ignore_ascii_case(one)))
}
