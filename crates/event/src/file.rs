//! What a client asks of the files of a server (SFTP version 3, draft-ietf-secsh-filexfer-02; scp; rsync; git).

use crate::{Action, Effect, Relation};

/// What is asked of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Open it (section 6.3).
    Open,
    /// List a directory (section 6.7).
    List,
    /// Say what it is, or where a link leads (sections 6.8 and 6.10).
    Look,
    /// Change its mode, owner, times or size (section 6.9).
    Attributes,
    /// Remove it (section 6.5).
    Remove,
    /// Make a directory (section 6.6).
    MakeDirectory,
    /// Remove a directory (section 6.6).
    RemoveDirectory,
    /// Give it another name (section 6.5).
    Rename,
    /// Make a symbolic link (section 6.10).
    Symlink,
    /// Make a hard link (`hardlink@openssh.com`).
    Hardlink,
    /// Something of the protocol that the gate does not know.
    Extended,
}

impl FileKind {
    /// The name in records and queries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "file_open",
            Self::List => "file_list",
            Self::Look => "file_look",
            Self::Attributes => "file_attributes",
            Self::Remove => "file_remove",
            Self::MakeDirectory => "mkdir",
            Self::RemoveDirectory => "rmdir",
            Self::Rename => "rename",
            Self::Symlink => "symlink",
            Self::Hardlink => "hardlink",
            Self::Extended => "file_extended",
        }
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the protocol's flags")]
pub struct Access {
    /// To be read.
    pub read: bool,
    /// To be written.
    pub write: bool,
    /// Each write goes to its end.
    pub append: bool,
    /// It is made where it is not there.
    pub create: bool,
    /// It is emptied.
    pub truncate: bool,
    /// It must not be there.
    pub exclusive: bool,
}

impl Access {
    /// The flags in words, as `write create truncate`; empty where none is set.
    pub fn words(self) -> String {
        let all = [
            (self.read, "read"),
            (self.write, "write"),
            (self.append, "append"),
            (self.create, "create"),
            (self.truncate, "truncate"),
            (self.exclusive, "exclusive"),
        ];
        let set: Vec<&str> = all.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        set.join(" ")
    }
}

/// One request on a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRequest {
    /// What is asked.
    pub kind: FileKind,
    /// The SSH channel, by the client's number.
    pub channel: u32,
    /// The file's absolute path, as the server resolved it before the request was decided; where it could not, as
    /// [`Self::sent`]. Bytes that are no UTF-8 are replaced, and [`Self::sha256`] is that of the bytes.
    pub path: String,
    /// The path as the client sent it, where that is another.
    pub sent: Option<String>,
    /// The second path: of a rename or hard link the new name, of a symbolic link what it points to.
    pub to: Option<String>,
    /// How it is opened.
    pub access: Access,
    /// The attributes that it is to have, in words.
    pub attributes: String,
    /// SHA-256 of the path's bytes, where they are no UTF-8.
    pub sha256: Option<[u8; 32]>,
}

impl FileRequest {
    /// What it does, in the policy's words.
    pub fn effects(&self) -> Vec<Effect> {
        let to = self.to.as_ref().unwrap_or(&self.path);
        let mut effects = match self.kind {
            FileKind::Open => {
                let Access { read, write, append, create, truncate, .. } = self.access;
                let writes = write || append || create || truncate;
                let mut effects = Vec::new();
                // With neither of the two a server opens it for reading.
                if read || !write {
                    effects.push(on(Action::FileRead, &self.path));
                }
                if writes {
                    effects.push(on(Action::FileWrite, &self.path));
                }
                effects
            }
            FileKind::List | FileKind::Look => vec![on(Action::FileList, &self.path)],
            FileKind::Attributes | FileKind::MakeDirectory | FileKind::Symlink => {
                vec![on(Action::FileWrite, &self.path)]
            }
            FileKind::Remove | FileKind::RemoveDirectory => {
                vec![on(Action::FileRemove, &self.path)]
            }
            // By its other name the file, and what is below a directory, can be read later, and nothing leads back to this
            // one.
            FileKind::Rename => vec![
                on(Action::FileRead, &self.path),
                on(Action::FileRemove, &self.path),
                on(Action::FileWrite, to),
            ],
            FileKind::Hardlink => vec![
                on(Action::FileRead, &self.path),
                on(Action::FileWrite, &self.path),
                on(Action::FileWrite, to),
            ],
            FileKind::Extended => vec![on(Action::Unknown, &self.path)],
        };
        effects.dedup();
        effects
    }
}

/// What `action` does to the file at `path`.
pub fn on(action: Action, path: &str) -> Effect {
    let relation = Some(Relation { schema: None, name: path.to_owned() });
    Effect { action, relation, bounded: true }
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// What was carried of an open file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    /// What went to the client, in the order in which it went; runs that follow each other are one.
    pub read: Vec<Range>,
    /// How many runs there were, where more than are listed.
    pub read_total: u32,
    /// What the server took.
    pub written: Vec<Range>,
    /// How many runs there were, where more than are listed.
    pub written_total: u32,
    /// SHA-256 of the file, where it went over whole and in order.
    pub sha256: Option<[u8; 32]>,
}
