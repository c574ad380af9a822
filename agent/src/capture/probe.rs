//! Tries each hook on this kernel, for `doctor`: loads its program and attaches nothing.

use super::hooks::{self, HOOKS};

/// What one trial showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The hook, by the kernel's name, or `maps`.
    pub what: &'static str,
    /// What the kernel said, where it refused.
    pub result: Result<(), String>,
    /// What to do where it refused.
    pub advice: &'static str,
}

/// Tries all hooks. Needs the agent's own privileges.
pub fn probe() -> Vec<Probe> {
    let maps_advice = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; the kernel needs \
                       CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF";
    let mut ebpf = match hooks::load_maps(None) {
        Ok(ebpf) => ebpf,
        Err(error) => {
            let result = Err(error.to_string());
            return vec![Probe { what: "maps", result, advice: maps_advice }];
        }
    };
    let mut found = vec![Probe { what: "maps", result: Ok(()), advice: maps_advice }];
    for hook in &HOOKS {
        let result = hooks::load(&mut ebpf, hook).map_err(|error| error.to_string());
        found.push(Probe { what: hook.place, result, advice: advice(hook.place) });
    }
    found
}

fn advice(place: &str) -> &'static str {
    match place {
        "sockops" => "the kernel must be 5.15 or newer, with CONFIG_CGROUP_BPF",
        "cgroup/getpeername4" | "cgroup/getpeername6" => {
            "the kernel must be 5.8 or newer, with CONFIG_CGROUP_BPF"
        }
        _ => "the kernel must be 5.15 or newer, with CONFIG_CGROUP_BPF; see its log for lockdown",
    }
}
