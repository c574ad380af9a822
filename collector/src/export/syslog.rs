//! Syslog: RFC 5424 messages over TCP with octet counting (RFC 6587) or TLS (RFC 5425), holding an OCSF
//! event in JSON or a CEF line.
//!
//! Promise: syslog has no acknowledgements, so one connection carries one batch, and the batch counts as taken
//! only when the receiver has closed its side after ours: then it has read to the end. One that dies, or
//! closes with bytes unread (which resets the connection), gets the whole batch again.
//!
//! Cannot do: know that the receiver wrote down what it read, or tell one that gives up in the very moment
//! between our look for its end and our own end, some microseconds; a client certificate.
//! Limits: `message_bytes_max` bytes a message: the statement's text is cut to fit, then the sentence; `[cut]` stands
//! at the place, and `unmapped.tidegate.cut` says so. What is longer without them goes out longer.

use std::time::Duration;

use anyhow::Context as _;
use hyper::Uri;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::mapping::Item;
use super::{Delivery, cef, ocsf};
use crate::config::{Export, SyslogFormat};
use crate::http;

/// RFC 5425 section 4.1 for TLS; the port of RFC 3164 for the rest, by custom.
const PORT_TLS: u16 = 6514;
const PORT_TCP: u16 = 514;
/// Facility `log audit` (RFC 5424, table 1).
const FACILITY: u8 = 13;
/// Longest HOSTNAME, in bytes (RFC 5424 section 6).
const HOSTNAME_BYTES_MAX: usize = 255;
/// Longest MSGID, in bytes (RFC 5424 section 6).
const MSGID_BYTES_MAX: usize = 32;
/// Answers are read away in pieces of this size; a syslog receiver has none to give.
const ANSWER_BYTES: usize = 512;
/// Most bytes that a receiver may answer before it closes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A receiver.
pub struct Sink {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    format: SyslogFormat,
    message_bytes_max: usize,
}

impl Sink {
    /// Reads the configuration; connects at each batch.
    pub fn new(config: &Export) -> anyhow::Result<Self> {
        let uri: Uri =
            config.endpoint.parse().with_context(|| format!("endpoint {:?}", config.endpoint))?;
        let secure = uri.scheme_str() == Some("tls");
        let host = uri.host().context("the endpoint has no host")?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).context("the endpoint's host")?;
            Some((http::connector(config.ca_file.as_deref())?, name))
        } else {
            None
        };
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(if secure { PORT_TLS } else { PORT_TCP }),
            tls,
            timeout: Duration::from_secs(config.timeout_seconds),
            format: config.format,
            message_bytes_max: config.message_bytes_max,
        })
    }

    /// Sends these items on a connection of their own.
    pub async fn send(&self, items: &[Item]) -> Delivery {
        let mut bytes = Vec::new();
        for item in items {
            let message = self.message(item);
            bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
            bytes.extend_from_slice(message.as_bytes());
        }
        let exchange = async {
            let tcp =
                TcpStream::connect((self.host.as_str(), self.port)).await.context("connect")?;
            match &self.tls {
                None => hand_over(tcp, &bytes).await,
                Some((connector, name)) => {
                    let tls = connector.connect(name.clone(), tcp).await.context("TLS")?;
                    hand_over(tls, &bytes).await
                }
            }
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(())) => Delivery::Taken,
            Ok(Err(error)) => Delivery::Retry(format!("{error:#}"), None),
            Err(_) => Delivery::Retry("the receiver did not read to the end in time".into(), None),
        }
    }

    /// One message, without its length.
    fn message(&self, item: &Item) -> String {
        let severity = match item.record.severity_text.as_str() {
            "ERROR" => 3,
            "WARN" => 4,
            _ => 6,
        };
        let head = format!(
            "<{}>1 {} {} tidegate - {} - ",
            FACILITY * 8 + severity,
            timestamp(item.record.time_unix_nano),
            printable(&item.host, HOSTNAME_BYTES_MAX),
            printable(&item.record.event_name, MSGID_BYTES_MAX),
        );
        let mut event = ocsf::event(item);
        let mut body = self.body(item, &event);
        for at in ["/query_info/query_string", "/message"] {
            let over = (head.len() + body.len()).saturating_sub(self.message_bytes_max);
            if over == 0 {
                break;
            }
            cut(&mut event, at, over);
            body = self.body(item, &event);
        }
        format!("{head}{body}")
    }

    fn body(&self, item: &Item, event: &Value) -> String {
        match self.format {
            SyslogFormat::Ocsf => event.to_string(),
            SyslogFormat::Cef => cef::line(item, event),
        }
    }
}

/// Stands where a text was cut.
const MARK: &str = " [cut]";
/// Room for the marks of a cut, in bytes.
const MARK_BYTES: usize = 32;

/// Takes `over` bytes, as they are written out, off the end of the text at `at`.
fn cut(event: &mut Value, at: &str, over: usize) {
    let Some(Value::String(text)) = event.pointer_mut(at) else { return };
    let mut left = over + MARK_BYTES;
    while let Some(last) = text.pop() {
        // One that is escaped frees more than it counts.
        left = left.saturating_sub(last.len_utf8());
        if left == 0 {
            break;
        }
    }
    text.push_str(MARK);
    if let Some(Value::Object(unmapped)) = event.pointer_mut("/unmapped") {
        unmapped.insert("tidegate.cut".to_owned(), true.into());
    }
}

/// In microseconds, the finest that RFC 5424 takes; the nil value where it is no time.
fn timestamp(ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(ns));
    time.map_or_else(|_| "-".to_owned(), |time| format!("{time:.6}"))
}

/// As a header field: printable ASCII without spaces, or the nil value (RFC 5424 section 6).
fn printable(text: &str, bytes_max: usize) -> String {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(bytes_max).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Writes all, says that it is all, and waits until the other side has read to that end.
async fn hand_over<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    bytes: &[u8],
) -> anyhow::Result<()> {
    let mut answer = [0; ANSWER_BYTES];
    let mut answered = 0;
    stream.write_all(bytes).await.context("write")?;
    stream.flush().await.context("write")?;
    // Its end before ours is none that follows from having read all.
    tokio::select! {
        biased;
        read = stream.read(&mut answer) => match read.context("the receiver broke off")? {
            0 => anyhow::bail!("the receiver closed before it had all"),
            read => answered += read,
        },
        () = std::future::ready(()) => {}
    }
    stream.shutdown().await.context("close")?;
    loop {
        match stream.read(&mut answer).await {
            Ok(0) => return Ok(()),
            Ok(read) => answered += read,
            // A receiver that closes TCP without TLS's own farewell has read ours before.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("the receiver broke off"),
        }
        anyhow::ensure!(answered <= ANSWER_BYTES_MAX, "this is no syslog receiver: it talks");
    }
}

#[cfg(test)]
mod tests;
