//! A simulated disk with one directory: page cache and medium apart, faults by call number or by chance, all by seed.
//!
//! What it models: writes stay in the cache until a sync; a power cut keeps a random subset of unsynced sectors, either
//! length of a file whose length was not synced, and a random subset of the unsynced directory changes (each whole); a
//! failed sync keeps a random subset and *forgets* the rest (the pages count as clean, as on Linux), and some of the
//! forgotten fall out of the cache at once; a full disk; short writes; death of the process (the cache stays).
//! What it doesn't: sectors that rot, writes that go elsewhere, reordering of synced data.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_segment::{File, Files};

use state::{Call, State};

mod state;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error.
    Eio,
    /// The disk is full.
    Enospc,
    /// A write takes only a part.
    Short,
    /// The power goes; every later call fails until [`SimDisk::restart`].
    PowerCut,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk of nearly no end.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed))))
    }

    /// Bytes that all files together may take.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The call with this number (from 0, see [`SimDisk::calls`]) goes wrong.
    pub fn fail_call(&self, number: u64, fault: Fault) {
        self.state().plan.insert(number, fault);
    }

    /// Each call that changes or syncs something goes wrong so many times in a thousand.
    pub fn set_chance(&self, per_mille: u64) {
        self.state().chance = per_mille;
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Whether the power is cut.
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// How many syncs were asked for of a file by the process that had seen one fail there.
    pub fn syncs_after_failure(&self) -> u64 {
        self.state().syncs_after_failure
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    /// Power comes back (or never went: then this cuts it first): what was not synced is kept or lost by chance. Faults planned by number are
    /// forgotten.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// Forgets the faults planned by number that have not come yet.
    pub fn forget_plan(&self) {
        self.state().plan.clear();
    }

    /// The process dies: open files are gone, the page cache stays.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// The content of a file as a process would read it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.state().content(name)
    }

    /// Replaces the content of a file, in cache and on the medium: someone edits it.
    pub fn tamper(&self, name: &str, content: Vec<u8>) {
        self.state().tamper(name, content);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: u64, generation: u64) -> SimFile {
        SimFile { disk: self.clone(), inode, generation }
    }
}

impl Files for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.enter(Call::Change)?;
        let inode = state.create(name)?;
        Ok(self.handle(inode, state.generation))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.enter(Call::Look)?;
        let inode = state.lookup(name)?;
        Ok(self.handle(inode, state.generation))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.enter(Call::Look)?;
        Ok(state.names())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Call::Change)?;
        state.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Call::Change)?;
        state.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Call::SyncDir)?;
        state.sync_dir();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.enter(Call::Look)?;
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

/// An open file.
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    generation: u64,
}

impl SimFile {
    fn enter(&self, call: Call<'_>) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.generation != self.generation {
            return Err(io::Error::other("the process that opened the file is dead"));
        }
        state.enter(call)?;
        Ok(state)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.enter(Call::Look)?.read(self.inode, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut len = buf.len();
        let mut state = self.enter(Call::Write { len: &mut len })?;
        let part = buf.get(..len).unwrap_or(buf);
        state.write(self.inode, part, offset)?;
        if state.cut {
            return Err(io::Error::other("the power is cut"));
        }
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.enter(Call::Sync { inode: self.inode })?.sync(self.inode);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.enter(Call::Change)?.grow(self.inode, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.enter(Call::Look)?.len(self.inode))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.enter(Call::Change)?.set_len(self.inode, bytes)
    }
}
