//! Requests on files, and what was carried of them: as messages, and as the same bytes.
//!
//! Promise: paths are cut to [`PATH_BYTES_MAX`], ranges to [`RANGES_MAX`]; each cut is said, and of a path that is
//! cut the SHA-256 of the whole is there.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tidegate_event::limits::{PATH_BYTES_MAX, RANGES_MAX, cut as cut_text};
use tidegate_event::{Carried, FileRequest, Range};

use crate::audit::v1;
use crate::limits::name;
use crate::wire::{bytes, message, uint};

fn path<'a>(text: &'a str, was_cut: &mut bool) -> &'a str {
    let (text, shorter) = cut_text(text, PATH_BYTES_MAX);
    *was_cut |= shorter;
    text
}

/// The path, and the SHA-256 of the whole where that is more.
fn recorded_path<'a>(request: &'a FileRequest, cut: &mut bool) -> (&'a str, Option<[u8; 32]>) {
    let mut shorter = false;
    let shown = path(&request.path, &mut shorter);
    *cut |= shorter;
    let sha256 = match request.sha256 {
        None if shorter => Some(Sha256::digest(request.path.as_bytes()).into()),
        given => given,
    };
    (shown, sha256)
}

/// The ranges that are listed, and the total where that is more. A list that was cut on its way here says so itself.
fn ranges<'a>(all: &'a [Range], total: u32, cut: &mut bool) -> (&'a [Range], u32) {
    let listed = all.get(..RANGES_MAX).unwrap_or(all);
    let many = u32::try_from(all.len()).unwrap_or(u32::MAX).max(total);
    let more = usize::try_from(many).is_ok_and(|many| many > listed.len());
    *cut |= more;
    (listed, if more { many } else { 0 })
}

/// A `FileRequest`.
pub(crate) fn request(request: &FileRequest, cut: &mut bool) -> v1::FileRequest {
    let (shown, sha256) = recorded_path(request, cut);
    let optional = |text: &Option<String>, cut: &mut bool| {
        text.as_deref().map(|text| path(text, cut).to_owned()).unwrap_or_default()
    };
    v1::FileRequest {
        kind: request.kind.name().to_owned(),
        channel: request.channel,
        path: shown.to_owned(),
        sent: optional(&request.sent, cut),
        to: optional(&request.to, cut),
        access: request.access.words(),
        attributes: name(&request.attributes, cut).to_owned(),
        sha256: sha256.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
    }
}

pub(crate) fn write_request(buf: &mut Vec<u8>, request: &FileRequest, cut: &mut bool) {
    let (shown, sha256) = recorded_path(request, cut);
    bytes(buf, 1, request.kind.name().as_bytes());
    uint(buf, 2, u64::from(request.channel));
    bytes(buf, 3, shown.as_bytes());
    for (tag, text) in [(4, &request.sent), (5, &request.to)] {
        bytes(buf, tag, path(text.as_deref().unwrap_or_default(), cut).as_bytes());
    }
    bytes(buf, 6, request.access.words().as_bytes());
    bytes(buf, 7, name(&request.attributes, cut).as_bytes());
    if let Some(sha256) = sha256 {
        bytes(buf, 8, &sha256);
    }
}

/// A `Carried`.
pub(crate) fn carried(carried: &Carried, cut: &mut bool) -> v1::Carried {
    let (read, read_total) = ranges(&carried.read, carried.read_total, cut);
    let (written, written_total) = ranges(&carried.written, carried.written_total, cut);
    let list = |all: &[Range]| {
        all.iter().map(|one| v1::Range { offset: one.offset, bytes: one.bytes }).collect()
    };
    v1::Carried {
        read: list(read),
        read_total,
        written: list(written),
        written_total,
        sha256: carried.sha256.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
    }
}

pub(crate) fn write_carried(buf: &mut Vec<u8>, carried: &Carried, cut: &mut bool) {
    for (tag, all, total) in
        [(1, &carried.read, carried.read_total), (3, &carried.written, carried.written_total)]
    {
        let (listed, total) = ranges(all, total, cut);
        for range in listed {
            message(buf, tag, |buf| {
                uint(buf, 1, range.offset);
                uint(buf, 2, range.bytes);
            });
        }
        uint(buf, tag + 1, u64::from(total));
    }
    if let Some(sha256) = carried.sha256 {
        bytes(buf, 5, &sha256);
    }
}
