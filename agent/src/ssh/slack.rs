//! Room between what the server sends on a channel and what its client takes.
//!
//! The SSH library reads a connection for all of its channels at once, so a channel that is not emptied stops the others,
//! and the answers to requests with them.
//!
//! Promises: order is kept; while the connection waits for an answer of the server's, what comes meanwhile is
//! taken up to [`ASKING_BYTES_MAX`], so that the answer can come; else [`WAITING_BYTES_MAX`] of all channels wait, and then
//! the server's connection is not read.
//!
//! Known gap: a channel whose client takes nothing for longer than that stops the other channels of its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::{Notify, mpsc};

/// What a message costs beside its data, in bytes.
const MESSAGE_BYTES: u64 = 64;

/// Bytes of all channels of a connection that may wait for its client.
pub const WAITING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The same while the connection waits for an answer of the server's.
const ASKING_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Whether a connection waits for its server.
#[derive(Default)]
pub struct Slack {
    /// What of all channels waits, in bytes.
    waiting: AtomicU64,
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

    /// This one waits no more.
    fn taken(&self, message: &ChannelMsg) {
        let before = self.waiting.fetch_sub(cost(message), Ordering::AcqRel);
        if before >= WAITING_BYTES_MAX {
            self.moved.notify_waiters();
        }
    }

    /// Waits until less than the most waits, or an answer of the server's is waited for.
    async fn room(&self) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let waiting = self.waiting.load(Ordering::Acquire);
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
    slack: Arc<Slack>,
}

impl FromServer {
    /// Empties `channel` from now on.
    pub fn new(mut channel: ChannelReadHalf, slack: Arc<Slack>) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let own = Arc::clone(&slack);
        tokio::spawn(async move {
            while let Some(message) = channel.wait().await {
                own.waiting.fetch_add(cost(&message), Ordering::AcqRel);
                if let Err(unsent) = sender.send(message) {
                    own.taken(&unsent.0);
                    return;
                }
                tokio::select! {
                    () = own.room() => {}
                    () = sender.closed() => return,
                }
            }
        });
        Self { messages, slack }
    }

    /// The next message; `None` once the connection has ended. May be given up and asked again.
    pub async fn next(&mut self) -> Option<ChannelMsg> {
        let message = self.messages.recv().await?;
        self.slack.taken(&message);
        Some(message)
    }
}

impl Drop for FromServer {
    fn drop(&mut self) {
        self.messages.close();
        while let Ok(message) = self.messages.try_recv() {
            self.slack.taken(&message);
        }
    }
}

/// What a message holds of memory, in bytes, roughly.
fn cost(message: &ChannelMsg) -> u64 {
    let data = match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => data.len(),
        _ => 0,
    };
    MESSAGE_BYTES + u64::try_from(data).unwrap_or(u64::MAX / 2)
}
