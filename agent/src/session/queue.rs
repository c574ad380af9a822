//! Bytes on their way out of a leg, in order, written with one vectored call a turn.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, Bytes};
use tokio::io::AsyncWrite;

use super::leg::Leg;

/// Most chunks in one vectored write.
const SLICES_MAX: usize = 32;

/// Up to so many bytes, chunks are copied together for one plain send, which costs less than a
/// vectored write of them.
const GATHER_BYTES_MAX: usize = 2 * 1024;

/// Above this many waiting bytes the other leg is not read, so that memory stays bounded.
pub const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// Chunks that wait for a leg to take them.
#[derive(Default)]
pub struct Queue {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    unflushed: bool,
}

impl Queue {
    /// Adds a chunk behind the others.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Whether everything has left, TLS buffers included.
    pub fn is_drained(&self) -> bool {
        self.chunks.is_empty() && !self.unflushed
    }

    /// Whether so much waits that no more should be taken in.
    pub const fn is_congested(&self) -> bool {
        self.bytes >= BACKLOG_BYTES_MAX
    }

    /// Writes as much as the leg takes. Ready when everything has left.
    pub fn poll_write(&mut self, leg: &mut Leg, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.chunks.is_empty() {
            let written = ready!(self.poll_write_some(leg, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(leg).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some(&self, leg: &mut Leg, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let leg = Pin::new(leg);
        if let (Some(only), 1) = (self.chunks.front(), self.chunks.len()) {
            return leg.poll_write(cx, only);
        }
        if self.bytes <= GATHER_BYTES_MAX {
            let mut gathered = [0; GATHER_BYTES_MAX];
            let mut rest = gathered.as_mut_slice();
            for chunk in &self.chunks {
                rest.put_slice(chunk);
            }
            return leg.poll_write(cx, gathered.get(..self.bytes).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        leg.poll_write_vectored(cx, slices.get(..used).unwrap_or(&[]))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.chunks.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counted::Counted;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn many_chunks_leave_in_order_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) =
            tokio::join!(TcpStream::connect(address), async { listener.accept().await.unwrap().0 });
        let mut leg = Leg::Plain(Counted::without_account(near.unwrap()));
        let reader = tokio::spawn(async move {
            let (mut far, mut all) = (far, Vec::new());
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut queue = Queue::default();
        let mut expected = Vec::new();
        for number in 0_u32..5000 {
            let chunk = number.to_be_bytes().repeat(usize::try_from(number % 97).unwrap());
            expected.extend_from_slice(&chunk);
            queue.push(chunk.into());
        }
        assert!(queue.is_congested());
        std::future::poll_fn(|cx| queue.poll_write(&mut leg, cx)).await.unwrap();
        assert!(queue.is_drained() && !queue.is_congested());
        drop(leg);
        assert_eq!(reader.await.unwrap(), expected);
    }
}
