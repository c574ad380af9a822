//! How far the collector has acknowledged: one file, two slots of 512 bytes written in turn.
//!
//! Promises: a torn write spoils the slot being written only, never the other; after a failed write or sync the file is
//! replaced by a new one, not synced again; what was read at the start is durable before it is used. If both slots are bad the cursor is lost: then all that is kept counts as
//! not acknowledged, and the collector drops what it has already.

use std::io;

use tidegate_segment::{File, Files};

const NAME: &str = "cursor";
const TEMPORARY: &str = "cursor.new";
const MAGIC: [u8; 8] = *b"TIDECURS";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 512;
const CRC_AT: usize = 508;

pub(crate) struct Cursor<F: Files> {
    file: Option<F::File>,
    generation: u64,
    acknowledged: u64,
}

/// What the file said.
pub(crate) enum Found {
    Nothing,
    Lost,
    Acknowledged,
}

impl<F: Files> Cursor<F> {
    /// Reads the cursor, if there is one.
    pub fn open(files: &F) -> io::Result<(Self, Found)> {
        let mut cursor = Self { file: None, generation: 0, acknowledged: 0 };
        if !files.list()?.iter().any(|name| name == NAME) {
            return Ok((cursor, Found::Nothing));
        }
        let file = files.open(NAME)?;
        let mut found = Found::Lost;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            read_all(&file, &mut bytes, slot * SLOT_BYTES as u64)?;
            if let Some((generation, acknowledged)) = decode(&bytes)
                && generation >= cursor.generation
            {
                (cursor.generation, cursor.acknowledged) = (generation, acknowledged);
                found = Found::Acknowledged;
            }
        }
        cursor.file = Some(file);
        if matches!(found, Found::Acknowledged) {
            cursor.renew(files);
        }
        Ok((cursor, found))
    }

    /// Makes durable what was read: the run before may have ended between its write and its sync, or behind a
    /// sync that failed, and then it was read out of the page cache only. A new file, since a sync of these
    /// pages may say that all is well although they never reached the disk. Where there is no room for it, the
    /// old one stays on the disk: what a power cut takes back then is acknowledged once more.
    fn renew(&mut self, files: &F) {
        let acknowledged = self.acknowledged;
        self.file = None;
        // A failure leaves no file at hand, so that the next acknowledgement makes one.
        let _ = self.store(files, acknowledged);
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Makes `acknowledged` durable.
    pub fn store(&mut self, files: &F, acknowledged: u64) -> io::Result<()> {
        self.generation += 1;
        let slot = encode(self.generation, acknowledged);
        let stored = self.file.as_ref().map(|file| {
            write_all(file, &slot, self.generation % 2 * SLOT_BYTES as u64)?;
            file.sync_data()
        });
        if !matches!(stored, Some(Ok(()))) {
            self.file = None;
            self.file = Some(replace(files, &slot, self.generation)?);
        }
        self.acknowledged = acknowledged;
        Ok(())
    }
}

/// A new file in place of the one whose sync failed.
fn replace<F: Files>(files: &F, slot: &[u8], generation: u64) -> io::Result<F::File> {
    let file = create_anew(files, TEMPORARY)?;
    file.allocate(2 * SLOT_BYTES as u64)?;
    write_all(&file, slot, generation % 2 * SLOT_BYTES as u64)?;
    file.sync_data()?;
    files.rename(TEMPORARY, NAME)?;
    files.sync_dir()?;
    Ok(file)
}

/// Makes a file, in place of one that a crash left.
pub(crate) fn create_anew<F: Files>(files: &F, name: &str) -> io::Result<F::File> {
    match files.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            files.remove(name)?;
            files.create(name)
        }
        made => made,
    }
}

fn encode(generation: u64, acknowledged: u64) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&VERSION.to_le_bytes());
    slot.extend_from_slice(&[0; 4]);
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(&acknowledged.to_le_bytes());
    slot.resize(CRC_AT, 0);
    slot.extend_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, u64)> {
    let (body, crc) = slot.split_at_checked(CRC_AT)?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let acknowledged = rest.first_chunk::<8>()?;
    let good = crc == crc32c::crc32c(body).to_le_bytes()
        && *magic == MAGIC
        && u32::from_le_bytes(*version) == VERSION;
    good.then(|| (u64::from_le_bytes(*generation), u64::from_le_bytes(*acknowledged)))
}

pub(crate) fn write_all<H: File>(file: &H, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = file.write_at(bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

pub(crate) fn read_all<H: File>(file: &H, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slot_comes_back_and_no_flipped_bit_passes(generation: u64, acknowledged: u64, bit in 0..SLOT_BYTES * 8) {
            let mut slot: [u8; SLOT_BYTES] = encode(generation, acknowledged).try_into().unwrap();
            prop_assert_eq!(decode(&slot), Some((generation, acknowledged)));
            slot[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&slot), None);
        }
    }
}
