//! The state of the simulated disk, and what each fault does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Fault;
use crate::rng::Rng;

/// What is asked of the disk.
pub(super) enum Call<'a> {
    /// Changes nothing; fails only by number.
    Look,
    Change,
    SyncDir,
    Write {
        len: &'a mut usize,
    },
    Sync {
        inode: u64,
    },
}

#[derive(Default)]
struct Inode {
    cache: Vec<u8>,
    medium: Vec<u8>,
    /// Sectors whose cache content the medium may not have.
    dirty: BTreeSet<usize>,
    sync_failed: bool,
}

/// Names that change together: to an inode, or to nothing.
type Change = Vec<(String, Option<u64>)>;

pub(super) struct State {
    pub capacity: u64,
    pub plan: BTreeMap<u64, Fault>,
    pub chance: u64,
    pub calls: u64,
    pub cut: bool,
    pub generation: u64,
    pub syncs_after_failure: u64,
    rng: Rng,
    sector: usize,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    dir: BTreeMap<String, u64>,
    dir_medium: BTreeMap<String, u64>,
    changes: Vec<Change>,
}

fn no_power() -> io::Error {
    io::Error::other("the power is cut")
}

impl State {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let sector = if rng.chance(500) { 512 } else { 4096 };
        Self {
            capacity: u64::MAX,
            plan: BTreeMap::new(),
            chance: 0,
            calls: 0,
            cut: false,
            generation: 0,
            syncs_after_failure: 0,
            rng,
            sector,
            inodes: BTreeMap::new(),
            next_inode: 0,
            dir: BTreeMap::new(),
            dir_medium: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Counts a call and lets it fail if its time has come.
    pub fn enter(&mut self, call: Call<'_>) -> io::Result<()> {
        if self.cut {
            return Err(no_power());
        }
        let planned = self.plan.remove(&self.calls);
        self.calls += 1;
        let looks = matches!(call, Call::Look);
        let random = !looks && self.chance > 0 && self.rng.chance(self.chance);
        let fault = planned.or_else(|| random.then(|| self.random_fault(&call)));
        if let Call::Sync { inode } = call
            && self.inode(inode).sync_failed
        {
            self.syncs_after_failure += 1;
        }
        let Some(fault) = fault else { return Ok(()) };
        match (fault, call) {
            (Fault::Short, Call::Write { len }) => {
                *len = (*len / 2).max(1);
                Ok(())
            }
            (Fault::Short, _) => Ok(()),
            (Fault::Eio, Call::Sync { inode }) => {
                self.forget(inode);
                Err(io::Error::other("simulated input/output error"))
            }
            (Fault::Eio, _) => Err(io::Error::other("simulated input/output error")),
            (Fault::Enospc, Call::Sync { inode }) => {
                self.forget(inode);
                Err(io::ErrorKind::StorageFull.into())
            }
            (Fault::Enospc, _) => Err(io::ErrorKind::StorageFull.into()),
            // Power goes before the call, or in the middle of it: a part of a write, a whole change not yet synced.
            (Fault::PowerCut, Call::Write { len }) => {
                self.cut = true;
                *len = usize::try_from(self.rng.below(*len as u64 + 1)).unwrap_or(0);
                Ok(())
            }
            (Fault::PowerCut, call) => {
                self.cut = true;
                if let Call::Sync { inode } = call {
                    self.write_back_some(inode);
                }
                Err(no_power())
            }
        }
    }

    fn random_fault(&mut self, call: &Call<'_>) -> Fault {
        match (call, self.rng.below(3)) {
            (Call::Write { .. }, 0) => Fault::Short,
            (_, 1) => Fault::Enospc,
            _ => Fault::Eio,
        }
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    pub fn used(&self) -> u64 {
        let linked: BTreeSet<_> = self.dir.values().collect();
        let bytes = linked.iter().filter_map(|inode| self.inodes.get(inode));
        bytes.map(|inode| inode.cache.len() as u64).sum()
    }

    pub fn create(&mut self, name: &str) -> io::Result<u64> {
        if self.dir.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change(vec![(name.to_owned(), Some(inode))]);
        Ok(inode)
    }

    pub fn lookup(&self, name: &str) -> io::Result<u64> {
        self.dir.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn names(&self) -> Vec<String> {
        self.dir.keys().cloned().collect()
    }

    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lookup(name)?;
        self.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.lookup(from)?;
        self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.dir, &change);
        self.changes.push(change);
    }

    pub fn sync_dir(&mut self) {
        self.dir_medium = self.dir.clone();
        self.changes.clear();
    }

    pub fn len(&mut self, inode: u64) -> u64 {
        self.inode(inode).cache.len() as u64
    }

    pub fn read(&mut self, inode: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let offset = index(offset)?;
        let rest = self.inode(inode).cache.get(offset..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    pub fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.grow(inode, offset + bytes.len() as u64)?;
        let (start, sector) = (index(offset)?, self.sector);
        let inode = self.inode(inode);
        if let Some(to) = inode.cache.get_mut(start..start + bytes.len()) {
            to.copy_from_slice(bytes);
        }
        if !bytes.is_empty() {
            inode.dirty.extend(start / sector..=(start + bytes.len() - 1) / sector);
        }
        Ok(())
    }

    pub fn grow(&mut self, inode: u64, bytes: u64) -> io::Result<()> {
        let more = bytes.saturating_sub(self.len(inode));
        if more == 0 {
            return Ok(());
        }
        if self.used().saturating_add(more) > self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = index(bytes)?;
        resize(&mut self.inode(inode).cache, bytes);
        Ok(())
    }

    pub fn set_len(&mut self, inode: u64, bytes: u64) -> io::Result<()> {
        self.grow(inode, bytes)?;
        let bytes = index(bytes)?;
        self.inode(inode).cache.truncate(bytes);
        Ok(())
    }

    pub fn sync(&mut self, inode: u64) {
        let sector = self.sector;
        let inode = self.inode(inode);
        let len = inode.cache.len();
        resize(&mut inode.medium, len);
        for number in std::mem::take(&mut inode.dirty) {
            copy_sector(&inode.cache, &mut inode.medium, number, sector);
        }
    }

    /// A random subset of the dirty sectors reaches the medium; returns the others.
    fn write_back_some(&mut self, inode: u64) -> Vec<usize> {
        let (sector, mut rng) = (self.sector, self.rng.clone());
        let inode = self.inode(inode);
        // A length that was not synced may or may not be on the medium, whatever the sectors do.
        if rng.chance(500) {
            let len = inode.cache.len();
            resize(&mut inode.medium, len);
        }
        let keep = [0, 500, 900, 1000].get(usize::try_from(rng.below(4)).unwrap_or(0)).copied();
        let (kept, lost): (Vec<_>, Vec<_>) =
            inode.dirty.iter().partition(|_| rng.chance(keep.unwrap_or(500)));
        for number in kept {
            copy_sector(&inode.cache, &mut inode.medium, number, sector);
        }
        self.rng = rng;
        lost
    }

    /// A failed sync: what did not reach the medium counts as clean all the same, and some of it leaves the cache.
    fn forget(&mut self, inode: u64) {
        let lost = self.write_back_some(inode);
        let (sector, evict) = (self.sector, self.rng.chance(500));
        let inode = self.inode(inode);
        inode.sync_failed = true;
        inode.dirty.clear();
        if evict {
            for number in lost {
                copy_sector(&inode.medium, &mut inode.cache, number, sector);
            }
        }
    }

    pub fn restart(&mut self) {
        for inode in self.inodes.keys().copied().collect::<Vec<_>>() {
            self.write_back_some(inode);
            let inode = self.inode(inode);
            inode.dirty.clear();
            inode.sync_failed = false;
            inode.cache.clone_from(&inode.medium);
        }
        for change in std::mem::take(&mut self.changes) {
            if self.rng.chance(500) {
                apply(&mut self.dir_medium, &change);
            }
        }
        self.dir = self.dir_medium.clone();
        let linked: BTreeSet<u64> = self.dir.values().copied().collect();
        self.inodes.retain(|inode, _| linked.contains(inode));
        self.cut = false;
        self.plan.clear();
        self.generation += 1;
    }

    /// Descriptors are gone; what the kernel forgot after a failed sync stays forgotten.
    pub fn kill(&mut self) {
        for inode in self.inodes.values_mut() {
            inode.sync_failed = false;
        }
        self.generation += 1;
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let inode = self.inodes.get(self.dir.get(name)?)?;
        Some(inode.cache.clone())
    }

    pub fn tamper(&mut self, name: &str, content: Vec<u8>) {
        if let Some(&inode) = self.dir.get(name) {
            let inode = self.inode(inode);
            inode.medium.clone_from(&content);
            inode.cache = content;
            inode.dirty.clear();
        }
    }
}

fn apply(dir: &mut BTreeMap<String, u64>, change: &Change) {
    for (name, inode) in change {
        match inode {
            Some(inode) => dir.insert(name.clone(), *inode),
            None => dir.remove(name),
        };
    }
}

/// `Vec::resize` goes byte by byte in a debug build.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    let more = len.saturating_sub(bytes.len());
    bytes.extend_from_slice(&vec![0; more]);
    bytes.truncate(len);
}

fn copy_sector(from: &[u8], to: &mut [u8], number: usize, sector: usize) {
    let start = number * sector;
    let end = (start + sector).min(from.len()).min(to.len());
    if let (Some(to), Some(from)) = (to.get_mut(start..end), from.get(start..end)) {
        to.copy_from_slice(from);
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
