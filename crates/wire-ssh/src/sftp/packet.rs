//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), as far as the gate reads them.
//!
//! Promise: every length is checked before it is used; a packet that does not read says so.

use bytes::{BufMut as _, Bytes, BytesMut};
use tidegate_event::Access;
use tidegate_wire::{Cursor, CursorError};

/// `SSH_FXP_STATUS` codes (section 7).
pub const OK: u32 = 0;
/// End of a file or directory.
pub const EOF: u32 = 1;
/// No such file.
pub const NO_SUCH_FILE: u32 = 2;
/// Permission denied.
pub const PERMISSION_DENIED: u32 = 3;
/// Any other failure.
pub const FAILURE: u32 = 4;
/// The server does not do that.
pub const OP_UNSUPPORTED: u32 = 8;

/// The largest version that is spoken.
pub const VERSION_MAX: u32 = 3;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Version.
    Init,
    /// Path, flags, attributes.
    Open(&'a [u8], Access, Attributes),
    /// Handle.
    Close(&'a [u8]),
    /// Handle, offset, length.
    Read(&'a [u8], u64),
    /// Handle, offset, data.
    Write(&'a [u8], u64, &'a [u8]),
    /// Path, which may be a link's own.
    Lstat(&'a [u8]),
    /// Handle.
    Fstat(&'a [u8]),
    /// Path, attributes; whether it is the link's own.
    Setstat(&'a [u8], Attributes, bool),
    /// Handle, attributes.
    Fsetstat(&'a [u8], Attributes),
    /// Path.
    Opendir(&'a [u8]),
    /// Handle.
    Readdir(&'a [u8]),
    /// Path.
    Remove(&'a [u8]),
    /// Path, attributes.
    Mkdir(&'a [u8], Attributes),
    /// Path.
    Rmdir(&'a [u8]),
    /// A path, or something else that names none of the server's files to read or write.
    Harmless,
    /// Path.
    Stat(&'a [u8]),
    /// Path of a file system.
    Statvfs(&'a [u8]),
    /// From, to.
    Rename(&'a [u8], &'a [u8]),
    /// Path.
    Readlink(&'a [u8]),
    /// The two paths, in the order in which they were sent.
    Symlink(&'a [u8], &'a [u8]),
    /// Old name, new name.
    Hardlink(&'a [u8], &'a [u8]),
    /// From one handle to another: both, and where it goes.
    Copy([&'a [u8]; 2], u64, u64),
    /// An extension that is not known.
    Extended(&'a [u8]),
    /// A type of packet that is not known.
    Unknown(u8),
}

/// Attributes that a request sets (section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Length in bytes.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Mode.
    pub mode: Option<u32>,
    /// Access and modification time, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    /// The attributes in words.
    pub fn words(self) -> String {
        let mut words = Vec::new();
        if let Some(size) = self.size {
            words.push(format!("size {size}"));
        }
        if let Some((user, group)) = self.owner {
            words.push(format!("owner {user}:{group}"));
        }
        if let Some(mode) = self.mode {
            words.push(format!("mode {:04o}", mode & 0o7777));
        }
        if let Some((access, modification)) = self.times {
            words.push(format!("times {access} {modification}"));
        }
        words.join(", ")
    }
}

impl Request<'_> {
    /// Whether a path, or an extension's name, holds a zero byte: what a server makes of one can't be told.
    pub fn has_zero_byte(&self) -> bool {
        let one = |text: &[u8]| text.contains(&0);
        match self {
            Self::Open(path, ..)
            | Self::Lstat(path)
            | Self::Setstat(path, ..)
            | Self::Opendir(path)
            | Self::Remove(path)
            | Self::Mkdir(path, _)
            | Self::Rmdir(path)
            | Self::Stat(path)
            | Self::Statvfs(path)
            | Self::Readlink(path)
            | Self::Extended(path) => one(path),
            Self::Rename(from, to) | Self::Symlink(from, to) | Self::Hardlink(from, to) => {
                one(from) || one(to)
            }
            Self::Init
            | Self::Close(_)
            | Self::Read(..)
            | Self::Write(..)
            | Self::Fstat(_)
            | Self::Fsetstat(..)
            | Self::Readdir(_)
            | Self::Harmless
            | Self::Copy(..)
            | Self::Unknown(_) => false,
        }
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Version; whether it names an extension of OpenSSH's.
    Version(u32, bool),
    /// Code and message.
    Status(u32, &'a [u8]),
    /// A handle.
    Handle(&'a [u8]),
    /// Data of a file.
    Data(&'a [u8]),
    /// How many names, and the first.
    Name(u32, &'a [u8]),
    /// The length that the attributes tell.
    Attrs(Option<u64>),
    /// Something else.
    Other,
}

fn string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], CursorError> {
    let length = usize::try_from(cursor.u32()?).map_err(|_| CursorError::Short)?;
    cursor.take(length)
}

fn u64(cursor: &mut Cursor<'_>) -> Result<u64, CursorError> {
    let (high, low) = (cursor.u32()?, cursor.u32()?);
    Ok((u64::from(high) << 32) | u64::from(low))
}

fn attributes(cursor: &mut Cursor<'_>) -> Result<Attributes, CursorError> {
    let flags = cursor.u32()?;
    let mut found = Attributes::default();
    if flags & 1 != 0 {
        found.size = Some(u64(cursor)?);
    }
    if flags & 2 != 0 {
        found.owner = Some((cursor.u32()?, cursor.u32()?));
    }
    if flags & 4 != 0 {
        found.mode = Some(cursor.u32()?);
    }
    if flags & 8 != 0 {
        found.times = Some((cursor.u32()?, cursor.u32()?));
    }
    Ok(found)
}

const fn access(flags: u32) -> Access {
    Access {
        read: flags & 1 != 0,
        write: flags & 2 != 0,
        append: flags & 4 != 0,
        create: flags & 8 != 0,
        truncate: flags & 16 != 0,
        exclusive: flags & 32 != 0,
    }
}

/// The type, id and meaning of a client's packet without its length. A version's packet has no id: 0.
pub fn request(packet: &[u8]) -> Result<(u32, Request<'_>), CursorError> {
    let mut rest = Cursor::new(packet);
    let kind = rest.u8()?;
    let id = rest.u32()?;
    let at = &mut rest;
    let request = match kind {
        1 => return Ok((0, Request::Init)),
        3 => {
            let path = string(at)?;
            let flags = at.u32()?;
            Request::Open(path, access(flags), attributes(at)?)
        }
        4 => Request::Close(string(at)?),
        5 => Request::Read(string(at)?, u64(at)?),
        6 => Request::Write(string(at)?, u64(at)?, string(at)?),
        7 => Request::Lstat(string(at)?),
        8 => Request::Fstat(string(at)?),
        9 => Request::Setstat(string(at)?, attributes(at)?, false),
        10 => Request::Fsetstat(string(at)?, attributes(at)?),
        11 => Request::Opendir(string(at)?),
        12 => Request::Readdir(string(at)?),
        13 => Request::Remove(string(at)?),
        14 => Request::Mkdir(string(at)?, attributes(at)?),
        15 => Request::Rmdir(string(at)?),
        16 => Request::Harmless,
        17 => Request::Stat(string(at)?),
        18 => Request::Rename(string(at)?, string(at)?),
        19 => Request::Readlink(string(at)?),
        20 => Request::Symlink(string(at)?, string(at)?),
        200 => extended(at)?,
        other => Request::Unknown(other),
    };
    Ok((id, request))
}

/// OpenSSH's extensions (its file PROTOCOL, section 4).
fn extended<'a>(at: &mut Cursor<'a>) -> Result<Request<'a>, CursorError> {
    Ok(match string(at)? {
        b"posix-rename@openssh.com" => Request::Rename(string(at)?, string(at)?),
        b"hardlink@openssh.com" => Request::Hardlink(string(at)?, string(at)?),
        b"lsetstat@openssh.com" => Request::Setstat(string(at)?, attributes(at)?, true),
        b"statvfs@openssh.com" => Request::Statvfs(string(at)?),
        b"fstatvfs@openssh.com" | b"fsync@openssh.com" => Request::Fstat(string(at)?),
        b"copy-data" => {
            let (from, _, bytes) = (string(at)?, u64(at)?, u64(at)?);
            Request::Copy([from, string(at)?], u64(at)?, bytes)
        }
        b"limits@openssh.com"
        | b"expand-path@openssh.com"
        | b"home-directory"
        | b"users-groups-by-id@openssh.com" => Request::Harmless,
        name => Request::Extended(name),
    })
}

/// The id and meaning of a server's packet without its length. A version's packet has no id: 0.
pub fn reply(packet: &[u8]) -> Result<(u32, Reply<'_>), CursorError> {
    let mut rest = Cursor::new(packet);
    let kind = rest.u8()?;
    let id = rest.u32()?;
    let at = &mut rest;
    let reply = match kind {
        2 => {
            let mut openssh = false;
            while !at.rest().is_empty() {
                openssh |= string(at)?.ends_with(b"@openssh.com");
                string(at)?;
            }
            return Ok((0, Reply::Version(id, openssh)));
        }
        101 => {
            let code = at.u32()?;
            // Versions before 3 have no message.
            let message = if at.rest().is_empty() { &[][..] } else { string(at)? };
            Reply::Status(code, message)
        }
        102 => Reply::Handle(string(at)?),
        103 => Reply::Data(string(at)?),
        104 => {
            let count = at.u32()?;
            let first = if count == 0 { &[][..] } else { string(at)? };
            Reply::Name(count, first)
        }
        105 => Reply::Attrs(attributes(at)?.size),
        _ => Reply::Other,
    };
    Ok((id, reply))
}

fn framed(kind: u8, id: u32, body: &[&[u8]]) -> Bytes {
    let strings: usize = body.iter().map(|one| one.len() + 4).sum();
    let length = strings + 5;
    let mut packet = BytesMut::with_capacity(length + 4);
    packet.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    packet.put_u8(kind);
    packet.put_u32(id);
    for one in body {
        packet.put_u32(u32::try_from(one.len()).unwrap_or(u32::MAX));
        packet.put_slice(one);
    }
    packet.freeze()
}

/// A client's version packet.
pub fn init() -> Bytes {
    framed(1, VERSION_MAX, &[])
}

/// A request for the absolute path behind `path` (section 6.11).
pub fn realpath(id: u32, path: &[u8]) -> Bytes {
    framed(16, id, &[path])
}

/// A status of the gate's own.
pub fn status(id: u32, code: u32, message: &str) -> Bytes {
    let mut packet = BytesMut::new();
    packet.put_u32(u32::try_from(message.len() + 17).unwrap_or(u32::MAX));
    packet.put_u8(101);
    packet.put_u32(id);
    packet.put_u32(code);
    packet.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    packet.put_slice(message.as_bytes());
    packet.put_u32(0);
    packet.freeze()
}

/// The name of a status code (section 7).
pub const fn code(code: u32) -> &'static str {
    match code {
        EOF => "SSH_FX_EOF",
        NO_SUCH_FILE => "SSH_FX_NO_SUCH_FILE",
        PERMISSION_DENIED => "SSH_FX_PERMISSION_DENIED",
        5 => "SSH_FX_BAD_MESSAGE",
        6 => "SSH_FX_NO_CONNECTION",
        7 => "SSH_FX_CONNECTION_LOST",
        OP_UNSUPPORTED => "SSH_FX_OP_UNSUPPORTED",
        _ => "SSH_FX_FAILURE",
    }
}
