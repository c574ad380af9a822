//! A network namespace with a link to the host's, as container runtimes make it. The laboratory's tests use it too.

use std::fs::File;
use std::process::Command;

/// The host's address on the link (RFC 5737).
pub const HOST_SIDE: &str = "198.51.100.1";

/// The other end's.
pub const INNER_SIDE: &str = "198.51.100.2";

/// The namespace; taken away when dropped.
pub struct Link {
    /// As ip(8) knows it.
    pub name: String,
    /// One at a time: its addresses are the host's.
    _lock: File,
}

impl Link {
    pub fn new() -> Self {
        let lock = File::create("/tmp/tidegate-test-link.lock").unwrap();
        lock.lock().unwrap();
        let made = Self { name: format!("tg{}", std::process::id() % 1_000_000), _lock: lock };
        let n = &made.name;
        let (outer, inner) = (format!("{n}o"), format!("{n}i"));
        ip(&["netns", "add", n]);
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", n]);
        ip(&["addr", "add", &format!("{HOST_SIDE}/30"), "dev", &outer]);
        ip(&["link", "set", &outer, "up"]);
        ip(&["-n", n, "addr", "add", &format!("{INNER_SIDE}/30"), "dev", &inner]);
        ip(&["-n", n, "link", "set", &inner, "up"]);
        ip(&["-n", n, "link", "set", "lo", "up"]);
        made
    }

    /// Its file.
    pub fn path(&self) -> String {
        format!("/var/run/netns/{}", self.name)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().expect("not run: no ip(8) on this host");
    assert!(done.success(), "not run: ip {args:?}");
}
