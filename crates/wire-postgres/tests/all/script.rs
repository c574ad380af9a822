//! The notation of golden conversations, and a driver that runs them.
//!
//! A message is `K[body]`; packets and raw bytes are `[bytes]`. In a body `~` is a zero byte and
//! `\xHH` any byte. Shorthands for input: `startup(user=u,..)`, `parse(name,text)`,
//! `bind(portal,statement,value,..)`, `bindb(portal,statement)` (binary results), `exec(portal)`,
//! `execmax(portal)`, `ok` (a server's answer to a trusted login), `cols(name:type,..)` and
//! `colsb(name:type,..)` (a RowDescription in text or binary), `row(value,..)` (`NULL` is one).
//!
//! `protect WORD..` gives every further permit an order over the relation `t`: `ssn` is redacted, `name`
//! partly shown, `mail` hashed, `card` tokenised, `pin` made NULL. Words: `detect` (what is unresolved
//! passes through all detectors), `clear` (it passes), `unmask:COLUMN`, `rows:N`, `bytes:N`, `shadow`, `nothing` (no order),
//! `catalogue` (where `t` has OID 100 and these columns), `off`.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_event::{Operation, Outcome, Status};

use super::protect::Protect;
use tidegate_wire_postgres::exercise::{FirstWord, SMALL_LIMITS};
use tidegate_wire_postgres::{
    Action, Answer, AskId, Authority, ClientTls, Config, Exempt, Limits, Machine,
};

pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

pub fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 8).unwrap().to_be_bytes();
    [&length[..], &code.to_be_bytes(), body].concat()
}

pub fn parse(name: &str, text: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        body.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend(b"\0\0");
    frame(b'B', &body)
}

pub fn execute(portal: &str) -> Vec<u8> {
    frame(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

/// A RowDescription: `name:type`, or `name:type:table:number`.
pub fn columns(all: &str, format: u16) -> Vec<u8> {
    let all: Vec<&str> = all.split(',').collect();
    let mut body = u16::try_from(all.len()).unwrap().to_be_bytes().to_vec();
    for column in all {
        let mut parts = column.split(':');
        body.extend(parts.next().unwrap().bytes());
        body.push(0);
        let mut number = || parts.next().map_or(0, |number| number.parse::<u32>().unwrap());
        let (type_oid, table, attribute) = (number(), number(), number());
        body.extend(table.to_be_bytes());
        body.extend(u16::try_from(attribute).unwrap().to_be_bytes());
        body.extend(type_oid.to_be_bytes());
        body.extend(b"\xff\xff\xff\xff\xff\xff");
        body.extend(format.to_be_bytes());
    }
    frame(b'T', &body)
}

/// A DataRow.
pub fn row(values: impl Iterator<Item = Option<Vec<u8>>>) -> Vec<u8> {
    let mut body = vec![0, 0];
    let mut count = 0_u16;
    for value in values {
        count += 1;
        let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
        body.extend(length.to_be_bytes());
        body.extend(value.unwrap_or_default());
    }
    body[..2].copy_from_slice(&count.to_be_bytes());
    frame(b'D', &body)
}

pub fn startup(parameters: &str) -> Vec<u8> {
    let pairs = parameters.split(',').filter(|pair| !pair.is_empty());
    let body: String = pairs.map(|pair| pair.replacen('=', "\0", 1) + "\0").collect();
    packet(196_608, (body + "\0").as_bytes())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(hex) = rest.strip_prefix("\\x") {
            bytes.push(u8::from_str_radix(&hex[..2], 16).unwrap());
            rest = &hex[2..];
            continue;
        }
        match first {
            '~' => bytes.push(0),
            other => bytes.extend(other.to_string().bytes()),
        }
        rest = &rest[first.len_utf8()..];
    }
    bytes
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        match byte {
            0 => text.push('~'),
            b' '..=b'}' if byte != b'\\' => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").unwrap(),
        }
        text
    })
}

/// Bytes of one line of input: items separated by ` | `.
pub fn encode(line: &str) -> Vec<u8> {
    line.split(" | ").flat_map(|item| encode_item(item.trim())).collect()
}

fn encode_item(item: &str) -> Vec<u8> {
    if item == "ok" {
        return encode("R[~~~~] | S[client_encoding~UTF8~] | K[~~~\x07~~~\x01] | Z[I]");
    }
    if let Some((name, arguments)) = item.split_once('(').filter(|_| item.ends_with(')')) {
        let arguments = &arguments[..arguments.len() - 1];
        let mut parts = arguments.split(',');
        let mut next = || parts.next().unwrap_or_default();
        return match name {
            "startup" => startup(arguments),
            "parse" => {
                let (name, text) = arguments.split_once(',').unwrap();
                parse(name, text)
            }
            "bind" => {
                let (portal, statement) = (next(), next());
                bind(portal, statement, &parts.collect::<Vec<_>>())
            }
            "bindb" => {
                let (portal, statement) = (next(), next());
                frame(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\x01\0\x01").as_bytes())
            }
            "cols" => columns(arguments, 0),
            "colsb" => columns(arguments, 1),
            "row" => row(parts.map(|value| Some(unescape(value)).filter(|_| value != "NULL"))),
            "exec" => execute(next()),
            "execmax" => frame(b'E', format!("{}\0\0\0\0\x02", next()).as_bytes()),
            other => unreachable!("{other}"),
        };
    }
    let (kind, body) = item.split_once('[').unwrap();
    let body = unescape(body.strip_suffix(']').unwrap());
    kind.bytes().next().map_or(body.clone(), |kind| frame(kind, &body))
}

/// Bytes in the notation; what is no whole message is shown raw.
fn show(bytes: &[u8]) -> String {
    let mut shown = Vec::new();
    let mut rest = bytes;
    while let [kind, a, b, c, d, after @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let Some(body) = length.checked_sub(4).and_then(|length| after.get(..length)) else {
            break;
        };
        if !kind.is_ascii_graphic() {
            break;
        }
        shown.push(format!("{}[{}]", char::from(*kind), escape(body)));
        rest = &after[body.len()..];
    }
    if !rest.is_empty() {
        shown.push(format!("[{}]", escape(rest)));
    }
    shown.join(" | ")
}

/// How the driver answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    AtOnce,
    WhenTold,
}

pub struct Driver {
    machine: Machine<u64>,
    client: BytesMut,
    server: BytesMut,
    answers: Answers,
    open: Option<AskId>,
    protect: Option<Protect>,
    /// The text of the open question.
    analysis: Option<Arc<tidegate_event::Analysis>>,
    now_ns: u64,
    /// What came out, adjacent bytes of one kind joined.
    log: Vec<(String, Vec<u8>)>,
}

/// A text with this word is refused at once; one with `late` when it is executed.
fn refuses(operation: &Operation) -> bool {
    match operation {
        Operation::Statement(statement) => {
            let late =
                statement.via != tidegate_event::Via::Parse && statement.text.contains("late");
            let value = |parameter: &tidegate_event::Parameter| {
                *parameter == tidegate_event::Parameter::Text(b"secret".to_vec())
            };
            statement.text.contains("secret") || late || statement.parameters.iter().any(value)
        }
        Operation::Login(login) => login.user == "mallory",
        Operation::FunctionCall(call) => call.oid == 666,
        Operation::Cancel(cancel) => cancel.backend_pid == 666,
        Operation::Ssh(_) | Operation::File(_) => false,
    }
}

impl Driver {
    pub fn new(client_tls: ClientTls, limits: Limits) -> Self {
        let config = Config { client_tls, limits };
        Self {
            machine: Machine::with_analyzer(config, Arc::new(FirstWord)),
            client: BytesMut::new(),
            server: BytesMut::new(),
            answers: Answers::AtOnce,
            open: None,
            protect: None,
            analysis: None,
            now_ns: 0,
            log: Vec::new(),
        }
    }

    /// Gives every further permit these duties.
    pub fn protect(&mut self, protect: Option<Protect>) {
        self.protect = protect;
    }

    pub fn client_says(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
        self.turn();
    }

    pub fn server_says(&mut self, bytes: &[u8]) {
        self.server.extend_from_slice(bytes);
        self.machine.from_server(self.now_ns, &mut self.server);
        self.turn();
    }

    /// What the agent's driver does after each call.
    fn turn(&mut self) {
        self.now_ns += 10;
        loop {
            let mut acted = false;
            while let Some(action) = self.machine.poll() {
                acted = true;
                self.act(action);
            }
            let before = self.client.len();
            if self.machine.reads_client() {
                self.machine.from_client(self.now_ns, &mut self.client);
            }
            if !acted && self.client.len() == before {
                break;
            }
        }
        while let Some(action) = self.machine.poll() {
            self.act(action);
        }
    }

    fn note(&mut self, what: String, bytes: &[u8]) {
        match self.log.last_mut() {
            Some((last, joined)) if !bytes.is_empty() && *last == what => joined.extend(bytes),
            _ => self.log.push((what, bytes.to_vec())),
        }
    }

    fn act(&mut self, action: Action<u64>) {
        match action {
            Action::ToClient(bytes) => self.note("client <-".into(), &bytes),
            Action::ToServer { authority, bytes } => {
                let why = match authority {
                    Authority::Receipt(receipt) => format!("receipt {receipt}"),
                    Authority::Exempt(Exempt::Handshake) => "handshake".into(),
                    Authority::Exempt(Exempt::Framing) => "framing".into(),
                };
                self.note(format!("server <- {why}:"), &bytes);
            }
            Action::Ask { id, operation } => {
                self.note(format!("ask {} {}", id.0, describe(&operation)), &[]);
                self.open = Some(id);
                self.analysis = match &operation {
                    Operation::Statement(statement) => Some(Arc::clone(&statement.analysis)),
                    _ => None,
                };
                if self.answers == Answers::AtOnce {
                    let refuse = refuses(&operation);
                    self.reply(refuse);
                }
            }
            Action::Outcome { id, outcome } => {
                self.note(format!("outcome {} {}", id.0, outcome_text(&outcome)), &[]);
            }
            Action::Cancel(bytes) => {
                self.note("cancel".into(), &bytes);
                self.machine.cancel_ended();
            }
            Action::Rows { id, data, .. } => self.note(format!("rows of {}:", id.0), &data),
            Action::StartClientTls => self.note("start client TLS".into(), &[]),
            Action::Dial | Action::StartServerTls => self.note("dials".into(), &[]),
            Action::Close { ending } => self.note(format!("close: {ending:?}"), &[]),
        }
    }

    fn reply(&mut self, refuse: bool) {
        let Some(id) = self.open.take() else { return };
        let answer = if refuse {
            let hint = Some("ask the owner".into());
            Answer::Refuse { sqlstate: "42501", message: "not you".into(), hint }
        } else if let Some(protect) = &self.protect {
            let analysis = self.analysis.clone().unwrap_or_default();
            let duties = Arc::new(protect.duties(analysis));
            self.machine.permit_with(self.now_ns, id, id.0, duties);
            return;
        } else {
            Answer::Permit(id.0)
        };
        self.machine.answer(self.now_ns, id, answer);
    }

    /// Takes the bytes that went one way since the last call.
    pub fn take(&mut self, way: &str) -> Vec<u8> {
        let mut taken = Vec::new();
        for (what, bytes) in &mut self.log {
            if what.starts_with(way) {
                taken.append(bytes);
            }
        }
        taken
    }

    /// Runs one line of input.
    fn line(&mut self, line: &str) {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("client", bytes) => self.client_says(&encode(bytes)),
            ("server", bytes) => self.server_says(&encode(bytes)),
            (protect, "") if protect.starts_with("protect ") => {
                self.protect((protect != "protect off").then(|| Protect::read(protect)));
            }
            ("answers", "when told") => self.answers = Answers::WhenTold,
            ("permit", _) => {
                self.reply(false);
                self.turn();
            }
            ("refuse", _) => {
                self.reply(true);
                self.turn();
            }
            ("client starts TLS", _) => {
                self.machine.client_tls_started();
                self.turn();
            }
            ("client closes", _) => {
                self.machine.client_closed(self.now_ns);
                self.turn();
            }
            ("server closes", _) => {
                self.machine.server_closed(self.now_ns);
                self.turn();
            }
            other => unreachable!("{other:?}"),
        }
    }

    pub fn show_log(&mut self) -> String {
        self.log.drain(..).fold(String::new(), |mut text, (what, bytes)| {
            let space = if bytes.is_empty() { "" } else { " " };
            writeln!(text, "    {what}{space}{}", show(&Bytes::from(bytes))).unwrap();
            text
        })
    }

    /// What the machine holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.machine.held_bytes() + self.server.len()
    }

    pub fn log(&self) -> &[(String, Vec<u8>)] {
        &self.log
    }
}

fn describe(operation: &Operation) -> String {
    match operation {
        Operation::Login(login) => format!(
            "login {}@{} application {:?} options {:?}{}{}",
            login.user,
            login.database,
            login.application,
            login.options,
            if login.replication { " replication" } else { "" },
            if login.client_tls { " tls" } else { "" },
        ),
        Operation::Statement(statement) => {
            let unknown = statement.analysis.unknown.as_ref();
            let mut text = format!("{} {:?}", statement.via.name(), statement.text);
            if u64::try_from(statement.text.len()) != Ok(statement.text_bytes) {
                let digest = if statement.text_sha256.is_some() { "with" } else { "without" };
                write!(text, " of {} bytes {digest} digest", statement.text_bytes).unwrap();
            }
            if !statement.prepared.is_empty() {
                write!(text, " prepared {:?}", statement.prepared).unwrap();
            }
            if !statement.parameters.is_empty() {
                write!(text, " parameters {:?}", statement.parameters).unwrap();
            }
            if let Some(unknown) = unknown {
                write!(text, " unknown: {}", unknown.reason).unwrap();
            }
            text
        }
        other => format!("{other:?}"),
    }
}

fn outcome_text(outcome: &Outcome) -> String {
    let mut text = match &outcome.status {
        Status::Failed { code, message } => format!("failed {code} {message:?}"),
        other => other.name().to_owned(),
    };
    write!(text, " rows {} bytes {} tags {:?}", outcome.rows, outcome.bytes_out, outcome.tags)
        .unwrap();
    if let Some(copied) = outcome.copied {
        write!(text, " copied in {} out {}", copied.bytes_in, copied.bytes_out).unwrap();
    }
    if let Some(masked) = outcome.masked {
        let (columns, values, detected) = (masked.columns, masked.values, masked.detected);
        write!(text, " masked columns {columns} values {values} detected {detected}").unwrap();
        text.push_str(if masked.shadow { " shadow" } else { "" });
        if let Some(stopped) = masked.stopped {
            write!(text, " {}", stopped.name()).unwrap();
        }
    }
    text
}

/// Runs a conversation's input lines (those without indent) and shows what came out of each.
pub fn converse(script: &str) -> String {
    let inputs = script.lines().filter(|line| !line.starts_with(' '));
    let refuse = script.contains("\nclient TLS is refused\n");
    let small = script.contains("\nlimits are small\n");
    let client_tls = if refuse { ClientTls::Refuse } else { ClientTls::Offer };
    let limits = if small { SMALL_LIMITS } else { Limits::default() };
    let mut driver = Driver::new(client_tls, limits);
    let mut shown = String::new();
    for line in inputs {
        writeln!(shown, "{line}").unwrap();
        let said = ["client TLS is refused", "limits are small", ""].contains(&line);
        if line.starts_with('#') || said {
            continue;
        }
        driver.line(line);
        shown.push_str(&driver.show_log());
    }
    shown
}
