//! The command line.

mod approvals;
mod ask;
mod coverage;
mod prove;
mod show;
mod ui;
mod witness;

use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::acts::Act;
use crate::config::{Config, UPLINK_PORT, is_plain_name};
use crate::state::{State, TOKEN_SECONDS};
use crate::{clock, files, index, init, serve, verify};

#[derive(Parser)]
#[command(
    name = "tidegate-collector",
    version,
    about = "Keeps the agents' records, and proves them"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data directory with its CA, keys and collector.toml
    Init {
        /// Directory to make; must be empty where it is there
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Name of the log, for ever: one word like audit.example/2026
        #[arg(long)]
        origin: String,
        /// Address and port for the agents
        #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), UPLINK_PORT))]
        listen: SocketAddr,
        /// Host name or address that agents may use; the first is what they are told
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Take the agents' records in, keep them, export them
    Serve(ConfigFile),
    /// Make a one-time token for an agent
    Enrol {
        #[command(flatten)]
        config: ConfigFile,
        /// The agent's name
        #[arg(long)]
        agent: String,
        /// File to write, for `tidegate-agent enrol`; it holds the token
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How long the token is good
        #[arg(long, value_name = "N", default_value_t = TOKEN_SECONDS)]
        seconds: u64,
    },
    /// Ask who did what
    Query(Box<ask::Query>),
    /// Show one session as a timeline
    Replay(ask::Replay),
    /// Walk the whole log, a part, one record or a bundle, and name what is broken; exit code 0 verified,
    /// 10 with gaps, 20 tampered, 30 not decided
    Verify(prove::Verify),
    /// Say whether a period is accounted for, or which part of it is not and why; exit code 0 whole, 10 whole with
    /// open doors, 20 not whole, 30 not decided
    Coverage(coverage::Coverage),
    /// Write what a question finds, with everything that proves it, for an examiner
    ExportBundle(Box<ask::ExportBundle>),
    /// Write the log as C2SP tlog-tiles, for any static file server
    ExportTlog(prove::ExportTlog),
    /// Be a witness of other logs (C2SP tlog-witness)
    #[command(subcommand)]
    Witness(witness::Witness),
    /// List the agents
    Agents {
        #[command(flatten)]
        config: ConfigFile,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Make the index anew from the log (the collector must not be serving)
    Reindex(ConfigFile),
    /// Say how the log, the index and the exports stand
    Status {
        #[command(flatten)]
        config: ConfigFile,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Statements that wait for people
    #[command(subcommand)]
    Approvals(approvals::Approvals),
    /// The review pages: who may come in
    Ui(ui::Ui),
    /// Print a completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one a command
    #[command(hide = true)]
    Man {
        /// Directory to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let undecided = matches!(cli.command, Command::Verify(_) | Command::Coverage(_));
    match run(cli.command) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is gone, the exit code still says it.
            let _gone = writeln!(io::stderr(), "tidegate-collector: {error:#}");
            if undecided { ExitCode::from(verify::UNDECIDED) } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init { data_dir, origin, listen, names } => {
            init::init(&init::Options {
                data_dir: &data_dir,
                origin: &origin,
                listen,
                names: &names,
            })?;
            writeln!(io::stdout(), "made {}", data_dir.join("collector.toml").display())?;
        }
        Command::Serve(file) => run_serve(&Config::load(&file.config)?)?,
        Command::Enrol { config, agent, out, seconds } => {
            run_enrol(&Config::load(&config.config)?, &agent, &out, seconds)?;
        }
        Command::Query(query) => ask::query(&query)?,
        Command::Replay(replay) => ask::replay(&replay)?,
        Command::Verify(arguments) => return prove::verify(&arguments),
        Command::Coverage(asked) => return coverage::run(&asked),
        Command::ExportBundle(export) => ask::export_bundle(&export)?,
        Command::ExportTlog(arguments) => prove::export_tlog(&arguments)?,
        Command::Witness(witness) => witness::run(witness)?,
        Command::Agents { config, json } => {
            show::agents(&Config::load(&config.config)?, json, &mut io::stdout().lock())?;
        }
        Command::Reindex(file) => {
            let paths = Config::load(&file.config)?.paths();
            State::open(&paths.state())?.act(&Act::new("reindexed", ""))?;
            let entries = index::rebuild(&paths.log(), &paths.index())?;
            writeln!(io::stdout(), "indexed {entries} entries")?;
        }
        Command::Status { config, json } => {
            show::status(&Config::load(&config.config)?, json, &mut io::stdout().lock())?;
        }
        Command::Approvals(command) => approvals::run(&command, &mut io::stdout().lock())?,
        Command::Ui(command) => ui::run(&command, &mut io::stdout().lock())?,
        Command::Man { out } => clap_mangen::generate_to(Cli::command(), &out)
            .with_context(|| format!("writing to {}", out.display()))?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate-collector", &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // A line that the log's disk does not take is lost; to complain of it on the same stderr would
        // panic, and take the collector down.
        .log_internal_errors(false)
        .init();
}

fn run_serve(config: &Config) -> anyhow::Result<()> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut running = serve::start(config).await?;
        let pages = running.ui.map(|at| format!(" ui={at}")).unwrap_or_default();
        writeln!(io::stdout(), "ready: uplink={}{pages}", running.uplink)?;
        io::stdout().flush()?;
        tokio::select! {
            error = running.failed() => return Err(error),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        running.stop().await
    })
}

fn run_enrol(
    config: &Config,
    agent: &str,
    out: &std::path::Path,
    seconds: u64,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        is_plain_name(agent),
        "agent {agent:?}: at most 64 letters, digits, '.', '_' and '-'"
    );
    let paths = config.paths();
    let port = match config.uplink.listen.port() {
        0 => {
            let text = files::read(&paths.uplink_address())
                .context("uplink.listen has port 0, so the collector must be serving")?;
            text.parse::<SocketAddr>().context("uplink.addr")?.port()
        }
        port => port,
    };
    let name = &config.uplink.name;
    let host = if name.contains(':') { format!("[{name}]") } else { name.clone() };
    let state = State::open(&paths.state())?;
    state.act(&Act::new("token_made", format!("agent {agent}, good for {seconds} s")))?;
    let token = state.new_token(agent, clock::now_ns(), seconds)?;
    let file = serde_json::json!({
        "v": 1,
        "agent": agent,
        "address": format!("{host}:{port}"),
        "server_name": name,
        "origin": config.collector.origin,
        "ca_pem": files::read(&paths.ca_certificate())?,
        "token": token,
    });
    let text = format!("{}\n", serde_json::to_string_pretty(&file)?);
    files::replace(out, text.as_bytes(), files::SECRET)
}
