//! Ending without tearing: new connections stop at once, sessions get a bounded time to finish.
//!
//! Promise: after [`Drain::finish`] no session is left; those that outlived the patience were told
//! to end, and their end is recorded as the gate's.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Held by every session; the agent has drained when all are dropped.
#[derive(Clone)]
pub struct Guard {
    _alive: mpsc::Sender<()>,
    stop: watch::Receiver<bool>,
}

impl Guard {
    /// Turns true when the patience is over.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }
}

/// The side that waits.
pub struct Drain {
    guard: Option<Guard>,
    ended: mpsc::Receiver<()>,
    stop: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        let (alive, ended) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        Self { guard: Some(Guard { _alive: alive, stop: stopped }), ended, stop }
    }
}

impl Drain {
    /// A guard for one session; `None` once the agent is stopping.
    pub fn guard(&self) -> Option<Guard> {
        self.guard.clone()
    }

    /// Waits for all sessions, first as long as `patience`, then after telling them to end.
    pub async fn finish(&mut self, patience: Duration) {
        self.guard = None;
        if tokio::time::timeout(patience, self.ended.recv()).await.is_err() {
            _ = self.stop.send(true);
            self.ended.recv().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_that_outlives_the_patience_is_told_to_end() {
        let mut drain = Drain::default();
        let guard = drain.guard().unwrap();
        let session = tokio::spawn(async move {
            let mut stop = guard.stop();
            stop.wait_for(|stop| *stop).await.is_ok()
        });
        drain.finish(Duration::ZERO).await;
        assert!(session.await.unwrap());
        assert!(drain.guard().is_none());
    }

    #[tokio::test]
    async fn nobody_is_told_to_end_who_ends_in_time() {
        let mut drain = Drain::default();
        let guard = drain.guard().unwrap();
        let stop = guard.stop();
        drop(guard);
        drain.finish(Duration::from_secs(30)).await;
        assert!(!*stop.borrow());
    }
}
