//! The main job, told on this kernel: loads, redirects, decides, records, verifies.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::machine::LOGS;
use crate::step;

/// The protected account.
const SERVICE_UID: u32 = 991;
/// An account that no rule names.
const OTHER_UID: u32 = 992;
/// The server's port.
const SERVER_PORT: u16 = 5432;
/// How long anything may take; the machine is emulated.
const WAIT: Duration = Duration::from_mins(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

const AGENT_CONFIG: &str = "/run/tidegate/agent.toml";
const COLLECTOR_CONFIG: &str = "/run/collector/collector.toml";

const AGENT_TOML: &str = r#"[agent]
id = "vm"
state_dir = "/run/tidegate/state"
run_dir = "/run/tidegate/run"

[gate]
port = 15432

[capture]
pin_dir = "/sys/fs/bpf/tidegate"

[spool]
bytes_max = "64 MiB"
segment_bytes = "4 MiB"

[policy]
files = ["/etc/tidegate/policy/*.cedar"]

[collector]

[[principals]]
name = "batch"
uid = 991

[[targets]]
name = "lab-db"
protocol = "postgres"
destinations = ["127.0.0.1:5432"]
principals = ["batch"]

[targets.tls]
server = "off"
"#;

/// Makes this program write [`SSL_REQUEST`] to its stdin, which is a socket.
pub const SAY: &str = "say";

/// What a PostgreSQL server answers with one letter (manual, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How long an answer that must not come is waited for.
const NOTHING: Duration = Duration::from_secs(3);

/// Tells the whole story; any scene that is not as told is the error.
pub fn tell() -> anyhow::Result<()> {
    step(&format!("kernel {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()));
    let server = start_server()?;
    let (collector, agent) = start_tidegate()?;
    statements()?;
    second_line()?;
    let agent = without_agent(agent)?;
    step("the collector has it all, and verify finds nothing wrong");
    evidence()?;
    stop("agent", agent)?;
    run(agent_command("detach", &[]))?;
    anyhow::ensure!(reaches(SERVICE_UID, "SELECT 1")?.status.success(), "not free after detach");
    stop("collector", collector)?;
    drop(server);
    Ok(())
}

fn start_server() -> anyhow::Result<Child> {
    step("PostgreSQL starts");
    let passwd = fs::read_to_string("/etc/passwd")?;
    let owner = passwd.lines().find_map(|line| line.strip_prefix("postgres:x:"));
    let owner = owner.and_then(|rest| rest.split(':').next()).context("no postgres in passwd")?;
    let uid = owner.parse::<u32>()?;
    let programs = postgres_programs()?;
    let mut command = Command::new(format!("{programs}/postgres"));
    command.args(["-D", "/var/lib/postgres", "-c", "listen_addresses=127.0.0.1"]);
    command.args(["-c", "unix_socket_directories=", "-c", "jit=off", "-c", "fsync=off"]);
    command.uid(uid).gid(uid).env("LC_ALL", "C");
    let log = log("postgres")?;
    let server = command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn()?;
    wait_for("PostgreSQL answers", || {
        TcpStream::connect(("127.0.0.1", SERVER_PORT)).is_ok_and(drop_true)
            && reaches(OTHER_UID, "SELECT 1").is_ok_and(|output| output.status.success())
    })?;
    expect(OTHER_UID, "CREATE TABLE notes (note text); INSERT INTO notes VALUES ('moored')", "")?;
    Ok(server)
}

fn drop_true<T>(_: T) -> bool {
    true
}

fn start_tidegate() -> anyhow::Result<(Child, Child)> {
    step("the collector serves");
    let mut init = Command::new("/bin/tidegate-collector");
    init.args(["init", "--data-dir", "/run/collector", "--origin", "vm.tidegate.test/log"]);
    init.args(["--listen", "127.0.0.1:7443"]);
    run(init)?;
    let collector = ready(collector_command("serve", &[]), "collector")?;
    run(collector_command("enrol", &["--agent", "vm", "--out", "/run/enrol.json"]))?;
    step("the agent attaches its hooks");
    fs::create_dir_all("/run/tidegate")?;
    fs::write(AGENT_CONFIG, AGENT_TOML)?;
    run(agent_command("enrol", &["--file", "/run/enrol.json"]))?;
    let agent = ready(agent_command("run", &[]), "agent")?;
    Ok((collector, agent))
}

fn statements() -> anyhow::Result<()> {
    step("an allowed SELECT brings its row");
    expect(SERVICE_UID, "SELECT note FROM notes", "moored")?;
    step("a DELETE without WHERE is refused, with its reason");
    let refused = reaches(SERVICE_UID, "DELETE FROM notes")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    anyhow::ensure!(said.contains("42501"), "not refused with 42501: {said}");
    expect(SERVICE_UID, "SELECT count(*) FROM notes", "1")?;
    step("another account is not touched");
    expect(OTHER_UID, "DELETE FROM notes WHERE note = 'adrift'", "")
}

/// Kills the agent: protected accounts are refused by the hooks, others are not touched.
fn without_agent(mut agent: Child) -> anyhow::Result<Child> {
    step("the agent is killed: the protected account is refused, the other is not");
    agent.kill()?;
    agent.wait()?;
    let refused = reaches(SERVICE_UID, "SELECT 1")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    anyhow::ensure!(said.contains("Connection refused"), "not refused without agent: {said}");
    expect(OTHER_UID, "SELECT 1", "1")?;
    step("the agent starts again");
    let agent = ready(agent_command("run", &[]), "agent")?;
    expect(SERVICE_UID, "SELECT 'again'", "again")?;
    Ok(agent)
}

fn evidence() -> anyhow::Result<()> {
    let mut last = String::new();
    let found = wait_for("the evidence is in the collector", || {
        last = run(collector_command("query", &["--json"])).unwrap_or_default();
        ["SELECT note FROM notes", "DELETE FROM notes", "SELECT 'again'"]
            .iter()
            .all(|text| last.contains(&format!("{text:?}")))
    });
    found.with_context(|| format!("query says: {last}"))?;
    run(collector_command("verify", &[])).map(drop)
}

/// What the connect hook alone would not see, on this kernel's own structures.
fn second_line() -> anyhow::Result<()> {
    step("a daemon with the account's effective user id is led to the gate");
    let mut psql = psql("DELETE FROM notes")?;
    // SAFETY: a plain system call between fork and exec.
    unsafe {
        psql.pre_exec(|| match libc::syscall(libc::SYS_setresuid, -1, SERVICE_UID, -1) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let output = psql.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(said.contains("42501"), "not refused by policy: {said:?}, {}", output.status);
    step("a connection that the account takes over carries nothing");
    let mut stream = TcpStream::connect(("127.0.0.1", SERVER_PORT))?;
    stream.write_all(&SSL_REQUEST)?;
    stream.read_exact(&mut [0])?;
    let handed: std::os::fd::OwnedFd = stream.try_clone()?.into();
    let mut taker = Command::new("/proc/self/exe");
    taker.arg(SAY).uid(SERVICE_UID).gid(SERVICE_UID).stdin(handed);
    let status = taker.status()?;
    anyhow::ensure!(status.success(), "the taker could not write: {status}");
    stream.set_read_timeout(Some(NOTHING))?;
    let read = stream.read(&mut [0]).map_err(|error| error.kind());
    let nothing =
        matches!(read, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::ConnectionAborted));
    anyhow::ensure!(nothing, "the server answered: {read:?}");
    wait_for("the finding is in the collector", || {
        let all = run(collector_command("query", &["--json"])).unwrap_or_default();
        all.contains("bypass dropped") || all.contains("bypass ended")
    })
}

/// Writes to the socket that is this process's stdin; the exit code says whether it could.
pub fn say_on_stdin() -> i32 {
    // SAFETY: the buffer lives through the call.
    let written =
        unsafe { libc::write(libc::STDIN_FILENO, SSL_REQUEST.as_ptr().cast(), SSL_REQUEST.len()) };
    i32::from(usize::try_from(written) != Ok(SSL_REQUEST.len()))
}

/// Runs SQL as `uid` with plain `psql`.
fn reaches(uid: u32, sql: &str) -> anyhow::Result<std::process::Output> {
    Ok(psql(sql)?.uid(uid).gid(uid).stdin(Stdio::null()).output()?)
}

fn psql(sql: &str) -> anyhow::Result<Command> {
    let mut psql = Command::new(format!("{}/psql", postgres_programs()?));
    psql.args(["-XAtq", "-v", "VERBOSITY=verbose", "-d"]);
    psql.arg(format!("host=127.0.0.1 port={SERVER_PORT} user=app dbname=app"));
    psql.args(["-c", sql]).env("HOME", "/tmp").current_dir("/tmp");
    Ok(psql)
}

fn expect(uid: u32, sql: &str, rows: &str) -> anyhow::Result<()> {
    let output = reaches(uid, sql)?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success() && said.trim() == rows,
        "uid {uid}: {sql}: wanted {rows:?}, got {said:?} and {:?}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn postgres_programs() -> anyhow::Result<String> {
    let entry =
        fs::read_dir("/usr/lib/postgresql")?.next().context("no PostgreSQL in the image")?;
    Ok(format!("{}/bin", entry?.path().display()))
}

fn agent_command(name: &str, more: &[&str]) -> Command {
    let mut command = Command::new("/bin/tidegate-agent");
    command.args([name, "--config", AGENT_CONFIG]).args(more);
    command
}

fn collector_command(name: &str, more: &[&str]) -> Command {
    let mut command = Command::new("/bin/tidegate-collector");
    command.args([name, "--config", COLLECTOR_CONFIG]).args(more);
    command
}

fn log(name: &str) -> anyhow::Result<File> {
    Ok(OpenOptions::new().create(true).append(true).open(format!("{LOGS}/{name}.log"))?)
}

fn run(mut command: Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a program that says `ready:` on stdout once it is.
fn ready(mut command: Command, name: &str) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(name)?);
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let stdout = child.stdout.take().context("its stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + WAIT;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("ready:") => return Ok(child),
            Ok(_) => {}
            Err(error) => anyhow::bail!("{name} is not ready: {error}, {:?}", child.try_wait()?),
        }
    }
}

fn stop(name: &str, mut child: Child) -> anyhow::Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let status: ExitStatus = child.wait()?;
    anyhow::ensure!(status.success(), "{name} ended with {status} after SIGTERM");
    Ok(())
}

fn wait_for(what: &str, mut look: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT;
    while !look() {
        anyhow::ensure!(Instant::now() < deadline, "{what}: not so after {WAIT:?}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
