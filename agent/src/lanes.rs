//! The threads that carry traffic: one single-threaded runtime for each processor.
//!
//! Promises: a session stays on one lane from its first byte to its last, so that nothing of it moves
//! between processors, and what wakes it wakes no other thread; a new session goes to the lane that has
//! the fewest; where processors are scarce a lane goes before what it wakes. Why not one work-stealing runtime: `docs/decisions/lanes.md`.
//!
//! Cannot: move a session. A lane that is busy with a very large statement holds up its other sessions
//! meanwhile.

use std::future::Future;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A lane's nice value (setpriority(2)): about nine times the weight of an ordinary thread.
const NICE: i32 = -10;

/// One thread with its runtime.
struct Lane {
    runtime: Handle,
    sessions: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

/// All lanes.
pub struct Lanes(Vec<Lane>);

impl Lanes {
    /// Starts one lane for each processor that this process may use.
    pub fn start() -> std::io::Result<Self> {
        let count = std::thread::available_parallelism()?.get().div_ceil(2);
        (0..count).map(start_lane).collect::<std::io::Result<_>>().map(Self)
    }

    /// Runs `serve` for an accepted connection, which does not block, on the lane with the fewest
    /// sessions.
    pub fn spawn<S, F>(&self, stream: TcpStream, serve: S)
    where
        S: FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let fewest = self.0.iter().min_by_key(|lane| lane.sessions.load(Ordering::Relaxed));
        let Some(lane) = fewest else { return };
        let here = Here::new(&lane.sessions);
        lane.runtime.spawn(async move {
            // On the lane, so that its own driver watches the socket.
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::error!(%error, "an accepted connection cannot be watched"),
            }
            drop(here);
        });
    }

    /// The lane on which connections are accepted.
    pub fn first(&self) -> std::io::Result<&Handle> {
        let none = || std::io::Error::other("there is no lane");
        self.0.first().map(|lane| &lane.runtime).ok_or_else(none)
    }
}

/// Counts a session for as long as it lives.
struct Here(Arc<AtomicUsize>);

impl Here {
    fn new(sessions: &Arc<AtomicUsize>) -> Self {
        sessions.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(sessions))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn start_lane(number: usize) -> std::io::Result<Lane> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::Builder::new().name(format!("tidegate-lane-{number}")).spawn(move || {
        prefer(number);
        // An error says that the other side is gone, which is how it ends.
        _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok(Lane { runtime: handle, sessions: Arc::default(), _stop: stop })
}

/// Puts this thread before others. Without the right to it (`CAP_SYS_NICE`) it goes on as they do.
fn prefer(number: usize) {
    // Linux has a nice value for each thread; none named is the calling one.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(lane = number, %error, "a lane has no priority: under load it waits for those that it wakes");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sessions_are_spread_evenly_and_stay_where_they_are() {
        const SESSIONS: usize = 8;
        let lanes = Lanes::start().unwrap();
        let count = lanes.0.len();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let mut clients = Vec::new();
        for _ in 0..SESSIONS * count {
            clients.push(TcpStream::connect(address).unwrap());
            let (accepted, _) = listener.accept().unwrap();
            accepted.set_nonblocking(true).unwrap();
            let tell = tell.clone();
            lanes.spawn(accepted, move |stream| async move {
                let before = std::thread::current().id();
                tell.send(before).unwrap();
                // Ready when the client hangs up.
                stream.readable().await.unwrap();
                assert_eq!(before, std::thread::current().id());
            });
        }
        let mut by_lane = std::collections::HashMap::new();
        for _ in 0..SESSIONS * count {
            *by_lane.entry(told.recv().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(by_lane.len(), count);
        assert!(by_lane.values().all(|&sessions| sessions == SESSIONS), "{by_lane:?}");
        drop(clients);
        while lanes.0.iter().any(|lane| lane.sessions.load(Ordering::Relaxed) > 0) {
            std::thread::yield_now();
        }
    }
}
