//! Rows by a plan with each kind of treatment, whole and too long to be held.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_event::{Analysis, ColumnRef, Lineage, Output, Relation, Rows, Shown, Sources};
use tidegate_mask::{Field, Format, Mask, Order, ProtectedColumn, Protection, Secret, Unresolved};

use super::*;

/// The columns of the test's plan: a mask, or none.
pub(crate) const MASKED: [Option<Mask>; 6] = [
    None,
    Some(Mask::Redact),
    Some(Mask::Hash),
    Some(Mask::Partial { keep_last: 4 }),
    Some(Mask::Tokenise),
    Some(Mask::Null),
];

fn order(detectors: Detectors, shown: Shown) -> Order {
    let relation = || Relation { schema: None, name: "t".to_owned() };
    let name = |at: usize| format!("c{at}");
    let columns = MASKED.iter().enumerate().filter_map(|(at, mask)| {
        Some(ProtectedColumn {
            schema: None,
            relation: "t".to_owned(),
            column: name(at),
            class: name(at),
            mask: (*mask)?,
        })
    });
    let outputs = (0..MASKED.len()).map(|at| {
        let source = ColumnRef { relation: relation(), column: Some(name(at)) };
        let sources = Sources { columns: BTreeSet::from([source]), opaque: None };
        Output::One { name: None, shown, sources }
    });
    let lineage = Lineage { rows: vec![Rows::Known(outputs.collect())], ..Lineage::default() };
    let secret = Secret::new(&mut [9; 32]);
    let protection =
        Protection::new(columns.collect(), detectors, Unresolved::Withhold, Some(&secret));
    Order {
        analysis: Arc::new(Analysis { lineage, ..Analysis::default() }),
        protection: Arc::new(protection.unwrap()),
        cleared: BTreeSet::new(),
        catalogue: None,
    }
}

/// A plan with those columns, all of them text.
pub(crate) fn plan() -> Plan {
    planned(Detectors::default(), 25)
}

/// The same, where each is computed from its column.
pub(crate) fn computed_plan() -> Plan {
    let field = Field { type_oid: 25, format: Format::Binary, ..Field::default() };
    let order = order(Detectors::default(), Shown::Computed);
    order.plan(0, &vec![field; MASKED.len()]).unwrap()
}

fn planned(detectors: Detectors, type_oid: u32) -> Plan {
    let field = Field { type_oid, format: Format::Binary, ..Field::default() };
    order(detectors, Shown::AsStored).plan(0, &vec![field; MASKED.len()]).unwrap()
}

type Row = Vec<Option<Vec<u8>>>;

fn message(row: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut body = u16::try_from(row.len()).unwrap().to_be_bytes().to_vec();
    for value in row {
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.iter().flatten());
    }
    crate::frame::message(b'D', &[&body]).to_vec()
}

fn read(message: &[u8]) -> Row {
    let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
    assert_eq!(usize::try_from(length).unwrap() + 1, message.len(), "the message's own length");
    let mut row = Vec::new();
    let mut rest = &message[7..];
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        row.push(usize::try_from(length).ok().map(|length| {
            let (value, after) = rest.split_at(length);
            rest = after;
            value.to_vec()
        }));
    }
    assert_eq!(row.len(), usize::from(u16::from_be_bytes([message[5], message[6]])));
    row
}

fn whole(row: &[Option<Vec<u8>>], plan: &Plan, detectors: Detectors) -> Row {
    let (mut out, mut counts) = (b"before".to_vec(), Counts::default());
    rewrite(&message(row), plan, detectors, &mut out, &mut counts).unwrap();
    read(&out[6..])
}

fn values() -> impl Strategy<Value = Row> {
    let value = prop::option::weighted(0.9, "[A-Za-z0-9 -]{9,40}".prop_map(String::into_bytes));
    proptest::collection::vec(value, MASKED.len())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn protected_values_go_and_others_stay(row in values()) {
        let out = whole(&row, &plan(), Detectors::default());
        prop_assert_eq!(&out[0], &row[0]);
        for (was, is) in row.iter().zip(&out).skip(1) {
            prop_assert!(was.is_some() || is.is_none(), "NULL stays NULL");
            prop_assert!(was.is_none() || was != is);
        }
        prop_assert_eq!(&out[5], &None);
    }

    #[test]
    fn a_long_row_is_as_long_as_it_says(
        row in values(), part in 7_usize..120, cuts in proptest::collection::vec(1_usize..20, 1..8),
    ) {
        let mut plan = plan();
        // NULL can't be filled in behind the first part.
        plan.columns.truncate(5);
        let row = &row[..5];
        let message = message(row);
        let part = part.min(message.len());
        let (plan, mut out) = (Arc::new(plan), Vec::new());
        let mut long =
            LongRow::begin(&message[..part], message.len(), &plan, Detectors::default(), &mut out).unwrap();
        let mut rest = &message[part..];
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (now, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            long.feed(now, &mut out).unwrap();
            rest = after;
        }
        prop_assert!(long.is_whole());
        let read = read(&out);
        prop_assert_eq!(&read[0], &row[0]);
        for (was, is) in row.iter().zip(&read).skip(1) {
            prop_assert_eq!(was.is_none(), is.is_none());
            prop_assert!(was.is_none() || was != is);
        }
        prop_assert_eq!(part < message.len() || read == whole(row, &plan, Detectors::default()), true);
    }

    #[test]
    fn bytes_that_are_no_row_are_refused_and_leave_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut body = b"\0\x06".to_vec();
        body.extend(&bytes);
        let message = crate::frame::message(b'D', &[&body]);
        let (mut out, mut counts) = (Vec::new(), Counts::default());
        let done = rewrite(&message, &plan(), Detectors::ALL, &mut out, &mut counts);
        prop_assert!(done.is_ok() || (out.is_empty() && counts == Counts::default()));
        let plan = Arc::new(plan());
        let begun = LongRow::begin(&message, message.len() * 2, &plan, Detectors::ALL, &mut out);
        if let Ok(mut row) = begun {
            let _ = row.feed(&bytes, &mut out);
        }
    }
}

#[test]
fn whether_a_computed_value_is_null_tells_nothing() {
    let plan = computed_plan();
    let row = |value: Option<&[u8]>| {
        let mut row = vec![value.map(<[u8]>::to_vec); MASKED.len()];
        row[0] = Some(b"1".to_vec());
        row
    };
    let mut expected: Row = vec![Some(b"****".to_vec()); MASKED.len()];
    expected[0] = Some(b"1".to_vec());
    for value in [None, Some(&b"a value"[..])] {
        assert_eq!(whole(&row(value), &plan, Detectors::default()), expected);
        // In the first part of a row that is too long to be held, too; behind that nothing can stand for it.
        let mut plan = plan.clone();
        plan.columns.push(Treatment::Pass);
        let plan = Arc::new(plan);
        let mut long = row(value);
        long.push(Some(vec![b'x'; 100]));
        let message = message(&long);
        let mut out = Vec::new();
        let begin = |part: usize, out: &mut Vec<u8>| {
            LongRow::begin(&message[..part], message.len(), &plan, Detectors::default(), out)
        };
        let mut half = begin(message.len() - 50, &mut out).unwrap();
        half.feed(&message[message.len() - 50..], &mut out).unwrap();
        assert_eq!(read(&out)[..MASKED.len()], expected);
        assert_eq!(begin(14, &mut Vec::new()).map(|_| ()), Err(Refused::CannotFill));
    }
}

#[test]
fn a_long_row_whose_mask_is_null_can_not_be_filled() {
    let plan = Arc::new(plan());
    let row = vec![Some(vec![b'x'; 60]); MASKED.len()];
    let message = message(&row);
    let begin = |part: usize| {
        let mut out = Vec::new();
        let row =
            LongRow::begin(&message[..part], message.len(), &plan, Detectors::default(), &mut out);
        row.map(|_| ())
    };
    assert_eq!(begin(100), Err(Refused::CannotFill));
    assert_eq!(begin(message.len() - 10), Ok(()), "the last length is there");
}

#[test]
fn detectors_keep_the_length_and_find_what_is_cut() {
    let plan = planned(Detectors::ALL, 25);
    let mut row = vec![Some(b"see 4111 1111 1111 1111".to_vec()); MASKED.len()];
    let out = whole(&row, &plan, Detectors::ALL);
    assert_eq!(out[0].as_deref(), Some(&b"see *******************"[..]));
    row[0] = Some([vec![b' '; 100_000], b"4111 1111 1111 1111 ".to_vec()].concat());
    let message = message(&row);
    let (plan, mut out) = (Arc::new(plan), Vec::new());
    for cut in [99_990, 100_010, 100_020] {
        out.clear();
        let total = message.len();
        let mut plan = (*plan).clone();
        plan.columns.truncate(5);
        plan.columns.push(Treatment::Pass);
        let plan = Arc::new(plan);
        let mut long =
            LongRow::begin(&message[..cut], total, &plan, Detectors::ALL, &mut out).unwrap();
        long.feed(&message[cut..], &mut out).unwrap();
        let value = read(&out)[0].clone().unwrap();
        assert!(!value.windows(4).any(|part| part == b"1111"), "cut at {cut}");
        assert_eq!(value.len(), 100_020);
        assert_eq!(long.counts.detected, 1);
    }
}

#[test]
fn types_other_than_text_become_null_or_what_their_form_allows() {
    for (type_oid, expected) in [
        (23, [false; 5]),
        (1114, [false; 5]),
        (1009, [false; 5]),
        (114, [true, true, true, true, false]),
        (3802, [true, true, true, true, false]),
        (2950, [false, true, false, true, false]),
        (17, [false, true, false, false, false]),
        (25, [true, true, true, true, false]),
    ] {
        let plan = planned(Detectors::default(), type_oid);
        let row = vec![Some(b"0123456789abcdef".to_vec()); MASKED.len()];
        let out = whole(&row, &plan, Detectors::default());
        let there: Vec<bool> = out.iter().skip(1).map(Option::is_some).collect();
        assert_eq!(there, expected, "type {type_oid}");
        let lengths: HashSet<usize> = out.iter().flatten().map(Vec::len).collect();
        if type_oid == 2950 || type_oid == 17 {
            assert_eq!(lengths, HashSet::from([16]));
        }
        if type_oid == 3802 {
            assert!(out.iter().skip(1).flatten().all(|value| value.starts_with(b"\x01\"")));
        }
    }
}
