//! Every shell that `read` speaks for runs what `read` says.
//!
//! Each text that is Simple is given to each shell with `-c`, in a directory where an expansion would
//! find something, and to a program that says its words. Spawns are what costs: so a text holds many
//! words. The versions are Debian's.

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tidegate_wire_ssh::shell::{Reading, TEXT_BYTES_MAX, WORDS_MAX, canonical, read};

/// A program, and what it is called as.
type Shell = (&'static str, &'static str);

/// Every shell that is asked.
const SHELLS: [Shell; 9] = [
    ("dash", "dash"),
    ("bash", "bash"),
    ("bash", "sh"),
    ("zsh", "zsh"),
    ("ksh93", "ksh93"),
    ("mksh", "mksh"),
    ("busybox", "ash"),
    ("tcsh", "tcsh"),
    ("fish", "fish"),
];

/// A program that says its words.
const ARGV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/argv.sh");

/// An empty home, and a directory with files for expansions to find. Made as often as asked for.
fn place(name: &str) -> PathBuf {
    let plain = read(ARGV.as_bytes()) == Reading::Simple(vec![ARGV.to_owned()]);
    assert!(plain, "these tests need a checkout at a plain path, not {ARGV}");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shells").join(name);
    std::fs::create_dir_all(place.join("home")).unwrap();
    for file in ["a", "b", "ab", "-a", "=a", "%a", "@a", "x y", "a,b"] {
        std::fs::write(place.join(file), "").unwrap();
    }
    place
}

/// What `text` writes when a shell runs it at `place`.
fn output(
    (program, name): Shell,
    text: &str,
    place: &Path,
    locale: &str,
) -> Result<Vec<u8>, String> {
    let output = Command::new(program)
        .arg0(name)
        .args(["-c", text])
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", place.display()))
        .env("HOME", place.join("home"))
        .env("LC_ALL", locale)
        .current_dir(place)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; `cargo xtask setup test` brings it"));
    if output.status.success() && output.stderr.is_empty() {
        Ok(output.stdout)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{name} ends with {}: {said}", output.status))
    }
}

/// Each shell runs `text` with `words`, the first of which is a program that says its words.
fn agree(text: &str, words: &[String], place: &Path) -> Result<(), String> {
    let name = words[0].rsplit('/').next().unwrap();
    let expected: Vec<u8> = [name]
        .into_iter()
        .chain(words[1..].iter().map(String::as_str))
        .fold(Vec::new(), |all, word| [&all, word.as_bytes(), b"\0"].concat());
    for locale in ["C", "C.UTF-8"] {
        for shell in SHELLS {
            // The locale matters where there is more than ASCII.
            if locale == "C" && text.is_ascii() {
                continue;
            }
            let said = output(shell, text, place, locale)
                .map_err(|why| format!("{text:?} in {locale}: {why}"))?;
            if said != expected {
                let at = differs(&said, &expected);
                return Err(format!("{} in {locale} reads {text:?} otherwise: {at}", shell.1));
            }
        }
    }
    Ok(())
}

/// The first word that differs.
fn differs(said: &[u8], expected: &[u8]) -> String {
    let words = |bytes: &[u8]| -> Vec<String> {
        bytes.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
    };
    let (said, expected) = (words(said), words(expected));
    let at = said.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    format!("{:?} for {:?}", said.get(at), expected.get(at))
}

/// Runs those of `words` (as they would stand in a text) that `read` tells, many to a text; how many.
fn told_and_run(words: impl Iterator<Item = String>, place: &Path) -> usize {
    let mut texts = vec![(ARGV.to_owned(), vec![ARGV.to_owned()])];
    let mut count = 0;
    for spelling in words {
        let Reading::Simple(told) = read(format!("{ARGV} {spelling}").as_bytes()) else { continue };
        count += 1;
        let (text, all) = texts.last_mut().unwrap();
        if text.len() + spelling.len() < TEXT_BYTES_MAX && all.len() + told.len() <= WORDS_MAX {
            *text = format!("{text} {spelling}");
            all.extend_from_slice(&told[1..]);
        } else {
            texts.push((format!("{ARGV} {spelling}"), told));
        }
    }
    for (text, words) in texts {
        assert_eq!(read(text.as_bytes()), Reading::Simple(words.clone()));
        agree(&text, &words, place).unwrap();
    }
    count
}

/// Every character that a terminal's keyboard has, and a few that it lacks.
fn characters() -> Vec<char> {
    (' '..='~').chain("\t\n\r\u{1}é\u{a0}漢😀".chars()).collect()
}

#[test]
fn two_characters_mean_in_every_shell_what_they_are_told_to() {
    let place = place("pairs");
    let all = characters();
    let pairs = || all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
    let bare = told_and_run(pairs().map(|(a, b)| format!("{a}{b}")), &place);
    assert!(bare > 4000, "{bare}");
    let single = told_and_run(pairs().map(|(a, b)| format!("'{a}{b}'")), &place);
    assert!(single > 8000, "{single}");
    let double = told_and_run(pairs().map(|(a, b)| format!("\"{a}{b}\"")), &place);
    assert!(double > 8000, "{double}");
}

#[test]
fn quotes_within_a_word_mean_in_every_shell_what_they_are_told_to() {
    let place = place("quotes");
    let all = characters();
    let spelling = |form: &str, c: char| form.replace('C', &c.to_string());
    for form in [
        "aCb",
        "aC",
        "Ca",
        "a=C",
        "a:C",
        "a,C",
        "--a=C/b",
        "/C",
        "C=a",
        "a'C'b",
        "'C'a",
        "a\"C\"b",
        "\"C\"a",
        "''C",
        "C''",
        "\"\"C",
        "'a'C'b'",
        "\"a\"C\"b\"",
        "a=\"C\"",
        "a='C'",
        "'C'=a",
        "'aCa'",
        "\"aCa\"",
        "'C'\"'\"'C'",
        "'Ca'b'C'",
        "CC''CC",
        "'  C'",
        "\"C  \"",
    ] {
        let count = told_and_run(all.iter().map(|c| spelling(form, *c)), &place);
        assert!(count > 60, "{form}: {count}");
    }
}

/// Characters beyond ASCII, in the order of their numbers, in both locales.
#[test]
fn characters_of_every_block_are_read_alike_in_quotes() {
    let place = place("unicode");
    let step = |from: u32, to: u32, step| (from..to).step_by(step).filter_map(char::from_u32);
    let chars: Vec<char> = step(0xa0, 0x3000, 1).chain(step(0x3000, 0x30000, 61)).collect();
    let words = chars.chunks(24).map(|all| format!("'{}'", all.iter().collect::<String>()));
    let count = told_and_run(words, &place);
    assert!(count > 400, "{count}");
}

#[test]
fn every_plain_name_of_a_program_is_run() {
    let place = place("names");
    let mut names = Vec::new();
    for c in (' '..='~').filter(|c| !c.is_ascii_alphanumeric() || "aZ09".contains(*c)) {
        names
            .extend(["qC", "Cq", "qCq", "0C1", "C0"].map(|form| form.replace('C', &c.to_string())));
    }
    let mut count = 0;
    for name in names {
        let Reading::Simple(words) = read(name.as_bytes()) else { continue };
        // Names with a path are run by it, not found on `PATH`.
        if words.len() != 1 || words[0] != name || name.contains('/') {
            continue;
        }
        count += 1;
        let link = place.join(&name);
        if link.symlink_metadata().is_err() {
            symlink(ARGV, &link).unwrap();
        }
        agree(&name, &words, &place).unwrap();
    }
    assert!(count > 40, "{count}");
}

#[test]
fn texts_at_the_limits_are_run() {
    let place = place("limits");
    let room = TEXT_BYTES_MAX - ARGV.len() - 1;
    let text = |word: String| format!("{ARGV} {word}");
    for text in [
        text("a".repeat(room)),
        text(format!("'{}'", "a b".repeat((room - 2) / 3))),
        text("'' ".repeat(WORDS_MAX - 1)),
        text("'a'".repeat(room / 3)),
        format!("   {}   ", text("a".to_owned())),
    ] {
        let Reading::Simple(words) = read(text.as_bytes()) else { panic!("{text}") };
        agree(&text, &words, &place).unwrap();
    }
}

#[test]
fn harmless_commands_are_run_as_they_are_told() {
    let corpus = include_str!("../data/benign.txt").lines().filter(|line| line.contains(" ;; "));
    let texts = corpus.map(|line| line.split(" ;; ").next().unwrap().replace('␠', " "));
    let count = told_and_run(texts, &place("benign"));
    assert!(count > 80, "{count}");
}

/// What each shell says its keywords and aliases are.
#[test]
fn keywords_and_aliases_of_every_shell_are_unknown() {
    let place = place("keywords");
    let mut count = 0;
    for (shell, ask) in [
        ("bash", "compgen -k; alias -p"),
        ("zsh", "print -l ${(k)reswords} ${(k)aliases} ${(k)galiases}"),
        ("ksh93", "alias"),
        ("mksh", "alias"),
        ("dash", "alias"),
        ("ash", "alias"),
        ("tcsh", "alias"),
    ] {
        let asked = SHELLS.into_iter().find(|(_, name)| *name == shell).unwrap();
        let said = output(asked, ask, &place, "C").unwrap();
        for line in String::from_utf8(said).unwrap().lines() {
            // ksh's `nohup` is an alias of itself that makes the next word one.
            let word = line.split('=').next().unwrap().replace("nohup", "nohup r");
            let Reading::Unknown(_) = read(word.as_bytes()) else {
                panic!("{word} of {shell} is taken for a program")
            };
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
    for word in "and or not begin end if else for function in switch time while".split(' ') {
        assert!(matches!(read(word.as_bytes()), Reading::Unknown(_)), "{word} of fish");
    }
    let csh = "break breaksw case continue default else end endif endsw foreach goto if repeat switch time while";
    for word in csh.split(' ') {
        assert!(matches!(read(word.as_bytes()), Reading::Unknown(_)), "{word} of csh");
    }
}

/// A word as a hostile client might spell it.
fn spelling() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[A-Za-z0-9_@%+=:,./-]{1,5}",
        3 => "'[ -&(-~é漢]{0,6}'",
        3 => "\"[ !#-~é漢]{0,6}\"",
        1 => "[ -~\\t\\n]{1,3}",
        1 => prop::sample::select(vec!["''", "\"\"", "=", "%self", "~", "--", "..", "=ls", "a=", ":~"])
            .prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Many words to a text, each of which is Simple by itself; and their canonical form.
    #[test]
    fn shells_run_what_is_told(words in proptest::collection::vec(spelling(), 1..200), gap in " {1,3}") {
        let place = place("texts");
        let told = |word: &String| matches!(read(format!("x {word}").as_bytes()), Reading::Simple(_));
        let words: Vec<String> = words.into_iter().filter(told).collect();
        let text = format!("{ARGV}{gap}{}", words.join(&gap));
        let Reading::Simple(words) = read(text.as_bytes()) else {
            return Err(TestCaseError::fail(format!("{text:?} isn't told, and each word of it is")));
        };
        agree(&text, &words, &place).map_err(TestCaseError::fail)?;
        let canonical = canonical(&words);
        prop_assert_eq!(read(canonical.as_bytes()), Reading::Simple(words.clone()));
        agree(&canonical, &words, &place).map_err(TestCaseError::fail)?;
    }
}
