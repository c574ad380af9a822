//! Results under duties: what the client gets of text and binary rows, cursors, several results, budgets,
//! errors; and that it is the same however the bytes come.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use tidegate_event::{Analysis, Outcome, Status, Stopped};
use tidegate_mask::{
    Detectors, Duties, Mask, Order, ProtectedColumn, Protection, Secret, Unresolved,
};
use tidegate_sql::mysql::Analyzer;
use tidegate_wire_mysql::capability as has;
use tidegate_wire_mysql::{Action, Answer, Config, Machine};

use crate::script::{encode, greeting, packet};

/// How a session is protected.
#[expect(clippy::struct_excessive_bools, reason = "each is a duty of its own")]
#[derive(Clone)]
struct Guard {
    order: bool,
    cleared: bool,
    shadow: bool,
    keep_rows: bool,
    hides_text: bool,
    rows_max: Option<u64>,
    bytes_max: Option<u64>,
    flags: u64,
}

const MASKED: Guard = Guard {
    order: true,
    cleared: false,
    shadow: false,
    keep_rows: false,
    hides_text: false,
    rows_max: None,
    bytes_max: None,
    flags: 0,
};

fn protection() -> Protection {
    let column = |name: &str, mask| ProtectedColumn {
        schema: None,
        relation: "customers".to_owned(),
        column: name.to_owned(),
        class: name.to_owned(),
        mask,
    };
    let columns = vec![
        column("ssn", Mask::PARTIAL),
        column("born", Mask::Redact),
        column("note", Mask::Null),
        column("token", Mask::Hash),
    ];
    let secret = Secret::new(&mut [7; 32]);
    Protection::new(columns, Detectors::default(), Unresolved::Withhold, Some(&secret)).unwrap()
}

/// A session with its protection, and what came of it.
struct Session {
    machine: Machine<u64>,
    guard: Guard,
    client: BytesMut,
    server: BytesMut,
    /// What the client got since it last asked for it.
    got: Vec<u8>,
    outcomes: Vec<Outcome>,
    kept: Vec<u8>,
}

impl Session {
    fn new(guard: Guard) -> Self {
        let mut machine = Machine::new(Config::default(), Arc::new(Analyzer::new()));
        machine.server_connected();
        let mut session = Self {
            machine,
            guard: Guard { order: false, ..guard.clone() },
            client: BytesMut::new(),
            server: BytesMut::new(),
            got: Vec::new(),
            outcomes: Vec::new(),
            kept: Vec::new(),
        };
        let common =
            has::PROTOCOL_41 | has::PLUGIN_AUTH | has::MULTI_STATEMENTS | has::SECURE_CONNECTION;
        let flags = common | guard.flags;
        session.server_says(&greeting("5.5.5-10.11.6-MariaDB", flags, "x"), usize::MAX);
        let mut hello = u32::try_from(flags & 0xffff_ffff).unwrap().to_le_bytes().to_vec();
        hello.extend([0, 0, 0, 1, 45]);
        hello.extend([0; 19]);
        hello.extend(u32::try_from(flags >> 32).unwrap().to_le_bytes());
        hello.extend(b"u\0\0x\0");
        session.client_says(&packet(1, &hello));
        session.server_says(&encode("ok(2)"), usize::MAX);
        session.got.clear();
        session.outcomes.clear();
        session.guard = guard;
        session
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
        self.machine.from_client(1, &mut self.client);
        self.drain();
    }

    /// The server's bytes, in pieces of that many.
    fn server_says(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.server.extend_from_slice(piece);
            self.machine.from_server(2, &mut self.server);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.machine.poll() {
            match action {
                Action::ToClient(bytes) => self.got.extend(bytes),
                Action::Outcome { outcome, .. } => self.outcomes.push(outcome),
                Action::Rows { data, .. } => self.kept.extend(data),
                Action::Ask { id, operation } => match operation {
                    tidegate_event::Operation::Statement(statement) => {
                        let duties = self.duties(statement.analysis);
                        self.machine.permit_with(1, id, id.0, Arc::new(duties));
                    }
                    _ => self.machine.answer(1, id, Answer::Permit(id.0)),
                },
                Action::Close { ending } => self.got.extend(format!("{ending:?}").bytes()),
                _ => {}
            }
        }
    }

    fn duties(&self, analysis: Arc<Analysis>) -> Duties {
        let guard = &self.guard;
        let cleared: BTreeSet<usize> =
            if guard.cleared { (0..4).collect() } else { BTreeSet::new() };
        let order = guard.order.then(|| Order {
            analysis,
            protection: Arc::new(protection()),
            cleared,
            catalogue: None,
        });
        Duties {
            order,
            rows_max: guard.rows_max,
            bytes_max: guard.bytes_max,
            keep_rows: guard.keep_rows,
            shadow: guard.shadow,
            hides_text: guard.hides_text,
        }
    }

    fn got(&mut self) -> Vec<Vec<u8>> {
        let all = std::mem::take(&mut self.got);
        let mut rest = &all[..];
        let mut packets = Vec::new();
        while let [a, b, c, _, after @ ..] = rest {
            let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])).unwrap();
            packets.push(rest[..length + 4].to_vec());
            rest = &after[length..];
        }
        assert!(rest.is_empty());
        for (at, packet) in packets.iter().enumerate() {
            assert_eq!(usize::from(packet[3]), at + 1, "sequence numbers of {packets:?}");
        }
        packets
    }
}

fn column(table: &str, name: &str, kind: u8, charset: u16) -> Vec<u8> {
    let mut bytes = b"\x03def".to_vec();
    let schema = if table.is_empty() { "" } else { "bank" };
    let org_name = if table.is_empty() { "" } else { name };
    for part in [schema, table, table, name, org_name] {
        bytes.push(u8::try_from(part.len()).unwrap());
        bytes.extend(part.as_bytes());
    }
    bytes.push(0x0c);
    bytes.extend(charset.to_le_bytes());
    // A column that is never NULL.
    bytes.extend([80, 0, 0, 0, kind, 1, 0, 0, 0, 0]);
    bytes
}

/// A text column, and a number.
fn text(table: &str, name: &str) -> Vec<u8> {
    column(table, name, 0xfd, 45)
}

fn number(table: &str, name: &str) -> Vec<u8> {
    column(table, name, 0x03, 63)
}

/// Packets numbered from `seq` on.
fn numbered(seq: u8, payloads: &[Vec<u8>]) -> Vec<u8> {
    payloads.iter().zip(seq..).flat_map(|(payload, seq)| packet(seq, payload)).collect()
}

/// A result: count, definitions, EOF, rows, EOF with those status flags.
fn result(seq: u8, columns: &[Vec<u8>], rows: &[&[u8]], status: u8) -> Vec<u8> {
    let mut payloads = vec![vec![u8::try_from(columns.len()).unwrap()]];
    payloads.extend(columns.iter().cloned());
    payloads.push(b"\xfe\0\0\x02\0".to_vec());
    payloads.extend(rows.iter().map(|row| row.to_vec()));
    payloads.push(vec![0xfe, 3, 0, status, 0]);
    numbered(seq, &payloads)
}

const NAMES: [&str; 5] = ["id", "ssn", "born", "note", "token"];

fn columns() -> Vec<Vec<u8>> {
    let mut columns: Vec<_> = NAMES.iter().map(|name| text("customers", name)).collect();
    columns[0] = number("customers", "id");
    columns[2] = column("customers", "born", 0x0a, 63);
    columns
}

fn query(text: &str) -> Vec<u8> {
    packet(0, &[b"\x03", text.as_bytes()].concat())
}

const ROW: &[u8] = b"\x011\x0b123-45-6789\x0a1970-01-01\x03abc\x03xyz";

fn rows_of(packets: &[Vec<u8>], columns: usize) -> Vec<Vec<u8>> {
    // Count, definitions and EOF before; EOF behind.
    packets[columns + 2..packets.len() - 1].iter().map(|packet| packet[4..].to_vec()).collect()
}

#[test]
fn text_rows_are_masked_by_column_however_they_come() {
    let mut seen = Vec::new();
    for piece in [1, 2, 7, 50, 100_000] {
        for select in
            ["SELECT * FROM customers", "SELECT id, ssn, born, note, token FROM customers"]
        {
            let mut session = Session::new(MASKED);
            session.client_says(&query(select));
            let null = b"\x012\xfb\xfb\xfb\xfb";
            session.server_says(&result(1, &columns(), &[ROW, null, ROW], 2), piece);
            let packets = session.got();
            let rows = rows_of(&packets, 5);
            assert_eq!(rows[0][..14], *b"\x011\x0b*******6789", "{select}");
            assert_eq!(
                rows[0][14..17],
                *b"\xfb\xfb\x20",
                "a date and a note are NULL, a hash has 32"
            );
            assert_eq!((rows[0].len(), &rows[1][..]), (49, &null[..]));
            assert_eq!(rows[0], rows[2]);
            // What may be NULL now says so; what stays keeps its flag.
            let flags: Vec<u8> = packets[1..6].iter().map(|one| one[one.len() - 5]).collect();
            assert_eq!(flags, [1, 0, 0, 0, 0]);
            // How many warnings there were might tell of values.
            assert_eq!(packets.last().unwrap()[4..], *b"\xfe\0\0\x02\0");
            let outcome = &session.outcomes[0];
            let masked = outcome.masked.unwrap();
            assert_eq!((outcome.rows, masked.columns, masked.values), (3, 4, 8));
            seen.push((packets, outcome.result.as_ref().unwrap().digest));
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    // The digest is that of what the client got.
    let (packets, digest) = &seen[0];
    assert_eq!(*digest, Some(tidegate_recording::digest(&packets.concat())));
}

#[test]
fn what_is_cleared_or_not_protected_passes_as_it_came() {
    let cleared = Guard { cleared: true, ..MASKED };
    let none = Guard { order: false, ..MASKED };
    for (guard, keyed) in [(cleared, true), (none, false)] {
        let mut session = Session::new(guard);
        session.client_says(&query("SELECT * FROM customers"));
        let sent = result(1, &columns(), &[ROW], 2);
        session.server_says(&sent, 9);
        assert_eq!(std::mem::take(&mut session.got), sent);
        let recorded = session.outcomes[0].result.as_ref().unwrap();
        assert_eq!((recorded.keyed, recorded.results, recorded.columns.len()), (keyed, 1, 5));
        assert!(recorded.digest.is_some());
    }
}

#[test]
fn binary_rows_are_masked_and_cursors_go_by_their_execution() {
    let mut session = Session::new(MASKED);
    session.client_says(&packet(0, b"\x16SELECT * FROM customers"));
    session.server_says(&encode("prepared(1,5,0)"), 3);
    let mut definitions: Vec<_> = columns();
    definitions.push(b"\xfe\0\0\x02\0".to_vec());
    session.server_says(&numbered(2, &definitions), 5);
    session.got.clear();
    let row = b"\0\0\x07\0\0\0\x0b123-45-6789\x04\xb2\x07\x01\x01\x03abc\x03xyz";
    let check = |packet: &[u8]| {
        // The numbers of NULLs begin at bit 2: born and note are NULL now.
        assert_eq!(packet[..7], [0, 0b0011_0000, 7, 0, 0, 0, 11]);
        assert_eq!(packet[7..18], *b"*******6789");
        assert_eq!((packet[18], packet.len()), (32, 51));
    };
    session.client_says(&packet(0, &[0x17, 1, 0, 0, 0, 0, 1, 0, 0, 0]));
    session.server_says(&result(1, &columns(), &[row, row], 2), 4);
    let packets = session.got();
    for row in rows_of(&packets, 5) {
        check(&row);
    }
    // With a cursor: the head comes with the execution, the rows with COM_STMT_FETCH.
    session.client_says(&packet(0, &[0x17, 1, 0, 0, 0, 1, 1, 0, 0, 0]));
    let mut head = vec![vec![5]];
    head.extend(columns());
    head.push(vec![0xfe, 0, 0, 0x42, 0]);
    session.server_says(&numbered(1, &head), 6);
    assert_eq!(session.got().len(), 7);
    session.client_says(&packet(0, &[0x1c, 1, 0, 0, 0, 2, 0, 0, 0]));
    let fetched = [row.to_vec(), vec![0xfe, 0, 0, 0x82, 0]];
    session.server_says(&numbered(1, &fetched), 8);
    let packets = session.got();
    check(&packets[0][4..]);
    let status: Vec<_> = session.outcomes.iter().map(|one| one.status.clone()).collect();
    assert_eq!(status, [Status::Ok, Status::Ok, Status::Suspended, Status::Ok]);
}

#[test]
fn columns_that_the_server_leaves_out_are_those_of_the_preparation() {
    let mut session = Session::new(Guard { flags: has::CACHE_METADATA, ..MASKED });
    session.client_says(&packet(0, b"\x16SELECT id, ssn FROM customers"));
    let two = [number("customers", "id"), text("customers", "ssn")];
    let mut answer = vec![vec![0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]];
    answer.extend(two);
    answer.push(b"\xfe\0\0\x02\0".to_vec());
    session.server_says(&numbered(1, &answer), 5);
    session.got.clear();
    session.client_says(&packet(0, &[0x17, 1, 0, 0, 0, 0, 1, 0, 0, 0]));
    let answer = [
        vec![2, 0],
        b"\xfe\0\0\x02\0".to_vec(),
        b"\0\0\x07\0\0\0\x0b123-45-6789".to_vec(),
        b"\xfe\0\0\x02\0".to_vec(),
    ];
    session.server_says(&numbered(1, &answer), 3);
    assert_eq!(session.got()[2][4..], *b"\0\0\x07\0\0\0\x0b*******6789");
}

#[test]
fn what_cannot_be_told_is_withheld_and_the_session_lives_on() {
    for (sql, sent) in [
        ("SELECT my_function(id) FROM customers", vec![text("", "x")]),
        ("SELECT @x", vec![text("", "@x")]),
        ("CALL p()", vec![text("", "x")]),
        ("SHOW WARNINGS", vec![text("", "Message")]),
        ("SELECT ssn, id FROM customers", vec![text("", "ssn")]),
    ] {
        let mut session = Session::new(MASKED);
        session.client_says(&query(sql));
        session.server_says(&result(1, &sent, &[b"\x0b123-45-6789"], 2), 11);
        let packets = session.got();
        assert_eq!(packets.len(), 1, "{sql}");
        let text = String::from_utf8_lossy(&packets[0][4..]).into_owned();
        assert!(text.contains("withheld") && !text.contains("123"), "{text}");
        let outcome = &session.outcomes[0];
        assert!(matches!(outcome.status, Status::Failed { .. }), "{outcome:?}");
        assert_eq!(outcome.masked.unwrap().stopped, Some(Stopped::Withheld));
        assert!(outcome.result.is_none());
        session.client_says(&query("SELECT 1"));
        session.server_says(&result(1, &[number("", "1")], &[b"\x011"], 2), 11);
        assert_eq!(session.got().len(), 5);
    }
}

#[test]
fn each_result_of_a_text_has_its_own_plan() {
    let mut session = Session::new(MASKED);
    session.client_says(&query(
        "SELECT ssn FROM customers; DELETE FROM t WHERE a = 1; SELECT id FROM customers",
    ));
    session.server_says(&result(1, &[text("customers", "ssn")], &[b"\x0b123-45-6789"], 0x0a), 3);
    session.server_says(&packet(6, b"\0\x01\0\x0a\0\0\0"), 3);
    session.server_says(&result(7, &[number("customers", "id")], &[b"\x011"], 2), 3);
    let packets = session.got();
    assert_eq!(packets[3][4..], *b"\x0b*******6789");
    assert_eq!(packets[9][4..], *b"\x011");
    assert_eq!(session.outcomes[0].result.as_ref().unwrap().results, 2);
    // Behind a call any number of results may come: none is told.
    session.client_says(&query("CALL p(); SELECT id FROM customers"));
    session.server_says(&packet(1, b"\0\0\0\x0a\0\0\0"), 3);
    session.server_says(&result(2, &[number("customers", "id")], &[b"\x011"], 2), 3);
    let packets = session.got();
    assert_eq!(packets.len(), 2);
    assert!(String::from_utf8_lossy(&packets[1]).contains("withheld"));
}

#[test]
fn a_column_that_the_server_names_is_masked_whatever_the_statement_calls_it() {
    let mut session = Session::new(MASKED);
    // The lineage of the star says nothing of another table; the server does.
    session.client_says(&query("SELECT * FROM other"));
    let columns = [text("customers", "ssn"), text("other", "name")];
    session.server_says(&result(1, &columns, &[b"\x0b123-45-6789\x03abc"], 2), 5);
    assert_eq!(rows_of(&session.got(), 2), [b"\x0b*******6789\x03abc"]);
}

#[test]
fn budgets_cut_a_result_and_what_comes_behind_is_dropped() {
    let rows = Guard { order: false, rows_max: Some(2), ..MASKED };
    let bytes = Guard { order: false, bytes_max: Some(70), ..MASKED };
    let masked = Guard { rows_max: Some(2), ..MASKED };
    for guard in [rows, bytes, masked] {
        let order = guard.order;
        let mut session = Session::new(guard);
        session.client_says(&query("SELECT * FROM customers"));
        session.server_says(&result(1, &columns(), &[ROW; 5], 2), 13);
        let packets = session.got();
        assert_eq!(packets.len(), 1 + 5 + 1 + 2 + 1);
        let last = String::from_utf8_lossy(packets.last().unwrap()).into_owned();
        assert!(last.contains("cut at its budget"), "{last}");
        let outcome = &session.outcomes[0];
        assert_eq!((outcome.rows, outcome.masked.unwrap().stopped), (2, Some(Stopped::Cut)));
        assert_eq!(packets[7][4..] == *ROW, !order);
        session.client_says(&query("SELECT 1"));
        session.server_says(&encode("ok(1)"), 2);
        assert_eq!(session.got().len(), 1);
    }
}

#[test]
fn shadow_counts_and_changes_nothing() {
    let mut session = Session::new(Guard { shadow: true, rows_max: Some(1), ..MASKED });
    for (sql, columns, row) in [
        ("SELECT * FROM customers", columns(), ROW),
        ("SELECT @x", vec![text("", "@x")], &b"\x01a"[..]),
    ] {
        session.client_says(&query(sql));
        let sent = result(1, &columns, &[row, row], 2);
        session.server_says(&sent, 10);
        assert_eq!(std::mem::take(&mut session.got), sent);
    }
    let masked: Vec<_> = session.outcomes.iter().map(|one| one.masked.unwrap()).collect();
    assert_eq!(
        (masked[0].shadow, masked[0].values, masked[0].stopped),
        (true, 8, Some(Stopped::Cut))
    );
    assert!(masked[1].stopped.is_some());
}

#[test]
fn errors_of_statements_that_touch_protected_columns_tell_nothing() {
    let mut session = Session::new(MASKED);
    let error = packet(1, b"\xff\x26\x04#23000Duplicate entry '123-45-6789' for key 'ssn'");
    session.client_says(&query("UPDATE customers SET id = 1 WHERE ssn = 'x'"));
    session.server_says(&error, 7);
    let packets = session.got();
    let text = String::from_utf8_lossy(&packets[0][4..]).into_owned();
    assert!(packets[0][4..].starts_with(b"\xff\x26\x04#23000(left out"), "{text}");
    session.client_says(&query("UPDATE other SET id = 1"));
    session.server_says(&error, 7);
    assert_eq!(std::mem::take(&mut session.got), error);
    session.client_says(&query("UPDATE customers SET id = 1 WHERE ssn = 'x'"));
    session.server_says(&packet(1, b"\0\x01\0\x02\0\x09\0"), 7);
    assert_eq!(session.got()[0][4..], *b"\0\x01\0\x02\0\0\0");
}

#[test]
fn rows_are_kept_where_a_policy_keeps_them_and_their_digest_is_that_of_all() {
    let mut session = Session::new(Guard { keep_rows: true, ..MASKED });
    session.client_says(&query("SELECT ssn FROM customers"));
    let rows = [&b"\x0b123-45-6789"[..]; 3];
    session.server_says(&result(1, &[text("customers", "ssn")], &rows, 2), 6);
    let packets = session.got();
    let stream = packets.concat();
    assert_eq!(session.kept, stream);
    let recorded = session.outcomes[0].result.as_ref().unwrap();
    assert_eq!(recorded.kept, recorded.bytes);
    assert_eq!(recorded.digest, Some(tidegate_recording::digest(&stream)));
}

#[test]
fn a_name_that_is_the_statement_s_text_is_the_client_s_alone_where_the_text_is_not_recorded() {
    let hiding = Guard { hides_text: true, keep_rows: true, ..MASKED };
    let ways = [
        hiding.clone(),
        Guard { cleared: true, ..hiding.clone() },
        Guard { shadow: true, ..hiding.clone() },
        Guard { order: false, ..hiding },
    ];
    for (way, guard) in ways.into_iter().enumerate() {
        for piece in [1, 7, 100_000] {
            let mut session = Session::new(guard.clone());
            session.client_says(&query("SELECT ssn = '123-45-6789', ssn FROM customers"));
            let computed = || column("", "ssn = '123-45-6789'", 0xfd, 45);
            let columns = [computed(), text("customers", "ssn")];
            session.server_says(&result(1, &columns, &[b"\x011\x0b987-65-4321"], 2), piece);
            let packets = session.got();
            let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
            assert!(
                has(&packets[1], b"ssn = '123-45-6789'"),
                "{way}: the client knows what it asked"
            );
            assert!(!has(&session.kept, b"123-45-6789"), "{way}");
            let recorded = session.outcomes[0].result.as_ref().unwrap();
            let names: Vec<&str> = recorded.columns.iter().map(|one| &one.name[..]).collect();
            assert_eq!(names, ["(computed)", "ssn"], "{way}");
            // Where clear values went to the client nothing is kept, and the digest is keyed.
            assert_eq!(has(&session.kept, b"(computed)"), way == 0 || way == 3, "{way}");
            let plain = Some(tidegate_recording::digest(&session.kept));
            assert_eq!(recorded.digest == plain, way == 0 || way == 3, "{way}");
        }
    }
}

#[test]
fn a_file_that_is_asked_for_behind_a_stopped_result_is_not_sent() {
    let mut session = Session::new(Guard { rows_max: Some(1), flags: has::LOCAL_FILES, ..MASKED });
    session
        .client_says(&query("SELECT id FROM customers; LOAD DATA LOCAL INFILE 'f' INTO TABLE t"));
    session.server_says(&result(1, &[number("customers", "id")], &[b"\x011", b"\x012"], 0x0a), 6);
    session.server_says(&packet(8, b"\xfbf"), 6);
    session.server_says(&encode("ok(10)"), 6);
    assert_eq!(session.got().len(), 5);
    assert_eq!(session.outcomes.len(), 1);
    session.client_says(&query("SELECT 1"));
    session.server_says(&encode("ok(1)"), 2);
    assert_eq!(session.got().len(), 1);
}

#[test]
fn a_stream_of_changes_ends_the_session_under_masks() {
    let mut session = Session::new(MASKED);
    session.client_says(&packet(0, &[0x12, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'b']));
    session.server_says(&packet(1, b"\0event"), 4);
    let got = String::from_utf8_lossy(&session.got).into_owned();
    assert!(got.contains("a stream of changes under masks") && !got.contains("event"), "{got}");
}
