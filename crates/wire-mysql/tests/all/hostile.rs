//! Arbitrary bytes on both sides, through the fuzzers' own entry.

use proptest::prelude::*;
use tidegate_wire_mysql::exercise::{Start, run};

use super::script::{encode, packet};

/// A chunk of an input: who speaks, and what.
fn chunk(control: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len().min(255)).unwrap();
    [&[control, length][..], &bytes[..usize::from(length)]].concat()
}

fn client_message() -> impl Strategy<Value = Vec<u8>> {
    let command = |head: &'static [u8]| {
        "[a-z \\\";]{0,60}".prop_map(move |tail| packet(0, &[head, tail.as_bytes()].concat()))
    };
    prop_oneof![
        "(SELECT|SET|USE|CALL|LOAD|x)[a-z \\\";]{0,100}"
            .prop_map(|text| packet(0, format!("\x03{text}").as_bytes())),
        command(b"\x16SELECT "),
        command(b"\x17\x07\0\0\0\0\x01\0\0\0\0\x01\xfd\0\x01"),
        command(b"\x17\xff\xff\xff\xff\0\x01\0\0\0"),
        command(b"\xfa\x07\0\0\0\x80\0\x03\0"),
        command(b"\x18\x07\0\0\0\0\0"),
        command(b"\x11u\0\0"),
        command(b"\x02"),
        (0_u8..=0x20).prop_map(|command| packet(0, &[command, 7, 0, 0, 0, 0, 0, 0])),
        (0_u8..6, "[a-z]{0,20}").prop_map(|(seq, data)| packet(seq, data.as_bytes())),
        Just(encode("hello(1,u,d)")),
        Just(encode("ssl(1)")),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn server_message() -> impl Strategy<Value = Vec<u8>> {
    let item = |item: &'static str| Just(encode(item));
    prop_oneof![
        item("greet"),
        item("greet8"),
        item("ok(1)"),
        item("more(1)"),
        item("eof(2)"),
        item("err(1)"),
        item("prepared(7,1,1)"),
        item("prepared(7,0,0)"),
        item("1[\\x01]"),
        item("1[\\x02]"),
        item("2[\\x03def\\x01d\\x01t\\x01t\\x01a\\x01a\\x0c\\x21~~~~~\\xfd~~~~~]"),
        item("2[\\x03def\\x01d\\x01t\\x01t\\x01b\\x01b\\x0c\\x21~~~~~\\x03\\x01~~~~]"),
        item("4[\\x03abc\\x017]"),
        item("4[~~\\x03abc\\x07~~~]"),
        item("1[\\x02~]"),
        item("1[\\xfbfile]"),
        item("2[\\xfecaching_sha2_password~salt]"),
        item("2[\\x01\\x04]"),
        item("1[\\xff\\xff\\xff\\x01]"),
        item("1[~~~\\x02\\x40~~~\\x03\\x01\\x02\\x01d]"),
        (0_u8..6, "[a-z]{1,20}").prop_map(|(seq, data)| packet(seq, data.as_bytes())),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

/// The bit of a control byte that puts a chunk into a compressed packet, where the session has such.
const PACK: u8 = 0x20;

fn input() -> impl Strategy<Value = Vec<u8>> {
    let chunk = prop_oneof![
        8 => (0_u8..6, 0_u8..6, proptest::collection::vec(client_message(), 1..3))
            .prop_map(|(side, how, all)| {
                // Permits, refusals, and permits under duties.
                let answer = match how { 0 | 1 => 0, 2 => 0x10, _ => 0x40 };
                chunk(side | answer | PACK, &all.concat())
            }),
        8 => (6_u8..11, proptest::collection::vec(server_message(), 1..4))
            .prop_map(|(side, all)| chunk(side | PACK, &all.concat())),
        1 => (0_u8..11, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(side, raw)| chunk(side, &raw)),
        1 => (11_u8..16).prop_map(|event| chunk(event, &[])),
    ];
    proptest::collection::vec(chunk, 0..60).prop_map(|chunks| chunks.concat())
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![Just(Start::Greeting), Just(Start::Session), Just(Start::Packed)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn noise_ends_with_a_reason_and_in_bounds(
        data in proptest::collection::vec(any::<u8>(), 0..600), start in start(),
    ) {
        prop_assert_eq!(run(start, &data), Ok(()));
    }

    #[test]
    fn messages_out_of_turn_end_with_a_reason_and_in_bounds(data in input(), start in start()) {
        prop_assert_eq!(run(start, &data), Ok(()));
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the corpus is files")]
fn the_fuzzers_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    for (target, start) in [
        ("mysql_greeting", Start::Greeting),
        ("mysql_session", Start::Session),
        ("mysql_packed", Start::Packed),
    ] {
        let mut count = 0;
        for entry in std::fs::read_dir(format!("{corpus}/{target}")).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            count += 1;
            assert_eq!(run(start, &data), Ok(()), "{}", path.display());
        }
        assert!(count > 0, "no corpus for {target}");
    }
}
