//! A client's socket with its bytes counted: by the gate as it reads and writes, and by the kernel, which is asked
//! when the socket is let go.
//!
//! Promises: whatever way a session ends, its socket's bytes are in the ledger, for they are settled when it is
//! dropped. A byte that somebody else read from the socket, or wrote to it, is a difference.
//!
//! Cannot: tell the FIN from one byte where the connection is closed and the gate never read to its end; of that
//! one byte the gate's count is taken.
//!
//! Known gap: a byte of urgent data (`MSG_OOB`) is not in the stream that the gate reads, and is a difference.

use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::capture::{TcpCount, tcp_count, unacked, unread};
use crate::coverage::{Account, Settlement};

/// TCP states (`net/tcp_states.h`) in which the other end's FIN has come.
const FIN_CAME: [u8; 3] = [8, 9, 11];

/// TCP states in which our own FIN is in the queue or beyond: `FIN_WAIT1`, `FIN_WAIT2`, `LAST_ACK`, `CLOSING`.
const FIN_WENT: [u8; 4] = [4, 5, 9, 11];

/// `TCP_CLOSE`: how it came to it is not told.
const CLOSE: u8 = 7;

/// A TCP stream; one with an account is a client's.
#[derive(Debug)]
pub struct Counted {
    stream: TcpStream,
    account: Option<Account>,
    read: u64,
    written: u64,
    /// The gate read the end of the stream.
    end_read: bool,
    /// The gate said its own end.
    end_said: bool,
}

impl Counted {
    /// A client's socket, of which nothing was read or written yet.
    pub const fn new(stream: TcpStream, account: Account) -> Self {
        Self::with(stream, Some(account))
    }

    /// A socket of which no ledger is kept.
    pub const fn without_account(stream: TcpStream) -> Self {
        Self::with(stream, None)
    }

    const fn with(stream: TcpStream, account: Option<Account>) -> Self {
        Self { stream, account, read: 0, written: 0, end_read: false, end_said: false }
    }

    /// Kernel against gate.
    fn settle(&self) -> io::Result<Settlement> {
        let socket = self.stream.as_fd();
        // What comes in between the questions is in the second count and not in the first.
        let first = tcp_count(socket)?;
        let (waiting, on_its_way) = (unread(socket)?, unacked(socket)?);
        let last = tcp_count(socket)?;
        let taken = |count: TcpCount| count.received.saturating_sub(waiting);
        let given = |count: TcpCount| count.acked.saturating_add(on_its_way);
        let (fin_in, fin_out) = (self.fin_in(last.state), self.fin_out(last.state));
        Ok(Settlement {
            read: self.read,
            written: self.written,
            kernel_in: agreed(self.read, (taken(first), taken(last)), fin_in),
            kernel_out: agreed(self.written, (given(first), given(last)), fin_out),
        })
    }

    /// Whether the kernel's count has the other end's FIN: least and most.
    fn fin_in(&self, state: u8) -> (u64, u64) {
        match (self.end_read, state) {
            (true, _) => (1, 1),
            (false, CLOSE) => (0, 1),
            (false, state) => fixed(FIN_CAME.contains(&state)),
        }
    }

    /// The same of our own.
    fn fin_out(&self, state: u8) -> (u64, u64) {
        match (self.end_said, state) {
            (true, CLOSE) => (0, 1),
            (_, state) => fixed(FIN_WENT.contains(&state)),
        }
    }
}

fn fixed(is_there: bool) -> (u64, u64) {
    let one = u64::from(is_there);
    (one, one)
}

/// The kernel's count without its FIN: the gate's own where that lies within what the kernel may mean, else the
/// nearest that it may.
fn agreed(gate: u64, (first, last): (u64, u64), (fin_min, fin_max): (u64, u64)) -> u64 {
    let (low, high) = (first.min(last), first.max(last));
    gate.max(low.saturating_sub(fin_max)).min(high.saturating_sub(fin_min))
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(account) = self.account.take() else { return };
        match self.settle() {
            Ok(settlement) => account.settle(settlement),
            // Dropped without: the ledger says so.
            Err(error) => tracing::error!(%error, "the kernel does not tell a socket's count"),
        }
    }
}

impl AsRef<TcpStream> for Counted {
    fn as_ref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            let count = buf.filled().len().saturating_sub(before);
            this.end_read |= count == 0 && room > 0;
            this.read += as_u64(count);
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.count_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.count_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.end_said = true;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl Counted {
    fn count_written(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = written {
            self.written += as_u64(*count);
        }
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;
    use std::os::fd::AsFd as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::coverage::Coverage;

    /// How the other end, or somebody else, behaves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum How {
        Closes,
        Resets,
        Stays,
        HalfCloses,
    }

    /// Kernel less gate, in and out, of one connection.
    async fn difference(how: How, gate_reads_to_the_end: bool, thief: bool) -> (i64, i64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let other = stream.as_fd().try_clone_to_owned().unwrap();
        let ledger = Coverage::default();
        let mut counted = Counted::new(stream, ledger.account(991, 0));
        client.write_all(&[7; 3000]).unwrap();
        let mut bytes = vec![0; 1000];
        counted.read_exact(&mut bytes).await.unwrap();
        counted.write_all(b"answer").await.unwrap();
        if thief {
            let mut thief = std::net::TcpStream::from(other);
            thief.set_nonblocking(false).unwrap();
            thief.read_exact(&mut [0]).unwrap();
            thief.write_all(b"forged").unwrap();
        }
        client.read_exact(&mut [0; 6]).unwrap();
        let linger = Some(std::time::Duration::ZERO);
        match how {
            How::Closes => drop(client),
            How::Resets => {
                socket2::SockRef::from(&client).set_linger(linger).unwrap();
                drop(client);
            }
            How::HalfCloses => client.shutdown(Shutdown::Write).unwrap(),
            How::Stays => std::mem::forget(client),
        }
        if gate_reads_to_the_end {
            // After a reset there is an error in its place.
            let _ended = counted.read_to_end(&mut bytes).await;
        }
        _ = counted.shutdown().await;
        drop(counted);
        let [settled] = ledger.settled().try_into().unwrap();
        let signed = |kernel: u64, gate: u64| kernel.cast_signed() - gate.cast_signed();
        (signed(settled.kernel_in, settled.read), signed(settled.kernel_out, settled.written))
    }

    #[tokio::test]
    async fn kernel_and_gate_agree_however_a_connection_ends() {
        for how in [How::Closes, How::Resets, How::HalfCloses] {
            assert_eq!(difference(how, true, false).await, (0, 0), "{how:?}, read to the end");
            assert_eq!(difference(how, false, false).await, (0, 0), "{how:?}, left unread");
        }
        assert_eq!(difference(How::Stays, false, false).await, (0, 0), "open");
    }

    #[tokio::test]
    async fn a_byte_that_the_gate_did_not_read_or_write_is_a_difference() {
        for how in [How::Stays, How::HalfCloses] {
            assert_eq!(difference(how, false, true).await, (1, 6), "{how:?}");
        }
        assert_eq!(difference(How::HalfCloses, true, true).await, (1, 6));
    }

    #[test]
    fn a_fin_that_may_be_there_is_no_difference_and_more_is() {
        for (gate, kernel, fin, expected) in [
            (10, (10, 10), (0, 1), 10),
            (10, (11, 11), (0, 1), 10),
            (10, (12, 12), (0, 1), 11),
            (10, (11, 11), (1, 1), 10),
            (10, (10, 10), (1, 1), 9),
            (10, (8, 12), (0, 0), 10),
        ] {
            assert_eq!(agreed(gate, kernel, fin), expected, "{gate} {kernel:?} {fin:?}");
        }
    }
}
