//! Packet sockets (packet(7)) of protected accounts: what they send passes no hook of ours.
//!
//! Promises: looked for with each heartbeat; each is recorded once.
//!
//! Known gaps: one that is opened and closed between two heartbeats is not seen; nor is one in another
//! network namespace, from which this host's wires are not reached but through a device that root gave
//! it. They need `CAP_NET_RAW`, which a service account should not have.

use std::collections::BTreeSet;
use std::fs;

use tidegate_journal::{Found, Journal, JournalError};

use super::{plain, process};
use crate::config::Config;

/// The kernel's list, of this network namespace.
const LIST: &str = "/proc/net/packet";

/// Remembers which sockets are recorded.
#[derive(Debug, Default)]
pub struct Packets {
    seen: BTreeSet<u32>,
}

impl Packets {
    /// Looks for new ones.
    pub fn look(&mut self, config: &Config, journal: &Journal) -> Result<(), JournalError> {
        let all = sockets_in(&fs::read_to_string(LIST).unwrap_or_default());
        // Numbers of closed sockets are given again.
        self.seen.retain(|inode| all.iter().any(|(_, found)| found == inode));
        for (uid, inode) in all {
            let Some(principal) = config.principal(uid) else { continue };
            if !self.seen.insert(inode) {
                continue;
            }
            let detail = "a packet socket: what it sends is not seen; take CAP_NET_RAW away";
            let holder = process::holder_of(inode);
            let process = holder.and_then(|pid| process::describe(pid, None, u64::MAX));
            tracing::warn!(principal = principal.name, pid = holder, "{detail}");
            journal.finding(&Found {
                principal: &principal.name,
                process: process.as_ref(),
                ..plain("packet_socket", "open", detail)
            })?;
        }
        Ok(())
    }
}

/// User id and number of each socket.
fn sockets_in(text: &str) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(7);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_tells_owner_and_number() {
        let text = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                    ffff888103f1c000 3      3    0003   2     1 0      991    31250\n\
                    ffff888103f1d800 3      2    0800   0     1 0      0      31251\n";
        assert_eq!(sockets_in(text), [(991, 31250), (0, 31251)]);
        assert_eq!(sockets_in("damaged"), []);
    }
}
