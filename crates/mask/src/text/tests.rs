//! What stays of messages and statements, and what goes.

use super::*;

fn field(field: Field, breach: bool, value: &str) -> String {
    let mut out = Vec::new();
    mask_field(field, breach, value.as_bytes(), Detectors::ALL, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn messages_lose_what_they_quote() {
    let mut count = 0;
    for line in include_str!("messages.txt").lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<String> = line.split(" | ").map(|part| part.replace("\\n", "\n")).collect();
        let [what, breach, value, expected] = parts.as_slice() else { panic!("{line}") };
        let what = match what.as_str() {
            "message" => Field::Message,
            "detail" => Field::Detail,
            "context" => Field::Context,
            "query" => Field::Query,
            "foreign" => Field::Foreign,
            "name" => Field::Name,
            other => panic!("{other}"),
        };
        assert_eq!(&field(what, breach == "breach", value), expected, "{line}");
        count += 1;
    }
    assert!(count > 20, "only {count} lines");
}

#[test]
fn literals_are_masked_by_their_number() {
    let text = "SELECT * FROM t WHERE ssn = '123-45-6789' AND id = 7";
    let literals = [28..41, 51..52];
    assert_eq!(text.get(28..41), Some("'123-45-6789'"));
    let masked = mask_literals(text, &literals, |at| at == 0);
    assert_eq!(masked, "SELECT * FROM t WHERE ssn = '****' AND id = 7");
    assert_eq!(
        mask_literals(text, &literals, |_| true),
        "SELECT * FROM t WHERE ssn = '****' AND id = '****'"
    );
    assert!(matches!(mask_literals(text, &literals, |_| false), Cow::Borrowed(_)));
    // Ranges that do not begin within the text are passed over.
    assert_eq!(mask_literals("ab", &[7..9, 9..10], |_| true), "ab");
}
