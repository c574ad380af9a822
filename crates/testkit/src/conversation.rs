//! Conversations between a client, a gate and a server: recorded ones, and ones cut into parts.
//!
//! Promise: every protocol's machine is held to the same: what came out is compared whole.
//!
//! Limits: what a line of a conversation means, and who drives the machine, is the caller's.

use std::path::Path;

/// Bytes with what they are, in the order in which they came out.
pub type Came = Vec<(String, Vec<u8>)>;

/// What went to the client, what went to the server, and all else (questions, outcomes): how these three
/// interleave may differ where bytes arrive in other parts.
pub type Ways = [Came; 3];

/// Compares each file of `folder` with what `converse` makes of it now.
///
/// # Panics
///
/// When one differs (with all that do, as they are now), when there are fewer than `least`, or when one can't be read.
#[expect(clippy::disallowed_methods, reason = "the recorded conversations are files")]
#[expect(clippy::unwrap_used, reason = "for tests only")]
pub fn conversations(folder: &Path, least: usize, converse: impl Fn(&str) -> String) {
    let mut differ = Vec::new();
    let mut count = 0_usize;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let recorded = std::fs::read_to_string(&path).unwrap();
        count += 1;
        let now = converse(&recorded);
        if now != recorded {
            differ.push(format!("=== {}\n{now}", path.display()));
        }
    }
    assert!(count >= least, "only {count} conversations found");
    assert!(differ.is_empty(), "these differ; as they are now:\n{}=== end", differ.join(""));
}

/// Says each line of a session (the client's where it is marked `true`), in parts of the lengths that `cut` names
/// for its length; what these leave is the last part.
pub fn said_in_parts(
    session: &[(bool, &str)],
    encode: impl Fn(&str) -> Vec<u8>,
    mut cut: impl FnMut(usize) -> Vec<usize>,
    mut say: impl FnMut(bool, &[u8]),
) {
    for (client, line) in session {
        let bytes = encode(line);
        let mut rest = bytes.as_slice();
        for length in cut(bytes.len()) {
            let (part, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            say(*client, part);
        }
        say(*client, rest);
    }
}

/// What went each way, the parts joined. Entries that go to a side begin with `client <-` or `server <-`.
pub fn ways(log: &[(String, Vec<u8>)]) -> Ways {
    let way = |keep: &dyn Fn(&str) -> bool| {
        let mut joined = Came::new();
        for (what, bytes) in log.iter().filter(|(what, _)| keep(what)) {
            match joined.last_mut() {
                Some((last, all)) if !bytes.is_empty() && last == what => all.extend(bytes),
                _ => joined.push((what.clone(), bytes.clone())),
            }
        }
        joined
    };
    let (client, server) = ("client <-", "server <-");
    [
        way(&|what| what.starts_with(client)),
        way(&|what| what.starts_with(server)),
        way(&|what| !what.starts_with(client) && !what.starts_with(server)),
    ]
}
