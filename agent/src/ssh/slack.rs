//! Room between what the server sends on a channel and what its client takes.
//!
//! The SSH library reads a connection for all of its channels at once, so a channel that is not emptied stops the others,
//! and the answers to requests with them.
//!
//! Promises: order is kept; while the connection waits for an answer of the server's, what comes meanwhile is
//! taken up to [`ASKING_BYTES_MAX`], so that the answer can come; else [`WAITING_BYTES_MAX`] of one channel wait, and then
//! the server's connection is not read.
//!
//! Known gap: a channel whose client takes nothing for longer than that stops the other channels of its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::{Notify, mpsc};

/// Bytes of one channel that may wait for its client.
pub const WAITING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The same while the connection waits for an answer of the server's.
const ASKING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Whether a connection waits for its server.
#[derive(Default)]
pub struct Slack {
    asking: AtomicUsize,
    moved: Notify,
}

/// While it is there, the connection waits for an answer of the server's.
pub struct Asking(Arc<Slack>);

impl Slack {
    /// From now on the connection waits for its server.
    pub fn asking(self: &Arc<Self>) -> Asking {
        self.asking.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_waiters();
        Asking(Arc::clone(self))
    }

    /// Waits until less than the most waits, or an answer of the server's is waited for.
    async fn room(&self, waiting: &AtomicU64) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let waiting = waiting.load(Ordering::Acquire);
            let asking = self.asking.load(Ordering::Acquire) > 0;
            if waiting < WAITING_BYTES_MAX || (asking && waiting < ASKING_BYTES_MAX) {
                return;
            }
            moved.await;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the server sends on one channel, in its order.
pub struct FromServer {
    messages: mpsc::UnboundedReceiver<ChannelMsg>,
    waiting: Arc<AtomicU64>,
    slack: Arc<Slack>,
}

impl FromServer {
    /// Empties `channel` from now on.
    pub fn new(mut channel: ChannelReadHalf, slack: Arc<Slack>) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let (own, counted) = (Arc::clone(&slack), Arc::clone(&waiting));
        tokio::spawn(async move {
            while let Some(message) = channel.wait().await {
                counted.fetch_add(bytes(&message), Ordering::AcqRel);
                if sender.send(message).is_err() {
                    return;
                }
                own.room(&counted).await;
            }
        });
        Self { messages, waiting, slack }
    }

    /// The next message; `None` once the connection has ended. May be given up and asked again.
    pub async fn next(&mut self) -> Option<ChannelMsg> {
        let message = self.messages.recv().await?;
        let before = self.waiting.fetch_sub(bytes(&message), Ordering::AcqRel);
        if before >= WAITING_BYTES_MAX {
            self.slack.moved.notify_waiters();
        }
        Some(message)
    }
}

impl Drop for FromServer {
    fn drop(&mut self) {
        self.waiting.store(0, Ordering::Release);
        self.slack.moved.notify_waiters();
    }
}

fn bytes(message: &ChannelMsg) -> u64 {
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
            u64::try_from(data.len()).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}
