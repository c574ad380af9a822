//! Running other programs, and saying what happens.
//!
//! Promises: every program runs at the top of the repository, finds our own tools (`target/tools`)
//! first, and is named in the error when it fails. Progress goes to stderr, so that stdout stays for
//! what a chore prints.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How often a long quiet step says that it is still there, in seconds.
const STILL_THERE_SECONDS: u64 = 15;

/// How often we look whether a quiet step has ended, in milliseconds.
const LOOK_MS: u64 = 50;

/// How much of a failed step's output is shown, in lines.
const TAIL_LINES: usize = 40;

/// Directories of system programs that a user's `PATH` may lack.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The top of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repository().join("target"), |dir| repository().join(dir))
}

/// Where setup puts tools that are ours alone.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// One line to stderr.
pub fn say(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// One line to stdout.
pub fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// `PATH` with our tools in front and the system's programs behind.
pub fn path() -> OsString {
    let tools = tools();
    let own = [tools.join("bin"), tools.join("venv/bin")];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let dirs = own
        .into_iter()
        .chain(std::env::split_paths(&inherited))
        .chain(SYSTEM_DIRS.map(PathBuf::from));
    std::env::join_paths(dirs).unwrap_or(inherited)
}

/// Where a program is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&path()).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A program to run at the top of the repository.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository()).env("PATH", path());
    // `cargo run` sets it for its child; another compiler must not find this one's libraries.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a program with our own stdout and stderr.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    anyhow::ensure!(status.success(), "{} ended with {status}", shown(command));
    Ok(())
}

/// Runs a program with its output in `log`, of which the end is shown when it fails.
pub fn quietly(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = append(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let from = std::fs::metadata(log).map_or(0, |meta| meta.len());
    let mut child = command.spawn().with_context(|| format!("starting {}", shown(command)))?;
    let started = Instant::now();
    let mut said = started;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() >= Duration::from_secs(STILL_THERE_SECONDS) {
            say(&format!("    ... {} s", started.elapsed().as_secs()));
            said = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(LOOK_MS));
    };
    if !status.success() {
        anyhow::bail!(
            "{} ended with {status}; {} ends:\n{}",
            shown(command),
            log.display(),
            tail(log, from)
        );
    }
    Ok(())
}

/// What a program prints on stdout.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {}", shown(command)))?;
    anyhow::ensure!(
        output.status.success(),
        "{} ended with {}\n{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether we are root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn append(log: &Path) -> anyhow::Result<File> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(log);
    file.with_context(|| format!("opening {}", log.display()))
}

fn tail(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0);
    let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let (_, last) = lines.split_at(lines.len().saturating_sub(TAIL_LINES));
    last.join("\n")
}
