//! Arbitrary bytes on both sides, through the fuzzers' own entry.

use proptest::prelude::*;
use tidegate_wire_postgres::exercise::{Start, rewrite, run};

use super::script::{bind, columns, execute, frame, parse, row, startup};

/// A chunk of an input: who speaks, and what.
fn chunk(control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len().min(255)).unwrap();
    [&[control, length][..], &bytes[..usize::from(length)]].concat()
}

fn client_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "(SELECT|FAIL|PREPARE|COPY|SET|x)[a-z \\\\;]{0,90}"
            .prop_map(|text| frame(b'Q', (text + "\0").as_bytes())),
        ("[ab]?", "(SELECT|DEALLOCATE a|DECLARE a)[a-z ]{0,60}").prop_map(|(n, t)| parse(&n, &t)),
        ("[ab]?", "[ab]?", "[a-z]{0,80}").prop_map(|(p, s, v)| bind(&p, &s, &[&v])),
        "[ab]?".prop_map(|portal| execute(&portal)),
        prop::sample::select(vec![b'S', b'H', b'c', b'X']).prop_map(|kind| frame(kind, b"")),
        ("[SP]", "[ab]?").prop_map(|(k, n)| frame(b'D', format!("{k}{n}\0").as_bytes())),
        ("[SP]", "[ab]?").prop_map(|(k, n)| frame(b'C', format!("{k}{n}\0").as_bytes())),
        "[a-z]{0,40}".prop_map(|data| frame(b'd', data.as_bytes())),
        Just(startup("user=u")),
        "(SELECT|DECLARE a|FETCH|COPY) /\\*(a|b|c|\\*|!|=a,c|cursor a|none)\\*/ ?(t TO STDOUT)?"
            .prop_map(|text| frame(b'Q', (text + "\0").as_bytes())),
        ("[ab]?", "SELECT /\\*(a|c|!|\\*)\\*/").prop_map(|(name, text)| parse(&name, &text)),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn server_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(b"123nIsGHWc".to_vec()).prop_map(|kind| frame(kind, b"\0\0\0")),
        prop::sample::select(b"ITE".to_vec()).prop_map(|status| frame(b'Z', &[status])),
        Just(frame(b'C', b"SELECT 1\0")),
        Just(frame(b'E', b"SERROR\0VERROR\0C22012\0Mno\0\0")),
        Just(frame(b'E', b"VFATAL\0C57P01\0Mend\0\0")),
        Just(frame(b't', b"\0\x01\0\0\0\x17")),
        Just(frame(b'S', b"standard_conforming_strings\0off\0")),
        Just(frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0")),
        "[a-z]{0,40}".prop_map(|data| frame(b'D', data.as_bytes())),
        "(a|c):25(,b:23)?".prop_map(|all| columns(&all, 0)),
        proptest::collection::vec("[a-z0-9]{0,9}", 0..3)
            .prop_map(|all| row(all.into_iter().map(|value| Some(value.into_bytes())))),
        Just(frame(b'H', b"\0\0\x01\0\0")),
        "[a-z\t\n]{0,9}".prop_map(|data| frame(b'd', data.as_bytes())),
        Just(frame(b'N', b"SNOTICE\0VNOTICE\0Msay \"this\"\0\0")),
        Just(frame(b'A', b"\0\0\0\x01c\04111111111111111\0")),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![
        8 => (0_u8..6, any::<[bool; 2]>(), proptest::collection::vec(client_message(), 1..4))
            .prop_map(|(side, [refuse, order], all)| {
                chunk(side | u8::from(refuse) << 4 | u8::from(order) << 5, &all.concat())
            }),
        8 => (6_u8..12, proptest::collection::vec(server_message(), 1..4))
            .prop_map(|(side, all)| chunk(side, &all.concat())),
        1 => (12_u8..16).prop_map(|event| chunk(event, &[])),
    ];
    proptest::collection::vec(chunk, 0..60).prop_map(|chunks| chunks.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn noise_ends_with_a_reason_and_in_bounds(
        data in proptest::collection::vec(any::<u8>(), 0..600), session: bool,
    ) {
        let start = if session { Start::Session } else { Start::Startup };
        prop_assert_eq!(run(start, &data), Ok(()));
    }

    #[test]
    fn any_data_is_rewritten_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(rewrite(&data), Ok(()));
    }

    #[test]
    fn messages_out_of_turn_end_with_a_reason_and_in_bounds(data in input(), session: bool) {
        let start = if session { Start::Session } else { Start::Startup };
        prop_assert_eq!(run(start, &data), Ok(()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the corpus is files")]
fn the_fuzzers_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    type Entry = fn(&[u8]) -> Result<(), String>;
    let targets: [(&str, Entry); 3] = [
        ("postgres_startup", |data| run(Start::Startup, data)),
        ("postgres_session", |data| run(Start::Session, data)),
        ("postgres_results", rewrite),
    ];
    for (target, replay) in targets {
        let mut count = 0;
        for entry in std::fs::read_dir(format!("{corpus}/{target}")).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            count += 1;
            assert_eq!(replay(&data), Ok(()), "{}", path.display());
        }
        assert!(count > 0, "no corpus for {target}");
    }
}
