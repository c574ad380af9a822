//! The host's TCP connections, by the kernel's own list (sock_diag(7)): finds those that do not go
//! through the gate, and ends them with an error for their owner.
//!
//! Promises: every network namespace that a process of the given user ids is in is looked at.
//!
//! Limits: [`CONNECTIONS_MAX`] connections a namespace. `SOCK_DESTROY` needs a kernel with
//! `CONFIG_INET_DIAG_DESTROY` (Debian's has it); where it is missing the guard still drops.
//!
//! Known gaps: a namespace that is kept by a descriptor alone, with no process in it, is not seen.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::netns::{self, Netns};

/// Most connections of one namespace that are looked at.
const CONNECTIONS_MAX: usize = 1 << 20;

/// Bytes of one answer; the kernel sends at most 32 KiB at once.
const ANSWER_BYTES: usize = 64 << 10;

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// `linux/netlink.h`.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;

/// `struct inet_diag_sockid` and `struct inet_diag_msg` in `linux/inet_diag.h`.
const ID_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 72;

/// TCP states (`net/tcp_states.h`).
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE_WAIT: u32 = 8;
const TCP_LISTEN: u32 = 10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// A TCP connection, or a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; port 0 of a listener.
    pub remote: SocketAddr,
    /// User id of its maker, in the agent's user namespace.
    pub uid: u32,
    /// Number in `/proc/PID/fd`.
    pub inode: u32,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Where it is.
    pub namespace: Namespace,
    family: u8,
    id: [u8; ID_BYTES],
    state: u8,
}

impl Connection {
    /// Whether it waits for connections.
    pub fn is_listener(&self) -> bool {
        u32::from(self.state) == TCP_LISTEN
    }
}

/// A network namespace: the agent's own, or that of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// The agent's own.
    Own,
    /// The one behind this file of `/proc`.
    Of(PathBuf),
}

/// All connections in the agent's own namespace, and in those of processes that one of these user
/// ids runs. A namespace that ends meanwhile is left out.
pub fn connections(uids: &BTreeSet<u32>) -> io::Result<Vec<Connection>> {
    let mut found = list(&Namespace::Own)?;
    for namespace in others(uids) {
        let listed = inside(&namespace, || list(&namespace));
        found.extend(listed.unwrap_or_default());
    }
    Ok(found)
}

/// Ends a connection: whoever uses it gets `ECONNABORTED`.
pub fn end(connection: &Connection) -> io::Result<()> {
    inside(&connection.namespace, || {
        let netlink = open()?;
        let request = request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, connection.family, u32::MAX);
        let mut request = request;
        request.extend_from_slice(&connection.id);
        patch_length(&mut request)?;
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match messages(answer.get(..length).unwrap_or_default()).next() {
            Some((NLMSG_ERROR, body)) => error_of(body),
            _ => Err(io::Error::other("no answer to SOCK_DESTROY")),
        }
    })
}

fn list(namespace: &Namespace) -> io::Result<Vec<Connection>> {
    let netlink = open()?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        // All but those that wait for nothing more (TIME_WAIT, NEW_SYN_RECV).
        let states = [TCP_ESTABLISHED, TCP_SYN_SENT, 3, 4, 5, TCP_CLOSE_WAIT, 9, TCP_LISTEN, 11];
        let states = states.iter().fold(0, |set, state| set | 1 << state);
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut request = request(SOCK_DIAG_BY_FAMILY, flags, family, states);
        request.extend_from_slice(&[0; ID_BYTES]);
        patch_length(&mut request)?;
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        dump(&netlink, namespace, &mut found)?;
    }
    Ok(found)
}

fn dump(netlink: &OwnedFd, namespace: &Namespace, found: &mut Vec<Connection>) -> io::Result<()> {
    let mut answer = vec![0; ANSWER_BYTES];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        for (kind, body) in messages(answer.get(..length).unwrap_or_default()) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return error_of(body),
                _ if found.len() < CONNECTIONS_MAX => {
                    found.extend(connection_in(body, namespace));
                }
                _ => {}
            }
        }
        if length == 0 {
            return Err(io::Error::other("the list of sockets ended early"));
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkSockDiag;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?)
}

/// Head and `struct inet_diag_req_v2` without its socket.
fn request(kind: u16, flags: u16, family: u8, states: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 8 + ID_BYTES);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes
}

fn patch_length(bytes: &mut [u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    if let Some(head) = bytes.first_chunk_mut::<4>() {
        *head = length.to_ne_bytes();
    }
    Ok(())
}

/// The messages of an answer: their kinds and bodies.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(word(rest, 0)?).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let body = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn error_of(body: &[u8]) -> io::Result<()> {
    match word(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("a damaged answer")),
    }
}

fn connection_in(body: &[u8], namespace: &Namespace) -> Option<Connection> {
    let body = body.get(..MESSAGE_BYTES)?;
    let [family, state, ..] = *body else { return None };
    let id: [u8; ID_BYTES] = *body.get(4..)?.first_chunk()?;
    let port = |at: usize| Some(u16::from_be_bytes(*id.get(at..)?.first_chunk()?));
    let ip = |at: usize| {
        Some(match family {
            AF_INET => IpAddr::from(*id.get(at..)?.first_chunk::<4>()?),
            AF_INET6 => IpAddr::from(*id.get(at..)?.first_chunk::<16>()?).to_canonical(),
            _ => return None,
        })
    };
    let cookie = u64::from(word(&id, 40)?) | u64::from(word(&id, 44)?) << 32;
    Some(Connection {
        local: SocketAddr::new(ip(4)?, port(0)?),
        remote: SocketAddr::new(ip(20)?, port(2)?),
        uid: word(body, 64)?,
        inode: word(body, 68)?,
        cookie,
        namespace: namespace.clone(),
        family,
        id,
        state,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The namespaces of these user ids' processes, but for the agent's own.
fn others(uids: &BTreeSet<u32>) -> Vec<Namespace> {
    let found = netns::look(uids).of_uids;
    found.into_values().map(|(file, _)| Namespace::Of(file)).collect()
}

/// Runs `task` in that namespace, on a thread of its own where it is another one.
fn inside<T: Send>(
    namespace: &Namespace,
    task: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    match namespace {
        Namespace::Own => task(),
        Namespace::Of(file) => Netns::open(file)?.inside(task),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_connection_is_listed_with_its_owner_and_can_be_ended() {
        assert!(nix::unistd::getuid().is_root(), "not run: ending connections needs root");
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(ip).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            served.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            let all = connections(&BTreeSet::new()).unwrap();
            let waiting = all.iter().find(|one| one.local == listener.local_addr().unwrap());
            assert!(waiting.unwrap().is_listener());
            let ours = |one: &&Connection| one.local == client.local_addr().unwrap();
            let found = all.iter().find(ours).unwrap();
            assert_eq!(found.remote, listener.local_addr().unwrap());
            assert_eq!((found.uid, found.is_listener()), (0, false));
            let inode =
                fs::metadata(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap().ino();
            assert_eq!(u64::from(found.inode), inode);
            end(found).unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{ip}");
            let gone = connections(&BTreeSet::new()).unwrap();
            assert!(!gone.iter().any(|one| one.cookie == found.cookie));
            assert!(end(found).is_err(), "a second end finds nothing");
        }
    }

    #[test]
    fn damaged_answers_give_nothing() {
        let body = [2_u8; MESSAGE_BYTES];
        assert!(connection_in(&body, &Namespace::Own).is_some());
        for length in 0..MESSAGE_BYTES {
            assert_eq!(connection_in(&body[..length], &Namespace::Own), None, "{length}");
        }
        for bytes in [&[][..], &[0; 16], &[255; 16], &[17, 0, 0, 0, 1, 0]] {
            assert!(messages(bytes).count() <= 1);
        }
    }
}
