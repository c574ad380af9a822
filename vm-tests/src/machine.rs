//! The machine: mounts, loopback, logs, power.

use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Where programs write their logs.
pub const LOGS: &str = "/run/logs";
/// Bytes of each log that are shown after a failure.
const LOG_TAIL_BYTES: usize = 4 * 1024;

/// What is mounted, in order: type, where.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// Mounts everything and sets loopback up.
pub fn bring_up() -> anyhow::Result<()> {
    for (kind, path) in MOUNTS {
        if !Path::new(path).exists() {
            std::fs::create_dir(path).with_context(|| format!("creating {path}"))?;
        }
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} on {path}"))?;
    }
    std::fs::create_dir_all(LOGS)?;
    std::fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    loopback_up()
}

/// `ip link set lo up`; the kernel adds 127.0.0.1 and ::1 itself.
fn loopback_up() -> anyhow::Result<()> {
    // SAFETY: `request` is a valid ifreq with a NUL-terminated name; the descriptor is closed at once.
    let done = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
        let done = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        let error = std::io::Error::last_os_error();
        libc::close(socket);
        if done == 0 { Ok(()) } else { Err(error) }
    };
    done.context("setting the loopback device up")
}

/// The ends of all logs, on the console.
pub fn show_logs() {
    let Ok(entries) = std::fs::read_dir(LOGS) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let bytes = std::fs::read(&path).unwrap_or_default();
        let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
        let tail = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default());
        crate::say(&format!("--- end of {}\n{tail}", path.display()));
    }
}

/// Ends the machine.
pub fn power_off() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // The kernel panics when PID 1 ends, which ends the machine as well.
    std::process::exit(1);
}
