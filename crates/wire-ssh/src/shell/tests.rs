//! Texts and what is told of them. Real shells are asked in `tests/all/shells.rs`.

use super::*;

fn simple(text: &str) -> Vec<String> {
    match read(text.as_bytes()) {
        Reading::Simple(words) => words,
        Reading::Unknown(why) => panic!("{text}: {why}"),
    }
}

fn why(text: &[u8]) -> String {
    match read(text) {
        Reading::Simple(words) => panic!("{text:?} is {words:?}"),
        Reading::Unknown(why) => why,
    }
}

#[test]
fn words_are_told() {
    for (text, expected) in [
        ("backup", &["backup"][..]),
        ("  backup   --full ", &["backup", "--full"]),
        ("backup '--full'", &["backup", "--full"]),
        ("'backup' --fu\"ll\"", &["backup", "--full"]),
        ("backup '' \"\"", &["backup", "", ""]),
        ("backup ''''", &["backup", ""]),
        ("backup 'a b'\"c d\"e", &["backup", "a bc de"]),
        (r#"backup "it's" 'say "so"'"#, &["backup", "it's", "say \"so\""]),
        ("backup 'it'\"'\"'s'", &["backup", "it's"]),
        ("backup '$HOME `id` *?[]{}~#&;|<>()^'", &["backup", "$HOME `id` *?[]{}~#&;|<>()^"]),
        ("backup \"*?[]{}~#&;|<>()^\"", &["backup", "*?[]{}~#&;|<>()^"]),
        (
            "backup a=b --c=d=e a%b x@y +z , : .",
            &["backup", "a=b", "--c=d=e", "a%b", "x@y", "+z", ",", ":", "."],
        ),
        ("backup '=a' '%s'", &["backup", "=a", "%s"]),
        ("backup 'données 漢字 😀'", &["backup", "données 漢字 😀"]),
        ("/usr/lib/x+y/a-b_c,d@e.sh", &["/usr/lib/x+y/a-b_c,d@e.sh"]),
        ("eval exec command", &["eval", "exec", "command"]),
        ("sh -c 'a; b'", &["sh", "-c", "a; b"]),
    ] {
        assert_eq!(simple(text), expected, "{text}");
    }
}

#[test]
fn what_shells_expand_or_join_is_unknown() {
    for text in [
        "a $b",
        "a \"$b\"",
        "a `b`",
        "a \"`b`\"",
        "a $(b)",
        "a ~",
        "a b~",
        "a *",
        "a ?",
        "a [b]",
        "a {b,c}",
        "a {}",
        "a;b",
        "a&b",
        "a & ",
        "a|b",
        "a>b",
        "a<b",
        "a 2>b",
        "a (b)",
        "a #b",
        "a b#c",
        "a ^b",
        "a !b",
        "a 'b!'",
        "a \\b",
        "a 'b\\c'",
        "a \"b\\c\"",
        "a\nb",
        "a\n",
        "a\rb",
        "a\tb",
        "a 'b\nc'",
        "a\0b",
        "a '\u{1b}[2J'",
        "a '\u{85}'",
        "a =b",
        "a ''=b",
        "a %1",
        "a ''%self",
        "a é",
        "a\u{a0}b",
        "a '\u{e000}'",
        "a '\u{fdd0}'",
        "a '\u{ffff}'",
        "a '\u{10ffff}'",
        "a 'b",
        "a \"b",
        "a 'b\"",
    ] {
        why(text.as_bytes());
    }
    assert_eq!(why(b"a 'b\xff'"), "not UTF-8");
    assert_eq!(why(b"a $b"), "`$` at byte 2: an expansion");
    assert_eq!(why("a ’".as_bytes()), "U+2019 at byte 2: outside quotes");
    assert_eq!(why(b"a\n"), "U+000A at byte 1: the end of a line");
}

#[test]
fn what_is_no_plain_program_is_unknown() {
    for text in [
        "",
        "   ",
        "''",
        "'' a",
        "' a'",
        "a=b c",
        "'a=b' c",
        "a+=b",
        "-x",
        "'-x' a",
        "+x",
        "- a",
        "@ a",
        "%1",
        "'%1'",
        "a: b",
        ":",
        "'a b'",
        "a'*'",
        "if a",
        "'if' a",
        "i'f' a",
        "time a",
        "noglob a",
        ". a",
        "source a",
        "2d",
        "run-help a",
        "command r",
        "nohup 'local' a=b",
    ] {
        why(text.as_bytes());
    }
    assert_eq!(why(b"while a"), "`while` is a keyword or an alias of a shell");
}

#[test]
fn limits_are_where_they_are_said_to_be() {
    let words = |count: usize| vec!["a"; count].join(" ");
    assert_eq!(simple(&words(WORDS_MAX)).len(), WORDS_MAX);
    assert_eq!(why(words(WORDS_MAX + 1).as_bytes()), "more than 1024 words");
    let text = |bytes: usize| "a".repeat(bytes);
    assert_eq!(simple(&text(TEXT_BYTES_MAX)).len(), 1);
    assert_eq!(why(text(TEXT_BYTES_MAX + 1).as_bytes()), "longer than 16384 bytes");
}

#[test]
fn one_spelling_stands_for_all() {
    let canon = |text: &str| canonical(&simple(text));
    assert_eq!(canon("  'backup'  \"--full\" "), "backup --full");
    assert_eq!(canon("backup --host=\"db 1\" ''"), "backup '--host=db 1' ''");
    assert_eq!(canon("echo \"it's\""), r#"echo 'it'"'"'s'"#);
    assert_eq!(canon("stat -c '%s' '=a' a=b"), "stat -c '%s' '=a' a=b");
    assert_eq!(canon("cat 'é'"), "cat 'é'");
    assert_eq!(canonical(&[]), "");
}
