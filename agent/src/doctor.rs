//! `doctor`: what this host has and lacks, each finding with what to do.
//!
//! Promises: changes nothing on the host. Kernel features are judged by loading each program
//! (`capture::probe`), never by the kernel's version. Every check runs, whatever the others found.
//!
//! Limits: one waiting time for the network, named below. It runs as whoever calls it: capabilities
//! are the caller's, so run it as the agent runs.
//!
//! Known gaps: says nothing about LSM programs and about network namespaces of their own.

use std::path::Path;

use serde::Serialize;

use crate::config::Config;
use crate::control::{self, Answer, Request};

mod host;
mod kernel;
mod network;

/// How long one connection may take, in milliseconds.
const CONNECT_MS_MAX: u64 = 3000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The agent works, and something should be looked after.
    Warn,
    /// The agent can't do its job.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    pub todo: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), todo: None }
    }

    /// Something should be looked after.
    pub(crate) fn warn(
        check: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Warn, found: found.into(), todo: Some(todo.into()) }
    }

    /// The agent can't do its job.
    pub(crate) fn fail(
        check: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self { check, level: Level::Fail, found: found.into(), todo: Some(todo.into()) }
    }
}

/// Looks at everything.
pub fn examine(path: &Path) -> Vec<Finding> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            let mut findings = vec![Finding::fail(
                "configuration",
                errors.to_string(),
                "correct the file; `check` says whether it is right",
            )];
            findings.extend(kernel::without_config());
            findings.push(host::clock());
            return findings;
        }
    };
    let found = format!("{} is valid", path.display());
    let mut findings = vec![Finding::ok("configuration", found), policy(&config)];
    let running = running(&config);
    findings.extend(kernel::without_config());
    findings.extend(kernel::with_config(&config));
    findings.push(network::gate(&config, running.level == Level::Ok));
    findings.extend(network::names(&config));
    findings.push(network::collector(&config));
    findings.push(host::local_sockets(&config));
    findings.push(host::clock());
    findings.push(host::state_dir(&config));
    findings.push(host::disk(&config));
    findings.push(running);
    findings
}

/// The worst level among `findings`.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

fn policy(config: &Config) -> Finding {
    const CHECK: &str = "policy";
    match crate::app::load_policy(config) {
        Ok(set) => Finding::ok(
            CHECK,
            format!("{} policies in {} files", set.explain().len(), config.policy.files.len()),
        ),
        Err(error) => Finding::fail(CHECK, format!("{error:#}"), "correct the policy files"),
    }
}

fn running(config: &Config) -> Finding {
    const CHECK: &str = "running agent";
    let start = "start it: systemctl start tidegate-agent";
    match control::ask(&config.control_socket(), Request::Status) {
        Ok(Some(Answer::Status(status))) => match status.spool.error {
            None => Finding::ok(
                CHECK,
                format!("up for {} s, {} sessions open", status.uptime_s, status.sessions_active),
            ),
            Some(error) => Finding::fail(
                CHECK,
                format!("cannot record: {error}"),
                "see its log; free the disk",
            ),
        },
        Ok(Some(answer)) => Finding::warn(CHECK, format!("answered {answer:?}"), "see its log"),
        Ok(None) => {
            Finding::warn(CHECK, format!("none at {}", config.control_socket().display()), start)
        }
        Err(error) => Finding::warn(CHECK, format!("{error:#}"), "run doctor as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_a_failure_and_the_host_is_looked_at_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[agent]\nid = 7\n").unwrap();
        let findings = examine(&path);
        assert_eq!(worst(&findings), Level::Fail);
        let first = findings.first().unwrap();
        assert_eq!((first.check, first.level), ("configuration", Level::Fail));
        assert!(first.found.contains("agent.toml:2:6: "), "{}", first.found);
        for check in ["kernel", "cgroup2", "clock"] {
            assert!(findings.iter().any(|finding| finding.check == check), "{check} is missing");
        }
        let silent = |finding: &&Finding| finding.level != Level::Ok && finding.todo.is_none();
        assert_eq!(findings.iter().find(silent), None, "a finding without what to do");
    }

    #[test]
    fn the_worst_finding_decides() {
        let ok = Finding::ok("a", "");
        let warn = Finding::warn("b", "", "");
        let fail = Finding::fail("c", "", "");
        assert_eq!(worst(&[]), Level::Ok);
        assert_eq!(worst(&[ok.clone(), warn.clone()]), Level::Warn);
        assert_eq!(worst(&[fail, warn, ok]), Level::Fail);
    }
}
