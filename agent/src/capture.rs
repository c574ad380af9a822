//! The kernel side from the agent's view: attaches the hooks, feeds them rules, reads captures.
//!
//! Promises: hooks and maps are pinned, so that they outlive the agent; a later agent takes them
//! over with no moment in which they are missing; only [`detach`] takes them away. Rules change as
//! a whole or not at all. A capture belongs to one accepted socket and is read from that socket.
//! Object, agent and pinned maps must agree on their ABI, or nothing is attached.
//!
//! Limits: kernel 5.15 up. The agent must run below the guarded cgroup. One agent a pin directory.
//! Counters count from the first attachment on, over restarts of the agent.
//!
//! Known gaps: what the hooks do not see is named in `agent-ebpf/src/main.rs` and
//! `docs/THREATS.md`. An agent of another ABI can take over only after `detach`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use nix::time::{ClockId, clock_gettime};
use tidegate_agent_common::{
    ABI, ABI_VERSION, COUNTS, Count, Event, RULES_MAX, RawCapture, STATE_ACCEPTED, Tally, TallyKey,
};
use tidegate_event::Digest;

mod btf;
mod cgroup;
pub mod diag;
mod error;
mod events;
mod hooks;
mod klog;
mod measure;
pub mod netns;
mod object;
mod pins;
mod probe;
mod sys;
mod tables;

pub use cgroup::cgroup2_mount;
pub use error::CaptureError;
pub use measure::Measured;
pub use object::object_digest;
pub use probe::{Probe, probe};
pub use sys::{TcpCount, count_costs, tcp_count, unacked, unread};
pub use tables::Rule;

use cgroup::Cgroup;
use events::Told;
use hooks::{HOOKS, Linked};
use klog::KernelLog;
use pins::Pins;
use tables::{Gate, Tables, at, take};

/// Where the hooks go and whom they lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The cgroup to guard; the root of the cgroup2 mount where absent.
    pub cgroup: Option<PathBuf>,
    /// Directory on bpffs for hooks and maps.
    pub pin_dir: PathBuf,
    /// The gate's port on the loopback addresses.
    pub gate_port: u16,
    /// User ids of which every TCP connection is led to the gate.
    pub strict_uids: Vec<u32>,
}

/// What an agent finds when it attaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Whether hooks of a run before were in place.
    pub was_pinned: bool,
    /// Whether they were whole: nobody was without them until now.
    pub was_whole: bool,
    /// Connections that passed by the gate while no agent ran: rule id (of the rules of that
    /// time) and how many.
    pub passed_open: Vec<(u32, u64)>,
}

/// Events that the kernel counted since the hooks were first attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections led to the gate.
    pub captured: u64,
    /// Captures that reached an accepted socket.
    pub accepted: u64,
    /// Connections to the gate that had no capture.
    pub uncaptured: u64,
    /// All refusals by the kernel: the sum of the next four.
    pub refused: u64,
    /// Refused: not TCP, to a protected destination.
    pub refused_not_tcp: u64,
    /// Refused: no room for the note.
    pub refused_no_room: u64,
    /// Refused: somebody else wanted the gate's port.
    pub refused_bind: u64,
    /// Refused: a raw, SCTP, DCCP or MPTCP socket.
    pub refused_socket: u64,
    /// Packets that the guard dropped.
    pub dropped: u64,
    /// Events that found no room, and of which no record tells.
    pub events_lost: u64,
    /// Sockets that could not be tallied.
    pub tally_lost: u64,
    /// Packets of sockets from before the hooks that go on.
    pub passed_kept: u64,
    /// Passed by rules that are open on failure.
    pub passed_open: u64,
    /// Captures lost between `connect()` and `accept()`; the gate refuses their connections.
    pub flow_lost: u64,
}

/// The attached hooks. Dropping it leaves them in place.
pub struct Kernel {
    tables: Tables,
    beat: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    passed_open: PerCpuArray<MapData, u64>,
    told: Told,
    log: Option<KernelLog>,
    gate: Gate,
    strict_uids: Vec<u32>,
    pins: Pins,
}

impl Kernel {
    /// Attaches the hooks, or takes over those of a run before, with these rules.
    ///
    /// Attach before the gate listens: from then on only this process may bind the gate's port.
    pub fn attach(options: Options, rules: &[Rule]) -> Result<(Self, Resumed), CaptureError> {
        let compiled = tables::compile(rules, &options.strict_uids)?;
        let cgroup = cgroup::open(options.cgroup.as_deref())?;
        let pins = Pins::hold(options.pin_dir)?;
        let was_pinned = pins.have_links();
        let was_whole = was_pinned && measure::measure(&pins).missing.is_empty();
        pins.claim()?;
        let mut ebpf = hooks::load_maps(Some(&pins))?;
        for hook in &HOOKS {
            hooks::load(&mut ebpf, hook)?;
        }
        let mut linked = Linked::new();
        let [first, rest @ ..] = &HOOKS;
        linked.attach(&ebpf, first, &cgroup, &pins)?;
        let gate = ask_who_we_are(&cgroup, options.gate_port)?;
        let mut kernel = Self {
            tables: Tables::take(&mut ebpf)?,
            beat: take(&mut ebpf, "BEAT")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            passed_open: take(&mut ebpf, "PASSED_OPEN")?,
            told: Told::take(&mut ebpf)?,
            log: KernelLog::take(&mut ebpf),
            gate,
            strict_uids: options.strict_uids,
            pins,
        };
        kernel.tables.replace(gate, btf::offsets(), &compiled)?;
        kernel.link_rest(&ebpf, rest, &cgroup, &mut linked)?;
        linked.keep();
        kernel.beat()?;
        sys::wait_for_running_programs();
        let passed_open = kernel.take_passed_open()?;
        Ok((kernel, Resumed { was_pinned, was_whole, passed_open }))
    }

    /// Replaces all rules at once.
    pub fn set_rules(&mut self, rules: &[Rule]) -> Result<(), CaptureError> {
        let compiled = tables::compile(rules, &self.strict_uids)?;
        self.tables.replace(self.gate, btf::offsets(), &compiled)
    }

    /// Tells the kernel that the agent lives, and logs what the kernel programs had to say. Call
    /// it each second: rules that are open on failure count from the last beat.
    pub fn beat(&mut self) -> Result<(), CaptureError> {
        self.beat_at(monotonic_ns()?)?;
        if let Some(log) = &mut self.log {
            log.flush();
        }
        Ok(())
    }

    /// As if the last beat had been at that time of `CLOCK_MONOTONIC`, for tests that cannot wait.
    pub fn beat_at(&mut self, monotonic_ns: u64) -> Result<(), CaptureError> {
        self.beat.set(0, monotonic_ns, 0).map_err(at("BEAT"))
    }

    /// What the kernel has counted.
    pub fn counters(&self) -> Result<Counters, CaptureError> {
        let mut sums = [0_u64; COUNTS as usize];
        for (index, sum) in (0..COUNTS).zip(&mut sums) {
            *sum = total(&self.counters.get(&index, 0).map_err(at("COUNTERS"))?);
        }
        let of = |count: Count| sums.get(count as usize).copied().unwrap_or_default();
        let refused_not_tcp = of(Count::RefusedNotTcp);
        let refused_no_room = of(Count::RefusedNoRoom);
        let refused_bind = of(Count::RefusedBind);
        let refused_socket = of(Count::RefusedSocket);
        Ok(Counters {
            captured: of(Count::Captured),
            accepted: of(Count::Accepted),
            uncaptured: of(Count::Uncaptured),
            refused: refused_not_tcp + refused_no_room + refused_bind + refused_socket,
            refused_not_tcp,
            refused_no_room,
            refused_bind,
            refused_socket,
            dropped: of(Count::Dropped),
            events_lost: of(Count::EventLost),
            tally_lost: of(Count::TallyLost),
            passed_kept: of(Count::PassedKept),
            passed_open: of(Count::PassedOpen),
            flow_lost: of(Count::FlowLost),
        })
    }

    /// Connections that passed by the gate since the last call, by rule id. Call it only while the
    /// beat is fresh, when no pass can come in between.
    pub fn take_passed_open(&mut self) -> Result<Vec<(u32, u64)>, CaptureError> {
        let mut passed = Vec::new();
        for rule in 0..RULES_MAX {
            let values = self.passed_open.get(&rule, 0).map_err(at("PASSED_OPEN"))?;
            let count = total(&values);
            if count > 0 {
                let zeros = PerCpuValues::try_from(vec![0; values.len()]).map_err(|source| {
                    CaptureError::System { what: "counting the processors", source }
                })?;
                self.passed_open.set(rule, zeros, 0).map_err(at("PASSED_OPEN"))?;
                passed.push((rule, count));
            }
        }
        Ok(passed)
    }

    /// What the kernel has told since the last call, also while no agent ran.
    pub fn events(&mut self) -> Vec<Event> {
        self.told.events()
    }

    /// What became of the sockets of each user id and rule since the hooks were first attached.
    pub fn tallies(&self) -> Result<BTreeMap<TallyKey, Tally>, CaptureError> {
        self.told.tallies()
    }

    /// Lets these sockets (by `SO_COOKIE`) go on although they do not go through the gate, and no
    /// others.
    pub fn keep(&mut self, cookies: &[u64]) -> Result<(), CaptureError> {
        self.told.keep(cookies)
    }

    /// Whether the hooks can see effective user ids and the makers of sockets: without the kernel's
    /// type information the real user id decides alone.
    pub fn sees_effective_ids(&self) -> bool {
        btf::offsets().are_known()
    }

    /// How the hooks are in the kernel now.
    pub fn measure(&self) -> Measured {
        measure::measure(&self.pins)
    }

    /// Nanoseconds and runs of each hook's program, while [`count_costs`] had them counted.
    pub fn costs(&self) -> io::Result<Vec<(&'static str, u64, u64)>> {
        let hooks = self.measure().hooks.into_iter();
        hooks
            .map(|hook| {
                let (ns, runs) = sys::program_cost(hook.program_id)?;
                Ok((hook.place, ns, runs))
            })
            .collect()
    }

    /// SHA-256 of the kernel object in use.
    pub fn ebpf_digest(&self) -> Digest {
        object_digest()
    }

    fn link_rest(
        &self,
        ebpf: &Ebpf,
        rest: &[hooks::Hook],
        cgroup: &Cgroup,
        linked: &mut Linked,
    ) -> Result<(), CaptureError> {
        rest.iter().try_for_each(|hook| linked.attach(ebpf, hook, cgroup, &self.pins))
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("gate", &self.gate)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

/// Takes the hooks and all their pins away; `false` where there were none.
pub fn detach(pin_dir: &Path) -> Result<bool, CaptureError> {
    pins::detach(pin_dir)
}

/// The capture of a socket that the gate accepted; `None` where it came without one.
pub fn capture_of(socket: BorrowedFd<'_>) -> io::Result<Option<RawCapture>> {
    let Some(capture) = sys::capture(socket)? else {
        return Ok(None);
    };
    if capture.version != ABI_VERSION || capture.state != STATE_ACCEPTED {
        return Err(io::Error::other("the capture is of another version than the agent"));
    }
    Ok(Some(capture))
}

/// How the freshly attached hooks see this process: proof that it runs below the guarded cgroup,
/// and its ids outside of all namespaces.
fn ask_who_we_are(cgroup: &Cgroup, port: u16) -> Result<Gate, CaptureError> {
    let wrong = |source| CaptureError::System { what: "asking the hooks", source };
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).map_err(wrong)?;
    let pong = sys::ping(socket.as_fd()).map_err(wrong)?.filter(|pong| pong.abi == ABI);
    let Some(pong) = pong else {
        return Err(CaptureError::NotBelow { cgroup: cgroup.path.clone(), own: cgroup::own() });
    };
    Ok(Gate { port, pid: pong.pid, uid: pong.uid })
}

fn total(values: &PerCpuValues<u64>) -> u64 {
    values.iter().sum()
}

fn monotonic_ns() -> Result<u64, CaptureError> {
    let what = "reading the clock";
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_err(|error| CaptureError::System { what, source: error.into() })?;
    let wrong = |source| CaptureError::System { what, source: io::Error::other(source) };
    let seconds = u64::try_from(now.tv_sec()).map_err(wrong)?;
    let nanos = u64::try_from(now.tv_nsec()).map_err(wrong)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
