//! From what a client asks on a connection to the operation that is decided and recorded.
//!
//! Promises: the command goes into the operation exactly as it was sent, or with the SHA-256 of its
//! bytes; what the terminal's name or a refusal says can't move a terminal's cursor.
//!
//! Cannot do: say what the far side's shell makes of a command; [`crate::shell`] says it of some.

use sha2::{Digest as _, Sha256};
use tidegate_event::{Action, Effect, Login, Operation, SshKind, SshRequest, file_effect};

use crate::carries::{Carry, carries};
use crate::shell::{self, Reading};

/// Name of the subsystem for files (draft-ietf-secsh-filexfer-02, section 2).
const SFTP: &str = "sftp";

/// Longest text of a refusal towards the client, in characters.
const REFUSAL_CHARS_MAX: usize = 1024;

/// A login as `user`; `software` is the client's identification string (RFC 4253 section 4.2), `key` the fingerprint of a
/// key that it has shown to hold.
pub fn login(user: &str, software: &str, key: Option<&str>) -> Operation {
    let options = key.map(|key| ("public_key".to_owned(), key.to_owned()));
    Operation::Login(Login {
        user: user.to_owned(),
        database: String::new(),
        application: Some(printable(software)),
        options: options.into_iter().collect(),
        replication: false,
        client_tls: true,
    })
}

/// A request of `kind` about `about`, on the client's channel `channel` (0 for none), with the terminal
/// that was asked for before it.
pub fn request(kind: SshKind, channel: u32, about: &[u8], terminal: &str) -> Operation {
    let text = String::from_utf8_lossy(about).into_owned();
    let sha256 = (text.as_bytes() != about).then(|| Sha256::digest(about).into());
    Operation::Ssh(SshRequest {
        kind,
        channel,
        about: text,
        bytes: u64::try_from(about.len()).unwrap_or(u64::MAX),
        sha256,
        terminal: terminal.to_owned(),
        words: Vec::new(),
        command: None,
        unclear: String::new(),
        carries: Vec::new(),
    })
}

/// A command on the client's channel `channel`, with what every common shell makes of it, and the files that it
/// carries where its program is known to carry some.
pub fn exec(channel: u32, command: &[u8], terminal: &str) -> Operation {
    let mut operation = request(SshKind::Exec, channel, command, terminal);
    let Operation::Ssh(asked) = &mut operation else { return operation };
    match shell::read(command) {
        Reading::Simple(words) => {
            asked.command = Some(shell::canonical(&words));
            let carried = carries(&words).map(|carries| carries.paths).unwrap_or_default();
            asked.carries = carried.iter().map(effect).collect();
            asked.words = words;
        }
        Reading::Unknown(why) => asked.unclear = why,
    }
    operation
}

/// Whether what is permitted by this speaks SFTP on its channel.
pub fn speaks_sftp(operation: &Operation) -> bool {
    match operation {
        Operation::Ssh(asked) if asked.kind == SshKind::Subsystem => {
            asked.about.trim_end_matches('\0') == SFTP
        }
        Operation::Ssh(asked) => carries(&asked.words).is_some_and(|one| one.by == "sftp-server"),
        _ => false,
    }
}

/// Whether what is asked for runs the far half of a program that carries files, whose protocol must not be touched.
pub fn carries_files(operation: &Operation) -> bool {
    matches!(operation, Operation::Ssh(asked) if carries(&asked.words).is_some())
}

fn effect(carry: &Carry) -> Effect {
    match carry {
        Carry::Read(path) => file_effect(Action::FileRead, path),
        Carry::Write(path) => file_effect(Action::FileWrite, path),
    }
}

/// A terminal in words: its name and size in characters (RFC 4254 section 6.2).
pub fn terminal(name: &str, columns: u32, rows: u32) -> String {
    format!("{} {columns}x{rows}", printable(name))
}

/// An address and port as policies see them.
pub fn address(host: &str, port: u32) -> String {
    format!("{host}:{port}")
}

/// A refusal as a line for the client's standard error.
pub fn refusal_line(message: &str) -> String {
    format!("{}\r\n", printable(message))
}

/// `text` with every control character as `?`, and no longer than a line should be.
fn printable(text: &str) -> String {
    text.chars().take(REFUSAL_CHARS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(operation: Operation) -> SshRequest {
        match operation {
            Operation::Ssh(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_command_is_kept_as_it_was_sent() {
        let command = b"echo 'a  b' ; rm -rf \"$HOME\"\nid";
        let asked = ssh(request(SshKind::Exec, 3, command, ""));
        assert_eq!(asked.about.as_bytes(), command);
        assert_eq!((asked.bytes, asked.sha256, asked.channel), (31, None, 3));
    }

    #[test]
    fn a_command_is_told_with_its_files_only_where_all_shells_agree() {
        let asked = ssh(exec(3, b"rsync  --server -logDtpre.iLsfxCIvu . '/srv/a b'", ""));
        assert_eq!(
            asked.command.as_deref(),
            Some("rsync --server -logDtpre.iLsfxCIvu . '/srv/a b'")
        );
        assert_eq!(asked.carries, [file_effect(Action::FileWrite, "/srv/a b")]);
        assert_eq!(asked.effects().len(), 2);
        let asked = ssh(exec(3, b"git-upload-pack 'repo.git'; id", ""));
        assert_eq!((asked.command.as_ref(), asked.carries.len()), (None, 0));
        assert!(asked.unclear.contains(';'), "{}", asked.unclear);
        assert!(speaks_sftp(&exec(0, b"/usr/lib/openssh/sftp-server", "")));
        assert!(!speaks_sftp(&exec(0, b"sftp", "")));
        assert!(speaks_sftp(&request(SshKind::Subsystem, 0, b"sftp", "")));
        // OpenSSH's server takes both for the same.
        let other = request(SshKind::Subsystem, 0, b"sftp\0", "");
        assert!(speaks_sftp(&other));
        assert_eq!(other.effects()[0].action, Action::Unknown);
    }

    #[test]
    fn a_command_that_is_no_text_is_told_by_its_digest() {
        let one = ssh(request(SshKind::Exec, 0, b"cat \xff", ""));
        let other = ssh(request(SshKind::Exec, 0, b"cat \xfe", ""));
        assert_eq!(one.about, other.about);
        assert!(one.sha256.is_some());
        assert_ne!(one.sha256, other.sha256);
    }

    #[test]
    fn what_is_printed_moves_no_cursor() {
        assert_eq!(refusal_line("no\x1b[2J\r\nyes"), "no?[2J??yes\r\n");
        assert_eq!(terminal("xterm\x1b", 80, 24), "xterm? 80x24");
        assert_eq!(refusal_line(&"x".repeat(5000)).len(), REFUSAL_CHARS_MAX + 2);
    }
}
