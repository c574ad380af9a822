//! `policy`: check policies, explain a decision, test cases, replay what was recorded.
//!
//! Promises: opens no socket and writes nothing; what it says comes from the same compiled policies,
//! the same analyser and the same decider that `run` uses.
//!
//! Known gaps: no catalogue is read, so views, functions and names without a schema are what the
//! statement says of them; a running agent with a catalogue connection may know more. What a policy
//! says of the control group is judged as if it could not be read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use tidegate_event::Via;
use tidegate_policy::{Mention, PolicySet, Source};

use super::print;
use crate::config::masking::ProtectedColumn;
use crate::config::{Config, POLICY_FILE_BYTES_MAX, read_capped};

mod bench;
mod cases;
mod explain;
mod replay;

/// The commands below `policy`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Say whether policy files are valid, and what each policy does.
    Check {
        /// Cedar files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what would be decided on a statement, by which policies, and why.
    Explain(Explain),
    /// Run the cases in these files. Exits with 1 when one fails.
    Test {
        /// Files with cases; docs/policies/README.md says how they are written.
        #[arg(required = true, value_name = "CASES")]
        files: Vec<PathBuf>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Say what other policies would have decided on what was recorded.
    Replay(Replay),
}

/// `policy explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    config: super::ConfigArg,
    /// These policies instead of those that the configuration names.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// The account, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    principal: String,
    /// The target, by its name in the configuration.
    #[arg(long, value_name = "NAME")]
    target: String,
    /// Database user; the principal's name where it is not given.
    #[arg(long, value_name = "NAME")]
    db_user: Option<String>,
    /// Database; the database user's name where it is not given.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Path of the executable.
    #[arg(long, value_name = "PATH")]
    executable: Option<String>,
    /// How the statement comes.
    #[arg(long, value_enum, default_value_t = Way::Query)]
    via: Way,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// The statement; `-` reads it from standard input.
    sql: String,
}

/// `policy replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Replay {
    /// The configuration: who is protected, what is protected, and the policies.
    #[command(flatten)]
    config: super::ConfigArg,
    /// These policies instead of those that the configuration names.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Changes that are listed, those that came most often first.
    #[arg(long, value_name = "N", default_value_t = replay::LISTED)]
    limit: usize,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// What `tidegate-collector query --json` wrote; `-` reads standard input. Files before it are
    /// policies too, so that a shell's pattern can stand behind `--policy`.
    #[arg(required = true, value_name = "RECORDS")]
    files: Vec<PathBuf>,
}

/// How a statement comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// Simple query protocol.
    Query,
    /// Prepared.
    Parse,
    /// Execution of what was prepared.
    Execute,
}

impl From<Way> for Via {
    fn from(way: Way) -> Self {
        match way {
            Way::Query => Self::Simple,
            Way::Parse => Self::Parse,
            Way::Execute => Self::Execute,
        }
    }
}

pub(super) fn run(command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Check { files } => {
            let set = compile(files)?;
            for line in set.explain() {
                print::line(&line)?;
            }
            let count = print::count(files.len(), "file");
            print::line(&format!("valid: {} policies in {count}, {}", set.len(), set.digest()))?;
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Explain(args) => explain::run(args),
        PolicyCommand::Test { files, json } => cases::run(files, *json),
        PolicyCommand::Replay(args) => replay::run(args),
    }
}

/// What policies say of classes and columns that the configuration doesn't protect: it means nothing,
/// and is most likely misspelt.
pub(super) fn not_protected(config: &Config, set: &PolicySet) -> Vec<String> {
    let mut warnings = Vec::new();
    for mention in set.mentions() {
        let entries = || {
            let targets = config.targets.iter();
            targets.flat_map(|target| target.protect.iter().map(move |entry| (target, entry)))
        };
        let (known, named) = match mention {
            Mention::Class(class) => {
                (entries().any(|(_, entry)| entry.class == *class), format!("class \"{class}\""))
            }
            Mention::Column { target, schema, relation, column } => {
                let mut all = entries()
                    .filter(|(of, _)| of.name.0 == *target)
                    .flat_map(|(_, entry)| entry.columns.iter());
                let is_it = |one: &ProtectedColumn| {
                    // A column that is protected in every schema is asked in each that is mentioned.
                    let fits = one.schema.is_none() || schema.is_none() || one.schema == *schema;
                    fits && one.relation == *relation && one.column == *column
                };
                let schema = schema.as_ref().map_or_else(String::new, |name| format!("{name}."));
                (all.any(is_it), format!("column {schema}{relation}.{column} of \"{target}\""))
            }
        };
        if !known {
            warnings.push(format!(
                "the policies name {named}, which is not protected; add it to [[protect]] or correct \
                 the name"
            ));
        }
    }
    warnings
}

/// The policies of the configuration, or others in their place.
fn policies(config: &Config, instead: &[PathBuf]) -> anyhow::Result<PolicySet> {
    if instead.is_empty() {
        return crate::app::load_policy(config);
    }
    Ok(compile(instead)?.with_durability(config.policy.durability))
}

/// Reads and compiles. The error lists every complaint with file, line and column.
fn compile(files: &[PathBuf]) -> anyhow::Result<PolicySet> {
    let sources = files.iter().map(|file| source(file)).collect::<anyhow::Result<Vec<_>>>()?;
    PolicySet::compile(&sources).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the policy cannot be used:\n{}", lines.join("\n"))
    })
}

fn source(path: &Path) -> anyhow::Result<Source> {
    let text = read_capped(path, POLICY_FILE_BYTES_MAX)
        .map_err(|why| anyhow::anyhow!("{} {why}", path.display()))?;
    Ok(Source { name: path.display().to_string(), text })
}

/// Standard input as text.
fn standard_input(bytes_max: u64) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let stdin = std::io::stdin().lock();
    stdin.take(bytes_max.saturating_add(1)).read_to_string(&mut text).context("standard input")?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > bytes_max {
        bail!("standard input is longer than {bytes_max} bytes");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemAccounts;

    #[test]
    fn names_of_what_is_not_protected_are_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.cedar"), "").unwrap();
        let text = "[agent]\nid = \"a\"\n[policy]\nfiles = [\"p.cedar\"]\n\
            [[targets]]\nname = \"ledger\"\nprotocol = \"postgres\"\n\
            destinations = [\"10.0.0.5:5432\"]\ntls.server_name = \"db\"\n\
            [[protect]]\ntarget = \"ledger\"\nclass = \"ssn\"\nmask = \"redact\"\n\
            columns = [\"public.c.ssn\", \"c.pin\"]\n";
        let config = Config::parse(&dir.path().join("agent.toml"), text, &SystemAccounts).unwrap();
        for (resource, expected) in [
            ("Class::\"ssn\"", None),
            ("Column::\"ledger/public.c.ssn\"", None),
            ("Column::\"ledger/c.ssn\"", None),
            ("Column::\"ledger/audit.c.pin\"", None),
            ("Class::\"snn\"", Some("the policies name class \"snn\", which is not protected")),
            ("Column::\"ledger/audit.c.ssn\"", Some("column audit.c.ssn of \"ledger\"")),
            ("Column::\"ledger/c.ssm\"", Some("column c.ssm of \"ledger\"")),
            ("Column::\"other/c.ssn\"", Some("column c.ssn of \"other\"")),
        ] {
            let text = format!(
                "permit (principal, action == Action::\"unmask\", resource in {resource});"
            );
            let set = PolicySet::compile(&[Source { name: "p.cedar".to_owned(), text }]).unwrap();
            let warnings = not_protected(&config, &set);
            let first = warnings.first().map_or("", String::as_str);
            assert_eq!(warnings.len(), usize::from(expected.is_some()), "{resource}: {first}");
            assert!(first.contains(expected.unwrap_or("")), "{resource}: {first}");
        }
    }
}
