//! Arbitrary bytes, and arbitrary words.

use proptest::prelude::*;
use tidegate_wire_ssh::carries::carries;
use tidegate_wire_ssh::shell::{Reading, TEXT_BYTES_MAX, WORDS_MAX, canonical, read};

/// Whether a word behind the program has a spelling that every shell reads alike, said otherwise than
/// the reader says it.
fn can_be_spelt(word: &str) -> bool {
    word.chars().all(|c| {
        let code = u32::from(c);
        let private = (0xe000..=0xf8ff).contains(&code) || code >= 0xf_0000;
        let none = (0xfdd0..=0xfdef).contains(&code) || code % 0x1_0000 >= 0xfffe;
        !c.is_control() && c != '\\' && c != '!' && !private && !none
    })
}

/// A character that is likely to matter.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![
        8 => prop::sample::select(" '\"\\$`!#&|;<>()[]{}*?~^=%@:+-,./aZ0_\n\t\r\u{0}\u{7f}é".chars().collect::<Vec<_>>()),
        2 => any::<char>(),
        1 => prop::sample::select(vec!['\u{85}', '\u{a0}', '\u{2028}', '\u{e000}', '\u{fdd0}', '\u{ffff}']),
    ]
}

fn word() -> impl Strategy<Value = String> {
    proptest::collection::vec(character(), 0..9).prop_map(|all| all.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_told_or_not(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        told_once(&text)?;
    }

    #[test]
    fn any_text_is_told_or_not(text in proptest::collection::vec(character(), 0..60)) {
        told_once(text.into_iter().collect::<String>().as_bytes())?;
    }

    /// Words come back, or none do; and every word comes back that can.
    #[test]
    fn the_canonical_form_is_those_words(rest in proptest::collection::vec(word(), 0..9)) {
        let words: Vec<String> = [vec!["backup".to_owned()], rest.clone()].concat();
        let reading = read(canonical(&words).as_bytes());
        if rest.iter().all(|word| can_be_spelt(word)) {
            prop_assert_eq!(reading, Reading::Simple(words));
        } else {
            prop_assert!(matches!(reading, Reading::Unknown(_)), "{:?}", reading);
        }
    }

    /// The same where the program is arbitrary too.
    #[test]
    fn no_words_become_others(words in proptest::collection::vec(word(), 0..6)) {
        if let Reading::Simple(read) = read(canonical(&words).as_bytes()) {
            prop_assert_eq!(read, words);
        }
    }
}

/// What is told of `text` is within the limits, and is told of its canonical form as well.
fn told_once(text: &[u8]) -> Result<(), TestCaseError> {
    match read(text) {
        Reading::Simple(words) => {
            prop_assert!(!words.is_empty() && words.len() <= WORDS_MAX);
            let canonical = canonical(&words);
            prop_assert_eq!(read(canonical.as_bytes()), Reading::Simple(words.clone()));
            let _any = carries(&words);
        }
        Reading::Unknown(why) => prop_assert!(!why.is_empty() && why.is_ascii()),
    }
    Ok(())
}

#[test]
fn long_texts_are_refused_whatever_they_hold() {
    for piece in ["a ", "'", "\"a\"", "'' ", "é", "\\"] {
        let text = piece.repeat(TEXT_BYTES_MAX);
        assert!(matches!(read(text.as_bytes()), Reading::Unknown(_)), "{piece}");
    }
}
