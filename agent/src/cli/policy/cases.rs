//! `policy test`: cases in TOML files, each a statement with what must be decided on it.
//!
//! Promises: a key that isn't known is an error, and so are a file without cases and two cases of
//! one name. A case that says nothing of masks expects that nothing is masked, shown clear or
//! withheld; one that says nothing of alerts expects none.
//!
//! Limits: [`FILE_BYTES_MAX`] for a file with cases.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::json;
use tidegate_event::{
    Access, FileKind, FileRequest, Login, Mode, Operation, Principal, Protocol, SshKind,
    TargetName, Via,
};
use tidegate_mask::Mask;
use tidegate_policy::{Decision, ProtectedColumn, Verdict};
use tidegate_wire_ssh::request;

use super::bench::{self, Bench};
use super::compile;
use crate::cli::print;
use crate::config::masking::ProtectedColumn as Column;
use crate::config::{ProtectConfig, read_capped};

/// Largest file with cases, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file with cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Policy files, from this file's directory.
    policies: Vec<PathBuf>,
    /// What holds where a case says nothing else.
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    protect: Vec<Protect>,
    #[serde(rename = "case")]
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Defaults {
    principal: String,
    uid: u32,
    target: String,
    db_user: String,
    database: String,
    /// `postgres` or `mysql`.
    protocol: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            principal: "batch".to_owned(),
            uid: 991,
            target: "ledger".to_owned(),
            db_user: "batch".to_owned(),
            database: "bank".to_owned(),
            protocol: "postgres".to_owned(),
        }
    }
}

/// As `[[protect]]` in agent.toml, without the mask.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protect {
    target: String,
    class: String,
    columns: Vec<String>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The statement; without one it is a login.
    sql: Option<String>,
    /// `query`, `parse` or `execute`.
    via: Option<String>,
    /// Over SSH: `exec`, `shell`, `subsystem`, `env`, `forward`, `agent_forward`, `x11`, `file_read`, `file_write`,
    /// `file_remove` or `file_list`.
    ssh: Option<String>,
    /// The command, subsystem, variable, address or path that it is about.
    about: Option<String>,
    principal: Option<String>,
    target: Option<String>,
    db_user: Option<String>,
    database: Option<String>,
    executable: Option<String>,
    /// Whether the target is in shadow mode.
    #[serde(default)]
    shadow: bool,
    expect: Expected,
    /// A part of the reason of the refusal.
    reason: Option<String>,
    /// Policies that must be among those that decided.
    #[serde(default)]
    policies: Vec<String>,
    /// Protected columns that must be masked, and no other.
    #[serde(default)]
    masked: Vec<String>,
    /// Protected columns that must be shown clear, and no other.
    #[serde(default)]
    clear: Vec<String>,
    /// Whether the result may show more than can be told, and no policy clears that.
    #[serde(default)]
    unresolved: bool,
    /// A part of the alert.
    alert: Option<String>,
    rows_max: Option<u64>,
    bytes_max: Option<u64>,
    rows_per_hour: Option<u64>,
    bytes_per_hour: Option<u64>,
    durability: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Deny,
    WouldDeny,
}

impl From<Expected> for Verdict {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Allow => Self::Allow,
            Expected::Deny => Self::Deny,
            Expected::WouldDeny => Self::WouldDeny,
        }
    }
}

/// What came of one file.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Cases that ran.
    pub(super) cases: usize,
    /// Name of each case that failed, and how.
    pub(super) failures: Vec<(String, Vec<String>)>,
}

/// Runs all, and says which failed.
pub(super) fn run(files: &[PathBuf], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    let (mut cases, mut failed) = (0_usize, 0_usize);
    let mut documents = Vec::new();
    for file in files {
        let outcome = run_file(file).with_context(|| format!("{}", file.display()))?;
        cases = cases.saturating_add(outcome.cases);
        failed = failed.saturating_add(outcome.failures.len());
        for (name, complaints) in outcome.failures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}: {name}", file.display());
            for complaint in &complaints {
                let _ = writeln!(text, "  {complaint}");
            }
            documents.push(json!({ "file": file, "case": name, "complaints": complaints }));
        }
    }
    if as_json {
        print::json(&json!({ "cases": cases, "failed": failed, "failures": documents }))?;
    } else {
        let count = print::count(files.len(), "file");
        print::line(&format!("{text}{cases} cases in {count}: {failed} failed"))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the cases of one file.
pub(super) fn run_file(path: &Path) -> anyhow::Result<Outcome> {
    let text = read_capped(path, FILE_BYTES_MAX).map_err(|why| anyhow::anyhow!("it {why}"))?;
    let file: File = toml::from_str(&text)?;
    let mut names = std::collections::BTreeSet::new();
    for case in &file.cases {
        ensure!(names.insert(&case.name), "two cases are named \"{}\"", case.name);
    }
    let beside = path.parent().unwrap_or(Path::new("."));
    let policies: Vec<PathBuf> = file.policies.iter().map(|file| beside.join(file)).collect();
    let protocol = protocol(&file.defaults.protocol)?;
    let protect = protect(&file.protect, protocol)?;
    let by_target = protect.iter().map(|(target, entries)| (target, entries.as_slice()));
    let bench = Bench::new(compile(&policies)?.into(), by_target)?;
    let mut outcome = Outcome { cases: file.cases.len(), failures: Vec::new() };
    for case in &file.cases {
        let complaints = judge(&bench, &file.defaults, protocol, case)
            .with_context(|| format!("case \"{}\"", case.name))?;
        if !complaints.is_empty() {
            outcome.failures.push((case.name.clone(), complaints));
        }
    }
    Ok(outcome)
}

/// What is protected, by target.
fn protect(
    entries: &[Protect],
    protocol: Protocol,
) -> anyhow::Result<Vec<(TargetName, Vec<ProtectConfig>)>> {
    let mut all: Vec<(TargetName, Vec<ProtectConfig>)> = Vec::new();
    for entry in entries {
        let columns = entry.columns.iter().map(|text| column(text, protocol));
        let columns = columns.collect::<Result<_, _>>()?;
        let mask = Mask::Redact;
        let config = ProtectConfig { class: entry.class.clone(), columns, mask };
        match all.iter_mut().find(|(target, _)| target.0 == entry.target) {
            Some((_, entries)) => entries.push(config),
            None => all.push((TargetName(entry.target.clone()), vec![config])),
        }
    }
    Ok(all)
}

fn column(text: &str, protocol: Protocol) -> anyhow::Result<Column> {
    Column::parse(text, protocol).map_err(|(what, todo)| anyhow::anyhow!("{what}: {todo}"))
}

fn judge(
    bench: &Bench,
    defaults: &Defaults,
    protocol: Protocol,
    case: &Case,
) -> anyhow::Result<Vec<String>> {
    let or =
        |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    let name = or(&case.principal, &defaults.principal);
    let target = TargetName(or(&case.target, &defaults.target));
    let mode = if case.shadow { Mode::Shadow } else { Mode::Enforce };
    let names = (or(&case.db_user, &defaults.db_user), or(&case.database, &defaults.database));
    let (db_user, database) = names.clone();
    let mut subject = bench::subject(Principal { name, uid: defaults.uid }, target, mode, names);
    subject.protocol = protocol;
    subject.executable.clone_from(&case.executable);
    let about = case.about.as_deref().unwrap_or_default();
    let operation = match (&case.sql, &case.ssh) {
        (Some(_), Some(_)) => bail!("it has both sql and ssh"),
        (None, Some(kind)) => over_ssh(kind, about)?,
        (Some(sql), None) => bench.statement_in(protocol, sql, via(case.via.as_deref())?),
        (None, None) => Operation::Login(Login {
            user: db_user,
            database,
            application: None,
            options: Vec::new(),
            replication: false,
            client_tls: false,
        }),
    };
    let (explanation, protected) = bench.explain(&subject, &operation);
    let unresolved = protected.opaque.is_some() && !explanation.decision.unseen_unmasked;
    Ok(compare(case, &explanation.decision, unresolved))
}

/// What is asked over SSH.
fn over_ssh(kind: &str, about: &str) -> anyhow::Result<Operation> {
    let asked = |kind| request::request(kind, 0, about.as_bytes(), "");
    let file = |kind, access| {
        Operation::File(FileRequest {
            kind,
            channel: 0,
            path: about.to_owned(),
            sent: None,
            to: None,
            access,
            attributes: String::new(),
            sha256: None,
        })
    };
    let none = Access::default();
    Ok(match kind {
        "exec" => request::exec(0, about.as_bytes(), ""),
        "shell" => asked(SshKind::Shell),
        "subsystem" => asked(SshKind::Subsystem),
        "env" => asked(SshKind::Env),
        "forward" => asked(SshKind::Forward),
        "agent_forward" => asked(SshKind::AgentForward),
        "x11" => asked(SshKind::X11),
        "file_read" => file(FileKind::Open, Access { read: true, ..none }),
        "file_write" => file(FileKind::Open, Access { write: true, ..none }),
        "file_remove" => file(FileKind::Remove, none),
        "file_list" => file(FileKind::List, none),
        other => bail!("ssh = \"{other}\" is nothing that is asked over SSH"),
    })
}

fn protocol(name: &str) -> anyhow::Result<Protocol> {
    Ok(match name {
        "postgres" => Protocol::Postgres,
        "mysql" => Protocol::Mysql,
        "ssh" => Protocol::Ssh,
        other => bail!("protocol = \"{other}\": use \"postgres\", \"mysql\" or \"ssh\""),
    })
}

fn via(name: Option<&str>) -> anyhow::Result<Via> {
    Ok(match name {
        None | Some("query") => Via::Simple,
        Some("parse") => Via::Parse,
        Some("execute") => Via::Execute,
        Some(other) => bail!("via = \"{other}\": use \"query\", \"parse\" or \"execute\""),
    })
}

/// What is otherwise than the case says.
fn compare(case: &Case, decision: &Decision, unresolved: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |what: &str, expected: String, got: String| {
        if expected != got {
            complaints.push(format!("{what}: expected {expected}, got {got}"));
        }
    };
    let expected = Verdict::from(case.expect);
    if decision.verdict != expected {
        let why = if decision.reason.is_empty() { "" } else { ": " };
        let got = format!("{}{why}{}", decision.verdict.name(), decision.reason);
        check("verdict", expected.name().to_owned(), got);
    }
    let alert = decision.alert.clone().unwrap_or_default();
    if case.alert.is_none() {
        check("alert", "none".to_owned(), or_none(&alert));
    }
    for (what, part, of) in
        [("reason", &case.reason, &decision.reason), ("alert", &case.alert, &alert)]
    {
        if let Some(part) = part
            && !of.contains(part.as_str())
        {
            check(what, format!("...{part}..."), of.clone());
        }
    }
    for policy in &case.policies {
        if !decision.policies.contains(policy) {
            check("policies", policy.clone(), decision.policies.join(", "));
        }
    }
    // Nothing of the result leaves when the statement is refused.
    if decision.verdict != Verdict::Deny {
        check("masked", list(&case.masked), names(&decision.masked));
        check("clear", list(&case.clear), names(&decision.unmasked));
        check("unresolved", case.unresolved.to_string(), unresolved.to_string());
    }
    let duties = decision.duties;
    for (what, expected, got) in [
        ("rows_max", case.rows_max, duties.rows_max),
        ("bytes_max", case.bytes_max, duties.bytes_max),
        ("rows_per_hour", case.rows_per_hour, duties.rows_per_hour),
        ("bytes_per_hour", case.bytes_per_hour, duties.bytes_per_hour),
    ] {
        if expected.is_some() {
            check(what, format!("{expected:?}"), format!("{got:?}"));
        }
    }
    if let Some(level) = &case.durability {
        check("durability", level.clone(), decision.durability.name().to_owned());
    }
    complaints
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn list(columns: &[String]) -> String {
    let mut sorted = columns.to_vec();
    sorted.sort_unstable();
    or_none(&sorted.join(", "))
}

fn names(columns: &[ProtectedColumn]) -> String {
    let name = |column: &ProtectedColumn| format!("{}.{}", column.relation, column.column);
    list(&columns.iter().map(name).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases that the repository ships, at least.
    const CASES_MIN: usize = 100;

    #[test]
    fn the_cases_of_the_documentation_hold() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies/cases");
        let mut cases = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let outcome = run_file(&path).unwrap();
            assert_eq!(outcome.failures, [], "{}", path.display());
            cases += outcome.cases;
        }
        assert!(cases >= CASES_MIN, "only {cases} cases");
    }

    const POLICY: &str = r#"
        @id("reads") @rows_max("9") permit (principal, action == Action::"select", resource);
        @id("h") @alert("honey") forbid (principal, action, resource in Relation::"ledger/honey");
        @id("mail") permit (principal, action == Action::"unmask", resource in Class::"mail");"#;

    const HEAD: &str = "policies = [\"p.cedar\"]\n\
        [[protect]]\ntarget = \"ledger\"\nclass = \"mail\"\ncolumns = [\"public.c.email\"]\n\
        [[protect]]\ntarget = \"ledger\"\nclass = \"ssn\"\ncolumns = [\"public.c.ssn\"]\n\
        [[case]]\nname = \"a\"\n";

    fn complaints(case: &str) -> anyhow::Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.cedar"), POLICY).unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, format!("{HEAD}{case}")).unwrap();
        let failures = run_file(&path)?.failures;
        Ok(failures.into_iter().flat_map(|(_, complaints)| complaints).collect())
    }

    #[test]
    fn a_case_fails_by_everything_that_it_gets_wrong() {
        let both = "sql = \"select email, ssn from c\"\nexpect = \"allow\"\n";
        let right = format!("{both}masked = [\"public.c.ssn\"]\nclear = [\"public.c.email\"]\n");
        for (case, expected) in [
            (right.clone(), ""),
            (format!("{right}rows_max = 9\ndurability = \"process\"\npolicies = [\"mail\"]"), ""),
            (format!("{right}rows_max = 8"), "rows_max: expected Some(8), got Some(9)"),
            (format!("{right}bytes_max = 8"), "bytes_max: expected Some(8), got None"),
            (format!("{right}durability = \"host\""), "durability: expected host, got process"),
            (format!("{right}policies = [\"h\"]"), "policies: expected h, got reads, mail"),
            (format!("{right}alert = \"x\""), "alert: expected ...x..., got "),
            (format!("{right}unresolved = true"), "unresolved: expected true, got false"),
            (both.to_owned(), "masked: expected none, got public.c.ssn"),
            (right.replace("\"allow\"", "\"deny\""), "verdict: expected deny, got allow"),
            (
                "sql = \"select 1 from honey\"\nexpect = \"deny\"".to_owned(),
                "alert: expected none, got honey",
            ),
            (
                "sql = \"delete from c\"\nexpect = \"allow\"".to_owned(),
                "verdict: expected allow, got deny: no policy permits delete of all rows on c by batch",
            ),
            (
                "sql = \"delete from c\"\nexpect = \"deny\"\nreason = \"never\"".to_owned(),
                "reason: expected ...never..., got no policy permits",
            ),
            (
                "expect = \"allow\"".to_owned(),
                "verdict: expected allow, got deny: no policy permits login",
            ),
        ] {
            let got = complaints(&case).unwrap();
            match expected {
                "" => assert_eq!(got, Vec::<String>::new(), "{case}"),
                expected => assert!(
                    got.first().is_some_and(|line| line.starts_with(expected)),
                    "{case}\n{got:?}"
                ),
            }
        }
    }

    #[test]
    fn a_file_that_is_wrong_is_no_success() {
        for (case, expected) in [
            ("expekt = \"allow\"", "unknown field"),
            ("", "missing field `expect`"),
            ("expect = \"maybe\"", "unknown variant"),
            ("expect = \"allow\"\n[[case]]\nname = \"a\"\nexpect = \"deny\"", "two cases"),
            ("expect = \"allow\"\nsql = \"x\"\nvia = \"cable\"", "via = \"cable\""),
        ] {
            let error = format!("{:#}", complaints(case).unwrap_err());
            assert!(error.contains(expected), "{case}: {error}");
        }
    }
}
