//! A server that fails, skips and answers as PostgreSQL does (manual, "Message Flow"), for texts
//! of its own: the first word says what happens.

use std::collections::BTreeMap;

use tidegate_wire_postgres::SUBSTITUTE_TEXT;

use super::script::frame;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    Idle,
    Open,
    Failed,
}

pub struct Fake {
    /// Refuses what the gate would refuse: what a client should see.
    refuses: bool,
    input: Vec<u8>,
    out: Vec<u8>,
    skipping: bool,
    copying: bool,
    transaction: Transaction,
    statements: BTreeMap<String, String>,
    portals: BTreeMap<String, String>,
    /// Texts that ran to their end.
    pub ran: Vec<String>,
}

fn c_string(body: &[u8]) -> (String, &[u8]) {
    let end = body.iter().position(|&byte| byte == 0).unwrap();
    (String::from_utf8(body[..end].to_vec()).unwrap(), &body[end + 1..])
}

struct Failed(&'static str);

impl Fake {
    pub fn new(refuses: bool) -> Self {
        Self {
            refuses,
            input: Vec::new(),
            out: Vec::new(),
            skipping: false,
            copying: false,
            transaction: Transaction::Idle,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            ran: Vec::new(),
        }
    }

    /// Takes bytes, and gives what it answers.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend(bytes);
        while self.input.len() >= 5 {
            let length = u32::from_be_bytes(self.input[1..5].try_into().unwrap());
            let total = 1 + usize::try_from(length).unwrap();
            if self.input.len() < total {
                break;
            }
            let message: Vec<u8> = self.input.drain(..total).collect();
            self.message(message[0], &message[5..]);
        }
        std::mem::take(&mut self.out)
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        self.out.extend(frame(kind, body));
    }

    fn ready(&mut self) {
        let status = match self.transaction {
            Transaction::Idle => b"I",
            Transaction::Open => b"T",
            Transaction::Failed => b"E",
        };
        if self.transaction == Transaction::Idle {
            self.portals.clear();
        }
        self.say(b'Z', status);
    }

    fn error(&mut self, code: &str) {
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        self.say(b'E', format!("SERROR\0VERROR\0C{code}\0Mfails\0\0").as_bytes());
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        if self.copying {
            match kind {
                b'c' => {
                    self.copying = false;
                    self.say(b'C', b"COPY 1\0");
                    self.ready();
                }
                b'f' => {
                    self.copying = false;
                    self.error("57014");
                    self.ready();
                }
                _ => {}
            }
            return;
        }
        if self.skipping && kind != b'S' {
            return;
        }
        match kind {
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'Q' => {
                let (text, _) = c_string(body);
                match self.plan(&text, true).and_then(|()| self.run(&text, true)) {
                    Err(Failed(code)) => {
                        self.error(code);
                        self.ready();
                    }
                    Ok(()) if self.copying => {}
                    Ok(()) => self.ready(),
                }
            }
            b'd' | b'c' | b'f' | b'H' => {}
            _ => {
                if let Err(Failed(code)) = self.extended(kind, body) {
                    self.error(code);
                    self.skipping = true;
                }
            }
        }
    }

    fn extended(&mut self, kind: u8, body: &[u8]) -> Result<(), Failed> {
        let (first, rest) = c_string(body);
        match kind {
            b'P' => {
                let (text, _) = c_string(rest);
                if first.is_empty() {
                    self.statements.remove("");
                }
                self.plan(&text, false)?;
                if self.statements.contains_key(&first) {
                    return Err(Failed("42P05"));
                }
                self.statements.insert(first, text);
                self.say(b'1', b"");
            }
            b'B' => {
                let (name, _) = c_string(rest);
                let text = self.statements.get(&name).ok_or(Failed("26000"))?.clone();
                self.portals.insert(first, text);
                self.say(b'2', b"");
            }
            b'E' => {
                let text = self.portals.get(&first).ok_or(Failed("34000"))?.clone();
                self.run(&text, false)?;
            }
            b'C' => {
                let name = first[1..].to_owned();
                if first.starts_with('S') {
                    self.statements.remove(&name);
                } else {
                    self.portals.remove(&name);
                }
                self.say(b'3', b"");
            }
            b'D' if first.starts_with('S') => {
                if !self.statements.contains_key(&first[1..]) {
                    return Err(Failed("26000"));
                }
                self.say(b't', b"\0\0");
                self.say(b'n', b"");
            }
            b'D' => self.say(b'n', b""),
            other => unreachable!("{other}"),
        }
        Ok(())
    }

    fn plan(&mut self, text: &str, simple: bool) -> Result<(), Failed> {
        if text == SUBSTITUTE_TEXT {
            return Err(Failed("42601"));
        }
        if self.refuses && (text.contains("secret") || (simple && text.contains("late"))) {
            return Err(Failed("42501"));
        }
        let ends = text == "COMMIT" || text == "ROLLBACK";
        if self.transaction == Transaction::Failed && !ends {
            return Err(Failed("25P02"));
        }
        Ok(())
    }

    fn run(&mut self, text: &str, simple: bool) -> Result<(), Failed> {
        self.plan(text, true)?;
        match text.split(' ').next().unwrap_or_default() {
            "FAIL" => return Err(Failed("22012")),
            "BEGIN" => self.transaction = Transaction::Open,
            "COMMIT" | "ROLLBACK" => self.transaction = Transaction::Idle,
            "COPY" if simple => {
                self.copying = true;
                self.say(b'G', b"\0\0\0");
                self.ran.push(text.to_owned());
                return Ok(());
            }
            _ => self.say(b'D', b"\0\x01\0\0\0\x01r"),
        }
        self.ran.push(text.to_owned());
        self.say(b'C', b"SELECT 1\0");
        Ok(())
    }
}
