//! The command line.

mod show;
mod ui;

use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, UPLINK_PORT, is_plain_name};
use crate::query::{Filter, ask, parse_time, write_json, write_table};
use crate::state::{State, TOKEN_SECONDS};
use crate::{clock, files, index, init, keys, serve, verify};

/// Answers of a query where no limit is given.
const QUERY_LIMIT: usize = 100;

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
    Query(Box<Query>),
    /// Walk the whole log and name the first broken record; exit code 0 verified, 10 with gaps,
    /// 20 tampered, 30 not decided
    Verify(Verify),
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
    /// The review pages: who may come in
    Ui(ui::Ui),
    /// Print a completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
struct Query {
    #[command(flatten)]
    config: ConfigFile,
    /// Principal or database user
    #[arg(long)]
    who: Option<String>,
    /// Target
    #[arg(long)]
    target: Option<String>,
    /// Relation: name or schema.name
    #[arg(long)]
    table: Option<String>,
    /// Verdict
    #[arg(long, value_parser = ["allow", "deny", "would_deny", "passed_open"])]
    verdict: Option<String>,
    /// From then on: 2026-11-21T02:15:00Z, or an age like 15m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Part of the statement
    #[arg(long)]
    text: Option<String>,
    /// query, parse, execute, login, cancel, a statement's kind, lifecycle, heartbeat, ..
    #[arg(long)]
    kind: Option<String>,
    /// Agent
    #[arg(long)]
    agent: Option<String>,
    /// Session id
    #[arg(long)]
    session: Option<String>,
    /// How many, the newest
    #[arg(long, value_name = "N", default_value_t = QUERY_LIMIT)]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Verify {
    /// Configuration file of the collector
    #[arg(long, value_name = "FILE", required_unless_present = "log")]
    config: Option<PathBuf>,
    /// Directory of the log, or of a copy
    #[arg(long, value_name = "DIR", requires = "keys", conflicts_with = "config")]
    log: Option<PathBuf>,
    /// Public keys, best kept elsewhere than the log
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// For machines
    #[arg(long)]
    json: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let undecided = matches!(cli.command, Command::Verify(_));
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
        Command::Query(query) => run_query(&query)?,
        Command::Verify(arguments) => return run_verify(&arguments),
        Command::Agents { config, json } => {
            show::agents(&Config::load(&config.config)?, json, &mut io::stdout().lock())?;
        }
        Command::Reindex(file) => {
            let paths = Config::load(&file.config)?.paths();
            let entries = index::rebuild(&paths.log(), &paths.index())?;
            writeln!(io::stdout(), "indexed {entries} entries")?;
        }
        Command::Status { config, json } => {
            show::status(&Config::load(&config.config)?, json, &mut io::stdout().lock())?;
        }
        Command::Ui(command) => ui::run(&command, &mut io::stdout().lock())?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tidegate-collector", &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_serve(config: &Config) -> anyhow::Result<()> {
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

fn run_query(query: &Query) -> anyhow::Result<()> {
    let config = Config::load(&query.config.config)?;
    let now = clock::signed_ns(clock::now_ns());
    let time =
        |text: &Option<String>| text.as_deref().map(|text| parse_time(text, now)).transpose();
    let filter = Filter {
        who: query.who.clone(),
        target: query.target.clone(),
        table: query.table.clone(),
        verdict: query.verdict.clone(),
        kind: query.kind.clone(),
        text: query.text.clone(),
        agent: query.agent.clone(),
        session: query.session.clone(),
        since_ns: time(&query.since)?,
        until_ns: time(&query.until)?,
        limit: query.limit,
        ..Filter::default()
    };
    let db = index::open_for_reading(&config.paths().index())?;
    let answers = ask(&db, &filter)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if query.json {
        write_json(&mut out, &answers)?;
    } else {
        write_table(&mut out, &answers)?;
    }
    out.flush()?;
    Ok(())
}

fn run_verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let (log, keys_file) = match (&arguments.config, &arguments.log) {
        (_, Some(log)) => (log.clone(), arguments.keys.clone().context("--log needs --keys")?),
        (Some(config), None) => {
            let paths = Config::load(config)?.paths();
            let keys = arguments.keys.clone().unwrap_or_else(|| paths.keys());
            (paths.log(), keys)
        }
        (None, None) => anyhow::bail!("give --config, or --log and --keys"),
    };
    let report = verify::verify(&log, &keys::Keys::read(&keys_file)?)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.json {
        writeln!(out, "{}", verify::to_json(&report))?;
    } else {
        verify::write_text(&mut out, &report)?;
    }
    out.flush()?;
    Ok(ExitCode::from(report.exit_code()))
}
