//! The command line.
//!
//! Promises: exit code 0 is success, 1 is a failure that the text explains, 2 is a wrong command
//! line. What a command found goes to stdout, what went wrong to stderr; `--json` prints one JSON
//! document for machines. Colour only on a terminal.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::{app, check, doctor, telemetry};

mod policy;
mod print;
mod trust;

/// Where the configuration is, unless the command line says otherwise.
pub const CONFIG_DEFAULT: &str = "/etc/tidegate/agent.toml";

/// Stands between a host's service accounts and the systems they reach.
#[derive(Debug, Parser)]
#[command(name = "tidegate-agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct ConfigArg {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct JsonArg {
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Guard this host until SIGTERM; the hooks stay behind.
    Run(ConfigArg),
    /// Say whether configuration and policy are valid, and what they do.
    Check(ConfigArg),
    /// Ask the running agent how it is doing.
    Status {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Say what this host lacks, and what to do. Exits with 1 when something fails.
    Doctor {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Take the hooks away; this is recorded. Protected targets are reached directly afterwards.
    Detach(ConfigArg),
    /// Join a collector with the file that `tidegate-collector enrol` wrote.
    Enrol {
        #[command(flatten)]
        config: ConfigArg,
        /// The collector's one-time invitation.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Make this host's SSH clients trust the gate, or take that back.
    #[command(subcommand)]
    Ssh(SshCommand),
    /// Check policies, explain a decision, test cases, replay what was recorded.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Print a completion script.
    Completions {
        /// For this shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a command.
    #[command(hide = true)]
    Man {
        /// Directory to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SshCommand {
    /// Write the gate's `@cert-authority` line into the system's known_hosts.
    Trust {
        #[command(flatten)]
        config: ConfigArg,
        /// Take the line away again.
        #[arg(long)]
        undo: bool,
        /// Print the line of the CA by which the gate logs in (`user_certificate`), for the servers'
        /// `TrustedUserCAKeys`, and do nothing else.
        #[arg(long, conflicts_with_all = ["undo", "file"])]
        user_ca: bool,
        /// The file that all OpenSSH clients of this host read.
        #[arg(long, value_name = "FILE", default_value = trust::KNOWN_HOSTS)]
        file: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed too.
            let _ = writeln!(std::io::stderr(), "tidegate-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let config = Config::load(&args.config)?;
            telemetry::init();
            app::run(config)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => run_check(&args),
        Command::Status { config, json } => run_status(&config, &json),
        Command::Doctor { config, json } => {
            let findings = doctor::examine(&config.config);
            print::findings(&findings, json.json)?;
            let failed = doctor::worst(&findings) == doctor::Level::Fail;
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Detach(args) => run_detach(&args),
        Command::Enrol { config, file } => {
            let config = Config::load(&config.config)?;
            telemetry::init();
            enrol(&config, &file)?;
            print::line(&format!(
                "enrolled; the collector is in {}",
                config.enrolment_file().display()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Policy(command) => policy::run(&command),
        Command::Ssh(SshCommand::Trust { config, undo, user_ca, file }) => {
            let config = Config::load(&config.config)?;
            if user_ca {
                print::line(&crate::ssh::host::user_ca_line(&config.state_dir)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            print::line(&trust::run(&config.state_dir, &file, undo)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { out } => {
            clap_mangen::generate_to(Cli::command(), &out)
                .with_context(|| format!("writing to {}", out.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate-agent", &mut out);
            std::io::stdout().write_all(&out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_check(args: &ConfigArg) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let policy = app::load_policy(&config)?;
    let mut explained = check::explain(&config, &policy.explain());
    explained.warnings.extend(policy::not_protected(&config, &policy));
    print::explained(&config, &explained)?;
    Ok(ExitCode::SUCCESS)
}

fn run_status(args: &ConfigArg, json: &JsonArg) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    match control::ask(&config.control_socket(), Request::Status)? {
        Some(Answer::Status(status)) => {
            print::status(&status, json.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Answer::Error { text } | Answer::Done { text }) => anyhow::bail!(text),
        None => anyhow::bail!(
            "no agent answers at {}; protected targets are refused while the hooks are attached \
             (`doctor` says more)",
            config.control_socket().display()
        ),
    }
}

fn run_detach(args: &ConfigArg) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let text = match control::ask(&config.control_socket(), Request::Detach)? {
        Some(Answer::Done { text }) => text,
        Some(Answer::Error { text }) => anyhow::bail!("not detached: {text}"),
        Some(Answer::Status(_)) => anyhow::bail!("the agent answered something else; see its log"),
        None => {
            telemetry::init();
            if app::detach_offline(&config).context("not detached")? {
                "detached and recorded; no agent was running".to_owned()
            } else {
                "nothing was attached; recorded".to_owned()
            }
        }
    };
    print::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn enrol(config: &Config, file: &std::path::Path) -> anyhow::Result<()> {
    crate::uplink::enrol(config, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_is_read() {
        for (line, expected) in [
            ("run --config a.toml", true),
            ("check", true),
            ("status --config a.toml --json", true),
            ("doctor --json", true),
            ("detach --config a.toml", true),
            ("enrol --config a.toml --file enrol.json", true),
            ("completions bash", true),
            ("policy check a.cedar b.cedar", true),
            ("policy explain --config a.toml --principal p --target t --via parse -", true),
            ("policy test --json a.toml b.toml", true),
            ("policy replay --config a.toml --policy a.cedar b.cedar r.jsonl --limit 5", true),
            ("policy replay --config a.toml -", true),
            ("ssh trust --undo --file k", true),
            ("ssh", false),
            ("policy check", false),
            ("policy explain --principal p --target t", false),
            ("policy", false),
            ("enrol", false),
            ("run a.toml", false),
            ("stop", false),
            ("", false),
        ] {
            let words = std::iter::once("tidegate-agent").chain(line.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).is_ok(), expected, "{line}");
        }
    }
}
