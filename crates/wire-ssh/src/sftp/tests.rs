//! Conversations through the machine, in any cut; what is refused, and what is no SFTP.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tidegate_event::{Action, Range};

use super::*;

fn string(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
}

fn packet(kind: u8, id: u32, rest: &[&[u8]]) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), &rest.concat()].concat())
}

const NO_ATTRIBUTES: [u8; 4] = [0; 4];

/// What a pair of sides around the machine saw.
#[derive(Default)]
struct Seen {
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
    asked: Vec<FileRequest>,
    outcomes: Vec<(u64, Outcome)>,
    fault: Option<&'static str>,
}

/// Drives the machine: `refuse` says what is not permitted, `server` answers what reaches it.
struct Sides<R: Fn(&FileRequest) -> bool, S: FnMut(&[u8]) -> Vec<u8>> {
    machine: Sftp,
    refuse: R,
    server: S,
    seen: Seen,
    /// So many bytes are offered at once.
    cut: usize,
}

impl<R: Fn(&FileRequest) -> bool, S: FnMut(&[u8]) -> Vec<u8>> Sides<R, S> {
    fn new(refuse: R, server: S, cut: usize) -> Self {
        Self { machine: Sftp::new(7), refuse, server, seen: Seen::default(), cut }
    }

    fn reaches(&mut self, bytes: &[u8]) {
        self.seen.to_server.push(bytes.to_vec());
        let answer = (self.server)(bytes);
        for part in answer.chunks(self.cut) {
            self.machine.from_server(part, 2);
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(self.cut) {
            self.machine.from_client(part);
            loop {
                match self.machine.advance() {
                    Next::Send(bytes) => self.reaches(&bytes),
                    Next::Ask { request, .. } => {
                        let refused = (self.refuse)(&request);
                        self.seen.asked.push(request);
                        let answer = if refused { Err("tidegate: no") } else { Ok(()) };
                        if let Some(bytes) = self.machine.answer(answer, 1) {
                            self.reaches(&bytes);
                        }
                    }
                    Next::Server => panic!("the server has answered all"),
                    Next::Client => break,
                    Next::Fault(why) => {
                        self.seen.fault = Some(why);
                        break;
                    }
                }
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(bytes) = self.machine.to_client() {
            self.seen.to_client.push(bytes.to_vec());
        }
        while let Some(outcome) = self.machine.outcome() {
            self.seen.outcomes.push(outcome);
        }
    }
}

/// A server with one file, whose directory is `/home/batch`, that has a link `in` to `/srv/in`.
fn server(file: &'static [u8]) -> impl FnMut(&[u8]) -> Vec<u8> {
    move |bytes| {
        let body = &bytes[4..];
        let id = u32::from_be_bytes(body[1..5].try_into().unwrap());
        let at = |from: usize| {
            let length = u32::from_be_bytes(body[from..from + 4].try_into().unwrap()) as usize;
            &body[from + 4..from + 4 + length]
        };
        let ok = packet(101, id, &[&OK_BYTES, &string(b""), &string(b"")]);
        match body[0] {
            1 => packet(2, 3, &[&string(b"hardlink@openssh.com"), &string(b"1")]),
            16 => {
                let resolved = match at(5) {
                    b"." => "/home/batch".to_owned(),
                    b"in" | b"in/" => "/srv/in".to_owned(),
                    b"in/a" => "/srv/in/a".to_owned(),
                    b"/too/long" => {
                        return packet(101, id, &[&[0, 0, 0, 5], &string(b"long"), &string(b"")]);
                    }
                    b"/no/such" => {
                        return packet(101, id, &[&[0, 0, 0, 2], &string(b"none"), &string(b"")]);
                    }
                    other => String::from_utf8(other.to_vec()).unwrap(),
                };
                let names = [&string(resolved.as_bytes())[..], &string(b""), &NO_ATTRIBUTES];
                packet(104, id, &[&[0, 0, 0, 1], &names.concat()])
            }
            3 | 11 => packet(102, id, &[&string(b"h1")]),
            5 => {
                let offset = usize::try_from(u64::from_be_bytes(body[11..19].try_into().unwrap()));
                let rest = file.get(offset.unwrap()..).unwrap_or_default();
                if rest.is_empty() {
                    return packet(101, id, &[&[0, 0, 0, 1], &string(b"end"), &string(b"")]);
                }
                packet(103, id, &[&string(&rest[..rest.len().min(4)])])
            }
            _ => ok,
        }
    }
}

const OK_BYTES: [u8; 4] = [0; 4];

fn init() -> Vec<u8> {
    string(&[1, 0, 0, 0, 3])
}

fn open(id: u32, path: &[u8], flags: u8) -> Vec<u8> {
    packet(3, id, &[&string(path), &[0, 0, 0, flags], &NO_ATTRIBUTES])
}

fn write(id: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    packet(6, id, &[&string(b"h1"), &offset.to_be_bytes(), &string(data)])
}

fn read(id: u32, offset: u64) -> Vec<u8> {
    packet(5, id, &[&string(b"h1"), &offset.to_be_bytes(), &[0, 0, 0, 4]])
}

fn close(id: u32) -> Vec<u8> {
    packet(4, id, &[&string(b"h1")])
}

#[test]
fn a_file_that_goes_over_whole_is_told_with_its_digest_in_any_cut() {
    for cut in [1, 3, 7, 4096] {
        let mut sides = Sides::new(|_| false, server(b"0123456789"), cut);
        let put = [
            init(),
            open(1, b"in/a", 2 | 8 | 16),
            write(2, 0, b"one"),
            write(3, 3, b"two"),
            close(4),
            open(5, b"/etc/motd", 1),
            read(6, 0),
            read(7, 4),
            read(8, 8),
            read(9, 10),
            close(10),
        ];
        sides.client(&put.concat());
        let Seen { asked, outcomes, fault, to_client, .. } = &sides.seen;
        assert_eq!(*fault, None);
        assert_eq!((asked[0].path.as_str(), asked[0].sent.as_deref()), ("/srv/in/a", Some("in/a")));
        assert_eq!(asked[0].access.words(), "write create truncate");
        assert_eq!(asked[0].channel, 7);
        let written = outcomes[0].1.carried.as_deref().unwrap();
        assert_eq!(written.written, [Range { offset: 0, bytes: 6 }]);
        assert_eq!(written.sha256.unwrap()[..], Sha256::digest(b"onetwo")[..]);
        let given = outcomes[1].1.carried.as_deref().unwrap();
        assert_eq!(given.read, [Range { offset: 0, bytes: 10 }]);
        assert_eq!(given.sha256.unwrap()[..], Sha256::digest(b"0123456789")[..]);
        assert_eq!(outcomes[1].1.copied.unwrap().bytes_out, 10);
        // The gate's own questions are not answered to the client.
        assert_eq!(to_client.len(), 11);
    }
}

#[test]
fn a_part_of_a_file_has_no_digest() {
    let mut sides = Sides::new(|_| false, server(b"0123456789"), 4096);
    sides.client(&[init(), open(1, b"/a", 1), read(2, 4), read(3, 0), close(4)].concat());
    sides.client(&[open(5, b"/a", 2), write(6, 0, b"x"), close(7)].concat());
    for (_, outcome) in &sides.seen.outcomes {
        assert_eq!(outcome.carried.as_deref().unwrap().sha256, None);
    }
    let ranges = &sides.seen.outcomes[0].1.carried.as_deref().unwrap().read;
    assert_eq!(*ranges, [Range { offset: 4, bytes: 4 }, Range { offset: 0, bytes: 4 }]);
}

#[test]
fn what_is_refused_never_reaches_the_server_and_the_channel_lives_on() {
    let mut sides = Sides::new(|asked| asked.path.starts_with("/srv/"), server(b""), 4096);
    sides.client(&[init(), open(1, b"in/a", 2), close(2), open(3, b"/tmp/b", 1)].concat());
    let opened: Vec<_> = sides.seen.to_server.iter().filter(|bytes| bytes[4] == 3).collect();
    assert_eq!(opened.len(), 1);
    assert!(opened[0].windows(6).any(|part| part == b"/tmp/b"));
    // Version, the refusal, the handle that nobody was given, the handle.
    let kinds: Vec<u8> = sides.seen.to_client.iter().map(|bytes| bytes[4]).collect();
    assert_eq!(kinds, [2, 101, 101, 102]);
    assert_eq!(sides.seen.to_client[1][9..13], [0, 0, 0, 3]);
    assert!(sides.seen.to_client[1].windows(12).any(|part| part == b"tidegate: no"));
    sides.machine.finish(9);
    sides.drain();
    assert_eq!(sides.seen.outcomes.len(), 1);
    assert_eq!(sides.seen.outcomes[0].1.status, Status::Lost);
}

#[test]
fn each_request_is_asked_by_the_names_that_it_means() {
    let both = |one: &[u8], two: &[u8]| [string(one), string(two)].concat();
    let extended = |name: &[u8], rest: &[u8]| [&string(name)[..], rest].concat();
    for (kind, body, path, to, effects) in [
        (13, string(b"in"), "/home/batch/in", None, &[Action::FileRemove][..]),
        (17, string(b"in"), "/srv/in", None, &[Action::FileList]),
        (7, string(b"in"), "/home/batch/in", None, &[Action::FileList]),
        (11, string(b"in"), "/srv/in", None, &[Action::FileList]),
        (14, [string(b"in/x"), vec![0; 4]].concat(), "/srv/in/x", None, &[Action::FileWrite]),
        (
            18,
            both(b"a", b"in/b"),
            "/home/batch/a",
            Some("/srv/in/b"),
            &[Action::FileRead, Action::FileRemove, Action::FileWrite],
        ),
        (
            200,
            extended(b"posix-rename@openssh.com", &both(b"a", b"in/b")),
            "/home/batch/a",
            Some("/srv/in/b"),
            &[Action::FileRead, Action::FileRemove, Action::FileWrite],
        ),
        (
            200,
            extended(b"hardlink@openssh.com", &both(b"a", b"in/b")),
            "/home/batch/a",
            Some("/srv/in/b"),
            &[Action::FileRead, Action::FileWrite, Action::FileWrite],
        ),
        (20, both(b"/etc/shadow", b"in/l"), "/srv/in/l", Some("/etc/shadow"), &[Action::FileWrite]),
        (9, [string(b"/too/long"), vec![0; 4]].concat(), "/too/long", None, &[Action::Unknown]),
        (13, string(b"in/"), "/srv/in", None, &[Action::FileRemove]),
        (
            3,
            [string(b"in/a"), vec![0, 0, 0, 8], vec![0; 4]].concat(),
            "/srv/in/a",
            None,
            &[Action::FileRead, Action::FileWrite],
        ),
        (200, extended(b"exec@example.org", b"rm"), "exec@example.org", None, &[Action::Unknown]),
    ] {
        let mut sides = Sides::new(|_| false, server(b""), 4096);
        sides.client(&[init(), packet(kind, 1, &[&body])].concat());
        assert_eq!(sides.seen.fault, None, "{kind} {path}");
        let asked = &sides.seen.asked[0];
        assert_eq!((asked.path.as_str(), asked.to.as_deref()), (path, to), "{kind}");
        let found: Vec<Action> = asked.effects().iter().map(|effect| effect.action).collect();
        assert_eq!(found, effects, "{kind} {path}");
    }
}

#[test]
fn what_is_not_there_or_holds_a_zero_byte_is_answered_and_not_passed_on() {
    let mut sides = Sides::new(|_| false, server(b""), 4096);
    let rename = [string(b"a"), string(b"b\0")].concat();
    let hard = [string(b"hardlink@openssh.com\0"), string(b"a"), string(b"b")].concat();
    sides.client(
        &[
            init(),
            open(1, b"/no/such", 1),
            open(2, b"a\0", 1),
            packet(18, 3, &[&rename]),
            packet(200, 4, &[&hard]),
        ]
        .concat(),
    );
    assert_eq!((sides.seen.fault, sides.seen.asked.len()), (None, 0));
    let codes: Vec<&[u8]> = sides.seen.to_client[1..].iter().map(|bytes| &bytes[9..13]).collect();
    assert_eq!(codes, [[0, 0, 0, 2], [0, 0, 0, 4], [0, 0, 0, 4], [0, 0, 0, 4]]);
    let kinds: Vec<u8> = sides.seen.to_server.iter().map(|bytes| bytes[4]).collect();
    assert_eq!(kinds, [1, 16], "a version, and the gate's own question");
}

#[test]
fn what_is_no_sftp_ends_the_channel() {
    for (bytes, why) in [
        (open(1, b"/a", 1), "the client does not begin with its version, once"),
        ([init(), init()].concat(), "the client does not begin with its version, once"),
        (vec![0xff; 8], "the client sends a packet of an impossible length"),
        ([init(), packet(3, 1, &[])].concat(), "the client sends a packet that does not read"),
    ] {
        let mut sides = Sides::new(|_| false, server(b""), 4096);
        sides.client(&bytes);
        assert_eq!(sides.seen.fault, Some(why));
    }
    let mut sides = Sides::new(|_| false, |_: &[u8]| packet(2, 6, &[]), 4096);
    sides.client(&[init(), open(1, b"/a", 1)].concat());
    assert!(sides.seen.fault.unwrap().contains("version"));
    assert!(sides.seen.asked.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_taken(
        client in prop::collection::vec(any::<u8>(), 0..200),
        server in prop::collection::vec(any::<u8>(), 0..60),
        packets in prop::collection::vec((0_u8..25, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let framed: Vec<u8> =
            packets.iter().zip(1..).flat_map(|((kind, body), id)| packet(*kind, id, &[body])).collect();
        for bytes in [client, [init(), framed].concat()] {
            let mut machine = Sftp::new(0);
            machine.from_client(&bytes);
            for _ in 0..50 {
                match machine.advance() {
                    Next::Send(_) | Next::Server => machine.from_server(&server, 0),
                    Next::Ask { .. } => {
                        machine.answer(Ok(()), 0);
                    }
                    Next::Client | Next::Fault(_) => break,
                }
            }
            machine.finish(1);
        }
    }
}
