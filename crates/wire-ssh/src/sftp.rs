//! SFTP version 3 between a client and a server: each request on a file is decided before it goes on, and what was
//! carried of each open file is told when it is closed (draft-ietf-secsh-filexfer-02).
//!
//! Promises: a request that names a path or changes a file reaches the server only after [`Sftp::answer`] permitted it, with the path
//! that the server itself resolved just before; requests keep their order; a refusal is a status of the same id, and
//! the channel lives on; a handle that the gate has not seen given is refused. Any bytes are taken without a panic.
//!
//! Limits: [`PACKET_BYTES_MAX`], [`OPEN_MAX`] open files, [`UNDERWAY_MAX`] requests under way; a newer version than 3
//! is not spoken. `SSH_FXP_REALPATH` and what asks for limits, names of accounts and the home directory need no more than the
//! subsystem's own permit, and are no operations; nor is what asks an open handle for its attributes. A path of which a part is not there is answered
//! with the server's own status.
//!
//! Cannot: stop anybody who may make links or rename, on the server or over another channel, from changing one between
//! its resolution and the request's own.

mod handles;
mod packet;
mod path;
mod plan;

use std::collections::{HashMap, VecDeque};

use bytes::{Buf as _, Bytes, BytesMut};
use tidegate_event::{FileRequest, Outcome, Status};

use handles::Open;
use packet::{Reply, Request};
use path::Resolve;
use plan::{Plan, Planned, Then, settle};

/// Largest packet, in bytes without its length. OpenSSH's own limit is 256 KiB.
pub const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Smallest packet: a type and an id.
const PACKET_BYTES_MIN: usize = 5;

/// Files and directories that may be open at once on one channel.
pub const OPEN_MAX: usize = 4096;

/// Requests that may be under way at once on one channel.
pub const UNDERWAY_MAX: usize = 8192;

/// The first id that the gate uses for a request of its own, if the client does not use it just then.
const OWN_ID: u32 = 0xffff_fff0;

/// What the driver does next on the way from the client.
#[derive(Debug)]
pub enum Next {
    /// Sends these bytes to the server.
    Send(Bytes),
    /// Has this decided, and calls [`Sftp::answer`].
    Ask {
        /// The operation's number on this channel.
        operation: u64,
        /// What is asked.
        request: FileRequest,
    },
    /// Waits until something has come from the server.
    Server,
    /// Waits until something has come from the client.
    Client,
    /// Ends the channel: this is no SFTP.
    Fault(&'static str),
}

/// What an answer is to.
#[derive(Debug)]
enum Underway {
    /// Nothing that is told.
    Passed,
    /// The gate's own question.
    Own,
    /// The client's question for the attributes of a path.
    Looks(u64, u64, Vec<u8>),
    /// An operation, since this time.
    Operation(u64, u64),
    /// One that opens something.
    Opens(Box<Open>),
    Closes(Vec<u8>),
    Reads(Vec<u8>, u64),
    Writes(Vec<u8>, u64, u64),
    Lists(Vec<u8>),
    Fstats(Vec<u8>),
    Copies(Vec<u8>, u64, u64),
}

/// A request of the client's that waits to be decided.
#[derive(Debug)]
struct Waiting {
    packet: Bytes,
    id: u32,
    request: FileRequest,
    /// What is still to be resolved: the path, or the second one.
    resolve: VecDeque<(bool, Resolve)>,
    then: Then,
    operation: Option<u64>,
}

/// The machine of one channel.
#[derive(Debug)]
pub struct Sftp {
    channel: u32,
    from_client: BytesMut,
    from_server: BytesMut,
    to_client: VecDeque<Bytes>,
    outcomes: VecDeque<(u64, Outcome)>,
    waiting: Option<Waiting>,
    /// The gate's own question, and its answer.
    own: Option<(u32, Option<Resolved>)>,
    is_asking: bool,
    underway: HashMap<u32, Underway>,
    open: HashMap<Vec<u8>, Open>,
    /// The length of the file at a path, as the server told it last.
    seen: Option<(String, u64)>,
    version: Option<Version>,
    fault: Option<&'static str>,
    operations: u64,
}

/// What the server answered to the gate's own question.
#[derive(Debug)]
enum Resolved {
    Path(Vec<u8>),
    /// A part of the path is not there: the code and the whole answer.
    Nothing(Vec<u8>),
    /// It can't say.
    Failed,
}

/// How far the two sides have agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Asked,
    /// Whether the server names OpenSSH's extensions, and so has its order of a link's paths.
    Agreed {
        openssh: bool,
    },
}

impl Sftp {
    /// For the client's channel of this number.
    pub fn new(channel: u32) -> Self {
        Self {
            channel,
            from_client: BytesMut::new(),
            from_server: BytesMut::new(),
            to_client: VecDeque::new(),
            outcomes: VecDeque::new(),
            waiting: None,
            own: None,
            is_asking: false,
            underway: HashMap::new(),
            open: HashMap::new(),
            seen: None,
            version: None,
            fault: None,
            operations: 0,
        }
    }

    /// Takes what came from the client; [`Self::advance`] says what becomes of it.
    pub fn from_client(&mut self, data: &[u8]) {
        self.from_client.extend_from_slice(data);
    }

    /// Takes what came from the server; [`Self::to_client`] and [`Self::outcome`] say what becomes of it.
    pub fn from_server(&mut self, data: &[u8], now_ns: u64) {
        self.from_server.extend_from_slice(data);
        while self.fault.is_none() {
            match take_packet(&mut self.from_server) {
                Ok(Some(packet)) => self.reply(packet, now_ns),
                Ok(None) => return,
                Err(()) => self.fault = Some("the server sends a packet of an impossible length"),
            }
        }
    }

    /// The next bytes for the client.
    pub fn to_client(&mut self) -> Option<Bytes> {
        self.to_client.pop_front()
    }

    /// The next operation that has come to its end.
    pub fn outcome(&mut self) -> Option<(u64, Outcome)> {
        self.outcomes.pop_front()
    }

    /// Whether what came from the client has gone on, all but the beginning of a packet.
    pub const fn is_idle(&self) -> bool {
        self.waiting.is_none()
    }

    /// What to do next on the way from the client.
    pub fn advance(&mut self) -> Next {
        loop {
            if let Some(why) = self.fault {
                return Next::Fault(why);
            }
            if self.is_asking {
                return Next::Server;
            }
            if let Some(next) = self.resolve() {
                return next;
            }
            match take_packet(&mut self.from_client) {
                Ok(None) => return Next::Client,
                Err(()) => self.fault = Some("the client sends a packet of an impossible length"),
                Ok(Some(packet)) => {
                    if let Some(next) = self.request(packet) {
                        return next;
                    }
                }
            }
        }
    }

    /// Goes on with the request that waits: another path to resolve, or the question.
    fn resolve(&mut self) -> Option<Next> {
        let waiting = self.waiting.as_mut()?;
        if let Some((_, answer)) = &mut self.own {
            let Some(answer) = answer.take() else { return Some(Next::Server) };
            self.own = None;
            let answer = match answer {
                Resolved::Path(path) => Some(path),
                Resolved::Failed => None,
                Resolved::Nothing(message) => {
                    let message = String::from_utf8_lossy(&message).into_owned();
                    let id = waiting.id;
                    self.waiting = None;
                    self.refuse(id, packet::NO_SUCH_FILE, &message);
                    return None;
                }
            };
            if let Some((second, resolve)) = waiting.resolve.pop_front() {
                settle(&mut waiting.request, second, &resolve, answer.as_deref());
            }
        }
        if let Some((_, resolve)) = waiting.resolve.front() {
            let id = (0..).map(|more| OWN_ID.wrapping_sub(more));
            let id = id.into_iter().find(|id| !self.underway.contains_key(id))?;
            self.own = Some((id, None));
            self.underway.insert(id, Underway::Own);
            return Some(Next::Send(packet::realpath(id, &resolve.ask)));
        }
        self.operations += 1;
        waiting.operation = Some(self.operations);
        self.is_asking = true;
        Some(Next::Ask { operation: self.operations, request: waiting.request.clone() })
    }

    /// The answer to the last [`Next::Ask`]: permitted, or the reason why not.
    pub fn answer(&mut self, answer: Result<(), &str>, now_ns: u64) -> Option<Bytes> {
        self.is_asking = false;
        let waiting = self.waiting.take()?;
        let operation = waiting.operation?;
        if let Err(why) = answer {
            self.to_client.push_back(packet::status(waiting.id, packet::PERMISSION_DENIED, why));
            return None;
        }
        let FileRequest { path, access, .. } = waiting.request;
        let underway = match waiting.then {
            Then::Operation => Underway::Operation(operation, now_ns),
            Then::Looks => Underway::Looks(operation, now_ns, path.into_bytes()),
            Then::Resizes(handle) => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.is_resized();
                }
                Underway::Operation(operation, now_ns)
            }
            Then::Opens { is_directory } => {
                Underway::Opens(Box::new(Open::new(operation, now_ns, path, access, is_directory)))
            }
        };
        self.underway.insert(waiting.id, underway);
        Some(waiting.packet)
    }

    /// What is open or under way when the channel ends: its outcome is not known.
    pub fn finish(&mut self, now_ns: u64) {
        for (_, open) in self.open.drain() {
            self.outcomes.push_back((open.operation, open.outcome(Status::Lost, now_ns)));
        }
        for (_, underway) in self.underway.drain() {
            match underway {
                Underway::Operation(operation, _) | Underway::Looks(operation, ..) => {
                    let lost = Outcome::without_result(Status::Lost);
                    self.outcomes.push_back((operation, lost));
                }
                Underway::Opens(open) => {
                    self.outcomes.push_back((open.operation, open.outcome(Status::Lost, now_ns)));
                }
                _ => {}
            }
        }
    }

    /// Takes the client's next packet; `None` where it is answered here, or waits.
    fn request(&mut self, packet: Bytes) -> Option<Next> {
        let Ok((id, request)) = packet::request(packet.get(4..).unwrap_or_default()) else {
            self.fault = Some("the client sends a packet that does not read");
            return None;
        };
        match (&request, self.version) {
            (Request::Init, None) => {
                self.version = Some(Version::Asked);
                return Some(Next::Send(packet::init()));
            }
            (Request::Init, _) | (_, None | Some(Version::Asked)) => {
                self.fault = Some("the client does not begin with its version, once");
                return None;
            }
            (_, Some(Version::Agreed { .. })) => {}
        }
        if self.underway.contains_key(&id) {
            self.fault = Some("the client uses the id of a request that is under way");
            return None;
        }
        if self.underway.len() >= UNDERWAY_MAX {
            self.refuse(id, packet::FAILURE, "tidegate: too many requests are under way");
            return None;
        }
        let underway = match self.plan(&request) {
            Plan::Pass(underway) => underway,
            Plan::Refuse(code, why) => {
                self.refuse(id, code, why);
                return None;
            }
            Plan::Decide(planned) => {
                let Planned { request, resolve, then } = *planned;
                let resolve = resolve.into();
                let operation = None;
                self.waiting = Some(Waiting { packet, id, request, resolve, then, operation });
                return None;
            }
        };
        if let Underway::Writes(handle, ..) = &underway
            && let (Request::Write(_, offset, data), Some(open)) =
                (&request, self.open.get_mut(handle))
        {
            open.takes(*offset, data);
        }
        self.underway.insert(id, underway);
        Some(Next::Send(packet))
    }

    fn refuse(&mut self, id: u32, code: u32, why: &str) {
        self.to_client.push_back(packet::status(id, code, why));
    }

    /// Takes the server's next packet.
    fn reply(&mut self, packet: Bytes, now_ns: u64) {
        let body = packet.get(4..).unwrap_or_default();
        let Ok((id, reply)) = packet::reply(body) else {
            self.fault = Some("the server sends a packet that does not read");
            return;
        };
        if let Reply::Version(version, openssh) = reply {
            if self.version != Some(Version::Asked) || version > packet::VERSION_MAX {
                self.fault = Some("the server answers with a version that was not asked for");
                return;
            }
            self.version = Some(Version::Agreed { openssh });
            self.to_client.push_back(packet);
            return;
        }
        let Some(underway) = self.underway.remove(&id) else {
            self.fault = Some("the server answers what nobody asked");
            return;
        };
        if matches!(underway, Underway::Own) {
            let resolved = match reply {
                Reply::Name(1, name) if !name.is_empty() => Resolved::Path(name.to_vec()),
                Reply::Status(packet::NO_SUCH_FILE, message) => Resolved::Nothing(message.to_vec()),
                _ => Resolved::Failed,
            };
            if let Some((_, answer)) = self.own.as_mut().filter(|(own, _)| *own == id) {
                *answer = Some(resolved);
            }
            return;
        }
        self.account(underway, &reply, now_ns);
        self.to_client.push_back(packet);
    }

    /// Notes what an answer says of what is open, or of what was asked.
    fn account(&mut self, underway: Underway, reply: &Reply<'_>, now_ns: u64) {
        let is_ok = matches!(reply, Reply::Status(packet::OK, _));
        match (underway, reply) {
            (Underway::Opens(mut open), Reply::Handle(handle)) => {
                if let Some((_, bytes)) = self.seen.take().filter(|(path, _)| *path == open.path) {
                    open.is_long(bytes);
                }
                if let Some(before) = self.open.insert(handle.to_vec(), *open) {
                    let operation = before.operation;
                    self.outcomes.push_back((operation, before.outcome(Status::Lost, now_ns)));
                }
            }
            (Underway::Opens(open), reply) => {
                let (operation, begun_ns) = (open.operation, open.begun_ns);
                self.ended(operation, begun_ns, reply, now_ns);
            }
            (Underway::Operation(operation, begun_ns), reply) => {
                self.ended(operation, begun_ns, reply, now_ns);
            }
            (Underway::Looks(operation, begun_ns, path), reply) => {
                if let (Reply::Attrs(Some(bytes)), Ok(path)) = (reply, String::from_utf8(path)) {
                    self.seen = Some((path, *bytes));
                }
                self.ended(operation, begun_ns, reply, now_ns);
            }
            (Underway::Closes(handle), reply) => {
                if let Some(open) = self.open.remove(&handle) {
                    let operation = open.operation;
                    let outcome = open.outcome(status(reply), now_ns);
                    self.outcomes.push_back((operation, outcome));
                }
            }
            (Underway::Reads(handle, offset), reply) => {
                let Some(open) = self.open.get_mut(&handle) else { return };
                match reply {
                    Reply::Data(data) => open.gives(offset, data),
                    Reply::Status(packet::EOF, _) => open.ends(offset),
                    _ => {}
                }
            }
            (Underway::Writes(handle, offset, bytes), _) => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.took(offset, bytes, is_ok);
                }
            }
            (Underway::Copies(handle, offset, bytes), _) if is_ok => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.was_copied_to(offset, bytes);
                }
            }
            (Underway::Lists(handle), Reply::Name(entries, _)) => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.lists(u64::from(*entries));
                }
            }
            (Underway::Fstats(handle), Reply::Attrs(Some(bytes))) => {
                if let Some(open) = self.open.get_mut(&handle) {
                    open.is_long(*bytes);
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, operation: u64, begun_ns: u64, reply: &Reply<'_>, now_ns: u64) {
        let duration_ns = now_ns.saturating_sub(begun_ns);
        let outcome = Outcome { duration_ns, ..Outcome::without_result(status(reply)) };
        self.outcomes.push_back((operation, outcome));
    }
}

/// What an answer says of what it answers.
fn status(reply: &Reply<'_>) -> Status {
    match reply {
        // The end of a directory or file is no failure.
        Reply::Status(packet::OK | packet::EOF, _) => Status::Ok,
        Reply::Status(code, message) => Status::Failed {
            code: packet::code(*code).to_owned(),
            message: String::from_utf8_lossy(message).into_owned(),
        },
        _ => Status::Ok,
    }
}

/// The next whole packet with its length; the error is a length that no packet has.
fn take_packet(bytes: &mut BytesMut) -> Result<Option<Bytes>, ()> {
    let Some(length) = bytes.first_chunk::<4>().copied().map(u32::from_be_bytes) else {
        return Ok(None);
    };
    let length = usize::try_from(length).map_err(|_| ())?;
    if !(PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&length) {
        return Err(());
    }
    let whole = length + 4;
    if bytes.remaining() < whole {
        bytes.reserve(whole - bytes.remaining());
        return Ok(None);
    }
    Ok(Some(bytes.split_to(whole).freeze()))
}

#[cfg(test)]
mod tests;
