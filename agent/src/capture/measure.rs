//! Asks the kernel how the hooks are now: who removed or replaced one leaves a trace here.

use std::os::fd::AsFd as _;

use tidegate_journal::HookState;

use super::hooks::{HOOKS, Hook};
use super::pins::Pins;
use super::sys;

/// The hooks as the kernel has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// Those that are there, in the order of their attachment.
    pub hooks: Vec<HookState>,
    /// Those that are not, in words.
    pub missing: Vec<String>,
}

/// Looks at every hook by its pinned link.
pub(super) fn measure(pins: &Pins) -> Measured {
    let mut measured = Measured::default();
    for hook in &HOOKS {
        match look(pins, hook) {
            Ok(state) => measured.hooks.push(state),
            Err(why) => measured.missing.push(format!("{}: {why}", hook.place)),
        }
    }
    measured
}

fn look(pins: &Pins, hook: &Hook) -> Result<HookState, String> {
    let link =
        sys::open_pin(&pins.link(hook)).map_err(|error| format!("its pin is gone ({error})"))?;
    let ids = sys::link_ids(link.as_fd());
    let (link_id, program_id, cgroup_id) = ids.map_err(|error| format!("its link says {error}"))?;
    if cgroup_id == 0 {
        return Err(format!("its link {link_id} is attached no more"));
    }
    let program_tag = sys::program_tag(program_id)
        .map_err(|error| format!("its program {program_id} says {error}"))?;
    Ok(HookState { place: hook.place, link_id, program_id, program_tag, cgroup_id })
}
