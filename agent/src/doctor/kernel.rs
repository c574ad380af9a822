//! What the kernel offers, and what it lets this process do.

use std::path::Path;

use nix::sys::statfs::statfs;

use super::Finding;
use crate::capture;
use crate::config::Config;

/// Magic number of a bpffs (`linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// From this version on every hook that we use is there; older ones are judged hook by hook.
const KERNEL_TRIED: (u32, u32) = (5, 15);

/// Capabilities by their bit (`linux/capability.h`): what for, and whether nothing works without.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_NET_ADMIN", 12, "attach the hooks"),
    ("CAP_SYS_PTRACE", 19, "read which program stands behind a connection"),
    ("CAP_SYS_ADMIN", 21, "load and pin programs"),
    ("CAP_BPF", 39, "load programs"),
];

/// What can be said of any host.
pub(super) fn without_config() -> Vec<Finding> {
    vec![version(), btf(), cgroup2(), capabilities()]
}

/// What depends on the configuration.
pub(super) fn with_config(config: &Config) -> Vec<Finding> {
    let mut findings = vec![own_cgroup(config), bpffs(config)];
    findings.extend(hooks());
    findings
}

fn version() -> Finding {
    const CHECK: &str = "kernel";
    let release = match nix::sys::utsname::uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(error) => {
            return Finding::warn(CHECK, format!("uname: {error}"), "the hooks decide, see below");
        }
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    let (Some(Ok(major)), Some(Ok(minor))) = version else {
        return Finding::warn(CHECK, release, "its version can't be read; the hooks decide");
    };
    if (major, minor) < KERNEL_TRIED {
        let todo = format!("{}.{} or newer is known to work", KERNEL_TRIED.0, KERNEL_TRIED.1);
        return Finding::warn(CHECK, release, todo);
    }
    Finding::ok(CHECK, release)
}

fn btf() -> Finding {
    const CHECK: &str = "BTF";
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(FILE).exists() {
        return Finding::ok(CHECK, format!("{FILE} is there"));
    }
    Finding::warn(
        CHECK,
        format!("{FILE} is missing"),
        "socket storage needs a kernel with CONFIG_DEBUG_INFO_BTF=y; the hooks below decide",
    )
}

fn cgroup2() -> Finding {
    const CHECK: &str = "cgroup2";
    match capture::cgroup2_mount() {
        Ok(mount) => Finding::ok(CHECK, format!("mounted at {}", mount.display())),
        Err(error) => Finding::fail(
            CHECK,
            error.to_string(),
            "mount -t cgroup2 none /sys/fs/cgroup (or boot with systemd.unified_cgroup_hierarchy=1)",
        ),
    }
}

fn capabilities() -> Finding {
    const CHECK: &str = "capabilities";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Finding::warn(CHECK, "can't be read from /proc/self/status", "mount /proc");
    };
    judge_capabilities(held)
}

fn judge_capabilities(held: u64) -> Finding {
    const CHECK: &str = "capabilities";
    let missing: Vec<String> = CAPABILITIES
        .into_iter()
        .filter(|(_, bit, _)| held >> bit & 1 == 0)
        .map(|(name, _, what)| format!("{name} ({what})"))
        .collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, "all that the agent needs");
    }
    Finding::fail(
        CHECK,
        format!("missing: {}", missing.join(", ")),
        "run as root, or with these capabilities (AmbientCapabilities= in the unit)",
    )
}

/// The gate must live below the cgroup that the programs are attached to, or the kernel does not
/// answer for its sockets.
fn own_cgroup(config: &Config) -> Finding {
    const CHECK: &str = "cgroup";
    let Some(wanted) = &config.capture.cgroup else {
        return Finding::ok(CHECK, "the whole host is guarded");
    };
    let shown = wanted.display();
    if !wanted.join("cgroup.procs").exists() {
        return Finding::fail(
            CHECK,
            format!("{shown} is no cgroup"),
            "make it (mkdir), or correct capture.cgroup",
        );
    }
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = capture::cgroup2_mount().ok().zip(own).map(|(mount, own)| mount.join(own));
    match own {
        Some(own) if own.starts_with(wanted) => {
            Finding::ok(CHECK, format!("{shown} is guarded, and this process is below it"))
        }
        _ => Finding::warn(
            CHECK,
            format!("{shown} is guarded, and this process is not below it"),
            "start the agent in a cgroup below it, or it can't see whom it serves",
        ),
    }
}

fn bpffs(config: &Config) -> Finding {
    const CHECK: &str = "bpffs";
    let dir = config.capture.pin_dir.as_path();
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match statfs(existing) {
        Ok(found) if found.filesystem_type().0 == BPF_FS_MAGIC => {
            Finding::ok(CHECK, format!("{} is on one", dir.display()))
        }
        Ok(_) => Finding::fail(
            CHECK,
            format!(
                "{} is not on a bpffs, so the hooks would not outlive the agent",
                dir.display()
            ),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        Err(error) => {
            Finding::fail(CHECK, format!("{}: {error}", existing.display()), "run doctor as root")
        }
    }
}

/// Each program, loaded for real and let go again.
fn hooks() -> Vec<Finding> {
    const CHECK: &str = "hooks";
    let (loaded, refused): (Vec<_>, Vec<_>) =
        capture::probe().into_iter().partition(|probe| probe.result.is_ok());
    if refused.is_empty() {
        let names: Vec<&str> = loaded.iter().map(|probe| probe.what).collect();
        return vec![Finding::ok(CHECK, format!("the kernel takes {}", names.join(", ")))];
    }
    let judge = |probe: capture::Probe| {
        let reason = probe.result.err().unwrap_or_default();
        Finding::fail(CHECK, format!("{} is refused: {reason}", probe.what), probe.advice)
    };
    refused.into_iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_missing_capability_is_named_with_what_it_is_for() {
        assert_eq!(judge_capabilities(u64::MAX).level, Level::Ok);
        let without_bpf = judge_capabilities(!(1 << 39));
        assert_eq!(without_bpf.level, Level::Fail);
        assert_eq!(without_bpf.found, "missing: CAP_BPF (load programs)");
        assert_eq!(judge_capabilities(0).found.matches("CAP_").count(), 4);
    }
}
