//! First words that some shell doesn't run as a program with the rest as its words.
//!
//! Promise: `tests/all/shells.rs` asks the shells for their keywords and aliases, and finds each here.
//!
//! Sources: POSIX.1-2024 XCU 2.4; bash's `compgen -k`; zshmisc(1), "Reserved Words" and "Precommand
//! Modifiers"; mksh(1) and ksh93(1), aliases; tcsh(1), "Control flow"; fish's `builtin -n`.

/// Keywords, aliases that come with a shell, and builtins whose words some shell reads otherwise. Sorted.
const RESERVED: &[&str] = &[
    ".",
    "2d",
    "alias",
    "and",
    "autoload",
    "begin",
    "break",
    "breaksw",
    "case",
    "continue",
    "coproc",
    "declare",
    "default",
    "do",
    "done",
    "elif",
    "else",
    "end",
    "endif",
    "endsw",
    "enum",
    "esac",
    "export",
    "fc",
    "fi",
    "float",
    "for",
    "foreach",
    "function",
    "functions",
    "goto",
    "hash",
    "history",
    "if",
    "in",
    "integer",
    "let",
    "local",
    "login",
    "nameref",
    "namespace",
    "nocorrect",
    "noglob",
    "not",
    "or",
    "r",
    "readonly",
    "redirect",
    "repeat",
    "return",
    "run-help",
    "select",
    "set",
    "source",
    "stop",
    "suspend",
    "switch",
    "then",
    "time",
    "times",
    "type",
    "typeset",
    "until",
    "which-command",
    "while",
];

/// Whether a command that begins with `word` may be something else than a program with its words.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Whether some shell may read the word after `program` as it reads a first word: ksh's own alias of it
/// ends with a space, or it is a prefix to csh, zsh or fish.
pub(super) fn looks_on(program: &str) -> bool {
    matches!(program, "builtin" | "command" | "exec" | "hup" | "nice" | "nohup")
}

#[cfg(test)]
mod tests {
    use super::RESERVED;

    #[test]
    fn the_table_is_sorted() {
        assert!(RESERVED.is_sorted());
    }
}
