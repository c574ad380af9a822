//! What a text changes of how later texts are read: the database and the character set.
//!
//! Promise: what is not known to keep them is in doubt.

use sqlparser::tokenizer::Token;
use tidegate_event::Relation;

use super::found::split;
use super::names::Tokens;
use super::{Charset, Settings, charset_of_name, lexer, set};

/// What becomes of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Touch<T> {
    /// It stays.
    #[default]
    Keeps,
    /// It becomes this.
    Sets(T),
    /// It may become anything.
    Doubt,
}

/// What a text changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Touches {
    /// The current database.
    pub database: Touch<String>,
    /// `character_set_client`.
    pub charset: Touch<Charset>,
    /// It may prepare a statement under a name of SQL's, and that statement may change either.
    pub prepares: bool,
    /// It runs such a statement, and so changes what those change that were prepared in the session.
    pub executes: bool,
    /// Where it is one statement that does no more than to prepare or run one, which.
    pub named: Named,
}

/// A statement that SQL's own `PREPARE` gives a name; that is in lower case, since a server does not tell
/// cases apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Named {
    /// None.
    #[default]
    No,
    /// It prepares a constant text under this name.
    Prepares(String),
    /// It runs the one of this name, with user variables or none.
    Executes(String),
    /// It may prepare something under some name.
    Doubt,
}

impl Touches {
    /// Anything.
    pub const ALL: Self = Self {
        database: Touch::Doubt,
        charset: Touch::Doubt,
        prepares: true,
        executes: true,
        named: Named::Doubt,
    };
}

/// What one statement changes; `reading` is the character set or `sql_mode`.
pub(super) struct One {
    pub database: Touch<String>,
    pub charset: Touch<Charset>,
    pub reading: Touch<()>,
    /// As in [`Touches`].
    pub prepares: bool,
    /// As in [`Touches`].
    pub executes: bool,
}

impl One {
    const KEEPS: Self = Self {
        database: Touch::Keeps,
        charset: Touch::Keeps,
        reading: Touch::Keeps,
        prepares: false,
        executes: false,
    };
}

/// What a text changes, if it succeeds.
pub fn touches(text: &[u8], settings: Settings) -> Touches {
    let Ok(lexed) = lexer::lex(text, settings) else {
        return Touches::ALL;
    };
    let mut all = Touches::default();
    let split = split(&lexed.items);
    if split.not_found {
        return Touches::ALL;
    }
    all.named = match split.pieces.as_slice() {
        [one] => named(Tokens::new(one)),
        many if many.iter().all(|one| named(Tokens::new(one)) == Named::No) => Named::No,
        _ => Named::Doubt,
    };
    for piece in split.pieces {
        let one = of_statement(Tokens::new(piece));
        all.prepares |= one.prepares;
        all.executes |= one.executes;
        if one.database != Touch::Keeps {
            all.database = one.database;
        }
        if one.charset != Touch::Keeps {
            all.charset = one.charset;
        }
    }
    all
}

/// Verbs of statements that change neither, whatever they are about.
pub(super) const KEEP: [&str; 52] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "REPLACE",
    "WITH",
    "VALUES",
    "TABLE",
    "CREATE",
    "ALTER",
    "DROP",
    "RENAME",
    "TRUNCATE",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "EXPLAIN",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "XA",
    "LOCK",
    "UNLOCK",
    "GRANT",
    "REVOKE",
    "LOAD",
    "KILL",
    "FLUSH",
    "RESET",
    "ANALYZE",
    "CHECK",
    "CHECKSUM",
    "OPTIMIZE",
    "REPAIR",
    "HANDLER",
    "DEALLOCATE",
    "PREPARE",
    "DO",
    "HELP",
    "CHANGE",
    "STOP",
    "PURGE",
    "CACHE",
    "INSTALL",
    "UNINSTALL",
    "GET",
    "SIGNAL",
    "BACKUP",
    "BINLOG",
];

/// What one statement changes.
pub(super) fn of_statement(mut tokens: Tokens<'_>) -> One {
    let keeps = One::KEEPS;
    let Some(verb) = tokens.word() else {
        // A query in parentheses.
        return keeps;
    };
    match verb.as_str() {
        "USE" => {
            tokens.next();
            let database = match tokens.name() {
                Some(Relation { schema: None, name }) if tokens.is_empty() => Touch::Sets(name),
                _ => Touch::Doubt,
            };
            One { database, ..keeps }
        }
        "SET" => set_statement(tokens, keeps),
        // A routine can't change the database, but its settings stay, and so does what it prepares.
        "CALL" => One { charset: Touch::Doubt, reading: Touch::Doubt, prepares: true, ..keeps },
        "PREPARE" => One { prepares: prepares(tokens), ..keeps },
        "EXECUTE" if tokens.word_at(1).is_some_and(|word| word != "IMMEDIATE") => {
            One { reading: Touch::Doubt, executes: true, ..keeps }
        }
        // The body of a compound statement may set anything.
        "BEGIN" if tokens.word_at(1).is_some_and(|word| word == "NOT") => doubt(),
        verb if KEEP.contains(&verb) => keeps,
        _ => doubt(),
    }
}

const fn doubt() -> One {
    One {
        database: Touch::Doubt,
        charset: Touch::Doubt,
        reading: Touch::Doubt,
        prepares: true,
        executes: true,
    }
}

/// What is prepared or run by name. Names that are not ASCII are equal for a server in ways of its own.
fn named(mut tokens: Tokens<'_>) -> Named {
    let prepares = tokens.take("PREPARE");
    if !prepares && of_statement(tokens).prepares {
        return Named::Doubt;
    }
    if !prepares && !tokens.take("EXECUTE") {
        return Named::No;
    }
    let immediate = !prepares && tokens.word().is_some_and(|word| word == "IMMEDIATE");
    let Some(Relation { schema: None, name }) = tokens.name().filter(|_| !immediate) else {
        return Named::Doubt;
    };
    if !name.is_ascii() {
        return Named::Doubt;
    }
    let name = name.to_ascii_lowercase();
    if prepares {
        let constant = tokens.take("FROM") && tokens.string().is_some() && tokens.is_empty();
        return if constant { Named::Prepares(name) } else { Named::Doubt };
    }
    let variable = |part: Tokens<'_>| {
        matches!(part.rest(), [one] if matches!(&one.token, Token::Word(word)
            if word.quote_style.is_none() && word.value.starts_with('@')))
    };
    let plain =
        tokens.is_empty() || tokens.take("USING") && tokens.parts().into_iter().all(variable);
    if plain { Named::Executes(name) } else { Named::No }
}

/// Verbs of statements that may be prepared and change nothing that is watched here.
const PREPARED_KEEP: [&str; 9] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP", "TRUNCATE"];

/// Whether a `PREPARE` may prepare what changes something: all but a constant that begins with a plain
/// word of [`PREPARED_KEEP`], as it reads whatever the settings.
fn prepares(mut tokens: Tokens<'_>) -> bool {
    tokens.next();
    tokens.next();
    if !tokens.take("FROM") {
        return true;
    }
    let text = tokens.string().filter(|_| tokens.is_empty()).unwrap_or_default();
    let verb: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    let behind = text.trim_start().chars().nth(verb.len());
    !(behind == Some(' ') && PREPARED_KEEP.iter().any(|one| verb.eq_ignore_ascii_case(one)))
}

fn set_statement(mut tokens: Tokens<'_>, keeps: One) -> One {
    tokens.next();
    if tokens.word().is_some_and(|word| word == "STATEMENT") {
        // What it sets ends with it, but for what the statement behind FOR does.
        return match tokens.until("FOR") {
            Some(_) => One { reading: Touch::Doubt, ..of_statement(tokens) },
            None => doubt(),
        };
    }
    let mut one = keeps;
    for part in tokens.parts() {
        let Some(assignment) = set::assignment(part) else {
            continue;
        };
        match assignment.name.as_str() {
            "names" | "character set" | "charset" | "character_set_client" => {
                let charset = assignment.literal().map_or(Touch::Doubt, |name| match &*name {
                    "DEFAULT" => Touch::Doubt,
                    name => Touch::Sets(charset_of_name(name)),
                });
                one.charset = charset;
                one.reading = Touch::Doubt;
            }
            "sql_mode" => one.reading = Touch::Doubt,
            _ => {}
        }
    }
    one
}
