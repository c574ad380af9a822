//! What MariaDB 10.11 lacks: `caching_sha2_password`, against a server of the test's own that follows MySQL's
//! description ("Caching_sha2_password information"), with MariaDB's CLI as an unmodified client.
//!
//! Limits: ordinary tests have no real MySQL; `mysql_servers.rs` has one, with the exchange of RSA keys.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use xtask::lab::client::run;
use xtask::lab::{AgentOptions, Answer, Lab, Options, Who};

const PASSWORD: &str = "scripted-password";
const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";

/// A packet's payload and number.
fn read(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let length = usize::from(header[0]) | usize::from(header[1]) << 8;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((header[3], payload))
}

fn write(stream: &mut TcpStream, seq: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
    stream.write_all(&[&[length[0], length[1], 0, seq], payload].concat()).unwrap();
}

/// MySQL's greeting: 4.1, plugins, databases.
fn greet(stream: &mut TcpStream) {
    let tail = b"\0caching_sha2_password\0";
    let head = b"\x0a8.0.39\0\x07\0\0\0";
    let flags = [&[0, 0x09, 0xa2, 45, 2, 0, 0x0b, 0, 21][..], &[0; 10]].concat();
    write(stream, 0, &[&head[..], &NONCE[..8], &flags, &NONCE[8..], tail].concat());
}

/// What the client must prove: SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce).
fn scramble() -> Vec<u8> {
    let once = Sha256::digest(PASSWORD);
    let twice = Sha256::digest(once);
    let mixed = Sha256::digest([&twice[..], NONCE].concat());
    once.iter().zip(mixed).map(|(one, other)| one ^ other).collect()
}

/// Whether the server asks for the password itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fast,
    Full,
}

fn authenticate(stream: &mut TcpStream, way: Way) {
    greet(stream);
    let (seq, response) = read(stream).unwrap();
    let proof = scramble();
    let proven = response.windows(proof.len()).any(|part| part == proof);
    assert!(proven, "the client's proof did not come as it was made");
    if way == Way::Fast {
        write(stream, seq + 1, &[1, 3]);
        write(stream, seq + 2, b"\0\0\0\x02\0\0\0");
        return;
    }
    write(stream, seq + 1, &[1, 4]);
    let (seq, request) = read(stream).unwrap();
    // In the clear a client asks for the server's key; this one takes loopback for secure enough.
    assert_eq!(request, [PASSWORD.as_bytes(), b"\0"].concat());
    write(stream, seq + 1, b"\0\0\0\x02\0\0\0");
}

/// Serves one client, and says what it was asked.
fn serve(listener: TcpListener, way: Way) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        authenticate(&mut stream, way);
        let mut texts = Vec::new();
        while let Some((seq, payload)) = read(&mut stream) {
            match payload.split_first() {
                Some((3, text)) => {
                    texts.push(String::from_utf8_lossy(text).into_owned());
                    write(&mut stream, seq + 1, b"\0\0\0\x02\0\0\0");
                }
                Some((1, _)) | None => break,
                Some(_) => write(&mut stream, seq + 1, b"\0\0\0\x02\0\0\0"),
            }
        }
        texts
    })
}

fn check(way: Way) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = Options {
        mysql_port: Some(port),
        agent: AgentOptions { mariadb_client_tls: "refuse", ..AgentOptions::default() },
        ..Options::default()
    };
    let lab = Lab::start(options).unwrap();
    let server = serve(listener, way);
    let mut client = lab.command(Who::Service, Path::new("/usr/bin/mariadb")).unwrap();
    client.args(["--no-defaults", "-h127.0.0.1", "--protocol=tcp", "-uapp", "-N", "-B", "-f"]);
    client.arg(format!("-P{port}")).arg(format!("-p{PASSWORD}"));
    let script = b"DO 1;\nDELETE FROM notes;\nDO 2;\n";
    let answer: Answer = run(&mut client, script).unwrap();
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{answer}");
    let texts = server.join().unwrap();
    assert!(texts.contains(&"DO 2".to_owned()), "{texts:?} {answer}");
    assert!(!texts.iter().any(|text| text.contains("DELETE")), "{texts:?}");
    let evidence = lab.evidence().unwrap();
    let login = evidence.operations().find(|event| event.via() == "login").unwrap();
    assert_eq!((login.verdict(), login.status()), ("allow", "ok"));
    assert!(evidence.events.iter().all(|event| !event.json.to_string().contains(PASSWORD)));
    lab.finish().unwrap();
}

#[test]
fn caching_sha2_password_by_its_fast_path() {
    check(Way::Fast);
}

#[test]
fn caching_sha2_password_with_the_password_itself() {
    check(Way::Full);
}
