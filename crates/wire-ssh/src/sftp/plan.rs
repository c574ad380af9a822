//! What becomes of each request: it passes, is refused here, or is decided as an operation on a path.

use sha2::{Digest as _, Sha256};
use tidegate_event::{Access, FileKind, FileRequest};

use super::packet::{self, Request};
use super::path::{self, Resolve};
use super::{OPEN_MAX, Sftp, Underway, Version};

/// What becomes of a request.
pub(super) enum Plan {
    /// It goes on; this waits for its answer.
    Pass(Underway),
    /// It is answered here.
    Refuse(u32, &'static str),
    /// It is decided.
    Decide(Box<Planned>),
}

/// A request to be decided.
pub(super) struct Planned {
    pub(super) request: FileRequest,
    /// The paths that the server is asked to resolve; the second one where `true`.
    pub(super) resolve: Vec<(bool, Resolve)>,
    pub(super) then: Then,
}

/// What a permitted request is followed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    /// A status, or a name.
    Operation,
    /// Attributes.
    Looks,
    /// A status; the file that is open by this handle has another length then.
    Resizes(Vec<u8>),
    /// A handle.
    Opens {
        /// Of a directory.
        is_directory: bool,
    },
}

impl Sftp {
    /// What becomes of a request.
    pub(super) fn plan(&self, request: &Request<'_>) -> Plan {
        let known = |handle: &[u8], underway: fn(Vec<u8>) -> Underway| {
            if self.open.contains_key(handle) {
                Plan::Pass(underway(handle.to_vec()))
            } else {
                Plan::Refuse(packet::FAILURE, "tidegate: no file is open by this handle")
            }
        };
        match *request {
            Request::Close(handle) => known(handle, Underway::Closes),
            Request::Readdir(handle) => known(handle, Underway::Lists),
            Request::Fstat(handle) => known(handle, Underway::Fstats),
            Request::Read(handle, offset) => match known(handle, Underway::Closes) {
                Plan::Pass(_) => Plan::Pass(Underway::Reads(handle.to_vec(), offset)),
                refused => refused,
            },
            Request::Write(handle, offset, data) => match known(handle, Underway::Closes) {
                Plan::Pass(_) => {
                    let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    Plan::Pass(Underway::Writes(handle.to_vec(), offset, bytes))
                }
                refused => refused,
            },
            Request::Copy([from, to], offset, bytes) => {
                match (known(from, Underway::Closes), known(to, Underway::Closes)) {
                    (Plan::Pass(_), Plan::Pass(_)) => {
                        Plan::Pass(Underway::Copies(to.to_vec(), offset, bytes))
                    }
                    (Plan::Pass(_), refused) | (refused, _) => refused,
                }
            }
            Request::Harmless => Plan::Pass(Underway::Passed),
            Request::Unknown(_) => {
                Plan::Refuse(packet::OP_UNSUPPORTED, "tidegate: not in SFTP version 3")
            }
            _ => self.plan_path(request),
        }
    }

    /// What is asked of paths.
    fn plan_path(&self, request: &Request<'_>) -> Plan {
        use FileKind as Kind;
        if request.has_zero_byte() {
            return Plan::Refuse(packet::FAILURE, "tidegate: a zero byte stands in a name");
        }
        let to_open = |is_directory| Then::Opens { is_directory };
        let none = packet::Attributes::default();
        // The path, whether it is itself meant and not what it leads to, and what is to be.
        let (kind, path, itself, attributes, then) = match *request {
            Request::Open(path, access, attributes) => {
                if self.open.len() >= OPEN_MAX {
                    let why = "tidegate: too many files are open on this channel";
                    return Plan::Refuse(packet::FAILURE, why);
                }
                let mut planned =
                    self.planned(Kind::Open, (path, false), attributes, to_open(false));
                planned.request.access = access;
                return Plan::Decide(Box::new(planned));
            }
            Request::Opendir(path) => (Kind::List, path, false, none, to_open(true)),
            Request::Stat(path) | Request::Statvfs(path) => {
                (Kind::Look, path, false, none, Then::Looks)
            }
            Request::Lstat(path) => (Kind::Look, path, true, none, Then::Looks),
            Request::Readlink(path) => (Kind::Look, path, true, none, Then::Operation),
            Request::Setstat(path, attributes, itself) => {
                (Kind::Attributes, path, itself, attributes, Then::Operation)
            }
            Request::Fsetstat(handle, attributes) => return self.plan_handle(handle, attributes),
            Request::Remove(path) => (Kind::Remove, path, true, none, Then::Operation),
            Request::Mkdir(path, attributes) => {
                (Kind::MakeDirectory, path, true, attributes, Then::Operation)
            }
            Request::Rmdir(path) => (Kind::RemoveDirectory, path, true, none, Then::Operation),
            Request::Rename(from, to) => return self.plan_two(Kind::Rename, from, to),
            Request::Hardlink(from, to) => return self.plan_two(Kind::Hardlink, from, to),
            Request::Symlink(first, second) => return self.plan_link(first, second),
            Request::Extended(name) => (Kind::Extended, name, true, none, Then::Operation),
            _ => return Plan::Refuse(packet::OP_UNSUPPORTED, "tidegate: not in SFTP version 3"),
        };
        let mut planned = self.planned(kind, (path, itself), attributes, then);
        if kind == Kind::Extended {
            planned.resolve.clear();
        }
        Plan::Decide(Box::new(planned))
    }

    fn planned(
        &self,
        kind: FileKind,
        (path, itself): (&[u8], bool),
        attributes: packet::Attributes,
        then: Then,
    ) -> Planned {
        let (text, sha256) = told(path);
        let request = FileRequest {
            kind,
            channel: self.channel,
            path: text,
            sent: None,
            to: None,
            access: Access::default(),
            attributes: attributes.words(),
            sha256,
        };
        Planned { request, resolve: vec![(false, path::resolve(path, itself))], then }
    }

    /// A second path is resolved like the first, for it names what is to be made.
    fn plan_two(&self, kind: FileKind, from: &[u8], to: &[u8]) -> Plan {
        let none = packet::Attributes::default();
        let mut planned = self.planned(kind, (from, true), none, Then::Operation);
        planned.request.to = Some(told(to).0);
        planned.resolve.push((true, path::resolve(to, true)));
        Plan::Decide(Box::new(planned))
    }

    /// OpenSSH takes the two paths in the other order than the draft (its PROTOCOL, section 4.1): whom nobody can
    /// tell which is the link is not asked.
    fn plan_link(&self, first: &[u8], second: &[u8]) -> Plan {
        let none = packet::Attributes::default();
        let openssh = self.version == Some(Version::Agreed { openssh: true });
        let kind = if openssh { FileKind::Symlink } else { FileKind::Extended };
        let mut planned = self.planned(kind, (second, true), none, Then::Operation);
        planned.request.to = Some(told(first).0);
        Plan::Decide(Box::new(planned))
    }

    fn plan_handle(&self, handle: &[u8], attributes: packet::Attributes) -> Plan {
        let Some(open) = self.open.get(handle) else {
            let why = "tidegate: no file is open by this handle";
            return Plan::Refuse(packet::FAILURE, why);
        };
        let path = (open.path.as_bytes(), true);
        let then = match attributes.size {
            Some(_) => Then::Resizes(handle.to_vec()),
            None => Then::Operation,
        };
        let mut planned = self.planned(FileKind::Attributes, path, attributes, then);
        planned.resolve.clear();
        Plan::Decide(Box::new(planned))
    }
}

/// Puts the server's answer into the request. What it can't resolve although it may open it is nothing that a policy
/// can judge by its path.
pub(super) fn settle(
    request: &mut FileRequest,
    second: bool,
    resolve: &Resolve,
    answer: Option<&[u8]>,
) {
    let last = resolve.last.as_deref();
    let found = if let Some(answer) = answer {
        path::join(answer, last)
    } else {
        request.kind = FileKind::Extended;
        path::lexical(&path::join(&resolve.ask, last))
    };
    let (text, sha256) = told(&found);
    if second {
        request.to = Some(text);
    } else if request.path != text {
        request.sent = Some(std::mem::replace(&mut request.path, text));
        request.sha256 = sha256;
    }
}

/// A path as text, and the SHA-256 of its bytes where they are none.
fn told(path: &[u8]) -> (String, Option<[u8; 32]>) {
    let text = String::from_utf8_lossy(path).into_owned();
    let sha256 = (text.as_bytes() != path).then(|| Sha256::digest(path).into());
    (text, sha256)
}
