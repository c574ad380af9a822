//! Looking for what is there. Reads directories, runs nothing.

use std::path::{Path, PathBuf};

use super::need::Probe;
use crate::run;

/// A kernel for the test machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmKernel {
    /// The kernel's image.
    pub image: PathBuf,
    /// Its modules (`lib/modules/VERSION`).
    pub modules: PathBuf,
}

/// Debian's cloud kernel, installed or unpacked by setup; the newest where there are several.
pub fn vm_kernel() -> Option<VmKernel> {
    let unpacked = run::tools().join("kernel");
    [Path::new("/"), &unpacked].into_iter().find_map(kernel_below)
}

fn kernel_below(root: &Path) -> Option<VmKernel> {
    let images = expand(&root.join("boot/vmlinuz-*-cloud-amd64"));
    images.into_iter().rev().find_map(|image| {
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(&version));
        let modules = modules.into_iter().find(|dir| dir.is_dir())?;
        Some(VmKernel { image, modules })
    })
}

/// Whether a need is met.
pub(super) fn probe(probe: Probe) -> bool {
    match probe {
        Probe::Program(name) => run::find_program(name).is_some(),
        Probe::File(pattern) => !expand(Path::new(pattern)).is_empty(),
        Probe::Tool(pattern) => !expand(&run::tools().join(pattern)).is_empty(),
        Probe::Component(name) => component(name),
        Probe::Any(probes) => probes.iter().any(|one| self::probe(*one)),
        Probe::All(probes) => probes.iter().all(|one| self::probe(*one)),
        Probe::NightlySource => nightly_source(),
        Probe::VmKernel => vm_kernel().is_some(),
        Probe::Bpffs => is_bpffs(Path::new("/sys/fs/bpf")),
    }
}

/// The cargo that runs us lies beside the toolchain's other programs.
fn component(name: &str) -> bool {
    let beside = std::env::var_os("CARGO").map(PathBuf::from);
    match beside.as_deref().and_then(Path::parent) {
        Some(dir) => dir.join(name).is_file(),
        None => run::find_program(name).is_some(),
    }
}

fn nightly_source() -> bool {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".rustup"));
    let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or(home);
    rustup.is_some_and(|dir| {
        let source = dir.join("toolchains/nightly*/lib/rustlib/src/rust/library/core/src/lib.rs");
        !expand(&source).is_empty()
    })
}

fn is_bpffs(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| {
        let kind = line.split_once(" - ").and_then(|(_, behind)| behind.split(' ').next());
        kind == Some("bpf") && line.split(' ').nth(4).map(Path::new) == Some(dir)
    })
}

/// The files that a pattern names, in order; each `*` stands for a part of one name.
pub(super) fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str();
        let text = part.to_string_lossy();
        if !text.contains('*') {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        found = found.iter().flat_map(|dir| matching(dir, &text)).collect();
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

fn matching(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.filter_map(Result::ok);
    names
        .filter(|entry| fits(pattern, &entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, behind)) => name.strip_prefix(before).is_some_and(|rest| {
            let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.filter_map(|at| rest.get(at..)).any(|rest| fits(behind, rest))
        }),
    }
}
