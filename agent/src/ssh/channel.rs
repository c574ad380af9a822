//! One channel: what the client sends up, what the server sends down, and how it ended.
//!
//! Promises: data, end of data, exit status and close keep their order in each direction; the outcome is
//! recorded once, when the server closes the channel, or as `lost` when the connection ends first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tidegate_wire::AskId;
use tidegate_wire_ssh::outcome::{End, outcome};
use tidegate_wire_ssh::request;
use tokio::sync::mpsc;

use super::target::{Running, TargetError, Waiting};
use super::{ANSWER_SECONDS_MAX, Shared, elapsed_ns};

/// What the client sends to something that runs.
pub enum Up {
    /// Data.
    Data(Bytes),
    /// No more data.
    Eof,
    /// The channel's end.
    Close,
    /// Another size of the terminal.
    Resize([u32; 4]),
    /// A signal.
    Signal(Sig),
}

/// Whether something runs on a channel.
pub enum State {
    /// Nothing yet.
    Waiting(Waiting),
    /// Something, or something did.
    Running(mpsc::UnboundedSender<Up>),
    /// A request is being decided, or was refused by the server.
    Nothing,
}

/// What both directions count.
#[derive(Default)]
struct Progress {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    begun: std::sync::Mutex<Option<(AskId, Instant)>>,
}

impl Progress {
    /// Records the outcome, once.
    fn ended(&self, end: &End, shared: &Shared) {
        let begun = self.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some((id, started)) = begun else { return };
        let counts =
            (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed));
        let outcome = outcome(end, counts.0, counts.1, elapsed_ns(started));
        shared.gate().outcome(id, outcome);
    }
}

/// A channel of the client's.
pub struct Live {
    /// Whether something runs.
    pub state: State,
    terminal: String,
    progress: Arc<Progress>,
    answers: mpsc::UnboundedReceiver<bool>,
}

impl Live {
    /// A session channel on which nothing runs.
    pub fn waiting(
        waiting: Waiting,
        ends: (ChannelReadHalf, ChannelWriteHalf<Msg>),
        handle: Handle,
        shared: &Shared,
    ) -> Self {
        Self { state: State::Waiting(waiting), ..Self::forward(ends, handle, shared) }
    }

    /// A channel that carries a connection.
    pub fn forward(
        (from_server, to_client): (ChannelReadHalf, ChannelWriteHalf<Msg>),
        handle: Handle,
        shared: &Shared,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let (answered, answers) = mpsc::unbounded_channel();
        let down = Down {
            to_client,
            handle,
            answered,
            progress: Arc::clone(&progress),
            shared: shared.clone(),
        };
        tokio::spawn(down.run(from_server));
        Self { state: State::Nothing, terminal: String::new(), progress, answers }
    }

    /// The terminal that was granted, in words.
    pub fn terminal(&self) -> &str {
        &self.terminal
    }

    /// The channel, where nothing runs on it yet.
    pub fn take_waiting(&mut self) -> Option<Waiting> {
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Waiting(waiting) => Some(waiting),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Asks the server for a terminal; whether it grants one.
    pub async fn ask_terminal(&mut self, name: &str, size: [u32; 4], modes: &[(Pty, u32)]) -> bool {
        let State::Waiting(waiting) = &self.state else { return false };
        if waiting.terminal(name, size, modes).await.is_err() {
            return false;
        }
        let granted = self.answer().await;
        if granted {
            let [columns, rows, ..] = size;
            self.terminal = request::terminal(name, columns, rows);
        }
        granted
    }

    /// The server's answer to the last request; none in time is a no.
    pub async fn answer(&mut self) -> bool {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        matches!(tokio::time::timeout(limit, self.answers.recv()).await, Ok(Some(true)))
    }

    /// The operation `id` is about to run here.
    pub fn begin(&self, id: AskId) {
        let begun = Some((id, Instant::now()));
        *self.progress.begun.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = begun;
    }

    /// Something runs now.
    pub fn run(&mut self, running: Running, shared: &Shared) {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(carry_up(running, receiver, shared.clone()));
        self.state = State::Running(sender);
    }

    /// What ran has ended.
    pub fn ended(&mut self, end: &End, shared: &Shared) {
        self.state = State::Nothing;
        self.progress.ended(end, shared);
    }

    /// Passes on what belongs to what runs; without that it is dropped.
    pub fn up(&self, up: Up, shared: &Shared) {
        let State::Running(sender) = &self.state else { return };
        let bytes = match &up {
            Up::Data(data) => length(data),
            _ => 0,
        };
        shared.backlog.add(bytes);
        self.progress.bytes_in.fetch_add(bytes, Ordering::Relaxed);
        if sender.send(up).is_err() {
            shared.backlog.remove(bytes);
        }
    }
}

/// Carries what the client sends to what runs.
async fn carry_up(running: Running, mut receiver: mpsc::UnboundedReceiver<Up>, shared: Shared) {
    while let Some(up) = receiver.recv().await {
        let mut bytes = 0;
        let sent: Result<(), TargetError> = match up {
            Up::Data(data) => {
                bytes = length(&data);
                running.data(data).await
            }
            Up::Eof => running.eof().await,
            Up::Close => running.close().await,
            Up::Resize(size) => running.resize(size).await,
            Up::Signal(signal) => running.signal(signal).await,
        };
        shared.backlog.remove(bytes);
        if sent.is_err() {
            break;
        }
    }
    receiver.close();
    while let Ok(up) = receiver.try_recv() {
        if let Up::Data(data) = up {
            shared.backlog.remove(length(&data));
        }
    }
}

/// The way from the server to the client.
struct Down {
    to_client: ChannelWriteHalf<Msg>,
    handle: Handle,
    answered: mpsc::UnboundedSender<bool>,
    progress: Arc<Progress>,
    shared: Shared,
}

impl Down {
    async fn run(self, mut from_server: ChannelReadHalf) {
        let mut end = End::Closed;
        let mut closed = false;
        while let Some(message) = from_server.wait().await {
            closed = matches!(message, ChannelMsg::Close);
            match &message {
                ChannelMsg::ExitStatus { exit_status } => end = End::Exit(*exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    end = End::Signal(format!("{signal_name:?}"));
                }
                _ => {}
            }
            if closed || !self.pass(message).await {
                break;
            }
        }
        let end = if closed { end } else { End::Lost };
        self.progress.ended(&end, &self.shared);
        _ = self.to_client.close().await;
    }

    /// Passes one message on; whether the client still takes any.
    async fn pass(&self, message: ChannelMsg) -> bool {
        match message {
            ChannelMsg::Data { data } => {
                self.count(&data);
                self.to_client.data_bytes(data).await.is_ok()
            }
            ChannelMsg::ExtendedData { data, ext } => {
                self.count(&data);
                self.to_client.extended_data_bytes(ext, data).await.is_ok()
            }
            ChannelMsg::Eof => self.to_client.eof().await.is_ok(),
            ChannelMsg::ExitStatus { exit_status } => {
                self.to_client.exit_status(exit_status).await.is_ok()
            }
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                let id = self.to_client.id();
                let sent = self.handle.exit_signal_request(
                    id,
                    signal_name,
                    core_dumped,
                    error_message,
                    lang_tag,
                );
                sent.await.is_ok()
            }
            ChannelMsg::Success | ChannelMsg::Failure => {
                let granted = matches!(message, ChannelMsg::Success);
                self.answered.send(granted).is_ok() || !granted
            }
            _ => true,
        }
    }

    fn count(&self, data: &Bytes) {
        self.progress.bytes_out.fetch_add(length(data), Ordering::Relaxed);
        self.shared.backlog.answer(length(data));
    }
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
