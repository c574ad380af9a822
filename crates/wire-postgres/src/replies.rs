//! The replies that the server owes, in order, and what the running operation has come to.
//!
//! Promise: one entry for each message that is answered, in the order in which the server takes
//! them (manual, "Message Flow"). Limit: [`crate::Limits::replies_max`], kept by the machine.
//!
//! Known gaps: (1) an operation whose implicit transaction fails at Sync (a deferred constraint)
//! was already reported ok with its CommandComplete; the login of the next reader finds the error
//! only in the server's log. (2) a COPY FROM in the extended protocol that fails before the server
//! has read a Sync sent ahead of the data (a BEFORE STATEMENT trigger) is answered with one
//! ReadyForQuery more than is expected; it passes, but may end a later outcome early.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_event::{Column, Copied, Outcome, Status};
use tidegate_mask::{Field, Format};
use tidegate_recording::{Chunk, How, Recorder};

use crate::config::TAGS_BYTES_MAX;
use crate::duty::{Delivery, Described, Duty};
use crate::machine::{Portal, Prepared};
use crate::message::row::in_formats;
use crate::message::status;
use crate::{Action, AskId};

/// A permitted operation under way.
#[derive(Clone)]
pub(crate) struct Op<R> {
    pub id: AskId,
    pub released_ns: u64,
    pub receipt: R,
    /// What its results are subject to, where they are.
    pub duty: Option<Arc<Duty>>,
    /// What an Execute executes, where the gate saw it bound: it knows the columns once they are described.
    pub portal: Option<Arc<Portal<R>>>,
    /// How its result is recorded.
    pub how: How,
}

impl<R> Op<R> {
    /// An operation that brings no duties, and whose columns, if it has some, come with its rows.
    pub const fn new(id: AskId, released_ns: u64, receipt: R) -> Self {
        Self {
            id,
            released_ns,
            receipt,
            duty: None,
            portal: None,
            how: How { keep: false, secret: false, key: None },
        }
    }

    /// What its results are subject to.
    pub fn under(&mut self, duty: Arc<Duty>) {
        self.how.secret |= duty.told_is_clear();
        self.duty = Some(duty);
    }

    /// The columns of an Execute's result, where they were described.
    pub fn fields(&self) -> Option<Vec<Field>> {
        let portal = self.portal.as_ref()?;
        let statement = || {
            let columns = portal.statement.as_ref()?.columns.get()?;
            Some(in_formats(columns, &portal.results))
        };
        portal.columns.get().cloned().or_else(statement)
    }
}

/// What stands for a refused message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Substitute {
    Query,
    Parse,
}

/// One message that the server will answer.
pub(crate) enum Expect<R> {
    Parse(Op<R>),
    Bind,
    DescribeStatement(Option<Arc<Prepared<R>>>),
    DescribePortal(Option<Arc<Portal<R>>>),
    /// One that the gate sent for itself; its answer goes no further.
    OurDescribe(Described),
    Close,
    Execute(Op<R>),
    Query(Op<R>),
    Call(Op<R>),
    Sync,
    /// CopyDone or CopyFail: not answered itself, but ends what a COPY swallows.
    CopyEnd,
    /// The substitute for a refused message, and the error that replaces the server's.
    Refused {
        error: Bytes,
        by: Substitute,
    },
}

impl<R> Expect<R> {
    /// The operation, where this is one.
    pub fn op(&self) -> Option<&Op<R>> {
        match self {
            Self::Parse(op) | Self::Execute(op) | Self::Query(op) | Self::Call(op) => Some(op),
            _ => None,
        }
    }

    /// The same, taking it.
    pub fn into_op(self) -> Option<Op<R>> {
        match self {
            Self::Parse(op) | Self::Execute(op) | Self::Query(op) | Self::Call(op) => Some(op),
            _ => None,
        }
    }

    /// Name for errors.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Parse(_) => "Parse",
            Self::Bind => "Bind",
            Self::DescribeStatement(_) | Self::DescribePortal(_) | Self::OurDescribe(_) => {
                "Describe"
            }
            Self::Close => "Close",
            Self::Execute(_) => "Execute",
            Self::Query(_) => "Query",
            Self::Call(_) => "FunctionCall",
            Self::Sync => "Sync",
            Self::CopyEnd => "CopyDone",
            Self::Refused { .. } => "a substitute",
        }
    }
}

/// Which way COPY data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Copy {
    #[default]
    None,
    In,
    Out,
    Both,
}

/// What the operation at the front has come to.
#[derive(Default)]
pub(crate) struct Progress {
    pub rows: u64,
    pub data_rows: u64,
    pub bytes_out: u64,
    pub copied: Option<Copied>,
    pub copied_in: u64,
    pub tags: String,
    pub failure: Option<(String, String)>,
    pub delivery: Delivery,
    /// Takes the result as it leaves; there from its first bytes on.
    pub recorder: Option<Box<Recorder>>,
}

impl Progress {
    /// Counts a row of that many bytes.
    pub fn row(&mut self, bytes: u64) {
        self.data_rows = self.data_rows.saturating_add(1);
        self.bytes_out = self.bytes_out.saturating_add(bytes);
    }

    /// Counts COPY data to the client.
    pub fn copied(&mut self, bytes: u64) {
        self.bytes_out = self.bytes_out.saturating_add(bytes);
        let copied = self.copied.get_or_insert_default();
        copied.bytes_out = copied.bytes_out.saturating_add(bytes);
    }

    /// Adds a command tag.
    pub fn tag(&mut self, tag: &str) {
        self.rows = self.rows.saturating_add(status::rows(tag));
        self.data_rows = 0;
        let separator = if self.tags.is_empty() { "" } else { "; " };
        if self.tags.len() + separator.len() + tag.len() <= TAGS_BYTES_MAX {
            self.tags.push_str(separator);
            self.tags.push_str(tag);
        }
    }

    /// The outcome, leaving nothing for the next operation.
    pub fn outcome(&mut self, status: Status, duration_ns: u64) -> Outcome {
        let done = std::mem::take(self);
        let copied = done.copied.map(|copied| Copied { bytes_in: done.copied_in, ..copied });
        // Rows of a statement that never got its tag are those that came.
        let rows = done.rows.saturating_add(done.data_rows);
        let tags = done.tags;
        let masked = done.delivery.tally.outcome();
        let bytes_out = done.bytes_out;
        Outcome {
            status,
            rows,
            bytes_out,
            copied,
            duration_ns,
            tags,
            masked,
            result: None,
            carried: None,
        }
    }
}

/// The queue.
pub(crate) struct Replies<R> {
    queue: VecDeque<(u64, Expect<R>)>,
    next_seq: u64,
    pub copy: Copy,
    pub progress: Progress,
}

impl<R> Default for Replies<R> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            next_seq: 0,
            copy: Copy::None,
            progress: Progress::default(),
        }
    }
}

impl<R> Replies<R> {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a message, and says its number.
    pub fn push(&mut self, expect: Expect<R>) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        // With nothing before it there is no COPY that it could end, and one end is enough.
        let ends_nothing = matches!(expect, Expect::CopyEnd)
            && matches!(self.queue.back(), None | Some((_, Expect::CopyEnd)));
        if !ends_nothing {
            self.queue.push_back((seq, expect));
        }
        seq
    }

    /// The message that the next reply answers.
    pub fn front(&self) -> Option<&Expect<R>> {
        self.queue.front().map(|(_, expect)| expect)
    }

    /// Its number.
    pub fn front_seq(&self) -> Option<u64> {
        self.queue.front().map(|(seq, _)| *seq)
    }

    /// The last `count` messages.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = &Expect<R>> {
        self.queue.iter().rev().take(count).map(|(_, expect)| expect)
    }

    /// Whether a Sync was sent that is not answered.
    pub fn has_sync(&self) -> bool {
        self.queue.iter().any(|(_, expect)| matches!(expect, Expect::Sync))
    }

    /// Whether an operation other than the front one waits for its outcome.
    pub fn has_ops_behind(&self) -> bool {
        self.queue.iter().skip(1).any(|(_, expect)| expect.op().is_some())
    }

    /// Takes what of the front operation's result goes to the client.
    pub fn record(&mut self, bytes: &[u8], out: &mut VecDeque<Action<R>>) {
        let Some(op) = self.queue.front().and_then(|(_, expect)| expect.op()) else { return };
        let id = op.id;
        let new = || Box::new(Recorder::new(op.how));
        let recorder = self.progress.recorder.get_or_insert_with(new);
        recorder.take(bytes, |Chunk { offset, data }| {
            out.push_back(Action::Rows { id, offset, data });
        });
    }

    /// The columns of the next result of the front operation.
    pub fn describe(&mut self, fields: &[Field]) {
        let Some(op) = self.queue.front().and_then(|(_, expect)| expect.op()) else { return };
        let new = || Box::new(Recorder::new(op.how));
        self.progress.recorder.get_or_insert_with(new).described(|| columns(fields));
    }

    /// Takes it: its last reply has come.
    pub fn pop(&mut self) -> Option<(u64, Expect<R>)> {
        let popped = self.queue.pop_front();
        while matches!(self.front(), Some(Expect::CopyEnd)) {
            self.queue.pop_front();
        }
        popped
    }

    /// Puts a message at the front: what it stands for is still to be answered.
    pub fn unpop(&mut self, expect: Expect<R>) {
        let seq = self.front_seq().unwrap_or(self.next_seq).saturating_sub(1);
        self.queue.push_front((seq, expect));
    }

    /// Takes back the last `count` messages; they were not sent. Says the first one's number.
    pub fn retract(&mut self, count: usize) -> u64 {
        let mut first = self.next_seq;
        for _ in 0..count {
            if let Some((seq, _)) = self.queue.pop_back() {
                first = seq;
            }
        }
        first
    }

    /// The COPY of the front message is over. While it took data, the server ignored each Sync
    /// sent before its CopyDone; after a failure also those for which no CopyDone was sent yet.
    pub fn end_copy(&mut self, failed: bool) {
        let took = matches!(self.copy, Copy::In | Copy::Both);
        self.copy = Copy::None;
        if !took {
            return;
        }
        let end = self.queue.iter().position(|(_, expect)| matches!(expect, Expect::CopyEnd));
        let until = match end {
            Some(end) => end,
            None if failed => self.queue.len(),
            None => return,
        };
        let mut at = 0;
        self.queue.retain(|(_, expect)| {
            let ignored = at > 0 && at <= until && matches!(expect, Expect::Sync | Expect::CopyEnd);
            at += 1;
            !ignored
        });
    }

    /// The operation that COPY data belongs to: the one that takes it now, or the last one sent.
    pub fn copy_op(&self) -> Option<&Op<R>> {
        let runs = |expect: &Expect<R>| matches!(expect, Expect::Query(_) | Expect::Execute(_));
        let mut running = self.queue.iter().map(|(_, expect)| expect).filter(|expect| runs(expect));
        let op = match self.copy {
            Copy::In | Copy::Both => running.next(),
            Copy::None | Copy::Out => running.next_back(),
        };
        op.and_then(Expect::op)
    }

    /// Whether an operation waits for its outcome.
    pub fn has_ops(&self) -> bool {
        self.queue.iter().any(|(_, expect)| expect.op().is_some())
    }
}

/// Columns as they are recorded.
pub(crate) fn columns(fields: &[Field]) -> Vec<Column> {
    let name = |field: &Field| String::from_utf8_lossy(&field.name).into_owned();
    let column = |field: &Field| {
        let binary = field.format == Format::Binary;
        Column { name: name(field), type_oid: field.type_oid, binary }
    };
    fields.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_swallows_the_syncs_before_its_end() {
        for (failed, ends, left) in [(false, true, 2), (true, true, 2), (true, false, 1)] {
            let mut replies = Replies::<u8>::default();
            replies.push(Expect::Query(Op::new(AskId(0), 0, 0)));
            replies.push(Expect::Sync);
            if ends {
                replies.push(Expect::CopyEnd);
                replies.push(Expect::Sync);
            }
            replies.copy = Copy::In;
            replies.end_copy(failed);
            assert_eq!(replies.len(), left, "failed {failed}, ends {ends}");
        }
    }

    #[test]
    fn tags_are_bounded() {
        let mut progress = Progress::default();
        for _ in 0..10_000 {
            progress.tag("SELECT 1");
        }
        let outcome = progress.outcome(Status::Ok, 0);
        assert_eq!(outcome.rows, 10_000);
        assert!(outcome.tags.len() <= TAGS_BYTES_MAX);
    }
}
