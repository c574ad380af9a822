//! What program with which words a command's text is, to the login shell of the far side.
//!
//! A server hands the text of an `exec` request (RFC 4254 section 6.5) to the account's login shell with
//! `-c`. Which shell that is can't be seen from here. So a text is told only where dash, bash, zsh, ksh93,
//! mksh, busybox ash, tcsh and fish all take it as one command with these very words; any other is
//! [`Reading::Unknown`].
//!
//! Promises: linear in the text; no input can panic; `read(canonical(words))` is `Simple(words)` or
//! `Unknown`, never other words. `tests/all/shells.rs` holds the real shells against it.
//!
//! What is told:
//! - words apart by spaces, of `A-Z a-z 0-9 _ @ % + = : , . / -` outside quotes, anything printable but
//!   `\` and `!` in single quotes, and the same but `$` and `` ` `` in double quotes. Not told since
//!   shells differ: `\` (fish reads it in single quotes), `!` (csh's history, in any quotes), a word
//!   that begins with `=` (zsh: a command's path; tcsh: a directory of its stack) or `%` (fish: a
//!   process) outside quotes; and control characters, tabs and newlines, wherever they stand.
//! - a program's name of `A-Z a-z 0-9 _ . / + @ , -` that begins with none of the last four, quoted or
//!   not, and is no keyword or alias that comes with one of the shells ([`words`]): these change how the
//!   rest is read. `.` and the builtins that assign (`export`, `typeset`) are among them, since some
//!   shells read their words otherwise.
//! - builtins and programs that run what their words say (`eval`, `exec`, `command`, `sh -c`, `env`,
//!   `sudo`, `xargs`): their words are the same to every shell. What they then run is not looked at. Who
//!   allows `sh *` allows everything.
//!
//! For who writes policies: a `*` in `like` stands for spaces too. `backup --host=*` allows further words
//! after the host (`a_star_allows_further_words` in `tests/all/corpus.rs`). A word with a space in it can't
//! do that: in the canonical form it begins with its quote.
//!
//! Cannot see: aliases and functions of the account's own (`.bashrc`, `.zshenv`, `.tcshrc`,
//! `config.fish`), which program a name is there (`PATH`, a builtin, a function that comes with fish: its
//! `ls` adds options on a terminal), variables that the session sets (`BASH_ENV`), and a server that runs
//! something else than it was asked (`ForceCommand`, `command=` of a key). Holds for no other shell:
//! neither Windows's two, nor rc, nushell, xonsh or a network device's. By hand, bsd-csh, yash, posh and
//! lksh were seen to read the same or to refuse (bsd-csh long words, yash what its locale lacks).

mod words;

/// Longest text that is read, in bytes. Linux takes 128 KiB for one argument (`MAX_ARG_STRLEN`).
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Most words of a text.
pub const WORDS_MAX: usize = 1024;

/// What a command's text is, to every shell that is common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// One program with these words; the first is the program.
    Simple(Vec<String>),
    /// It can't be told: why, for a person. Printable ASCII.
    Unknown(String),
}

/// Reads `text` as the far side's login shell would with `-c`.
pub fn read(text: &[u8]) -> Reading {
    match split(text).and_then(|words| program(&words).map(|()| words)) {
        Ok(words) => Reading::Simple(words),
        Err(why) => Reading::Unknown(why),
    }
}

/// The words in one canonical spelling: joined by single spaces, a word with any byte outside
/// `[A-Za-z0-9_@%+=:,./-]`, an empty one and one that begins with `=` or `%` in single quotes, and a `'`
/// within as `'"'"'`.
///
/// What has no spelling that every shell reads alike is spelt so that [`read`] says Unknown: a word with
/// `\`, `!`, a control character, or a character of Unicode's private use or none; a program that is a
/// keyword or has another character than programs' names have; no words; and what is over a limit.
pub fn canonical(words: &[String]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            text.push(' ');
        }
        if !word.is_empty() && !word.starts_with(expands_first) && word.chars().all(is_plain) {
            text.push_str(word);
        } else {
            text.push('\'');
            text.push_str(&word.replace('\'', r#"'"'"'"#));
            text.push('\'');
        }
    }
    text
}

/// Where in a text we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between words.
    Between,
    /// In a word, outside quotes.
    Bare,
    /// In single quotes.
    Single,
    /// In double quotes.
    Double,
}

/// The words, or why they can't be told.
fn split(text: &[u8]) -> Result<Vec<String>, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
    let mut words = Vec::new();
    let mut word = String::new();
    let mut place = Place::Between;
    for (at, c) in text.char_indices() {
        if let Some(why) = nowhere(c) {
            return Err(told(c, at, why));
        }
        place = match (place, c) {
            (Place::Single, '\'') | (Place::Double, '"') => Place::Bare,
            (Place::Double, '$' | '`') => return Err(told(c, at, "expands in double quotes")),
            (Place::Single | Place::Double, _) => {
                word.push(c);
                place
            }
            (Place::Between, ' ') => place,
            (Place::Bare, ' ') => {
                push(&mut words, &mut word)?;
                Place::Between
            }
            (_, '\'') => Place::Single,
            (_, '"') => Place::Double,
            (_, c) if !is_plain(c) => return Err(told(c, at, outside_quotes(c))),
            (_, c) if word.is_empty() && expands_first(c) => {
                return Err(told(c, at, "expands at the beginning of a word"));
            }
            (_, c) => {
                word.push(c);
                Place::Bare
            }
        };
    }
    match place {
        Place::Between => {}
        Place::Bare => push(&mut words, &mut word)?,
        Place::Single | Place::Double => return Err("a quote is not closed".to_owned()),
    }
    Ok(words)
}

/// Ends `word`.
fn push(words: &mut Vec<String>, word: &mut String) -> Result<(), String> {
    if words.len() >= WORDS_MAX {
        return Err(format!("more than {WORDS_MAX} words"));
    }
    words.push(std::mem::take(word));
    Ok(())
}

/// Whether every shell runs a program by the first of `words`.
fn program(words: &[String]) -> Result<(), String> {
    let Some((program, rest)) = words.split_first() else {
        return Err("names no program".to_owned());
    };
    if !program.starts_with(begins_program) || !program.chars().all(is_in_program) {
        return Err("its first word is no plain name of a program".to_owned());
    }
    if words::is_reserved(program) {
        return Err(format!("`{program}` is a keyword or an alias of a shell"));
    }
    if words::looks_on(program) && rest.first().is_some_and(|next| words::is_reserved(next)) {
        return Err(format!("the word after `{program}` is a keyword or an alias of a shell"));
    }
    Ok(())
}

/// Why `c` has no reading that all shells share, in any quotes.
fn nowhere(c: char) -> Option<&'static str> {
    match c {
        '\\' => Some("some shells read it in single quotes too"),
        '!' => Some("csh's history, in any quotes"),
        '\n' | '\r' => Some("the end of a line"),
        c if c.is_control() => Some("a control character"),
        c if is_private(c) => Some("a character of private use or none"),
        _ => None,
    }
}

/// Why `c`, which is not plain, can't stand outside quotes.
fn outside_quotes(c: char) -> &'static str {
    match c {
        '$' | '`' | '~' | '*' | '?' | '[' | ']' | '{' | '}' => "an expansion",
        ';' | '&' | '|' | '(' | ')' => "an operator",
        '<' | '>' | '^' => "a redirection",
        '#' => "a comment",
        _ => "outside quotes",
    }
}

/// Whether `c` stands for itself outside quotes, in every shell.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c)
}

/// Whether a plain `c` means more at the beginning of a word.
fn expands_first(c: char) -> bool {
    matches!(c, '=' | '%')
}

/// Whether a program's name may hold `c`: no `=` (an assignment), `:` (csh: a label) or `%` (a job).
fn is_in_program(c: char) -> bool {
    begins_program(c) || "+@,-".contains(c)
}

/// Whether a program's name may begin with `c`: no `-` (zsh: a modifier; and an option to the shell), `+`
/// (an option too) or `@` (csh: arithmetic).
fn begins_program(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_./".contains(c)
}

/// Whether `c` is for private use or no character: fish has its own marks among these.
fn is_private(c: char) -> bool {
    let code = u32::from(c);
    matches!(code, 0xe000..=0xf8ff | 0xfdd0..=0xfdef | 0xf_0000..) || code & 0xfffe == 0xfffe
}

/// Why the character at a byte of the text, from 0, can't be read.
fn told(c: char, at: usize, why: &str) -> String {
    if c.is_ascii_graphic() {
        format!("`{c}` at byte {at}: {why}")
    } else {
        format!("U+{:04X} at byte {at}: {why}", u32::from(c))
    }
}

#[cfg(test)]
mod tests;
