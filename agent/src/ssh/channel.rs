//! One channel: what the client sends up, what the server sends down, and how it ended.
//!
//! Promises: data, end of data, exit status and close keep their order in each direction, but that the end of output is told
//! behind the status where the client has ended its input: OpenSSH's client closes a channel of a shared connection whose
//! two ends have ended, and the library answers that at once, so that the status would be lost. The outcome is
//! recorded once, when the server closes the channel, or as `lost` when the connection ends first.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tidegate_event::{Masked, Stream};
use tidegate_mask::Detectors;
use tidegate_recording::{PENDING_MS_MAX, Part, Transcript};
use tidegate_wire::AskId;
use tidegate_wire_ssh::outcome::{End, outcome};
use tidegate_wire_ssh::request;
use tokio::sync::mpsc;

use super::cover::Cover;
use super::door::TargetError;
use super::files::Files;
use super::flag::Flag;
use super::slack::FromServer;
use super::target::{Running, Waiting};
use super::{ANSWER_SECONDS_MAX, Shared, elapsed_ns};

/// What a message costs beside its data, in bytes.
const MESSAGE_BYTES: u64 = 64;

/// Answers of the server's that wait for somebody who asked.
const ANSWERS_MAX: usize = 8;

/// In place of extended data's type: standard output, which is plain data.
const STDOUT: u32 = 0;

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

impl Up {
    /// What it holds of memory, in bytes, roughly.
    fn cost(&self) -> u64 {
        let data = match self {
            Self::Data(data) => length(data),
            _ => 0,
        };
        data + MESSAGE_BYTES
    }
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
    /// The client, or the gate, has closed it.
    closing: Flag,
    /// The client is gone from it: nothing can reach it any more.
    left: Flag,
    left_at: OnceLock<Instant>,
    /// The server takes no more of it.
    over: Flag,
    /// The client will send no more.
    client_ended: AtomicBool,
    /// The server has ended its output, and the client was not told yet.
    holds_end: AtomicBool,
    /// Why the gate ended it.
    broken: OnceLock<String>,
    /// What is covered in what it writes, of standard output and standard error.
    covers: std::sync::Mutex<Option<[Cover; 2]>>,
    /// What it writes; `None` where it speaks SFTP, or carries a connection.
    transcript: std::sync::Mutex<Option<(AskId, Transcript)>>,
}

impl Progress {
    /// The gate ends it, for this reason.
    fn breaks(&self, why: String) {
        _ = self.broken.set(why);
    }

    /// Does something with what is written, and records the parts of it that are kept.
    fn write(&self, shared: &Shared, does: impl FnOnce(&mut Transcript, &mut dyn FnMut(Part))) {
        let mut transcript = lock(&self.transcript);
        if let Some((id, transcript)) = transcript.as_mut() {
            does(transcript, &mut |part: Part| {
                shared.gate().rows(*id, part.stream, (part.offset, &part.data));
            });
        }
    }

    /// Has the cover of standard output, or of standard error at 1, do something; `None` where nothing is covered.
    fn covered<T>(&self, at: usize, does: impl FnOnce(&mut Cover) -> T) -> Option<T> {
        lock(&self.covers).as_mut()?.get_mut(at).map(does)
    }

    /// Whether some of what was written waits to be recorded.
    fn is_pending(&self) -> bool {
        lock(&self.transcript).as_ref().is_some_and(|(_, transcript)| transcript.is_pending())
    }

    /// Records the outcome, once.
    fn ended(&self, end: &End, shared: &Shared) {
        let Some((id, started)) = lock(&self.begun).take() else { return };
        let counts =
            (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed));
        let broken = self.broken.get().map(|why| End::Broken(why.clone()));
        let mut outcome =
            outcome(broken.as_ref().unwrap_or(end), counts.0, counts.1, elapsed_ns(started));
        if let Some((id, transcript)) = lock(&self.transcript).take() {
            outcome.result = Some(Box::new(transcript.finish(|part| {
                shared.gate().rows(id, part.stream, (part.offset, &part.data));
            })));
        }
        if let Some(covers) = lock(&self.covers).take() {
            let detected = covers.iter().map(|cover| cover.found).sum();
            outcome.masked = Some(Masked { detected, ..Masked::default() });
        }
        shared.gate().outcome(id, outcome);
    }
}

/// A channel of the client's.
pub struct Live {
    /// Whether something runs.
    pub state: State,
    terminal: String,
    size: Option<(u32, u32)>,
    progress: Arc<Progress>,
    to_client: Arc<ChannelWriteHalf<Msg>>,
    /// Set where what runs speaks SFTP.
    files: Arc<OnceLock<Files>>,
    answers: mpsc::Receiver<bool>,
}

impl Live {
    /// A session channel on which nothing runs.
    pub fn waiting(
        waiting: Waiting,
        ends: (ChannelReadHalf, ChannelWriteHalf<Msg>),
        handle: Handle,
        shared: &Shared,
    ) -> Self {
        let mut live = Self::open(ends, handle, shared, true);
        live.state = State::Waiting(waiting);
        live
    }

    /// A channel that carries a connection.
    pub fn forward(
        ends: (ChannelReadHalf, ChannelWriteHalf<Msg>),
        handle: Handle,
        shared: &Shared,
    ) -> Self {
        Self::open(ends, handle, shared, false)
    }

    fn open(
        (from_server, to_client): (ChannelReadHalf, ChannelWriteHalf<Msg>),
        handle: Handle,
        shared: &Shared,
        is_session: bool,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let to_client = Arc::new(to_client);
        let files = Arc::new(OnceLock::new());
        let (answered, answers) = mpsc::channel(ANSWERS_MAX);
        let down = Down {
            is_session,
            to_client: Arc::clone(&to_client),
            handle,
            answered,
            files: Arc::clone(&files),
            progress: Arc::clone(&progress),
            shared: shared.clone(),
        };
        tokio::spawn(down.run(from_server));
        let (state, terminal, size) = (State::Nothing, String::new(), None);
        Self { state, terminal, size, progress, to_client, files, answers }
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
            self.size = Some((columns, rows));
        }
        granted
    }

    /// The server's answer to the last request. Where none comes in time the channel is closed: a late one could be
    /// taken for another's.
    pub async fn answer(&mut self) -> bool {
        let limit = Duration::from_secs(ANSWER_SECONDS_MAX);
        if let Ok(answer) = tokio::time::timeout(limit, self.answers.recv()).await {
            return answer == Some(true);
        }
        let why = format!("the server did not answer within {ANSWER_SECONDS_MAX} s");
        self.progress.breaks(why);
        self.progress.closing.raise();
        false
    }

    /// The operation `id` is about to run here.
    pub fn begin(&self, id: AskId) {
        *lock(&self.progress.begun) = Some((id, Instant::now()));
    }

    /// What it writes is recorded, and kept where `keep`.
    pub fn record(&self, id: AskId, keep: bool, shared: &Shared) {
        *lock(&self.progress.transcript) = Some((id, Transcript::new(keep)));
        if let Some((columns, rows)) = self.size {
            self.progress.write(shared, |transcript, out| transcript.resize(columns, rows, out));
        }
    }

    /// What is about to run speaks SFTP on the client's channel of this number.
    pub fn speaks_sftp(&self, number: u32, shared: &Shared) {
        let files = || Files::new(number, Arc::clone(&self.to_client), shared.clone());
        self.files.get_or_init(files);
    }

    /// What these find in what it writes is covered, where it has no terminal: there nothing can wait for a line's end.
    pub fn cover(&self, detectors: Detectors) {
        if detectors.any() && self.size.is_none() {
            *lock(&self.progress.covers) = Some([Cover::new(detectors), Cover::new(detectors)]);
        }
    }

    /// Something runs now.
    pub fn run(&mut self, running: Running, shared: &Shared) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let up = Carrier {
            running,
            files: Arc::clone(&self.files),
            progress: Arc::clone(&self.progress),
            shared: shared.clone(),
        };
        tokio::spawn(up.run(receiver));
        self.state = State::Running(sender);
    }

    /// What ran has ended.
    pub fn ended(&mut self, end: &End, shared: &Shared) {
        self.state = State::Nothing;
        self.progress.ended(end, shared);
    }

    /// Passes on what comes from the client on a channel that carries a connection, to its end.
    pub async fn carry_from(&self, mut client: ChannelReadHalf, shared: &Shared) {
        while let Some(message) = client.wait().await {
            match message {
                ChannelMsg::Data { data } => self.up(Up::Data(data), shared),
                ChannelMsg::Eof => self.up(Up::Eof, shared),
                ChannelMsg::Close => return self.up(Up::Close, shared),
                _ => {}
            }
        }
    }

    /// Passes on what belongs to what runs; without that it is dropped.
    pub fn up(&self, up: Up, shared: &Shared) {
        let State::Running(sender) = &self.state else { return };
        if let Up::Data(data) = &up {
            shared.backlog.receive(length(data));
            self.progress.bytes_in.fetch_add(length(data), Ordering::Relaxed);
        }
        let cost = up.cost();
        shared.backlog.add(cost);
        if sender.send(up).is_err() {
            shared.backlog.remove(cost);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.progress.left.raise();
    }
}

/// Carries what the client sends to what runs.
struct Carrier {
    running: Running,
    files: Arc<OnceLock<Files>>,
    progress: Arc<Progress>,
    shared: Shared,
}

impl Carrier {
    async fn run(self, mut receiver: mpsc::UnboundedReceiver<Up>) {
        while let Some(up) = receiver.recv().await {
            let cost = up.cost();
            let sent = tokio::select! {
                biased;
                sent = self.carry(up) => sent.is_ok(),
                // It would wait for a window that the server never gives.
                () = self.progress.over.wait() => false,
            };
            self.shared.backlog.remove(cost);
            if !sent {
                break;
            }
        }
        receiver.close();
        while let Ok(up) = receiver.try_recv() {
            self.shared.backlog.remove(up.cost());
        }
        // What was not taken is not waited for, but the server's end must not stay open.
        _ = self.running.close().await;
    }

    async fn carry(&self, up: Up) -> Result<(), TargetError> {
        match up {
            Up::Data(data) => self.data(data).await,
            Up::Eof => {
                self.progress.client_ended.store(true, Ordering::Release);
                self.running.eof().await
            }
            Up::Close => self.close().await,
            Up::Resize(size) => {
                let [columns, rows, ..] = size;
                let resize = |transcript: &mut Transcript, out: &mut dyn FnMut(Part)| {
                    transcript.resize(columns, rows, out);
                };
                self.progress.write(&self.shared, resize);
                self.running.resize(size).await
            }
            Up::Signal(signal) => self.running.signal(signal).await,
        }
    }

    async fn data(&self, data: Bytes) -> Result<(), TargetError> {
        let Some(files) = self.files.get() else { return self.running.data(data).await };
        match files.up(&data, &self.running).await {
            Ok(()) => Ok(()),
            Err(why) => {
                self.progress.breaks(why);
                self.close().await
            }
        }
    }

    /// Closes the channel at the server. The library tells nothing of what the server answers to that.
    async fn close(&self) -> Result<(), TargetError> {
        let closed = self.running.close().await;
        self.progress.closing.raise();
        closed
    }
}

/// The way from the server to the client.
struct Down {
    /// What runs here has a status at its end.
    is_session: bool,
    to_client: Arc<ChannelWriteHalf<Msg>>,
    handle: Handle,
    files: Arc<OnceLock<Files>>,
    answered: mpsc::Sender<bool>,
    progress: Arc<Progress>,
    shared: Shared,
}

impl Down {
    async fn run(self, from_server: ChannelReadHalf) {
        let _open = Arc::clone(&self.shared.channels).acquire_owned().await;
        let mut from_server = FromServer::new(from_server, Arc::clone(&self.shared.slack));
        let mut end = End::Closed;
        let mut closed = false;
        loop {
            let message = tokio::select! {
                biased;
                message = self.next(&mut from_server) => message,
                () = self.progress.closing.wait() => {
                    closed = true;
                    None
                }
                () = self.left_long_ago() => None,
            };
            let Some(message) = message else { break };
            closed = matches!(message, ChannelMsg::Close);
            match &message {
                ChannelMsg::ExitStatus { exit_status } => end = End::Exit(*exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    end = End::Signal(format!("{signal_name:?}"));
                }
                _ => {}
            }
            // Where the client is gone, what it sent last still goes to the server.
            if closed || !self.unless_left(self.pass(message)).await && !self.progress.left.is_up()
            {
                break;
            }
        }
        let end = if closed { end } else { End::Lost };
        if let Some(files) = self.files.get() {
            files.end();
        }
        self.unless_left(self.rest()).await;
        self.unless_left(self.held_end()).await;
        self.progress.over.raise();
        self.progress.ended(&end, &self.shared);
        let closing = async { self.to_client.close().await.is_ok() };
        self.unless_left(closing).await;
    }

    /// The client left, and what it sent last was not taken since.
    async fn left_long_ago(&self) {
        self.progress.left.wait().await;
        let since = self.progress.left_at.get_or_init(Instant::now);
        let until = *since + Duration::from_secs(ANSWER_SECONDS_MAX);
        tokio::time::sleep_until(until.into()).await;
    }

    /// What `sends` says; `false` where the client is gone, which would never give it the window that it may wait for.
    async fn unless_left(&self, sends: impl Future<Output = bool>) -> bool {
        tokio::select! {
            biased;
            sent = sends => sent,
            () = self.progress.left.wait() => false,
        }
    }

    /// The server's next message; what is written meanwhile is recorded.
    async fn next(&self, from_server: &mut FromServer) -> Option<ChannelMsg> {
        if self.progress.is_pending() {
            let limit = Duration::from_millis(PENDING_MS_MAX);
            if let Ok(message) = tokio::time::timeout(limit, from_server.next()).await {
                return message;
            }
            self.progress.write(&self.shared, |transcript, out| transcript.flush(out));
        }
        from_server.next().await
    }

    /// Passes one message on; whether the client still takes any.
    async fn pass(&self, message: ChannelMsg) -> bool {
        match message {
            ChannelMsg::Data { data } => {
                self.count(&data);
                match self.files.get() {
                    None => self.write(Stream::Output, STDOUT, data).await,
                    Some(files) => match files.down(&data).await {
                        Ok(()) => true,
                        Err(why) => {
                            self.progress.breaks(why);
                            false
                        }
                    },
                }
            }
            ChannelMsg::ExtendedData { data, ext } => {
                self.count(&data);
                self.write(Stream::Errors, ext, data).await
            }
            ChannelMsg::Eof => {
                let ended = self.progress.client_ended.load(Ordering::Acquire);
                self.progress.holds_end.store(ended && self.is_session, Ordering::Release);
                self.rest().await
                    && (ended && self.is_session || self.to_client.eof().await.is_ok())
            }
            ChannelMsg::ExitStatus { exit_status } => {
                self.to_client.exit_status(exit_status).await.is_ok() && self.held_end().await
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
                sent.await.is_ok() && self.held_end().await
            }
            ChannelMsg::Success | ChannelMsg::Failure => {
                let granted = matches!(message, ChannelMsg::Success);
                // What nobody asked for is left out.
                _ = self.answered.try_send(granted);
                true
            }
            _ => true,
        }
    }

    /// Passes on what was written to standard output, or to `ext`, with what is covered covered.
    async fn write(&self, stream: Stream, ext: u32, data: Bytes) -> bool {
        let at = usize::from(stream == Stream::Errors);
        let lines = self.progress.covered(at, |cover| cover.lines(&data));
        self.send(stream, ext, lines.map_or(data, Bytes::from)).await
    }

    async fn send(&self, stream: Stream, ext: u32, data: Bytes) -> bool {
        if data.is_empty() {
            return true;
        }
        self.written(stream, &data);
        if ext == STDOUT {
            self.to_client.data_bytes(data).await.is_ok()
        } else {
            self.to_client.extended_data_bytes(ext, data).await.is_ok()
        }
    }

    /// Tells the client of the end of the output that it was not told of.
    async fn held_end(&self) -> bool {
        !self.progress.holds_end.swap(false, Ordering::AcqRel) || self.to_client.eof().await.is_ok()
    }

    /// Passes on what waits for the end of its line.
    async fn rest(&self) -> bool {
        for (at, stream, ext) in [(0, Stream::Output, STDOUT), (1, Stream::Errors, super::STDERR)] {
            let rest = self.progress.covered(at, Cover::rest);
            if !self.send(stream, ext, rest.unwrap_or_default().into()).await {
                return false;
            }
        }
        true
    }

    fn written(&self, stream: Stream, data: &Bytes) {
        self.progress.write(&self.shared, |transcript, out| transcript.take(stream, data, out));
    }

    fn count(&self, data: &Bytes) {
        self.progress.bytes_out.fetch_add(length(data), Ordering::Relaxed);
        self.shared.backlog.answer(length(data));
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
