//! What stands in place of values, by mask and type.

use proptest::prelude::*;

use super::*;

fn keyed(key: u8, class: &str) -> Keyed {
    Keyed::new(&Secret::new(&mut [key; 32]), class)
}

fn masked(mask: Mask, form: Form, value: &str) -> Option<String> {
    let mut out = Vec::new();
    write(mask, form, Some(&keyed(1, "ssn")), value.as_bytes(), &mut out)
        .then(|| String::from_utf8(out).unwrap())
}

#[test]
fn each_mask_in_each_form() {
    let json = Form::Json { version: false };
    for (mask, form, value, expected) in [
        (Mask::Redact, Form::Text, "123-45-6789", Some("****")),
        (Mask::Redact, json, "{\"a\":1}", Some("\"****\"")),
        (Mask::Redact, Form::Json { version: true }, "\u{1}{}", Some("\u{1}\"****\"")),
        (Mask::Redact, Form::Other, "7", None),
        (Mask::PARTIAL, Form::Text, "123-45-6789", Some("*******6789")),
        (Mask::PARTIAL, Form::Text, "größeres", Some("****eres")),
        (Mask::PARTIAL, Form::Text, "seven..", Some("****")),
        (Mask::PARTIAL, Form::Text, "", Some("****")),
        (Mask::Partial { keep_last: 0 }, Form::Text, "seven..", Some("****")),
        (Mask::Partial { keep_last: 1 }, Form::Text, "ab", Some("*b")),
        (Mask::Null, Form::Text, "x", None),
        (Mask::Tokenise, json, "\"x\"", Some("\"****\"")),
        (Mask::Tokenise, Form::Text, "--", Some("****")),
    ] {
        assert_eq!(masked(mask, form, value).as_deref(), expected, "{mask:?} {form:?} {value}");
    }
    let long = "x".repeat(1000);
    assert_eq!(masked(Mask::PARTIAL, Form::Text, &long).unwrap().len(), STARS_MAX + 4);
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(masked(Mask::Tokenise, Form::Text, &long).as_deref(), Some("****"));
}

/// The same on every host and in every version: a changed hash would break what was joined by it.
#[test]
fn hashes_and_tokens_stay_what_they_were() {
    for (mask, form, expected) in [
        (Mask::Hash, Form::Text, "858b0ee5e6dd4b7d96392059cce7189e"),
        (Mask::Hash, Form::Uuid(Format::Text), "6af18858-2f5c-8dc1-8855-3b5f09b157b1"),
        (Mask::Tokenise, Form::Text, "8796-9983-7670-1282"),
    ] {
        assert_eq!(
            masked(mask, form, "4111-1111-1111-1111").as_deref(),
            Some(expected),
            "{mask:?}"
        );
    }
}

#[test]
fn classes_and_keys_tell_hashes_apart() {
    let digest = |key, class| keyed(key, class).digest(b"123-45-6789");
    assert_ne!(digest(1, "ssn"), digest(1, "card"));
    assert_ne!(digest(1, "ssn"), digest(2, "ssn"));
    assert_eq!(digest(1, "ssn"), digest(1, "ssn"));
}

#[test]
fn a_uuid_and_bytes_hash_alike_in_both_formats() {
    let keyed = keyed(1, "id");
    let of = |form, value: &[u8]| {
        let mut out = Vec::new();
        assert!(write(Mask::Hash, form, Some(&keyed), value, &mut out));
        out
    };
    let binary = of(Form::Uuid(Format::Binary), &[0xab; 16]);
    let text = of(Form::Uuid(Format::Text), b"abababab-abab-abab-abab-abababababab");
    let mut digits = Vec::new();
    hex(&binary, &mut digits);
    let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'-').collect();
    assert_eq!(plain, digits);
    assert_eq!((binary[6] >> 4, binary[8] >> 6), (8, 2), "version and variant");
    let mut written = b"\\x".to_vec();
    hex(&of(Form::Bytea(Format::Binary), b"abc"), &mut written);
    assert_eq!(of(Form::Bytea(Format::Text), b"\\x616263"), written);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_token_has_the_form_of_its_value(value in "[A-Za-z0-9 .@-]{0,80}") {
        let token = masked(Mask::Tokenise, Form::Text, &value).unwrap();
        prop_assert_eq!(&masked(Mask::Tokenise, Form::Text, &value).unwrap(), &token);
        if value.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
            let shape = |text: &str| -> Vec<u8> {
                text.bytes().map(|byte| place(byte).map_or(byte, |(first, _)| first)).collect()
            };
            prop_assert_eq!(shape(&token), shape(&value));
        }
    }

    #[test]
    fn tokens_of_different_values_differ(one in "[0-9]{4}-[0-9]{8}", other in "[0-9]{4}-[0-9]{8}") {
        let [first, second] = [&one, &other].map(|value| masked(Mask::Tokenise, Form::Text, value));
        prop_assert_eq!(one == other, first == second);
        prop_assert_ne!(first.as_deref(), Some(one.as_str()));
    }

    #[test]
    fn no_character_beyond_ascii_stays(value in "\\PC{1,30}") {
        let token = masked(Mask::Tokenise, Form::Text, &value).unwrap();
        prop_assert!(token.is_ascii());
    }

    #[test]
    fn any_bytes_are_masked(value in proptest::collection::vec(any::<u8>(), 0..80), type_oid in 0_u32..4000) {
        let keyed = keyed(1, "x");
        for format in [Format::Text, Format::Binary] {
            for mask in [Mask::Redact, Mask::PARTIAL, Mask::Hash, Mask::Tokenise, Mask::Null] {
                let mut out = Vec::new();
                let form = crate::form::form(type_oid, format);
                write(mask, form, Some(&keyed), &value, &mut out);
                prop_assert!(value.len() < 6 || out != value);
            }
        }
    }
}
