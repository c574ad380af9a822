//! The notation of golden conversations, and a driver that runs them.
//!
//! A packet is `N[payload]` with its sequence number N; raw bytes are `[bytes]`. In a payload `~` is a zero
//! byte and `\xHH` any byte. Shorthands for input: `greet` and `greet8` (MariaDB's and MySQL's greeting),
//! `ssl(N)`, `hello(N,user,database)`, `hellonew(N)` (OK in place of EOF, session tracking), `q(text)`, `prepare(text)`, `execute(id)`, `ok(N)`, `more(N)`,
//! `eof(N)`, `err(N)`, and `prepared(id,columns,parameters)`. `hellozlib(N)` and `hellozstd(N)` ask for compression: from
//! the OK on a line that begins with `zlib N: ` is put into compressed packets from number N on (`zlib N by B: ` with B
//! bytes in each), and what comes out is shown unpacked, with the number of each packet.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_event::{Operation, Outcome, Status};
use tidegate_wire_mysql::capability as has;
use tidegate_wire_mysql::compress::Algorithm;
use tidegate_wire_mysql::exercise::{FirstWord, SMALL_LIMITS, Seal};
use tidegate_wire_mysql::{
    Action, Answer, AskId, Authority, ClientTls, Config, Exempt, Limits, Machine, ServerTls,
};

use super::packed::{self, Unpacker};

pub fn packet(seq: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[a, b, c, seq], payload].concat()
}

const COMMON: u64 = has::CONNECT_WITH_DB
    | has::PROTOCOL_41
    | has::SECURE_CONNECTION
    | has::MULTI_STATEMENTS
    | has::PLUGIN_AUTH
    | has::SSL;

pub fn greeting(version: &str, flags: u64, plugin: &str) -> Vec<u8> {
    let low = u16::try_from(flags & 0xffff).unwrap().to_le_bytes();
    let high = u16::try_from(flags >> 16 & 0xffff).unwrap().to_le_bytes();
    let mariadb = u32::try_from(flags >> 32).unwrap().to_le_bytes();
    let parts = [
        &b"\x0a"[..],
        version.as_bytes(),
        b"\0\x07\0\0\0abcdefgh\0",
        &low,
        &[45, 2, 0],
        &high,
        &[21, 0, 0, 0, 0, 0, 0],
        &mariadb,
        b"ijklmnopqrst\0",
        plugin.as_bytes(),
        b"\0",
    ];
    packet(0, &parts.concat())
}

fn fixed(flags: u64) -> Vec<u8> {
    let flags = u32::try_from(flags & 0xffff_ffff).unwrap().to_le_bytes();
    [&flags[..], &[0, 0, 0, 1, 45], &[0; 23]].concat()
}

fn hello(seq: u8, user: &str, database: &str) -> Vec<u8> {
    let named = if database.is_empty() { 0 } else { has::CONNECT_WITH_DB };
    let flags = (COMMON & !has::CONNECT_WITH_DB & !has::SSL) | named;
    let database = if database.is_empty() { String::new() } else { format!("{database}\0") };
    let tail = format!("{user}\0\x02pw{database}mysql_native_password\0");
    packet(seq, &[fixed(flags), tail.into_bytes()].concat())
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
    packed::encode(line, |items| {
        items.split(" | ").flat_map(|item| encode_item(item.trim())).collect()
    })
}

fn number(text: &str) -> u8 {
    text.parse().unwrap()
}

fn encode_item(item: &str) -> Vec<u8> {
    let new = has::DEPRECATE_EOF | has::SESSION_TRACK;
    let common = COMMON | has::COMPRESS;
    let mariadb = common | has::PROGRESS | has::CACHE_METADATA | new;
    match item {
        "greet" => {
            return greeting("5.5.5-10.11.6-MariaDB", mariadb, "mysql_native_password");
        }
        "greet8" => {
            let flags = common | has::CLIENT_MYSQL | has::ZSTD;
            return greeting("8.0.39", flags, "caching_sha2_password");
        }
        "greetplain" => return greeting("5.5.5-10.11.6-MariaDB", COMMON & !has::SSL, "x"),
        _ => {}
    }
    if let Some((name, arguments)) = item.split_once('(').filter(|_| item.ends_with(')')) {
        let arguments = &arguments[..arguments.len() - 1];
        let mut parts = arguments.split(',');
        let mut next = || parts.next().unwrap_or_default();
        return match name {
            "ssl" => packet(number(next()), &fixed(COMMON)),
            "hello" => hello(number(next()), next(), next()),
            "hellonew" => {
                let flags = (COMMON & !has::CONNECT_WITH_DB & !has::SSL) | new;
                packet(number(next()), &[fixed(flags), b"u\0\x02pwx\0".to_vec()].concat())
            }
            "hellozlib" | "hellozstd" => {
                let (flag, level) = match name {
                    "hellozlib" => (has::COMPRESS, &b""[..]),
                    _ => (has::ZSTD, &b"\x03"[..]),
                };
                let flags = (COMMON & !has::CONNECT_WITH_DB & !has::SSL) | flag;
                packet(number(next()), &[&fixed(flags)[..], b"u\0\x02pwx\0", level].concat())
            }
            "q" => packet(0, &[b"\x03", &unescape(arguments)[..]].concat()),
            "prepare" => packet(0, &[b"\x16", &unescape(arguments)[..]].concat()),
            "execute" => packet(0, &[0x17, number(next()), 0, 0, 0, 0, 1, 0, 0, 0]),
            "ok" => packet(number(next()), b"\0\0\0\x02\0\0\0"),
            "more" => packet(number(next()), b"\0\x01\0\x0a\0\0\0"),
            "eof" => packet(number(next()), b"\xfe\0\0\x02\0"),
            "err" => packet(number(next()), b"\xff\x7a\x04#42S02no such table"),
            "prepared" => {
                let (id, columns, parameters) = (number(next()), number(next()), number(next()));
                packet(1, &[0, id, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0])
            }
            other => unreachable!("{other}"),
        };
    }
    let (seq, payload) = item.split_once('[').unwrap();
    let payload = unescape(payload.strip_suffix(']').unwrap());
    if seq.is_empty() { payload } else { packet(number(seq), &payload) }
}

/// Bytes in the notation; what is no whole packet is shown raw.
fn show(bytes: &[u8]) -> String {
    let mut shown = Vec::new();
    let mut rest = bytes;
    while let [a, b, c, seq, after @ ..] = rest {
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])).unwrap();
        let Some(payload) = after.get(..length) else {
            break;
        };
        shown.push(format!("{seq}[{}]", escape(payload)));
        rest = &after[length..];
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
    now_ns: u64,
    /// What came out, adjacent bytes of one kind joined.
    log: Vec<(String, Vec<u8>)>,
    /// What the client asks for, and what each side is then sent.
    asks_for: Option<Algorithm>,
    unpackers: Option<[Unpacker; 2]>,
    /// Whether compressed packets are shown with their numbers.
    numbers: bool,
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
    pub fn new(client_tls: ClientTls, server_tls: ServerTls, limits: Limits) -> Self {
        let config = Config { client_tls, server_tls, limits };
        let machine = Machine::with_analyzer(config, Arc::new(FirstWord));
        let mut machine = machine.with_password_key(Arc::new(Seal));
        assert_eq!(machine.poll(), Some(Action::Dial));
        machine.server_connected();
        Self {
            machine,
            client: BytesMut::new(),
            server: BytesMut::new(),
            answers: Answers::AtOnce,
            open: None,
            now_ns: 0,
            log: Vec::new(),
            asks_for: None,
            unpackers: None,
            numbers: true,
        }
    }

    /// The same for a client that asks for compression; numbers are not shown.
    pub fn packed(algorithm: Algorithm, limits: Limits) -> Self {
        let plain = Self::new(ClientTls::Refuse, ServerTls::Off, limits);
        Self { asks_for: Some(algorithm), numbers: false, ..plain }
    }

    pub fn client_says(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
        self.turn();
    }

    pub fn server_says(&mut self, bytes: &[u8]) {
        self.server.extend_from_slice(bytes);
        self.machine.from_server(self.now_ns, &mut self.server);
        self.turn();
        while self.machine.has_more_from_server() {
            self.machine.from_server(self.now_ns, &mut self.server);
            self.turn();
        }
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
            let more = self.machine.has_more_from_client();
            if !acted && !more && self.client.len() == before {
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

    /// Notes what one side was sent.
    fn sent(&mut self, side: usize, what: &str, bytes: &[u8]) {
        let Some(unpackers) = &mut self.unpackers else {
            return self.note(what.to_owned(), bytes);
        };
        for (seq, content) in unpackers[side].packets(bytes) {
            let number = if self.numbers { format!(" packed {seq}:") } else { String::new() };
            self.note(format!("{what}{number}"), &content);
        }
    }

    fn act(&mut self, action: Action<u64>) {
        match action {
            Action::ToClient(bytes) => self.sent(0, "client <-", &bytes),
            Action::ToServer { authority, bytes } => {
                let why = match authority {
                    Authority::Receipt(receipt) => format!("receipt {receipt}"),
                    Authority::Exempt(Exempt::Handshake) => "handshake".into(),
                    Authority::Exempt(Exempt::Framing) => "framing".into(),
                };
                self.sent(1, &format!("server <- {why}:"), &bytes);
            }
            Action::Ask { id, operation } => {
                self.note(format!("ask {} {}", id.0, describe(&operation)), &[]);
                self.open = Some(id);
                if self.answers == Answers::AtOnce {
                    let refuse = refuses(&operation);
                    self.reply(refuse);
                }
            }
            Action::Outcome { id, outcome } => {
                self.note(format!("outcome {} {}", id.0, outcome_text(&outcome)), &[]);
                if let Some(algorithm) = self.asks_for.take_if(|_| outcome.status == Status::Ok) {
                    self.unpackers = Some([(); 2].map(|()| Unpacker::new(algorithm)));
                }
            }
            Action::Rows { id, .. } => self.note(format!("rows of {}", id.0), &[]),
            Action::StartClientTls => self.note("start client TLS".into(), &[]),
            Action::StartServerTls => self.note("start server TLS".into(), &[]),
            Action::Dial => self.note("dial".into(), &[]),
            Action::Cancel(bytes) => self.note("cancel".into(), &bytes),
            Action::Close { ending } => self.note(format!("close: {ending:?}"), &[]),
        }
    }

    fn reply(&mut self, refuse: bool) {
        let Some(id) = self.open.take() else { return };
        let answer = if refuse {
            let hint = Some("ask the owner".into());
            Answer::Refuse { sqlstate: "42501", message: "not you".into(), hint }
        } else {
            Answer::Permit(id.0)
        };
        self.machine.answer(self.now_ns, id, answer);
    }

    /// Runs one line of input.
    fn line(&mut self, line: &str) {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("client", bytes) => {
                match bytes.get(..9) {
                    Some("hellozlib") => self.asks_for = Some(Algorithm::Zlib),
                    Some("hellozstd") => self.asks_for = Some(Algorithm::Zstd),
                    _ => {}
                }
                self.client_says(&encode(bytes));
            }
            ("server", bytes) => self.server_says(&encode(bytes)),
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
            ("server starts TLS", _) => {
                self.machine.server_tls_started();
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

    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    pub fn show_log(&mut self) -> String {
        self.log.drain(..).fold(String::new(), |mut text, (what, bytes)| {
            let space = if bytes.is_empty() { "" } else { " " };
            writeln!(text, "    {what}{space}{}", show(&Bytes::from(bytes))).unwrap();
            text
        })
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
    text
}

/// Runs a conversation's input lines (those without indent) and shows what came out of each.
pub fn converse(script: &str) -> String {
    let inputs = script.lines().filter(|line| !line.starts_with(' '));
    let refuse = script.contains("\nclient TLS is refused\n");
    let small = script.contains("\nlimits are small\n");
    let server_tls = script.contains("\nserver TLS is required\n");
    let server_tls = if server_tls { ServerTls::Require } else { ServerTls::Off };
    let client_tls = if refuse { ClientTls::Refuse } else { ClientTls::Offer };
    let limits = if small { SMALL_LIMITS } else { Limits::default() };
    let mut driver = Driver::new(client_tls, server_tls, limits);
    let mut shown = String::new();
    for line in inputs {
        writeln!(shown, "{line}").unwrap();
        let said = ["client TLS is refused", "server TLS is required", "limits are small", ""]
            .contains(&line);
        if line.starts_with('#') || said {
            continue;
        }
        driver.line(line);
        shown.push_str(&driver.show_log());
    }
    shown
}
