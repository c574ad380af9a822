//! One way of running the machine over arbitrary bytes, for the fuzz targets and for the tests
//! that replay their corpus.
//!
//! Promises of [`run`]: no panic whatever the input; an `Err` names a broken promise of the
//! machine. Input: chunks of one control byte (which side speaks or what happens, and how the next
//! question is answered: refused by bit 4, under duties by bit 6, whose text must not be
//! recorded by bit 7), one length byte, and that many bytes. In a
//! compressed session bit 5 of the control byte says whether these are put into a compressed packet or are
//! what is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use tidegate_event::{
    Action as Does, Analysis, Effect, Lineage, Operation, Outcome, Output, Relation, Rows,
    StatementKind, Unknown,
};
use tidegate_mask::{Duties, exercise};
use tidegate_recording::{Joined, digest};
use tidegate_sql::mysql::Settings;

use crate::compress::{Algorithm, Decoder, Encoder, FULL_BYTES, Packing, Read};
use crate::config::SERVER_LOOK_BYTES_MAX;
use crate::{
    Action, Analyze, Answer, AskId, Authority, ClientTls, Config, Limits, Machine, PasswordKey,
    ServerTls,
};

/// An analyser that knows first words only, so that inputs stay small and runs fast.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstWord;

impl Analyze for FirstWord {
    fn analyze(&self, text: &[u8], settings: Settings, _: Option<&str>) -> Arc<Analysis> {
        let first = text.trim_ascii_start().split(|byte| !byte.is_ascii_alphabetic()).next();
        let word = String::from_utf8_lossy(first.unwrap_or_default()).to_ascii_uppercase();
        let action = match word.as_str() {
            "SELECT" => Does::Select,
            "CALL" => Does::Execute,
            "PREPARE" => Does::Session,
            "INSERT" => Does::Insert,
            "DELETE" => Does::Delete,
            "BEGIN" | "COMMIT" | "ROLLBACK" => Does::Transaction,
            "SET" | "USE" => Does::Set,
            "LOAD" => Does::CopyFrom,
            _ => Does::Unknown,
        };
        // Stands for a reading that depends on the settings.
        let doubtful = settings.ansi_quotes && text.contains(&b'"');
        let unknown = (action == Does::Unknown || doubtful)
            .then(|| Unknown { reason: "not a word of the exercise".to_owned() });
        let action = if unknown.is_some() { Does::Unknown } else { action };
        let effects = vec![Effect { action, relation: None, bounded: true }];
        // A `SELECT` reads all of one relation, and each other statement can't be told.
        let relation = Relation { schema: None, name: "t".to_owned() };
        let rows = match word.as_str() {
            "SELECT" => Rows::Known(vec![Output::Star(relation)]),
            _ => Rows::Opaque("no lineage in an exercise".to_owned()),
        };
        Arc::new(Analysis {
            kinds: vec![StatementKind(word)],
            effects,
            unknown,
            lineage: Lineage { rows: vec![rows], ..Lineage::default() },
            ..Analysis::default()
        })
    }

    fn too_long(&self, _bytes: u64) -> Arc<Analysis> {
        self.analyze(b"", Settings::default(), None)
    }
}

/// A key that seals by putting an `S` in front.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seal;

impl PasswordKey for Seal {
    fn public_pem(&self) -> Vec<u8> {
        b"the gate's key".to_vec()
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        sealed.strip_prefix(b"S").map(<[u8]>::to_vec)
    }
}

/// Limits small enough for short inputs to reach them.
pub const SMALL_LIMITS: Limits = Limits {
    sql_message_bytes_max: 96,
    sql_head_bytes: 48,
    held_message_bytes_max: 64,
    statements_bytes_max: 4096,
};

/// Which side the input speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the greeting on.
    Greeting,
    /// In a session: the login is done beforehand.
    Session,
    /// In a compressed session.
    Packed,
}

/// What the machine holds in the worst case under [`SMALL_LIMITS`], in bytes.
const HELD_BYTES_MAX: usize = 128 * 1024;
/// What waits in it more where it unpacks: a packet of the server's that is read whole, a step, and a
/// packet that is not packed yet; in bytes.
const UNPACKED_BYTES_MAX: usize = SERVER_LOOK_BYTES_MAX + FULL_BYTES + 512 * 1024;

/// A greeting of MariaDB 10.11 with all flags that there are.
const GREETING: &[u8] =
    b"\x0a5.5.5-10.11.6-MariaDB\0\x07\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\
    \0\0\0\0\0\0\x1d\0\0\0ijklmnopqrst\0mysql_native_password\0";

/// A handshake response to it: 4.1, multi-statements, plugins.
const RESPONSE: &[u8] =
    b"\x84\x82\x0b\0\0\0\0\x01\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0u\0\0\
    mysql_native_password\0";

/// Both ends of a compressed session.
struct Ends {
    packer: Encoder,
    seq: u8,
    from_gate: [Decoder; 2],
}

struct Run {
    machine: Machine<u64>,
    ends: Option<Ends>,
    client: BytesMut,
    server: BytesMut,
    open: BTreeSet<AskId>,
    asked: u64,
    refuse: bool,
    /// Permits come with duties; whether these hide the text.
    duties: Option<bool>,
    /// What the open question is about.
    analysis: Option<Arc<Analysis>>,
    /// Rows that were kept of each operation.
    kept: BTreeMap<AskId, Joined>,
    hold: Option<AskId>,
    closed: bool,
    now_ns: u64,
}

fn framed(seq: u8, payload: &[u8]) -> Vec<u8> {
    crate::frame::packet(seq, payload).to_vec()
}

/// Runs the machine over `data`.
pub fn run(start: Start, data: &[u8]) -> Result<(), String> {
    let client_tls =
        if data.len().is_multiple_of(2) { ClientTls::Offer } else { ClientTls::Refuse };
    let server_tls = if data.len().is_multiple_of(3) && start == Start::Greeting {
        ServerTls::Require
    } else {
        ServerTls::Off
    };
    let config = Config { client_tls, server_tls, limits: SMALL_LIMITS };
    let mut run = Run {
        machine: Machine::with_analyzer(config, Arc::new(FirstWord))
            .with_password_key(Arc::new(Seal)),
        ends: None,
        client: BytesMut::new(),
        server: BytesMut::new(),
        open: BTreeSet::new(),
        asked: 0,
        refuse: false,
        duties: None,
        analysis: None,
        kept: BTreeMap::new(),
        hold: None,
        closed: false,
        now_ns: 0,
    };
    run.machine.server_connected();
    if start != Start::Greeting {
        run.log_in(start, data.len().is_multiple_of(5))?;
    }
    let mut rest = data;
    while let [control, length, after @ ..] = rest {
        let (chunk, after) = after.split_at_checked(usize::from(*length)).unwrap_or((after, &[]));
        rest = after;
        run.refuse = control & 0x10 != 0;
        run.duties = (control & 0x40 != 0).then_some(control & 0x80 != 0);
        let packed = run.packed(chunk, control & 0x20 != 0);
        let chunk = packed.as_deref().unwrap_or(chunk);
        match control & 0x0f {
            0..=5 => run.client_says(chunk)?,
            6..=10 => run.server_says(chunk)?,
            11 => run.machine.server_tls_started(),
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
    fn log_in(&mut self, start: Start, zstd: bool) -> Result<(), String> {
        let algorithm = if zstd { Algorithm::Zstd } else { Algorithm::Zlib };
        let mut response = RESPONSE.to_vec();
        let (mut greeting, at) = (GREETING.to_vec(), 42);
        if start == Start::Packed {
            // The flags of either, where they stand in the greeting and in the response.
            let (place, flag) = if zstd { (3, 0x04) } else { (0, 0x20) };
            if let Some(flags) = response.get_mut(place) {
                *flags |= flag;
            }
            if let Some(flags) = greeting.get_mut(at).filter(|_| zstd) {
                *flags |= flag;
            }
            response.push(3);
        }
        self.server_says(&framed(0, &greeting))?;
        self.client_says(&framed(1, &response))?;
        self.server_says(&framed(2, b"\0\0\0\x02\0\0\0"))?;
        if start == Start::Packed {
            self.ends = Some(Ends {
                packer: Encoder::new(Packing { algorithm, level: 1 }, FULL_BYTES),
                seq: 0,
                from_gate: [Decoder::new(algorithm), Decoder::new(algorithm)],
            });
        }
        Ok(())
    }

    /// The chunk in a compressed packet, where the session is compressed and the input says so.
    fn packed(&mut self, chunk: &[u8], wanted: bool) -> Option<Vec<u8>> {
        let ends = self.ends.as_mut().filter(|_| wanted)?;
        let mut wire = BytesMut::new();
        ends.packer.write(ends.seq, chunk, &mut wire);
        Some(wire.to_vec())
    }

    /// What the machine sends must unpack.
    fn unpacks(&mut self, side: usize, bytes: &[u8]) -> Result<(), String> {
        let Some(decoder) = self.ends.as_mut().and_then(|ends| ends.from_gate.get_mut(side)) else {
            return Ok(());
        };
        let (mut wire, mut plain) = (BytesMut::from(bytes), BytesMut::new());
        loop {
            let read = decoder.read(&mut wire, &mut plain, bytes.len().max(1));
            if read.map_err(|broken| format!("it sent what is broken: {broken:?}"))? == Read::Short
            {
                break;
            }
            plain.clear();
        }
        let whole = wire.is_empty() && !decoder.is_within_packet();
        if whole { Ok(()) } else { Err("it sent part of a compressed packet".to_owned()) }
    }

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
            let unpacked = if self.ends.is_some() { UNPACKED_BYTES_MAX } else { 0 };
            if self.machine.held_bytes() > HELD_BYTES_MAX + unpacked {
                return Err(format!("holds {} bytes", self.machine.held_bytes()));
            }
            if self.machine.has_more_from_server() {
                self.machine.from_server(self.now_ns, &mut self.server);
                continue;
            }
            let before = self.client.len();
            if !self.machine.reads_client() {
                return Ok(());
            }
            self.machine.from_client(self.now_ns, &mut self.client);
            let Some(action) = self.machine.poll() else {
                if self.client.len() == before && !self.machine.has_more_from_client() {
                    return Ok(());
                }
                continue;
            };
            self.check(&action)?;
        }
    }

    fn reply(&mut self, id: AskId) {
        let answer = if self.refuse {
            let message = "refused in an exercise".to_owned();
            Answer::Refuse { sqlstate: "42501", message, hint: None }
        } else {
            self.open.insert(id);
            if let (Some(hides_text), Some(analysis)) = (self.duties, &self.analysis) {
                let duties = Duties { hides_text, ..exercise::duties(analysis) };
                return self.machine.permit_with(self.now_ns, id, id.0, Arc::new(duties));
            }
            Answer::Permit(id.0)
        };
        self.machine.answer(self.now_ns, id, answer);
    }

    fn check(&mut self, action: &Action<u64>) -> Result<(), String> {
        if self.closed && !matches!(action, Action::Outcome { .. }) {
            return Err(format!("acts after Close: {action:?}"));
        }
        if let Action::Ask { id, operation } = action {
            self.asked = self.asked.max(id.0 + 1);
            self.analysis = match operation {
                Operation::Statement(statement) => Some(Arc::clone(&statement.analysis)),
                _ => None,
            };
        }
        match action {
            Action::ToClient(bytes) => self.unpacks(0, bytes)?,
            Action::ToServer { bytes, .. } => self.unpacks(1, bytes)?,
            _ => {}
        }
        match action {
            Action::Ask { id, .. } if self.hold.is_some() => self.hold = Some(*id),
            Action::Ask { id, .. } => self.reply(*id),
            Action::Outcome { id, .. } if !self.open.remove(id) => {
                return Err(format!("an outcome too many: {id:?}"));
            }
            Action::Rows { id, offset, data } => {
                let kept = self.kept.entry(*id).or_default();
                kept.push(*offset, data).map_err(|error| error.to_string())?;
            }
            Action::Outcome { id, outcome } => return self.ended(*id, outcome),
            Action::ToServer { authority: Authority::Receipt(receipt), .. }
                if *receipt >= self.asked =>
            {
                return Err(format!("receipt {receipt} was never given"));
            }
            Action::ToServer { .. } if self.asked == 0 => {
                return Err("bytes went to the server before any question".to_owned());
            }
            Action::Close { .. } => self.closed = true,
            _ => {}
        }
        Ok(())
    }

    /// What was kept of a result is what its record says.
    fn ended(&mut self, id: AskId, outcome: &Outcome) -> Result<(), String> {
        let kept = self.kept.remove(&id).unwrap_or_default();
        let Some(result) = &outcome.result else {
            return if kept.bytes().is_empty() {
                Ok(())
            } else {
                Err("rows of no result".to_owned())
            };
        };
        let whole = result.kept == result.bytes && !result.keyed && result.kept > 0;
        if whole && result.digest != Some(digest(kept.bytes())) {
            return Err("what was kept has another digest".to_owned());
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
