//! What of a client's connection waits for the server: bounded, and the client's own words on windows are read all the same.
//!
//! Promises: while more than the most waits, the client is given windows of [`TRICKLE_BYTES`] (RFC 4254 section 5.2), so that
//! it sends next to nothing, and its window adjustments are read; without these a program that waits for its
//! output to be taken before it reads on would wait for ever. A client that goes beyond its windows is not read at all once [`HARD`] times the most
//! waits. Writing to the client goes on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::counted::Counted;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client begins with (RFC 4253 section 4.2). Anything else is no SSH, and need not be waited for.
const IDENTIFICATION: &[u8] = b"SSH-";

/// The window that a client gets whose data wait: the least that the library takes.
pub const TRICKLE_BYTES: u32 = 2;

/// How many times the most may wait before the client is not read.
const HARD: u64 = 4;

/// Bytes of one connection that wait for the server, and what passed.
pub struct Backlog {
    most: u64,
    waiting: AtomicU64,
    received: AtomicU64,
    answered: AtomicU64,
    reader: Mutex<Option<Waker>>,
}

impl Backlog {
    /// A backlog of at most about `most` bytes.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            waiting: AtomicU64::new(0),
            received: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            reader: Mutex::new(None),
        }
    }

    /// So many bytes of channel data came from the client.
    pub fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes wait now.
    pub fn add(&self, bytes: u64) {
        self.waiting.fetch_add(bytes, Ordering::AcqRel);
    }

    /// So many wait no more.
    pub fn remove(&self, bytes: u64) {
        self.waiting.fetch_sub(bytes, Ordering::AcqRel);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// So many bytes of channel data came from the server.
    pub fn answer(&self, bytes: u64) {
        self.answered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of channel data from the client.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of channel data from the server.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the most waits, so that no more should come.
    pub fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= self.most
    }

    fn is_over(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= self.most.saturating_mul(HARD)
    }

    /// Whether the client must wait; it is woken when it need not.
    fn holds(&self, cx: &Context<'_>) -> bool {
        if !self.is_over() {
            return false;
        }
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.is_over()
    }
}

/// The stream.
pub struct Paced {
    stream: Counted,
    backlog: Arc<Backlog>,
    /// How many bytes of the client's identification have been looked at.
    known: usize,
}

impl Paced {
    /// Reads `stream` while `backlog` is not far beyond its most.
    pub const fn new(stream: Counted, backlog: Arc<Backlog>) -> Self {
        Self { stream, backlog, known: 0 }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.backlog.holds(cx) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.known < IDENTIFICATION.len() && matches!(read, Poll::Ready(Ok(()))) {
            let new = buffer.filled().get(before..).unwrap_or_default();
            let expected = IDENTIFICATION.get(self.known..).unwrap_or_default();
            if new.iter().zip(expected).any(|(byte, expected)| byte != expected) {
                let why = "the client does not begin with an SSH identification";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            self.known += new.len();
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
