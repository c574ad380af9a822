//! A channel that speaks SFTP: each request on a file is decided and recorded on its way.
//!
//! Promises: a request on a file leaves only once its record has been redeemed; packets for the client are not mixed, whoever sends
//! them; what is open when the channel ends gets its outcome.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use russh::ChannelWriteHalf;
use russh::server::Msg;
use tidegate_event::Operation;
use tidegate_wire::AskId;
use tidegate_wire_ssh::sftp::{Next, Sftp};
use tokio::sync::Notify;

use super::target::Running;
use super::{Shared, elapsed_ns};
use crate::upstream::Clearance;

/// What both directions of the channel share.
pub struct Files {
    machine: Mutex<Sftp>,
    /// The ids under which operations were asked.
    asked: Mutex<HashMap<u64, AskId>>,
    /// Held while a packet goes to the client.
    sending: tokio::sync::Mutex<()>,
    /// Something came from the server, or nothing will.
    turned: Notify,
    gone: AtomicBool,
    started: Instant,
    to_client: Arc<ChannelWriteHalf<Msg>>,
    shared: Shared,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// For the client's channel `number`.
    pub fn new(number: u32, to_client: Arc<ChannelWriteHalf<Msg>>, shared: Shared) -> Self {
        Self {
            machine: Mutex::new(Sftp::new(number)),
            asked: Mutex::new(HashMap::new()),
            sending: tokio::sync::Mutex::new(()),
            turned: Notify::new(),
            gone: AtomicBool::new(false),
            started: Instant::now(),
            to_client,
            shared,
        }
    }

    /// Passes on what the client sent; the error is why the channel can't go on.
    pub async fn up(&self, data: &[u8], running: &Running) -> Result<(), String> {
        lock(&self.machine).from_client(data);
        loop {
            let next = lock(&self.machine).advance();
            match next {
                Next::Client => return self.drain().await,
                Next::Fault(why) => return Err(why.to_owned()),
                Next::Server => {
                    if self.gone.load(Ordering::Acquire) {
                        return Err("the connection to the server has ended".to_owned());
                    }
                    self.turned.notified().await;
                }
                Next::Send(packet) => {
                    running.data(packet).await.map_err(|error| error.to_string())?;
                }
                Next::Ask { operation, request } => {
                    let id = self.shared.id();
                    lock(&self.asked).insert(operation, id);
                    let cleared = self.shared.clear(id, &Operation::File(request)).await;
                    let now_ns = elapsed_ns(self.started);
                    if cleared.is_err() {
                        lock(&self.asked).remove(&operation);
                    }
                    let answer = cleared.as_ref().map(|_| ()).map_err(String::as_str);
                    let packet = lock(&self.machine).answer(answer, now_ns);
                    if let (Ok(receipt), Some(packet)) = (&cleared, packet) {
                        let sent = running.request(&Clearance::Receipt(receipt), packet).await;
                        sent.map_err(|error| error.to_string())?;
                    }
                    self.drain().await?;
                }
            }
        }
    }

    /// Passes on what the server sent; the error is why the channel can't go on.
    pub async fn down(&self, data: &[u8]) -> Result<(), String> {
        lock(&self.machine).from_server(data, elapsed_ns(self.started));
        self.turned.notify_one();
        self.drain().await
    }

    /// The server sends no more: what is open is told to be lost.
    pub fn end(&self) {
        lock(&self.machine).finish(elapsed_ns(self.started));
        self.gone.store(true, Ordering::Release);
        self.turned.notify_one();
        self.tell();
    }

    /// Records what has come to its end.
    fn tell(&self) {
        loop {
            let Some((operation, outcome)) = lock(&self.machine).outcome() else { return };
            if let Some(id) = lock(&self.asked).remove(&operation) {
                self.shared.gate().outcome(id, outcome);
            }
        }
    }

    /// Sends what is there for the client, and records what has come to its end.
    async fn drain(&self) -> Result<(), String> {
        self.tell();
        let _sending = self.sending.lock().await;
        loop {
            let Some(packet) = lock(&self.machine).to_client() else { return Ok(()) };
            if self.to_client.data_bytes(packet).await.is_err() {
                return Err("the client takes no more".to_owned());
            }
        }
    }
}
