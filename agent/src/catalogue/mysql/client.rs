//! A client that logs in and reads rows: as much of MySQL's protocol as the catalogue needs.
//!
//! Promises: where the server must be verified, nothing but a request for TLS leaves before it is; a
//! server that offers none is not used. Rows are handed on one by one, so that a result is never held as
//! a whole. Local files are never sent.

use tokio::io::{AsyncRead, AsyncWrite, BufReader};

use super::MysqlError;
use super::auth::{Method, SCRAMBLE_BYTES, encrypted};
use super::packet::{Fields, Packets};
use crate::catalogue::reader::{APPLICATION, Login, ReadError};
use crate::session::leg::Leg;
use crate::upstream::{self, DialError};

/// Capabilities (manual, "Capabilities Flags").
const LONG_PASSWORD: u32 = 1;
const PROTOCOL_41: u32 = 1 << 9;
const SSL: u32 = 1 << 11;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;
const CONNECT_ATTRS: u32 = 1 << 20;

/// What we can't do without.
const NEEDED: u32 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;

/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;

/// Longest packet that we say we take, in bytes.
const OUR_PACKET_BYTES_MAX: u32 = 1 << 30;

/// First bytes of packets.
const OK: u8 = 0;
const MORE: u8 = 1;
const LOCAL_FILE: u8 = 0xfb;
const EOF: u8 = 0xfe;
const ERR: u8 = 0xff;

/// An EOF packet is shorter than this, in bytes.
const EOF_BYTES_MAX: usize = 9;

/// `caching_sha2_password`: the server knew the password's hash; it wants the password; and ours: it
/// shall show its RSA key.
const FAST_OK: u8 = 3;
const FULL: u8 = 4;
const SHOW_KEY: u8 = 2;

/// Most packets of a server until it is content with a login or not.
const ANSWERS_MAX: usize = 8;

/// COM_QUERY.
const QUERY: u8 = 3;

/// What a server says first.
pub struct Greeting {
    capabilities: u32,
    scramble: Vec<u8>,
    method: Vec<u8>,
}

/// What a client speaks over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection that is logged in.
pub struct Client<S = BufReader<Leg>> {
    packets: Packets<S>,
    packet: Vec<u8>,
}

/// Connects, verifies the server as the target says, and logs in.
pub async fn connect(login: Login<'_>) -> Result<Client, MysqlError> {
    let address = login.server;
    let mut packets = Packets::new(upstream::connect(address, None).await?);
    // Nothing is read ahead: what comes behind the greeting must come inside of TLS.
    let greeting = greeting(&mut packets).await?;
    let leg = match login.verification {
        None => packets.over(Leg::Plain),
        Some(_) if greeting.capabilities & SSL == 0 => {
            return Err(DialError::NoTls { address }.into());
        }
        Some(verification) => {
            packets.write(&head(&greeting, true)).await?;
            let (stream, sequence) = packets.into_parts();
            let leg = upstream::secured(stream, address, verification).await?;
            Packets::from_parts(leg, sequence)
        }
    };
    log_in(leg.over(BufReader::new), &greeting, login).await
}

/// The first part of a handshake response, which is all of a request for TLS.
fn head(greeting: &Greeting, tls: bool) -> Vec<u8> {
    let tls = if tls { SSL } else { 0 };
    let capabilities = NEEDED | ((LONG_PASSWORD | CONNECT_ATTRS | tls) & greeting.capabilities);
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend(OUR_PACKET_BYTES_MAX.to_le_bytes());
    packet.push(CHARSET);
    packet.extend([0; 23]);
    packet
}

pub async fn greeting<S: AsyncRead + Unpin>(
    packets: &mut Packets<S>,
) -> Result<Greeting, MysqlError> {
    let mut packet = Vec::new();
    packets.read(&mut packet).await?;
    let mut fields = Fields::new(&packet);
    match fields.number::<1>()? {
        10 => {}
        0xff => return Err(refusal(&packet)),
        _ => return Err(MysqlError::Form("no greeting of MySQL")),
    }
    fields.until_zero();
    fields.number::<4>()?;
    let mut scramble = fields.take(8)?.to_vec();
    fields.number::<1>()?;
    let low = fields.number::<2>()?;
    fields.number::<3>()?;
    let capabilities = low | fields.number::<2>()? << 16;
    let capabilities = u32::try_from(capabilities).unwrap_or_default();
    if capabilities & NEEDED != NEEDED {
        return Err(MysqlError::Form("a server older than MySQL 5.5.7"));
    }
    fields.take(11)?;
    scramble.extend(fields.take(SCRAMBLE_BYTES - 8)?);
    fields.number::<1>()?;
    let method = fields.until_zero().to_vec();
    Ok(Greeting { capabilities, scramble, method })
}

/// What the server says in an ERR packet.
fn refusal(packet: &[u8]) -> MysqlError {
    let mut fields = Fields::new(packet);
    let read = (|| {
        fields.number::<1>()?;
        let code = fields.number::<2>()?;
        if fields.rest().first() == Some(&b'#') {
            fields.take(6)?;
        }
        Ok(MysqlError::Server(code, String::from_utf8_lossy(fields.rest()).into_owned()))
    })();
    read.unwrap_or_else(|error: MysqlError| error)
}

/// Logs in after the greeting, and TLS where it is asked for.
pub async fn log_in<S: Stream>(
    packets: Packets<S>,
    greeting: &Greeting,
    login: Login<'_>,
) -> Result<Client<S>, MysqlError> {
    let mut client = Client { packets, packet: Vec::new() };
    let password = login.password.unwrap_or_default().as_bytes();
    let tls = login.verification.is_some();
    // Another method than ours is one that the account need not have: the server says which it has.
    let method = Method::named(&greeting.method).unwrap_or(Method::Native);
    let answer = match method {
        // Its scramble comes later.
        Method::Ed25519 => Vec::new(),
        _ => method.answer(password, &greeting.scramble)?,
    };
    let response = response(greeting, login.user, tls, method, &answer)?;
    client.packets.write(&response).await?;
    client.prove(password, tls, method, greeting.scramble.clone()).await?;
    Ok(client)
}

fn response(
    greeting: &Greeting,
    user: &str,
    tls: bool,
    method: Method,
    answer: &[u8],
) -> Result<Vec<u8>, MysqlError> {
    let too_long = |_| MysqlError::Form("too much for one byte");
    let mut response = head(greeting, tls);
    response.extend(user.as_bytes());
    response.push(0);
    response.push(u8::try_from(answer.len()).map_err(too_long)?);
    response.extend(answer);
    response.extend(method.name().as_bytes());
    response.push(0);
    if greeting.capabilities & CONNECT_ATTRS != 0 {
        let mut attributes = Vec::new();
        for text in ["program_name", APPLICATION] {
            attributes.push(u8::try_from(text.len()).map_err(too_long)?);
            attributes.extend(text.as_bytes());
        }
        response.push(u8::try_from(attributes.len()).map_err(too_long)?);
        response.extend(attributes);
    }
    Ok(response)
}

impl<S: Stream> Client<S> {
    #[cfg(test)]
    pub const fn logged_in(packets: Packets<S>) -> Self {
        Self { packets, packet: Vec::new() }
    }

    /// Answers until the server is content.
    async fn prove(
        &mut self,
        password: &[u8],
        tls: bool,
        mut method: Method,
        mut scramble: Vec<u8>,
    ) -> Result<(), MysqlError> {
        for _ in 0..ANSWERS_MAX {
            self.packets.read(&mut self.packet).await?;
            match self.packet.as_slice() {
                [OK, ..] => return Ok(()),
                [ERR, ..] => return Err(refusal(&self.packet)),
                [EOF] => return Err(MysqlError::Method("mysql_old_password".to_owned())),
                [EOF, rest @ ..] => {
                    let mut fields = Fields::new(rest);
                    method = Method::named(fields.until_zero())?;
                    scramble = fields.rest().to_vec();
                    let answer = method.answer(password, &scramble)?;
                    self.packets.write(&answer).await?;
                }
                [MORE, FAST_OK] if method == Method::CachingSha2 => {}
                [MORE, FULL] if method == Method::CachingSha2 && tls => {
                    self.packets.write(&[password, b"\0"].concat()).await?;
                }
                [MORE, FULL] if method == Method::CachingSha2 => {
                    self.packets.write(&[SHOW_KEY]).await?;
                }
                [MORE, key @ ..] if method == Method::CachingSha2 && !tls => {
                    let sealed = encrypted(password, &scramble, key)?;
                    self.packets.write(&sealed).await?;
                }
                _ => break,
            }
        }
        Err(MysqlError::Form("no answer to a login"))
    }

    /// Runs a statement that gives no rows.
    pub async fn run(&mut self, sql: &str) -> Result<(), MysqlError> {
        self.send(sql).await?;
        match self.packet.first() {
            Some(&OK) => Ok(()),
            _ => Err(MysqlError::Form("rows that were not asked for")),
        }
    }

    /// Runs a query of `N` columns, and hands on each row.
    pub async fn query<const N: usize>(
        &mut self,
        sql: &str,
        mut row: impl FnMut([Option<&[u8]>; N]) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.send(sql).await?;
        let columns = Fields::new(&self.packet).length()?;
        if columns != u64::try_from(N).ok() {
            return Err(MysqlError::Form("another number of columns than was asked for").into());
        }
        for _ in 0..N {
            self.packets.read(&mut self.packet).await?;
        }
        self.packets.read(&mut self.packet).await?;
        if !self.is_end() {
            return Err(MysqlError::Form("more columns than were announced").into());
        }
        loop {
            self.packets.read(&mut self.packet).await?;
            if self.is_end() {
                return Ok(());
            }
            if self.packet.first() == Some(&ERR) {
                return Err(refusal(&self.packet).into());
            }
            let mut fields = Fields::new(&self.packet);
            let mut cells = [None; N];
            for cell in &mut cells {
                *cell = fields.text()?;
            }
            row(cells)?;
        }
    }

    async fn send(&mut self, sql: &str) -> Result<(), MysqlError> {
        self.packets.begin();
        self.packets.write(&[&[QUERY], sql.as_bytes()].concat()).await?;
        self.packets.read(&mut self.packet).await?;
        match self.packet.first() {
            Some(&ERR) => Err(refusal(&self.packet)),
            Some(&LOCAL_FILE) => Err(MysqlError::Form("a request for a local file")),
            _ => Ok(()),
        }
    }

    fn is_end(&self) -> bool {
        self.packet.first() == Some(&EOF) && self.packet.len() < EOF_BYTES_MAX
    }
}
