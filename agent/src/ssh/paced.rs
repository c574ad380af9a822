//! A client's stream that is not read while too much waits for the server.
//!
//! Promise: what waits is bounded, whatever windows the SSH library gives. Writing to the client goes on.
//!
//! Known gap: what the client says of its own windows is not read meanwhile either.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::counted::Counted;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

    /// So many bytes of channel data wait now.
    pub fn add(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
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

    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= self.most
    }

    /// Whether the client must wait; it is woken when it need not.
    fn holds(&self, cx: &Context<'_>) -> bool {
        if !self.is_full() {
            return false;
        }
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.is_full()
    }
}

/// The stream.
pub struct Paced {
    stream: Counted,
    backlog: Arc<Backlog>,
}

impl Paced {
    /// Reads `stream` while `backlog` is not full.
    pub const fn new(stream: Counted, backlog: Arc<Backlog>) -> Self {
        Self { stream, backlog }
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
