//! The file as it is written: every key optional where it has a default, every value with its
//! place in the text.
//!
//! Promises: a key that is not listed here is refused.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, ConfigErrors};

/// A text with its place.
pub(super) type Text = Spanned<String>;

/// A number with its place. Signed, so that a negative one gets our own complaint.
pub(super) type Number = Spanned<i64>;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub agent: RawAgent,
    #[serde(default)]
    pub gate: RawGate,
    #[serde(default)]
    pub capture: RawCapture,
    #[serde(default)]
    pub spool: RawSpool,
    pub policy: RawPolicy,
    pub collector: Option<RawCollector>,
    #[serde(default)]
    pub principals: Vec<Spanned<RawPrincipal>>,
    #[serde(default)]
    pub targets: Vec<Spanned<RawTarget>>,
    #[serde(default)]
    pub protect: Vec<Spanned<RawProtect>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAgent {
    pub id: Text,
    pub state_dir: Option<Text>,
    pub run_dir: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGate {
    pub port: Option<Number>,
    pub drain_seconds_max: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCapture {
    pub cgroup: Option<Text>,
    pub pin_dir: Option<Text>,
    pub strict_default: Option<Text>,
    pub earlier: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSpool {
    pub bytes_max: Option<Text>,
    pub segment_bytes: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub files: Spanned<Vec<Text>>,
    pub durability: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCollector {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrincipal {
    pub name: Text,
    pub uid: Option<Number>,
    pub user: Option<Text>,
    #[serde(default)]
    pub strict: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTarget {
    pub name: Text,
    pub protocol: Text,
    pub destinations: Spanned<Vec<Text>>,
    pub principals: Option<Spanned<Vec<Text>>>,
    pub enforce_for: Option<Text>,
    pub exempt: Option<Spanned<Vec<Text>>>,
    pub mode: Option<Text>,
    pub on_failure: Option<Text>,
    pub open_seconds_max: Option<Number>,
    #[serde(default)]
    pub tls: RawTls,
    #[serde(default)]
    pub masking: RawMasking,
    pub catalogue: Option<RawCatalogue>,
    pub ssh: Option<Spanned<RawSsh>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSsh {
    pub identity_file: Option<Text>,
    pub identity_agent: Option<Text>,
    #[serde(default)]
    pub user_certificate: bool,
    #[serde(default)]
    pub client_password: bool,
    pub known_hosts_file: Text,
    pub host_key_file: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMasking {
    pub detectors: Option<Spanned<Vec<Text>>>,
    pub unresolved: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCatalogue {
    pub user: Text,
    pub password_file: Option<Text>,
    pub refresh_seconds: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProtect {
    pub target: Text,
    pub columns: Spanned<Vec<Text>>,
    pub class: Text,
    pub mask: Text,
    pub keep_last: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub client: Option<Text>,
    pub server: Option<Text>,
    pub ca_file: Option<Text>,
    pub server_name: Option<Text>,
}

/// Reads the file's form.
pub(super) fn parse(path: &Path, text: &str) -> Result<Raw, ConfigErrors> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let what = error.message().trim().replace('\n', ", ");
        let todo = "see dist/agent.toml for every key and its form".to_owned();
        ConfigErrors(vec![ConfigError::at(path, text, offset, what, todo)])
    })
}
