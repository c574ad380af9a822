//! No evasion passes an allowlist of canonical forms; nothing harmless is unknown.

use tidegate_wire_ssh::shell::{Reading, canonical, read};

/// An allowlist as a policy would write it. A `*` stands for any text, as in Cedar's `like`.
const ALLOWED: [&str; 4] =
    ["backup --full", "backup --host=*", "ls -l /srv/data", "cat /srv/data/report.txt"];

/// Whether a policy of [`ALLOWED`] lets `text` through.
fn allowed(text: &[u8]) -> bool {
    let Reading::Simple(words) = read(text) else { return false };
    let command = canonical(&words);
    ALLOWED.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(beginning) => command.starts_with(beginning),
        None => command == *allowed,
    })
}

/// The bytes that a corpus writes as `text`.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '⏎' => bytes.push(b'\n'),
            '␍' => bytes.push(b'\r'),
            '␉' => bytes.push(b'\t'),
            '␠' => bytes.push(b' '),
            '⟨' => {
                let number: String = chars.by_ref().take_while(|c| *c != '⟩').collect();
                bytes.push(u8::from_str_radix(&number, 16).unwrap());
            }
            c => bytes.extend_from_slice(c.to_string().as_bytes()),
        }
    }
    bytes
}

/// A corpus: text, its bytes, the canonical form that it says.
fn lines(corpus: &str) -> Vec<(&str, Vec<u8>, String)> {
    let lines = corpus.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines
        .map(|line| {
            let parts = line.rsplitn(3, " ;; ").collect::<Vec<_>>();
            let [reason, canonical, text] = parts[..] else { panic!("{line}: three parts") };
            assert!(!reason.is_empty(), "{line}: a reason");
            let canonical = String::from_utf8(bytes(canonical)).unwrap();
            (text, bytes(text), if canonical == "=" { text.to_owned() } else { canonical })
        })
        .collect()
}

/// What `text` is, as the corpora write it.
fn form(text: &[u8]) -> String {
    match read(text) {
        Reading::Simple(words) => canonical(&words),
        Reading::Unknown(why) => {
            assert!(why.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{why}");
            "-".to_owned()
        }
    }
}

/// What is wrong with the lines of `corpus`, of which there are at least `least`, each once.
fn wrong(corpus: &str, least: usize, may_pass: bool) -> Vec<String> {
    let lines = lines(corpus);
    let texts: std::collections::BTreeSet<&str> = lines.iter().map(|(text, _, _)| *text).collect();
    assert!(texts.len() >= least && texts.len() == lines.len(), "{} lines", lines.len());
    let mut wrong = Vec::new();
    for (text, bytes, expected) in lines {
        let form = form(&bytes);
        if form != expected {
            wrong.push(format!("{text}\n  is told as {form}\n  and not as {expected}"));
        }
        if !may_pass && allowed(&bytes) {
            wrong.push(format!("{text}\n  passes"));
        }
    }
    wrong
}

#[test]
fn no_evasion_passes() {
    let wrong = wrong(include_str!("../data/evasions.txt"), 280, false);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_harmless_is_told() {
    let corpus = include_str!("../data/benign.txt");
    let wrong = wrong(corpus, 80, true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lines = lines(corpus);
    let passed = lines.iter().filter(|(_, bytes, _)| allowed(bytes)).count();
    assert_eq!(passed, 14, "the other spellings of what is allowed");
    assert!(lines.iter().all(|(_, _, canonical)| canonical != "-"));
}

/// A known gap, told in the module: who writes `*` allows further words.
#[test]
fn a_star_allows_further_words() {
    assert!(allowed(b"backup --host=a --exclude=b"));
    assert!(!allowed(b"backup '--host=a --exclude=b'"));
    assert!(!allowed(b"backup --host=a;id"));
}
