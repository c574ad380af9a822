//! What a connection begins with: a class, and the server name of a TLS greeting.
//!
//! Promises: any bytes are taken; nothing is guessed: what is not clearly one of the known beginnings
//! is `other`.
//!
//! Cannot: see through TLS, or tell a protocol in which the server speaks first (`silent`). An
//! Encrypted Client Hello shows the outer name.

/// Most bytes of a beginning that are looked at: one TLS record, the longest greeting there is.
pub const FIRST_BYTES_MAX: usize = 5 + (16 << 10);

/// TLS (RFC 8446): handshake record, client hello, server_name extension, host_name.
const TLS_HANDSHAKE: u8 = 22;
const TLS_CLIENT_HELLO: u8 = 1;
const TLS_SERVER_NAME: u16 = 0;
const TLS_HOST_NAME: u8 = 0;

/// Longest DNS name, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

/// PostgreSQL's start-up codes (manual, "Message Formats"): protocol 3.x, SSL, GSS, cancel.
const POSTGRES_CODES: [u32; 5] = [0x0003_0000, 0x0003_0002, 80_877_103, 80_877_104, 80_877_102];

/// Methods of HTTP/1.1 (RFC 9110) and the preface of HTTP/2 (RFC 9113).
const HTTP: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI * HTTP/2.0",
];

/// A beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// `tls`, `http`, `ssh`, `postgres`, `silent` or `other`.
    pub class: &'static str,
    /// The name that a TLS greeting asks for.
    pub server_name: Option<String>,
}

impl First {
    const fn plain(class: &'static str) -> Self {
        Self { class, server_name: None }
    }
}

/// Tells the beginning; `None` while more bytes would tell more.
pub fn tell(bytes: &[u8]) -> Option<First> {
    if bytes.len() >= FIRST_BYTES_MAX {
        return Some(told(bytes));
    }
    match bytes {
        [] => None,
        [TLS_HANDSHAKE, rest @ ..] => {
            let whole = rest.get(2..4).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes);
            // A greeting in more than one record is told by its first one.
            let whole = usize::from(whole?).saturating_add(5);
            (bytes.len() >= whole).then(|| told(bytes))
        }
        _ if could_become(bytes) => None,
        _ => Some(told(bytes)),
    }
}

/// Tells the beginning by what there is.
pub fn told(bytes: &[u8]) -> First {
    if bytes.is_empty() {
        return First::plain("silent");
    }
    if let Some(hello) = client_hello(bytes) {
        return First { class: "tls", server_name: server_name(hello) };
    }
    if HTTP.iter().any(|method| bytes.starts_with(method)) {
        return First::plain("http");
    }
    if bytes.starts_with(b"SSH-") {
        return First::plain("ssh");
    }
    if is_postgres(bytes) { First::plain("postgres") } else { First::plain("other") }
}

/// Whether it is the beginning of a known beginning.
fn could_become(bytes: &[u8]) -> bool {
    let known = HTTP.iter().copied().chain([b"SSH-".as_slice()]);
    known.into_iter().any(|known| known.len() > bytes.len() && known.starts_with(bytes))
        || (bytes.len() < 8 && bytes.first() == Some(&0))
}

fn is_postgres(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    word(0).is_some_and(|length| (8..=10_000).contains(&length))
        && word(4).is_some_and(|code| POSTGRES_CODES.contains(&code))
}

/// What stands behind the type of a client hello; `None` for what is none.
fn client_hello(bytes: &[u8]) -> Option<Reader<'_>> {
    let mut rest = Reader(bytes);
    if rest.u8()? != TLS_HANDSHAKE || rest.u8()? != 3 {
        return None;
    }
    rest.skip(3)?;
    if rest.u8()? != TLS_CLIENT_HELLO {
        return None;
    }
    Some(rest)
}

/// The name in a client hello, from behind its type.
fn server_name(mut rest: Reader<'_>) -> Option<String> {
    // Length, version, random.
    rest.skip(3 + 2 + 32)?;
    let session = rest.u8()?;
    rest.skip(session.into())?;
    let ciphers = rest.u16()?;
    rest.skip(ciphers.into())?;
    let compressions = rest.u8()?;
    rest.skip(compressions.into())?;
    rest.skip(2)?;
    loop {
        let kind = rest.u16()?;
        let length = rest.u16()?;
        let body = rest.take(length.into())?;
        if kind == TLS_SERVER_NAME {
            let mut list = Reader(body);
            list.skip(2)?;
            if list.u8()? != TLS_HOST_NAME {
                return None;
            }
            let length = usize::from(list.u16()?);
            let name = list.take(length).filter(|name| name.len() <= NAME_BYTES_MAX)?;
            let plain = name.iter().all(u8::is_ascii_graphic) && !name.is_empty();
            return plain.then(|| String::from_utf8_lossy(name).into_owned());
        }
    }
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greeting that rustls sends for this name.
    fn greeting(name: &str) -> Vec<u8> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_beginning_is_told_by_its_bytes_alone() {
        let startup = [0, 0, 0, 8, 4, 210, 22, 47];
        let rows: [(&[u8], &str); 9] = [
            (b"GET / HTTP/1.1\r\n", "http"),
            (b"PRI * HTTP/2.0\r\n\r\nSM", "http"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "ssh"),
            (&startup, "postgres"),
            (b"\x16\x03\x01", "other"),
            (b"\x00\x00\x00\x09aaaa", "other"),
            (b"EHLO me\r\n", "other"),
            (b"\xff", "other"),
            (b"", "silent"),
        ];
        for (bytes, class) in rows {
            assert_eq!(told(bytes), First::plain(class), "{bytes:?}");
        }
    }

    #[test]
    fn a_tls_greeting_tells_its_server_name_once_it_is_whole() {
        let bytes = greeting("db.example");
        for length in 0..bytes.len() {
            assert_eq!(tell(&bytes[..length]), None, "{length} bytes");
        }
        let server_name = Some("db.example".to_owned());
        assert_eq!(tell(&bytes), Some(First { class: "tls", server_name }));
        let nameless = greeting("192.0.2.7");
        assert_eq!(tell(&nameless), Some(First::plain("tls")));
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let bytes = greeting("db.example");
        for place in 0..bytes.len() {
            for flip in [1_u8, 0x80, 0xff] {
                let mut other = bytes.clone();
                other[place] ^= flip;
                let _ = told(&other);
                let _ = tell(&other);
            }
        }
        assert!(tell(&vec![TLS_HANDSHAKE; FIRST_BYTES_MAX]).is_some());
    }
}
