//! What became of a request, as its record says it.
//!
//! Promise: a request whose end was not seen is `lost`, never `ok`.

use tidegate_event::{Copied, Outcome, Status};

/// How what ran on a channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It returned this status (RFC 4254 section 6.10).
    Exit(u32),
    /// A signal of this name ended it (same section).
    Signal(String),
    /// The server refused the request.
    Refused,
    /// The gate ended it, for this reason.
    Broken(String),
    /// It carries no status: a forwarded connection, a variable, or a server that says none.
    Closed,
    /// The connection ended before the channel did.
    Lost,
}

/// The outcome of what ended so, after `bytes_in` bytes from the client and `bytes_out` to it.
pub fn outcome(end: &End, bytes_in: u64, bytes_out: u64, duration_ns: u64) -> Outcome {
    let (status, tags) = match end {
        End::Exit(status) => (Status::Ok, format!("exit {status}")),
        End::Signal(name) => (Status::Ok, format!("signal {name}")),
        End::Refused => {
            let message = "the server refused the request".to_owned();
            (Status::Failed { code: String::new(), message }, String::new())
        }
        End::Broken(message) => {
            let message = message.clone();
            (Status::Failed { code: String::new(), message }, String::new())
        }
        End::Closed => (Status::Ok, String::new()),
        End::Lost => (Status::Lost, String::new()),
    };
    Outcome {
        status,
        rows: 0,
        bytes_out,
        copied: Some(Copied { bytes_in, bytes_out }),
        duration_ns,
        tags,
        masked: None,
        result: None,
        carried: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_seen_end_is_ok() {
        assert_eq!(outcome(&End::Exit(3), 1, 2, 4).tags, "exit 3");
        assert_eq!(outcome(&End::Signal("TERM".into()), 0, 0, 0).tags, "signal TERM");
        assert_eq!(outcome(&End::Lost, 0, 0, 0).status, Status::Lost);
        assert!(matches!(outcome(&End::Refused, 0, 0, 0).status, Status::Failed { .. }));
        let copied = outcome(&End::Closed, 7, 9, 0).copied;
        assert_eq!(copied, Some(Copied { bytes_in: 7, bytes_out: 9 }));
    }
}
