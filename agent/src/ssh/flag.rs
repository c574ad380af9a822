//! Something that happens once.
//!
//! Promise: who waits for it is woken, whether it happened before or happens later.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Something that happens once, and that can be waited for.
#[derive(Default)]
pub struct Flag {
    is_up: AtomicBool,
    raised: Notify,
}

impl Flag {
    /// It happens.
    pub fn raise(&self) {
        self.is_up.store(true, Ordering::Release);
        self.raised.notify_waiters();
    }

    /// Whether it has happened.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Waits until it has happened.
    pub async fn wait(&self) {
        let raised = self.raised.notified();
        tokio::pin!(raised);
        raised.as_mut().enable();
        if !self.is_up.load(Ordering::Acquire) {
            raised.await;
        }
    }
}
