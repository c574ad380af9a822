//! The hooks: loading their programs, and making or taking over their links.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};

use super::cgroup::Cgroup;
use super::pins::{MAPS, Pins};
use super::{CaptureError, object, sys};

/// One hook.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hook {
    /// Name of its program in the object; it must not be that of its ELF section.
    pub program: &'static str,
    /// The kernel's name for the place.
    pub place: &'static str,
    /// `enum bpf_attach_type` in `linux/bpf.h`.
    attach_type: u32,
}

const fn hook(program: &'static str, place: &'static str, attach_type: u32) -> Hook {
    Hook { program, place, attach_type }
}

/// All hooks, in the order in which they are attached: what leads connections away comes late,
/// when all that knows of them is there, and what drops the others comes last.
pub(super) const HOOKS: [Hook; 12] = [
    hook("tg_getsockopt", "cgroup/getsockopt", 21),
    hook("tg_sock_create", "cgroup/sock_create", 2),
    hook("tg_sockops", "sockops", 3),
    hook("tg_peername4", "cgroup/getpeername4", 29),
    hook("tg_peername6", "cgroup/getpeername6", 30),
    hook("tg_bind4", "cgroup/bind4", 8),
    hook("tg_bind6", "cgroup/bind6", 9),
    hook("tg_sendmsg4", "cgroup/sendmsg4", 14),
    hook("tg_sendmsg6", "cgroup/sendmsg6", 15),
    hook("tg_connect4", "cgroup/connect4", 10),
    hook("tg_connect6", "cgroup/connect6", 11),
    hook("tg_egress", "cgroup_skb/egress", 1),
];

/// Brings maps and programs into the kernel, with the maps pinned where `pins` are given.
pub(super) fn load_maps(pins: Option<&Pins>) -> Result<Ebpf, CaptureError> {
    object::check(object::OBJECT)?;
    let mut loader = EbpfLoader::new();
    if let Some(pins) = pins {
        for map in MAPS {
            loader.map_pin_path(map, pins.map(map));
        }
    }
    loader.load(object::OBJECT).map_err(|error| CaptureError::Maps(chain(&error)))
}

/// Has the kernel verify one program.
pub(super) fn load(ebpf: &mut Ebpf, hook: &Hook) -> Result<(), CaptureError> {
    let refused = |why: String| CaptureError::Load { hook: hook.place, why };
    let program =
        ebpf.program_mut(hook.program).ok_or_else(|| refused("not in the object".to_owned()))?;
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        _ => return Err(refused("of an unexpected type".to_owned())),
    }
    .map_err(|error| refused(verdict(&error)))
}

/// Links under way. Dropped before [`Linked::keep`], it removes what it made.
pub(super) struct Linked {
    made: Vec<PathBuf>,
}

impl Linked {
    pub(super) const fn new() -> Self {
        Self { made: Vec::new() }
    }

    /// Attaches one hook, or hands its link over to the freshly loaded program.
    pub(super) fn attach(
        &mut self,
        ebpf: &Ebpf,
        hook: &Hook,
        cgroup: &Cgroup,
        pins: &Pins,
    ) -> Result<(), CaptureError> {
        let failed =
            |source| CaptureError::Link { hook: hook.place, cgroup: cgroup.path.clone(), source };
        let program = ebpf.program(hook.program).ok_or_else(|| failed(missing()))?;
        let program = program.fd().map_err(|error| failed(io::Error::other(error)))?.as_fd();
        let path = pins.link(hook);
        if path.exists() {
            return take_over(program, hook, cgroup, &path).map_err(failed);
        }
        let link = sys::link_create(program, cgroup.directory.as_fd(), hook.attach_type)
            .map_err(failed)?;
        sys::pin(link.as_fd(), &path).map_err(failed)?;
        self.made.push(path);
        Ok(())
    }

    /// All hooks stand: they stay from now on.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            if let Err(error) = fs::remove_file(path) {
                tracing::error!(?path, %error, "a hook half attached could not be taken away");
            }
        }
    }
}

/// Replaces the program of a pinned link; a link on another cgroup, or on one that is gone, is
/// replaced by a new one before it goes.
fn take_over(program: BorrowedFd<'_>, hook: &Hook, cgroup: &Cgroup, path: &Path) -> io::Result<()> {
    let old = sys::open_pin(path)?;
    if sys::link_cgroup(old.as_fd())? == cgroup.id {
        return sys::link_update(old.as_fd(), program);
    }
    let link = sys::link_create(program, cgroup.directory.as_fd(), hook.attach_type)?;
    // bpffs allows no dot in a name.
    let fresh = path.with_file_name(format!("link_{}_new", hook.program));
    let _ = fs::remove_file(&fresh);
    sys::pin(link.as_fd(), &fresh)?;
    fs::rename(&fresh, path)
}

fn missing() -> io::Error {
    io::Error::other("the program is not in the object")
}

/// What the kernel said, with the end of the verifier's log, where the reason stands.
fn verdict(error: &ProgramError) -> String {
    const LINES_MAX: usize = 12;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return chain(error);
    };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LINES_MAX)..).unwrap_or_default();
    format!("{io_error}; the verifier's last words: {}", tail.join(" | "))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
