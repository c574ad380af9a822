//! Small values beside the queue, each in a file of its own: `state-NAME`.
//!
//! Promise: a value is replaced whole and durably, or not at all. Limits: 4 KiB, names of 1 to 32 of `a-z0-9-`.

use std::path::Path;

use tidegate_segment::{Damage, File, Files};

use crate::cursor::{create_anew, read_all, write_all};
use crate::error::SpoolError;

const TEMPORARY: &str = "state.new";
const MAGIC: [u8; 8] = *b"TIDESTAT";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// The largest value.
pub(crate) const STATE_BYTES_MAX: usize = 4 << 10;
const NAME_BYTES_MAX: usize = 32;

fn file_of(name: &str) -> Result<String, SpoolError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(SpoolError::Misuse("a state's name has 1 to 32 characters of a-z, 0-9 and -"));
    }
    Ok(format!("state-{name}"))
}

pub(crate) fn put<F: Files>(
    files: &F,
    dir: &Path,
    name: &str,
    value: &[u8],
) -> Result<(), SpoolError> {
    let file = file_of(name)?;
    let (Ok(len), true) = (u32::try_from(value.len()), value.len() <= STATE_BYTES_MAX) else {
        return Err(SpoolError::Misuse("a state has at most 4096 bytes"));
    };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + value.len() + CRC_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let stored = (|| {
        let new = create_anew(files, TEMPORARY)?;
        write_all(&new, &bytes, 0)?;
        new.sync_data()?;
        files.rename(TEMPORARY, &file)?;
        files.sync_dir()
    })();
    stored.map_err(|error| SpoolError::io("store", dir, &file, error))
}

pub(crate) fn get<F: Files>(
    files: &F,
    dir: &Path,
    name: &str,
) -> Result<Option<Vec<u8>>, SpoolError> {
    let file = file_of(name)?;
    let read = (|| {
        if !files.list()?.contains(&file) {
            return Ok(None);
        }
        let mut bytes = vec![0; HEAD_BYTES + STATE_BYTES_MAX + CRC_BYTES];
        let read = read_all(&files.open(&file)?, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    })();
    let Some(bytes) = read.map_err(|error| SpoolError::io("read", dir, &file, error))? else {
        return Ok(None);
    };
    match decode(&bytes) {
        Some(value) => Ok(Some(value.to_vec())),
        None => Err(SpoolError::Damaged {
            dir: dir.to_owned(),
            damage: Damage {
                file,
                offset: 0,
                index: 0,
                what: "not a state: its CRC is wrong".to_owned(),
            },
        }),
    }
}

fn decode(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(CRC_BYTES)?)?;
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (len, value) = rest.split_first_chunk::<4>()?;
    let good = crc == crc32c::crc32c(body).to_le_bytes()
        && *magic == MAGIC
        && u32::from_le_bytes(*version) == VERSION
        && usize::try_from(u32::from_le_bytes(*len)) == Ok(value.len());
    good.then_some(value)
}
