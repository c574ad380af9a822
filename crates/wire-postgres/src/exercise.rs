//! One way of running the machine over arbitrary bytes, for the fuzz targets and for the tests
//! that replay their corpus.
//!
//! Promises of [`run`]: no panic whatever the input; an `Err` names a broken promise of the
//! machine. Input: chunks of one control byte (which side speaks or what happens, and how the next
//! question is answered: refused by bit 4, permitted under an order by bit 5), one length byte, and that
//! many bytes.
//! Promises of [`rewrite`]: the same for the rewriters of rows and COPY data; what passes is the same byte
//! for byte. Input: one byte for the format, one for where it is cut, then the data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use tidegate_event::{
    Action as Does, Analysis, ColumnRef, Effect, Later, Lineage, Operation, Outcome, Output,
    Recorded, Relation, Rows, Shown, Sources, StatementKind, Status, Unknown,
};
use tidegate_mask::{CopyFormat, CopyStyle, Counts, Detectors, Field, Plan, Treatment, exercise};
use tidegate_recording::{Joined, digest};
use tidegate_sql::Settings;

use crate::copy_out::Copier;
use crate::{Action, Analyze, Answer, AskId, Authority, ClientTls, Config, Limits, Machine};

/// An analyser that knows first words only, so that inputs stay small and runs fast. What a statement
/// returns stands in its comment, as columns of the relation `t`: `/*ssn,=name,+,*,!*/` is the stored
/// column `ssn`, something computed from `name`, something of no column, a star, and something unknown;
/// `/*cursor c*/`, `/*prepared p*/` and `/*none*/` are what they say.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstWord;

impl Analyze for FirstWord {
    fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        let first = text.trim_ascii_start().split(|byte| !byte.is_ascii_alphabetic()).next();
        let word = String::from_utf8_lossy(first.unwrap_or_default()).to_ascii_uppercase();
        let action = match word.as_str() {
            "SELECT" => Does::Select,
            "INSERT" => Does::Insert,
            "DELETE" => Does::Delete,
            "BEGIN" | "COMMIT" | "ROLLBACK" => Does::Transaction,
            "SET" => Does::Set,
            "COPY" => Does::CopyFrom,
            "PREPARE" | "DEALLOCATE" | "DECLARE" => Does::Session,
            _ => Does::Unknown,
        };
        // Stands for a reading that depends on the settings.
        let doubtful =
            !settings.utf8 || (!settings.standard_conforming_strings && text.contains(&b'\\'));
        let unknown = (action == Does::Unknown || doubtful)
            .then(|| Unknown { reason: "not a word of the exercise".to_owned() });
        let action = if unknown.is_some() { Does::Unknown } else { action };
        let effects = vec![Effect { action, relation: None, bounded: true }];
        let statements =
            || text.split(|byte| *byte == b';').filter(|one| !one.trim_ascii().is_empty());
        let kind = |one: &[u8]| {
            let one = one.trim_ascii_start();
            let word = one.split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
            StatementKind(String::from_utf8_lossy(word).to_ascii_uppercase())
        };
        let rows: Vec<Rows> = statements().map(|one| rows(&String::from_utf8_lossy(one))).collect();
        let later = statements().zip(&rows).enumerate();
        let later = later.filter_map(|(at, (one, rows))| later_rows(at, one, rows)).collect();
        Arc::new(Analysis {
            kinds: statements().map(kind).collect(),
            effects,
            unknown,
            lineage: Lineage { rows, later, ..Lineage::default() },
            ..Analysis::default()
        })
    }

    fn too_long(&self, _bytes: u64) -> Arc<Analysis> {
        self.analyze(b"", Settings::default())
    }
}

/// `DECLARE name` and `PREPARE name`: what they make returns what their comment says.
fn later_rows(statement: usize, text: &[u8], rows: &Rows) -> Option<Later> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace();
    let (kind, name) = (words.next()?, words.next()?.to_owned());
    let by = match kind {
        "DECLARE" => Rows::Cursor(name),
        "PREPARE" => Rows::Prepared(name),
        _ => return None,
    };
    Some(Later { statement, by, rows: rows.clone() })
}

fn rows(statement: &str) -> Rows {
    let comment = statement.split_once("/*").and_then(|(_, rest)| rest.split_once("*/"));
    let Some((comment, _)) = comment else {
        return Rows::Opaque("no lineage in an exercise".to_owned());
    };
    match comment.split_once(' ') {
        Some(("cursor", name)) => return Rows::Cursor(name.to_owned()),
        Some(("prepared", name)) => return Rows::Prepared(name.to_owned()),
        _ if comment == "none" => return Rows::None,
        _ => {}
    }
    let t = || Relation { schema: None, name: "t".to_owned() };
    let output = |item: &str| {
        let (shown, column) = match item.strip_prefix('=') {
            Some(column) => (Shown::Computed, column),
            None => (Shown::AsStored, item),
        };
        let source = ColumnRef { relation: t(), column: Some(column.to_owned()) };
        let (columns, opaque) = match item {
            "*" => return Output::Star(t()),
            "+" => (BTreeSet::new(), None),
            "!" => (BTreeSet::new(), Some("unknown in an exercise".to_owned())),
            _ => (BTreeSet::from([source]), None),
        };
        Output::One { name: None, shown, sources: Sources { columns, opaque } }
    };
    Rows::Known(comment.split(',').map(output).collect())
}

/// Rewrites `data` as rows or COPY data of three columns: one passes, one is looked into, one is masked.
pub fn rewrite(data: &[u8]) -> Result<(), String> {
    let [style, cut, data @ ..] = data else { return Ok(()) };
    let field = Field { type_oid: 25, ..Field::default() };
    let order =
        exercise::duties(&FirstWord.analyze(b"SELECT /*+,+,a*/", Settings::default())).order;
    let order = order.ok_or("no order")?;
    let masked = order.plan(0, &[Field::default(), field.clone(), field]).map_err(|one| one.why)?;
    let pass = Plan { columns: vec![Treatment::Pass; 3], masked: 0 };
    let same = |out: &[u8]| {
        if data.starts_with(out) { Ok(()) } else { Err("what passes has changed".to_owned()) }
    };
    if style % 6 == 5 {
        let row = crate::frame::message(b'D', &[data]);
        let mut out = Vec::new();
        let _ =
            crate::rows::rewrite(&row, &masked, Detectors::ALL, &mut out, &mut Counts::default());
        out.clear();
        let done =
            crate::rows::rewrite(&row, &pass, Detectors::ALL, &mut out, &mut Counts::default());
        return if done.is_err() || out == row { Ok(()) } else { same(&out) };
    }
    let (style, delimiter, null): (_, _, &[u8]) = match style % 6 {
        0 => (CopyStyle::Text, b'\t', b"\\N"),
        1 => (CopyStyle::Text, b'|', b""),
        2 => (CopyStyle::Csv { quote: b'"', escape: b'"' }, b',', b""),
        3 => (CopyStyle::Csv { quote: b'\'', escape: b'!' }, b';', b"nil"),
        _ => (CopyStyle::Binary, 0, b""),
    };
    let format = CopyFormat { style, delimiter, null: null.to_vec(), header: cut % 2 == 0 };
    for (plan, passes) in [(masked, false), (pass, true)] {
        let mut copier = Copier::new(format.clone(), plan, Detectors::ALL);
        let mut out = Vec::new();
        for part in data.chunks(usize::from(*cut).max(1)) {
            let done = copier.feed(part);
            out.extend(copier.take().0);
            if done.is_err() {
                break;
            }
        }
        if passes {
            same(&out)?;
        }
    }
    Ok(())
}

/// Limits small enough for short inputs to reach them.
pub const SMALL_LIMITS: Limits = Limits {
    sql_message_bytes_max: 96,
    sql_head_bytes: 48,
    held_message_bytes_max: 64,
    replies_max: 12,
    statements_bytes_max: 4096,
    portals_bytes_max: 4096,
};

/// Which side the input speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the first packet on.
    Startup,
    /// In a session: the login is done beforehand.
    Session,
}

/// What the machine holds in the worst case under [`SMALL_LIMITS`], in bytes: names twice (held
/// and under way) with one value over each bound, replies, and the actions of one chunk.
const HELD_BYTES_MAX: usize = 128 * 1024;

struct Run {
    machine: Machine<u64>,
    client: BytesMut,
    server: BytesMut,
    open: BTreeSet<AskId>,
    /// What is kept of the results under way.
    kept: BTreeMap<AskId, Joined>,
    asked: u64,
    refuse: bool,
    order: bool,
    analysis: Arc<Analysis>,
    hold: Option<AskId>,
    closed: bool,
    now_ns: u64,
}

/// Runs the machine over `data`.
pub fn run(start: Start, data: &[u8]) -> Result<(), String> {
    let client_tls =
        if data.len().is_multiple_of(2) { ClientTls::Offer } else { ClientTls::Refuse };
    let config = Config { client_tls, limits: SMALL_LIMITS };
    let machine = Machine::with_analyzer(config, Arc::new(FirstWord));
    let mut run = Run {
        machine,
        client: BytesMut::new(),
        server: BytesMut::new(),
        open: BTreeSet::new(),
        kept: BTreeMap::new(),
        asked: 0,
        refuse: false,
        order: false,
        analysis: Arc::default(),
        hold: None,
        closed: false,
        now_ns: 0,
    };
    if start == Start::Session {
        run.client_says(b"\0\0\0\x10\0\x03\0\0user\0u\0\0")?;
        run.server_says(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")?;
    }
    let mut rest = data;
    while let [control, length, after @ ..] = rest {
        let (chunk, after) = after.split_at_checked(usize::from(*length)).unwrap_or((after, &[]));
        rest = after;
        run.refuse = control & 0x10 != 0;
        run.order = control & 0x20 != 0;
        match control & 0x0f {
            0..=5 => run.client_says(chunk)?,
            6..=11 => run.server_says(chunk)?,
            12 => run.machine.client_tls_started(),
            13 => run.machine.client_closed(run.now_ns),
            14 => run.machine.server_closed(run.now_ns),
            // The next question waits for an answer until something else happens.
            _ => run.hold = Some(AskId(u64::MAX)),
        }
        run.drain()?;
    }
    run.end()
}

impl Run {
    fn client_says(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.client.extend_from_slice(chunk);
        self.drain()
    }

    fn server_says(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.server.extend_from_slice(chunk);
        self.machine.from_server(self.now_ns, &mut self.server);
        self.drain()
    }

    /// Does what the driver does between two reads.
    fn drain(&mut self) -> Result<(), String> {
        self.now_ns += 1;
        if let Some(id) = self.hold.take().filter(|id| *id != AskId(u64::MAX)) {
            self.reply(id);
        }
        loop {
            while let Some(action) = self.machine.poll() {
                self.check(&action)?;
            }
            if self.machine.held_bytes() > HELD_BYTES_MAX {
                return Err(format!("holds {} bytes", self.machine.held_bytes()));
            }
            let before = self.client.len();
            if !self.machine.reads_client() {
                return Ok(());
            }
            self.machine.from_client(self.now_ns, &mut self.client);
            let Some(action) = self.machine.poll() else {
                if self.client.len() == before {
                    return Ok(());
                }
                continue;
            };
            self.check(&action)?;
        }
    }

    fn reply(&mut self, id: AskId) {
        if self.order && !self.refuse {
            self.open.insert(id);
            let duties = Arc::new(exercise::duties(&self.analysis));
            self.machine.permit_with(self.now_ns, id, id.0, duties);
            return;
        }
        let answer = if self.refuse {
            let message = "refused in an exercise".to_owned();
            Answer::Refuse { sqlstate: "42501", message, hint: None }
        } else {
            self.open.insert(id);
            Answer::Permit(id.0)
        };
        self.machine.answer(self.now_ns, id, answer);
    }

    fn check(&mut self, action: &Action<u64>) -> Result<(), String> {
        if self.closed && !matches!(action, Action::Outcome { .. }) {
            return Err(format!("acts after Close: {action:?}"));
        }
        if let Action::Ask { id, operation } = action {
            self.analysis = match operation {
                Operation::Statement(statement) => Arc::clone(&statement.analysis),
                _ => Arc::default(),
            };
            self.asked = self.asked.max(id.0 + 1);
        }
        match action {
            Action::Ask { id, .. } if self.hold.is_some() => self.hold = Some(*id),
            Action::Ask { id, .. } => self.reply(*id),
            Action::Rows { id, offset, data } => {
                if !self.open.contains(id) {
                    return Err(format!("rows of what is not under way: {id:?}"));
                }
                let kept = self.kept.entry(*id).or_default();
                kept.push(*offset, data).map_err(|error| format!("{id:?}: {error}"))?;
            }
            Action::Outcome { id, outcome } => {
                if !self.open.remove(id) {
                    return Err(format!("an outcome too many: {id:?}"));
                }
                let kept = self.kept.remove(id).unwrap_or_default();
                check_result(outcome, kept.bytes()).map_err(|why| format!("{id:?}: {why}"))?;
            }
            Action::ToServer { authority: Authority::Receipt(receipt), .. }
                if *receipt >= self.asked =>
            {
                return Err(format!("receipt {receipt} was never given"));
            }
            Action::Close { .. } => self.closed = true,
            Action::Dial | Action::StartServerTls => {
                return Err("dials of its own accord".to_owned());
            }
            Action::Cancel(_) => self.machine.cancel_ended(),
            Action::ToServer { .. } | Action::ToClient(_) | Action::StartClientTls => {}
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), String> {
        if let Some(id) = self.hold.take().filter(|id| *id != AskId(u64::MAX)) {
            self.reply(id);
        }
        self.machine.client_closed(self.now_ns);
        self.machine.server_closed(self.now_ns);
        while let Some(action) = self.machine.poll() {
            if let Action::Ask { id, .. } = action {
                self.reply(id);
            } else {
                self.check(&action)?;
            }
        }
        if !self.closed {
            return Err("never closes".to_owned());
        }
        match self.open.first() {
            Some(id) => Err(format!("no outcome for {id:?}")),
            None => Ok(()),
        }
    }
}

/// What was kept of a result is its beginning, and all of it has its digest.
fn check_result(outcome: &Outcome, kept: &[u8]) -> Result<(), String> {
    let none = Recorded::default();
    let result = outcome.result.as_deref().unwrap_or(&none);
    let whole = result.kept == result.bytes && !result.keyed;
    if usize::try_from(result.kept) != Ok(kept.len()) {
        return Err(format!("{} bytes kept, and {} said to be", kept.len(), result.kept));
    }
    if whole && outcome.result.is_some() && result.digest != Some(digest(kept)) {
        return Err("the digest is not that of what was kept".to_owned());
    }
    // What the server sends need not read.
    let is_cut = matches!(tidegate_recording::messages(kept), Ok((_, false)));
    if is_cut && whole && outcome.status == Status::Ok {
        return Err("a message is kept in part".to_owned());
    }
    Ok(())
}
