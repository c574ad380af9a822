//! Group commit: one thread seals what is unsealed and syncs it, for all sessions at once.
//!
//! Promise: a record is sealed and synced at once when a `host` or `collector` pledge waits for it,
//! and within [`SYNC_AFTER_MS_MAX`](crate::SYNC_AFTER_MS_MAX) otherwise. Signing and the disk's work
//! happen without the writer's lock, so that records go on meanwhile; those that come in between
//! belong to the next seal. A failed sync is told to all who wait, and asked for again (by the
//! spool's own rule, on a new file) with the next turn.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_event::Seq;
use tidegate_ledger::seal::{self, SealFacts};
use tidegate_spool::{Files, Kind};

use crate::writer::{Shared, Unsealed, Work, Writer};
use crate::{JournalError, SYNC_AFTER_MS_MAX};

/// How often the thread looks whether a bypass may end, in milliseconds.
const BYPASS_CHECK_MS: u64 = 100;

/// The thread, and how to end it.
pub(crate) struct SyncThread<F: Files> {
    shared: Arc<Shared<F>>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl<F: Files> SyncThread<F> {
    pub(crate) fn start(shared: &Arc<Shared<F>>) -> Result<Self, JournalError> {
        let of_thread = Arc::clone(shared);
        let handle = std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || of_thread.run())
            .map_err(|error| JournalError::System(format!("no thread for the journal: {error}")))?;
        Ok(Self { shared: Arc::clone(shared), handle: Mutex::new(Some(handle)) })
    }

    /// Ends the thread; a second call does nothing.
    pub(crate) fn stop(&self) {
        self.shared.lock().wake.stop = true;
        self.shared.woken.notify_all();
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle {
            // The thread does not panic; if it did, there is nothing more to end.
            let _ = handle.join();
        }
    }
}

impl<F: Files> Drop for SyncThread<F> {
    fn drop(&mut self) {
        self.stop();
        self.shared.progress.send_modify(|progress| progress.closed = true);
    }
}

impl<F: Files> Shared<F> {
    fn run(&self) {
        let mut failing = false;
        while self.wait_for_work() {
            match self.commit() {
                // Told to all who wait, through `progress`; said here once, not with every turn.
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "the audit spool could not be synced");
                }
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the audit spool is synced again");
                }
                Ok(()) | Err(_) => {}
            }
            self.end_bypasses();
        }
    }

    /// Waits until there is something to sync; `false` when the thread shall end.
    ///
    /// Behind a commit the thread stays up for one period: what is appended meanwhile finds it
    /// [`armed`](crate::writer::Wake::armed), and need not wake it only to be told to wait.
    fn wait_for_work(&self) -> bool {
        let period = Duration::from_millis(SYNC_AFTER_MS_MAX);
        let mut due = Instant::now() + period;
        let bypasses_due = Instant::now() + Duration::from_millis(BYPASS_CHECK_MS);
        let mut writer = self.lock();
        loop {
            if writer.wake.stop {
                return false;
            }
            if writer.wake.work == Work::Now {
                break;
            }
            let now = Instant::now();
            writer.wake.armed = now < due;
            let until = if writer.wake.armed {
                Some(due)
            } else if writer.wake.work > Work::None {
                break;
            } else if writer.bypasses.is_empty() {
                None
            } else if now >= bypasses_due {
                break;
            } else {
                Some(bypasses_due)
            };
            writer = match until {
                Some(until) => {
                    let waited = self.woken.wait_timeout(writer, until - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.woken.wait(writer).unwrap_or_else(PoisonError::into_inner),
            };
            if !writer.wake.armed {
                due = Instant::now() + period;
            }
        }
        writer.wake.work = Work::None;
        true
    }

    /// Seals and syncs everything that was appended before the call.
    pub(crate) fn commit(&self) -> Result<(), JournalError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.commit_once();
        match &result {
            Ok(durable) => self.progress.send_modify(|progress| {
                progress.durable = progress.durable.max(*durable);
                progress.failed = None;
                progress.syncs += 1;
            }),
            Err(error) => {
                let failed: Arc<str> = error.to_string().into();
                self.progress.send_modify(|progress| progress.failed = Some(failed));
                let mut writer = self.lock();
                writer.wake.ask(Work::Later);
            }
        }
        result.map(|_| ())
    }

    fn commit_once(&self) -> Result<u64, JournalError> {
        let runs = self.lock().take_runs();
        let seals: Vec<_> = runs.iter().map(|run| self.seal(run)).collect();
        let (ticket, below) = {
            let mut writer = self.lock();
            for (sealed, seal) in seals.iter().enumerate() {
                if let Err(error) = self.spool.append_reserved(Kind::Seal, seal) {
                    writer.give_back(runs.get(sealed..).unwrap_or_default());
                    return Err(error.into());
                }
            }
            let below = writer.chain.records();
            (self.spool.begin_sync()?, below)
        };
        self.note_written(below);
        let upto = ticket.upto();
        let durable = self.spool.finish_sync(ticket.run())?;
        if durable < upto {
            return Err(JournalError::Spool("the disk synced less than was asked".to_owned()));
        }
        Ok(below)
    }

    fn seal(&self, run: &Unsealed) -> Vec<u8> {
        seal::sign(
            &self.key,
            &SealFacts {
                chain_id: self.chain_id,
                first: Seq(run.first),
                last: Seq(run.last),
                chain_value: run.value,
                wall_ns: run.wall_ns,
                boot_ns: run.boot_ns,
            },
        )
    }
}

impl Writer {
    /// Takes all runs that are to be sealed now.
    fn take_runs(&mut self) -> Vec<Unsealed> {
        let next = self.chain.records();
        if next > self.run_first {
            self.runs.push(Unsealed {
                first: self.run_first,
                last: next - 1,
                value: self.chain.head(),
                wall_ns: self.wall_ns,
                boot_ns: self.boot_ns,
            });
            self.run_first = next;
        }
        std::mem::take(&mut self.runs)
    }

    /// Puts runs back that could not be sealed, before those that came meanwhile.
    fn give_back(&mut self, runs: &[Unsealed]) {
        self.runs.splice(0..0, runs.iter().copied());
    }
}
