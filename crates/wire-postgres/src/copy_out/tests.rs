//! Values written and read again by a second reading of the manual: masked ones are what their mask makes
//! of them, all others are the same, however the data is cut.

use proptest::prelude::*;
use tidegate_mask::{CopyFormat, CopyStyle, Detectors, Field, Format, Treatment};

use super::*;
use crate::rows::tests::{MASKED, computed_plan, plan};

type Row = Vec<Option<Vec<u8>>>;

fn format(style: u8) -> CopyFormat {
    let (style, delimiter, null, header): (_, _, &[u8], _) = match style {
        0 => (CopyStyle::Text, b'\t', b"\\N", false),
        1 => (CopyStyle::Text, b'|', b"", true),
        2 => (CopyStyle::Csv { quote: b'"', escape: b'"' }, b',', b"", false),
        3 => (CopyStyle::Csv { quote: b'\'', escape: b'!' }, b';', b"nil", true),
        _ => (CopyStyle::Binary, 0, b"", false),
    };
    CopyFormat { style, delimiter, null: null.to_vec(), header }
}

/// Writes as the server does (`copyto.c`).
fn write(format: &CopyFormat, rows: &[Row]) -> Vec<u8> {
    if format.style == CopyStyle::Binary {
        let mut out = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for row in rows {
            out.extend(u16::try_from(row.len()).unwrap().to_be_bytes());
            for value in row {
                let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
                out.extend(length.to_be_bytes());
                out.extend(value.iter().flatten());
            }
        }
        out.extend(b"\xff\xff");
        return out;
    }
    let mut out = Vec::new();
    if format.header {
        out.extend(b"any\n");
    }
    for row in rows {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                out.push(format.delimiter);
            }
            match value {
                Some(value) => write_value(format, value, &mut out),
                None => out.extend(&format.null),
            }
        }
        out.push(b'\n');
    }
    out
}

fn write_value(format: &CopyFormat, value: &[u8], out: &mut Vec<u8>) {
    let CopyStyle::Csv { quote, escape } = format.style else {
        for byte in value {
            match byte {
                b'\n' => out.extend(b"\\n"),
                b'\t' => out.extend(b"\\t"),
                b'\\' => out.extend(b"\\\\"),
                byte if *byte == format.delimiter => out.extend([b'\\', *byte]),
                byte => out.push(*byte),
            }
        }
        return;
    };
    let special = [format.delimiter, quote, b'\n', b'\r'];
    if value != format.null && !value.iter().any(|byte| special.contains(byte)) {
        out.extend(value);
        return;
    }
    out.push(quote);
    for byte in value {
        if [quote, escape].contains(byte) {
            out.push(escape);
        }
        out.push(*byte);
    }
    out.push(quote);
}

fn rewritten(format: &CopyFormat, plan: Plan, data: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut copier = Copier::new(format.clone(), plan, Detectors::default());
    let mut cuts = cuts.iter().cycle();
    let (mut rest, mut out) = (data, Vec::new());
    while !rest.is_empty() {
        let (part, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
        copier.feed(part).unwrap();
        out.extend(copier.take().0);
        rest = after;
    }
    out
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = prop_oneof![
        1 => Just(None),
        6 => "[a-z0-9 ,;|'\"!\\\\\n\t]{0,24}".prop_map(|text| Some(text.into_bytes())),
    ];
    proptest::collection::vec(proptest::collection::vec(value, MASKED.len()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn masked_values_are_masked_and_others_stay(
        rows in rows(), style in 0_u8..5, cuts in proptest::collection::vec(1_usize..40, 1..10),
    ) {
        let format = format(style);
        // An empty text that stands for NULL reads as NULL where it stands without quotes.
        let text_null = matches!(format.style, CopyStyle::Text) && format.null.is_empty();
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|one| one.filter(|one| !text_null || !one.is_empty())).collect())
            .collect();
        let plan = plan();
        let expected: Vec<Row> = rows
            .iter()
            .map(|row| row.iter().zip(&plan.columns).map(|(value, treatment)| {
                let value = value.clone()?;
                let Treatment::Mask(masker) = treatment else { return Some(value) };
                match masker.constant() {
                    Some(Constant::Null) => None,
                    Some(Constant::Bytes(bytes)) => Some(bytes.to_vec()),
                    None => {
                        let mut out = Vec::new();
                        masker.write(&value, &mut out).then_some(out)
                    }
                }
            }).collect())
            .collect();
        let data = write(&format, &rows);
        let out = rewritten(&format, plan, &data, &cuts);
        // A value that was quoted stays so: compare with that writer's way of writing.
        if matches!(format.style, CopyStyle::Csv { .. }) {
            let pass = Plan { columns: vec![Treatment::Pass; MASKED.len()], masked: 0 };
            prop_assert_eq!(&out, &rewritten(&format, pass, &out, &[7]));
            let expected = write(&format, &expected);
            prop_assert_eq!(unquoted(&format, &out), unquoted(&format, &expected));
        } else {
            prop_assert_eq!(out, write(&format, &expected));
        }
    }

    #[test]
    fn what_passes_is_the_same_byte_for_byte(
        rows in rows(), style in 0_u8..5, cuts in proptest::collection::vec(1_usize..40, 1..10),
    ) {
        let format = format(style);
        let data = write(&format, &rows);
        let pass = Plan { columns: vec![Treatment::Pass; MASKED.len()], masked: 0 };
        prop_assert_eq!(rewritten(&format, pass, &data, &cuts), data);
    }

    #[test]
    fn no_bytes_panic_it(
        data in proptest::collection::vec(any::<u8>(), 0..200), style in 0_u8..5, cut in 1_usize..20,
    ) {
        let mut copier = Copier::new(format(style), plan(), Detectors::ALL);
        for part in data.chunks(cut) {
            if copier.feed(part).is_err() {
                break;
            }
        }
    }
}

/// Without quotes around values that need none.
fn unquoted(format: &CopyFormat, data: &[u8]) -> String {
    let CopyStyle::Csv { quote, escape } = format.style else { unreachable!() };
    let quotes = [b'\n', format.delimiter];
    let mut out: Vec<u8> = Vec::new();
    let mut inside = false;
    let mut bytes = data.iter();
    while let Some(mut byte) = bytes.next() {
        if inside && *byte == escape && escape != quote {
            byte = bytes.next().unwrap();
        } else if *byte == quote {
            inside = !inside;
            continue;
        }
        out.push(if inside && quotes.contains(byte) { b'_' } else { *byte });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn whether_a_computed_value_is_null_tells_nothing() {
    for style in 0..5 {
        let format = format(style);
        let written = |value: Option<&[u8]>| {
            let mut row: Row = vec![value.map(<[u8]>::to_vec); MASKED.len()];
            row[0] = Some(b"1".to_vec());
            rewritten(&format, computed_plan(), &write(&format, &[row]), &[3])
        };
        let (there, null) = (written(Some(b"a value")), written(None));
        assert_eq!(there, null, "style {style}");
        assert_eq!(null.windows(4).filter(|part| part == b"****").count(), 5, "style {style}");
    }
}

#[test]
fn a_value_too_long_to_be_held_is_replaced_without_being_looked_at() {
    for style in [0, 2, 4] {
        let format = format(style);
        let long = vec![b'x'; FIELD_BYTES_MAX * 3];
        let mut row: Row = vec![Some(b"1".to_vec()); MASKED.len()];
        row[1] = Some(long.clone());
        row[2] = Some(long.clone());
        row[0] = Some(long);
        let data = write(&format, &[row]);
        let mut copier = Copier::new(format, plan(), Detectors::default());
        let mut held_max = 0;
        let mut out = Vec::new();
        for part in data.chunks(8192) {
            copier.feed(part).unwrap();
            held_max = held_max.max(copier.sink.held.len() + copier.waiting());
            out.extend(copier.take().0);
        }
        assert!(held_max <= FIELD_BYTES_MAX + 16 * 1024, "{held_max}");
        let stars = out.windows(4).filter(|part| part == b"****").count();
        assert!(stars >= 2, "style {style}");
        let passed = out.split(|byte| *byte != b'x').map(<[u8]>::len).sum::<usize>();
        assert_eq!(passed, FIELD_BYTES_MAX * 3, "only the first column passes");
    }
}

#[test]
fn data_without_its_columns_is_refused() {
    let field = Field { type_oid: 25, format: Format::Text, ..Field::default() };
    assert_eq!(field.type_oid, 25);
    for (style, data) in [
        (0, &b"1\t2\n"[..]),
        (0, b"1\t2\t3\t4\t5\t6\t7\t8\n"),
        (2, b"\"1\n2\",3\n"),
        (4, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x01"),
        (4, b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0"),
        (4, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff\0"),
        (4, b"not a signature at all"),
    ] {
        let mut copier = Copier::new(format(style), plan(), Detectors::default());
        assert_eq!(copier.feed(data), Err(BadCopy), "{style} {data:?}");
    }
}
