//! What the detectors find, what they must leave, and that no valid value escapes.

use proptest::prelude::*;

use super::*;

fn covered(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    Detectors::ALL.cover(&mut bytes, Cover::Stars);
    String::from_utf8(bytes).unwrap()
}

/// Test numbers that the schemes publish, and shapes that their standards show.
#[test]
fn what_is_found() {
    for (text, expected) in [
        ("4111111111111111", "****************"),
        ("pay 4111 1111 1111 1111 now", "pay ******************* now"),
        ("PAN4111-1111-1111-1111,", "PAN*******************,"),
        ("378282246310005", "***************"),
        ("3782 822463 10005", "*****************"),
        ("4222222222222", "*************"),
        ("5555555555554444 4111111111111111", "**************** ****************"),
        ("6304000000000000", "****************"),
        ("ssn 123-45-6789.", "ssn ***********."),
        ("123 45 6789", "***********"),
        ("GB82 WEST 1234 5698 7654 32 is one", "*************************** is one"),
        ("DE89370400440532013000", "**********************"),
        ("no9386011117947", "***************"),
        ("mail ada.l+x@mail.example.co.uk.", "mail **************************."),
        ("<größe@exämple.de>", "<*******************>"),
        ("+1 (415) 555-2671", "*****************"),
        ("tel:+442071838750", "tel:*************"),
        ("415-555-2671 or (415) 555-2671", "************ or **************"),
        ("AKIAIOSFODNN7EXAMPLE", "********************"),
        (
            "key=ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "key=****************************************",
        ),
        (
            "x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl y",
            "x ************************************************* y",
        ),
        ("db_password: 'hJ8s92kdLw01Qz7x'", "db_password: '****************'"),
        (
            "Authorization: Bearer 0a1b2c3d4e5f67890a1b2c3d",
            "Authorization: Bearer ************************",
        ),
        ("a-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----b", "a"),
    ] {
        let found = covered(text);
        if text.contains("BEGIN") {
            assert!(found.starts_with("a***") && found.ends_with("***b"), "{found}");
            assert!(!found.contains("MII"), "{found}");
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
}

/// Numbers, times, UUIDs, hashes, versions, texts: one a line.
#[test]
fn what_is_left() {
    let corpus = include_str!("benign.txt");
    let mut count = 0;
    for line in corpus.lines().filter(|line| !line.starts_with('#')) {
        count += 1;
        assert_eq!(covered(line), line);
    }
    assert!(count > 100, "only {count} lines");
}

#[test]
fn json_stays_json() {
    let mut number = b"[4111111111111111, \"a@example.com\"]".to_vec();
    assert!(Detectors::ALL.cover(&mut number, Cover::Json));
    assert_eq!(number, b"[9999999999999999, \"*************\"]");
}

fn luhn_digit(digits: &[u8]) -> u8 {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let doubled = u32::from(*digit) * if at % 2 == 0 { 2 } else { 1 };
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    u8::try_from((10 - sum % 10) % 10).unwrap()
}

fn card() -> impl Strategy<Value = String> {
    let prefix = prop_oneof![
        Just(vec![4]),
        Just(vec![3, 7]),
        Just(vec![5, 1]),
        Just(vec![6, 0]),
        Just(vec![2, 2])
    ];
    let rest = proptest::collection::vec(0_u8..10, 11..=16);
    (prefix, rest, prop::sample::select(vec!["", " ", "-"])).prop_map(
        |(mut digits, rest, between)| {
            digits.extend(rest);
            digits.push(luhn_digit(&digits));
            let text: Vec<String> = digits
                .chunks(4)
                .map(|group| group.iter().map(|digit| char::from(b'0' + digit)).collect())
                .collect();
            text.join(between)
        },
    )
}

fn ssn() -> impl Strategy<Value = String> {
    (1_u32..899, 1_u32..100, 1_u32..10_000)
        .prop_filter("never given out", |(area, ..)| *area != 666)
        .prop_map(|(area, group, serial)| format!("{area:03}-{group:02}-{serial:04}"))
}

fn iban() -> impl Strategy<Value = String> {
    ("[A-Z]{2}", "[A-Z0-9]{11,30}", any::<bool>()).prop_map(|(country, account, grouped)| {
        let digits = format!("{account}{country}00").chars().fold(0_u32, |sum, character| {
            let value = character.to_digit(36).unwrap();
            (sum * if value > 9 { 100 } else { 10 } + value) % 97
        });
        let iban = format!("{country}{:02}{account}", 98 - digits);
        if !grouped {
            return iban;
        }
        let groups: Vec<&str> =
            iban.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(" ")
    })
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        card(),
        ssn(),
        iban(),
        "[a-z0-9][a-z0-9._+-]{0,30}@([a-z0-9]{1,20}\\.){1,3}[a-z]{2,10}",
        "\\+[1-9][0-9]{7,14}",
        "\\([2-9][0-9]{2}\\) [2-9][0-9]{2}-[0-9]{4}",
        "AKIA[A-Z0-9]{16}",
        "ghp_[A-Za-z0-9]{36}",
        "eyJ[A-Za-z0-9_-]{8,40}\\.[A-Za-z0-9_-]{9,60}\\.[A-Za-z0-9_-]{10,50}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn no_valid_value_escapes(
        before in "([a-z ]{0,20}[ :;<\\[\"'])?", value in any_value(), behind in "([ ;,>\"')\\]][a-z ]{0,20})?",
    ) {
        let text = format!("{before}{value}{behind}");
        let seen = covered(&text);
        prop_assert!(!seen.contains(&value), "{}", seen);
        // Not a part of it either: the last four characters are what cards and SSNs are known by.
        let end = before.len() + value.len();
        prop_assert_eq!(seen.as_bytes().get(end - 4..end), Some(&b"****"[..]), "{}", seen);
    }

    #[test]
    fn no_bytes_panic_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let found = Detectors::ALL.find(&bytes);
        let mut end = 0;
        for range in found {
            prop_assert!(range.start >= end && range.end > range.start && range.end <= bytes.len());
            end = range.end;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn a_stream_finds_what_a_whole_finds(
        parts in proptest::collection::vec((
            prop_oneof!["[a-z ,.]{0,3000}", Just("x ".repeat(33_000))], any_value()), 1..4),
        cuts in proptest::collection::vec(1000_usize..50_000, 1..20),
    ) {
        let text = parts.iter().fold(String::new(), |text, (fill, value)| text + fill + " " + value + "; ");
        let mut stream = Stream::new(Detectors::ALL);
        let mut out = Vec::new();
        let mut rest = text.as_bytes();
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            stream.push(part, Cover::Stars, &mut out);
            rest = after;
        }
        prop_assert!(stream.end(Cover::Stars, &mut out));
        prop_assert_eq!(String::from_utf8(out).unwrap(), covered(&text));
    }
}

#[test]
fn lines_leave_as_they_are_whole_and_what_is_in_them_is_covered() {
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        "MIIEvQIBADANBg".repeat(5)
    );
    let text = format!(
        "user: 4111 1111 1111 1111 paid\n{key}mail a.b@example.com\n078-05-1120\nno end 219-09-9999"
    );
    for cut in [1, 3, 10, 1000] {
        let mut stream = Stream::new(Detectors::ALL);
        let (mut out, mut waited) = (Vec::new(), 0);
        for part in text.as_bytes().chunks(cut) {
            stream.push(part, Cover::Stars, &mut out);
            stream.lines(Cover::Stars, &mut out);
            // Whole lines do not wait, but for what may be the beginning of a key's end.
            let done = &text.as_bytes()[..waited + part.len()];
            waited += part.len();
            let lines = done.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            assert!(out.len() + 8 >= lines, "{cut}: {} of {lines}", out.len());
        }
        assert!(stream.take_found());
        stream.end(Cover::Stars, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.len(), text.len());
        for hidden in ["4111", "MIIE", "a.b@", "078-05", "219-09"] {
            assert!(!out.contains(hidden), "{cut}: {hidden} in {out}");
        }
        assert!(
            out.starts_with("user: ") && out.contains(" paid\n") && out.contains("no end "),
            "{out}"
        );
    }
}
