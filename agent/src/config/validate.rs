//! From the file as written to a [`Config`] that is valid as a whole.
//!
//! Promises: every complaint is gathered, none hides another, and each points at the value.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tidegate_event::{Digest, Durability, Principal};

use super::raw::{Number, Raw, RawGate, RawPolicy, RawPrincipal, RawSpool, Text};
use super::{
    CaptureConfig, Config, ConfigError, ConfigErrors, GateConfig, PolicyConfig, SpoolConfig, size,
};

mod files;
mod protect;
mod reach;
mod target;

/// Which user has which uid, and who we are.
pub trait Accounts {
    /// The uid of `user`; `None` where there is no such user.
    fn uid(&self, user: &str) -> Result<Option<u32>, String>;
    /// The agent's own uid.
    fn own_uid(&self) -> u32;
}

/// The host's own accounts.
#[derive(Debug, Clone, Copy)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn uid(&self, user: &str) -> Result<Option<u32>, String> {
        nix::unistd::User::from_name(user)
            .map(|found| found.map(|user| user.uid.as_raw()))
            .map_err(|error| error.to_string())
    }

    fn own_uid(&self) -> u32 {
        nix::unistd::geteuid().as_raw()
    }
}

/// What a check needs beside the file.
pub(super) struct Context<'a> {
    pub path: &'a Path,
    pub text: &'a str,
    pub digest: Digest,
    pub accounts: &'a dyn Accounts,
}

/// Gathers complaints.
struct Check<'a> {
    context: &'a Context<'a>,
    errors: Vec<ConfigError>,
}

/// Turns `raw` into a valid configuration, or says all that is wrong with it.
pub(super) fn validate(raw: &Raw, context: &Context<'_>) -> Result<Config, ConfigErrors> {
    let mut check = Check { context, errors: Vec::new() };
    let agent_id = check.name(&raw.agent.id, "agent id");
    let state_dir =
        check.absolute(raw.agent.state_dir.as_ref(), "agent.state_dir", super::STATE_DIR_DEFAULT);
    let run_dir =
        check.absolute(raw.agent.run_dir.as_ref(), "agent.run_dir", super::RUN_DIR_DEFAULT);
    let gate = check.gate(&raw.gate);
    let (strict_default, earlier) = check.habits(&raw.capture);
    let capture = CaptureConfig {
        cgroup: raw
            .capture
            .cgroup
            .as_ref()
            .map(|cgroup| check.absolute(Some(cgroup), "capture.cgroup", "/")),
        pin_dir: check.absolute(
            raw.capture.pin_dir.as_ref(),
            "capture.pin_dir",
            super::PIN_DIR_DEFAULT,
        ),
        strict_default,
        earlier,
    };
    let spool = check.spool(&raw.spool);
    let policy = check.policy(&raw.policy, raw.collector.is_some());
    let principals = check.principals(&raw.principals);
    let mut targets = check.targets(&raw.targets, &principals, &gate);
    check.masking(&raw.protect, &raw.targets, &mut targets);
    if check.errors.is_empty() {
        return Ok(Config {
            path: context.path.to_owned(),
            digest: context.digest,
            agent_id,
            state_dir,
            run_dir,
            gate,
            capture,
            spool,
            policy,
            collector: raw.collector.is_some(),
            strict_uids: reach::strict(&raw.principals, &principals),
            principals,
            targets,
        });
    }
    check.errors.sort_by_key(|error| error.place);
    Err(ConfigErrors(check.errors))
}

impl Check<'_> {
    /// Notes a complaint about the value that starts at byte `offset`.
    fn complain(&mut self, offset: usize, what: impl Into<String>, todo: impl Into<String>) {
        let Context { path, text, .. } = self.context;
        self.errors.push(ConfigError::at(path, text, offset, what.into(), todo.into()));
    }

    /// A name of an agent, a principal or a target.
    fn name(&mut self, text: &Text, what: &str) -> String {
        let name = text.get_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts_well || name.len() > super::NAME_BYTES_MAX || !name.bytes().all(plain) {
            self.complain(
                text.span().start,
                format!("{what} \"{name}\" is no name"),
                format!(
                    "use up to {} letters, digits, '-', '_' and '.', a letter or digit first",
                    super::NAME_BYTES_MAX
                ),
            );
        }
        name.clone()
    }

    /// An absolute path, or its default.
    fn absolute(&mut self, text: Option<&Text>, key: &str, default: &str) -> PathBuf {
        let Some(text) = text else {
            return PathBuf::from(default);
        };
        let path = PathBuf::from(text.get_ref());
        if !path.is_absolute() {
            self.complain(
                text.span().start,
                format!("{key} \"{}\" is no absolute path", text.get_ref()),
                "start it with '/'",
            );
        }
        path
    }

    /// A number within bounds, or its default.
    fn number(
        &mut self,
        number: Option<&Number>,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(number) = number else { return default };
        match u64::try_from(*number.get_ref()) {
            Ok(value) if bounds.contains(&value) => value,
            _ => {
                self.complain(
                    number.span().start,
                    format!("{key} = {} is out of bounds", number.get_ref()),
                    format!("use {} to {}", bounds.start(), bounds.end()),
                );
                default
            }
        }
    }

    /// A size within bounds, or its default.
    fn size(
        &mut self,
        text: Option<&Text>,
        key: &str,
        bounds: std::ops::RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        let Some(text) = text else { return default };
        let at = text.span().start;
        let Some(bytes) = size::parse(text.get_ref()) else {
            self.complain(
                at,
                format!("{key} \"{}\" is no size", text.get_ref()),
                "write a whole number and KiB, MiB, GiB or TiB, such as \"4 GiB\"",
            );
            return default;
        };
        if !bounds.contains(&bytes) {
            let (least, most) = (size::print(*bounds.start()), size::print(*bounds.end()));
            self.complain(
                at,
                format!("{key} \"{}\" is out of bounds", text.get_ref()),
                format!("use {least} to {most}"),
            );
        }
        bytes
    }

    /// One of a few words, or its default.
    fn choice<T: Copy>(
        &mut self,
        text: Option<&Text>,
        key: &str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(text) = text else { return default };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text.get_ref()) {
            return *value;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.complain(
            text.span().start,
            format!("{key} can't be \"{}\"", text.get_ref()),
            format!("use {}", words.join(" or ")),
        );
        default
    }

    fn gate(&mut self, raw: &RawGate) -> GateConfig {
        let port = self.number(
            raw.port.as_ref(),
            "gate.port",
            1..=u64::from(u16::MAX),
            u64::from(super::GATE_PORT_DEFAULT),
        );
        let drain_seconds = self.number(
            raw.drain_seconds_max.as_ref(),
            "gate.drain_seconds_max",
            0..=super::DRAIN_SECONDS_LIMIT,
            super::DRAIN_SECONDS_MAX_DEFAULT,
        );
        GateConfig {
            port: u16::try_from(port).unwrap_or(super::GATE_PORT_DEFAULT),
            drain_ms_max: drain_seconds.saturating_mul(1000),
        }
    }

    fn spool(&mut self, raw: &RawSpool) -> SpoolConfig {
        let segment_bytes = self.size(
            raw.segment_bytes.as_ref(),
            "spool.segment_bytes",
            super::SEGMENT_BYTES_MIN..=super::SEGMENT_BYTES_LIMIT,
            super::SEGMENT_BYTES_DEFAULT,
        );
        let bytes_max = self.size(
            raw.bytes_max.as_ref(),
            "spool.bytes_max",
            super::SEGMENT_BYTES_MIN..=u64::MAX,
            super::SPOOL_BYTES_MAX_DEFAULT,
        );
        if bytes_max / super::SPOOL_SEGMENTS_MIN < segment_bytes {
            let least = segment_bytes.saturating_mul(super::SPOOL_SEGMENTS_MIN);
            let at = raw.bytes_max.as_ref().or(raw.segment_bytes.as_ref());
            self.complain(
                at.map_or(0, |text| text.span().start),
                format!("spool.bytes_max holds fewer than {} segments", super::SPOOL_SEGMENTS_MIN),
                format!(
                    "give it {} or more, or make spool.segment_bytes smaller",
                    size::print(least)
                ),
            );
        }
        SpoolConfig { bytes_max, segment_bytes }
    }

    fn policy(&mut self, raw: &RawPolicy, has_collector: bool) -> PolicyConfig {
        let levels = [Durability::Process, Durability::Host, Durability::Collector];
        let durability = self.choice(
            raw.durability.as_ref(),
            "policy.durability",
            &levels.map(|level| (level.name(), level)),
            Durability::default(),
        );
        if let (Some(text), Durability::Collector, false) =
            (&raw.durability, durability, has_collector)
        {
            self.complain(
                text.span().start,
                "policy.durability \"collector\" needs a collector, and none is configured",
                "add [collector] and enrol the agent, or use \"host\"",
            );
        }
        PolicyConfig { files: self.policy_files(&raw.files), durability }
    }

    fn principals(&mut self, raw: &[toml::Spanned<RawPrincipal>]) -> Vec<Principal> {
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut uids: HashMap<u32, String> = HashMap::new();
        let mut principals = Vec::new();
        if let Some(first_too_many) = raw.get(super::PRINCIPALS_MAX) {
            self.complain(
                first_too_many.span().start,
                format!("more than {} principals", super::PRINCIPALS_MAX),
                "split the host's accounts, or leave out those without a target",
            );
        }
        for entry in raw {
            let raw = entry.get_ref();
            let name = self.name(&raw.name, "principal");
            let at = raw.name.span().start;
            if names.insert(name.clone(), at).is_some() {
                self.complain(at, format!("principal \"{name}\" stands twice"), "keep one of them");
            }
            let Some((uid, uid_at)) = self.uid(entry) else {
                continue;
            };
            if let Some(other) = uids.insert(uid, name.clone()) {
                self.complain(
                    uid_at,
                    format!("uid {uid} is principal \"{other}\" already"),
                    "a uid is one principal: keep one of them",
                );
            }
            principals.push(Principal { name, uid });
        }
        principals
    }

    /// The uid of a principal and where it is written.
    fn uid(&mut self, entry: &toml::Spanned<RawPrincipal>) -> Option<(u32, usize)> {
        let raw = entry.get_ref();
        let (uid, at) = match (&raw.uid, &raw.user) {
            (Some(number), None) => {
                let at = number.span().start;
                // The highest uid means "no uid" to the kernel (-1 of uid_t).
                let uid = u32::try_from(*number.get_ref()).ok().filter(|uid| *uid != u32::MAX);
                if uid.is_none() {
                    let what = format!("{} is no uid", number.get_ref());
                    self.complain(at, what, "use 1 to 4294967294");
                }
                (uid?, at)
            }
            (None, Some(user)) => (self.uid_of_user(user)?, user.span().start),
            (Some(number), Some(_)) => {
                self.complain(
                    number.span().start,
                    format!("principal \"{}\" has both uid and user", raw.name.get_ref()),
                    "keep one of them",
                );
                return None;
            }
            (None, None) => {
                self.complain(
                    entry.span().start,
                    format!("principal \"{}\" has neither uid nor user", raw.name.get_ref()),
                    "add uid = 991 or user = \"name\"",
                );
                return None;
            }
        };
        if uid == 0 {
            self.complain(
                at,
                "uid 0 can't be a principal",
                "root can take the hooks away, so catching it proves nothing: run the client \
                 under an account of its own",
            );
            return None;
        }
        if uid == self.context.accounts.own_uid() {
            self.complain(
                at,
                format!("uid {uid} is the agent's own"),
                "the agent would catch its own connections: run the client under another account",
            );
            return None;
        }
        Some((uid, at))
    }

    fn uid_of_user(&mut self, user: &Text) -> Option<u32> {
        let at = user.span().start;
        match self.context.accounts.uid(user.get_ref()) {
            Ok(Some(uid)) => Some(uid),
            Ok(None) => {
                let what = format!("there is no user \"{}\" on this host", user.get_ref());
                self.complain(at, what, "create the account, or give its uid");
                None
            }
            Err(reason) => {
                let what = format!("user \"{}\" can't be looked up: {reason}", user.get_ref());
                self.complain(at, what, "give its uid instead");
                None
            }
        }
    }
}
