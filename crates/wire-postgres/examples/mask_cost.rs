//! What masking costs the machine: a result of rows with ten columns, of which two are masked, against the
//! same result without an order, in gigabytes a second and as a ratio.
//!
//! Says nothing of sockets, TLS and records, which take most of a session's time: those are measured by
//! `cargo xtask bench`. Run it with optimisation, and compare only what one run says.
//!
//! `cargo run --release -p tidegate-wire-postgres --example mask_cost -- [rows]`

#![expect(clippy::disallowed_methods, reason = "an example may look at the clock")]
#![expect(clippy::print_stdout, reason = "an example")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tidegate_event::Operation;
use tidegate_mask::{Detectors, Mask, Order, ProtectedColumn, Protection, Secret, Unresolved};
use tidegate_wire_postgres::exercise::FirstWord;
use tidegate_wire_postgres::{Action, Answer, Config, Duties, Machine};

/// Bytes that a driver reads at once.
const READ_BYTES: usize = 64 * 1024;

/// Columns of a row.
const COLUMNS: [&str; 10] =
    ["id", "a", "name", "city", "made", "amount", "b", "note", "state", "tail"];

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn description() -> Vec<u8> {
    let mut body = b"\0\x0a".to_vec();
    for name in COLUMNS {
        body.extend(name.bytes());
        body.extend(b"\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    }
    frame(b'T', &body)
}

fn row(number: usize) -> Vec<u8> {
    let values = [
        number.to_string(),
        format!("{:03}-{:02}-{:04}", number % 899 + 1, number % 99 + 1, number % 9999 + 1),
        format!("customer number {number}"),
        "Bergen".to_owned(),
        "2024-01-15 10:20:30.123456+00".to_owned(),
        "1234.56".to_owned(),
        format!("4111{:012}", number % 1_000_000_000),
        "some remark of the usual length, neither short nor long".to_owned(),
        "active".to_owned(),
        "x".to_owned(),
    ];
    let mut body = b"\0\x0a".to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
        body.extend(value.bytes());
    }
    frame(b'D', &body)
}

fn duties(masks: [Mask; 2], detectors: Detectors) -> Option<Duties> {
    let columns = ["a", "b"].into_iter().zip(masks).map(|(name, mask)| ProtectedColumn {
        schema: None,
        relation: "t".to_owned(),
        column: name.to_owned(),
        class: name.to_owned(),
        mask,
    });
    let secret = Secret::new(&mut [7; 32]);
    let protection =
        Protection::new(columns.collect(), detectors, Unresolved::Withhold, Some(&secret)).ok()?;
    let order = Order {
        analysis: Arc::default(),
        protection: Arc::new(protection),
        cleared: BTreeSet::new(),
        catalogue: None,
    };
    Some(Duties { order: Some(order), ..Duties::default() })
}

/// Seconds that the machine takes for the result, and the bytes that leave.
fn run(duties: Option<&Duties>, result: &[u8]) -> (f64, usize) {
    let mut machine: Machine<u64> = Machine::with_analyzer(Config::default(), Arc::new(FirstWord));
    let mut client = BytesMut::new();
    let mut left = 0;
    let mut turn = |machine: &mut Machine<u64>| {
        while let Some(action) = machine.poll() {
            match action {
                Action::Ask { id, operation } => match (duties, operation) {
                    (Some(duties), Operation::Statement(statement)) => {
                        let mut duties = duties.clone();
                        if let Some(order) = &mut duties.order {
                            order.analysis = statement.analysis;
                        }
                        machine.permit_with(0, id, 0, Arc::new(duties));
                    }
                    _ => machine.answer(0, id, Answer::Permit(0)),
                },
                Action::ToClient(bytes) => left += bytes.len(),
                _ => {}
            }
        }
    };
    let list = COLUMNS.join(",");
    client.extend_from_slice(b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
    machine.from_client(0, &mut client);
    turn(&mut machine);
    let mut server = BytesMut::from(&b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"[..]);
    machine.from_server(0, &mut server);
    turn(&mut machine);
    client.extend_from_slice(&frame(b'Q', format!("SELECT /*{list}*/\0").as_bytes()));
    machine.from_client(0, &mut client);
    turn(&mut machine);
    server.extend_from_slice(&description());
    machine.from_server(0, &mut server);
    turn(&mut machine);
    let started = Instant::now();
    for part in result.chunks(READ_BYTES) {
        server.extend_from_slice(part);
        machine.from_server(0, &mut server);
        turn(&mut machine);
    }
    (started.elapsed().as_secs_f64(), left)
}

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    // The result is the same rows over and over, so that it fits a machine's memory.
    let block: Vec<u8> = (0..10_000).flat_map(row).collect();
    let result = block.repeat((rows / 10_000).max(1));
    let two = [Mask::Redact, Mask::PARTIAL];
    let cases = [
        ("off", None),
        ("one column cleared, one NULL", duties([Mask::Null; 2], Detectors::default())),
        ("redact and partial", duties(two, Detectors::default())),
        ("hash twice", duties([Mask::Hash; 2], Detectors::default())),
        ("tokenise twice", duties([Mask::Tokenise; 2], Detectors::default())),
        ("redact and partial, and all detectors", duties(two, Detectors::ALL)),
    ];
    let mut off = 0.0_f64;
    for (name, mut duties) in cases {
        if name.contains("cleared")
            && let Some(order) = duties.as_mut().and_then(|duties| duties.order.as_mut())
        {
            order.cleared = BTreeSet::from([0]);
        }
        let best = (0..3).map(|_| run(duties.as_ref(), &result)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((seconds, left)) = best else { continue };
        if name == "off" {
            off = seconds;
        }
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let speed = result.len() as f64 / seconds / 1e9;
        let ratio = seconds / off;
        println!("{name:42} {speed:6.2} GB/s, {ratio:5.2} times off, {left} bytes left");
    }
}
