//! Processes of a laboratory: as which user, in which cgroup, and ended for certain.
//!
//! Promises: a [`Daemon`] is stopped when dropped, and dies with the harness (`PR_SET_PDEATHSIG`)
//! unless it is to be kept. [`Identity`] takes effect before the program starts: cgroup first, while
//! still root, then groups and user. Output of a daemon goes to its log file, whole.
//!
//! Limits: `PR_SET_PDEATHSIG` looks at the thread that started the process, so daemons are started
//! from the thread that owns the laboratory.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Pause between two looks at a process that is to end.
const LOOK_MS: u64 = 5;
/// How long a process may take to end after SIGTERM, before SIGKILL.
const STOP_MS_MAX: u64 = 20_000;

/// As whom a process runs.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// User and group id; root where absent.
    pub uid: Option<u32>,
    /// Group id where it differs from the user id.
    pub gid: Option<u32>,
    /// Cgroup directory; the harness's own where absent.
    pub cgroup: Option<PathBuf>,
    /// Survives the harness.
    pub keep: bool,
}

impl Identity {
    /// Makes `command` take this identity before its program starts.
    pub fn apply(&self, command: &mut Command) -> anyhow::Result<()> {
        let procs = match &self.cgroup {
            Some(dir) => {
                let path = dir.join("cgroup.procs");
                let file = OpenOptions::new().write(true).open(&path);
                Some(file.with_context(|| format!("opening {}", path.display()))?)
            }
            None => None,
        };
        let (uid, gid, keep) = (self.uid, self.gid.or(self.uid), self.keep);
        // SAFETY: between fork and exec only async-signal-safe calls are made: write, setgroups,
        // setgid, setuid, prctl; nothing allocates.
        unsafe {
            command.pre_exec(move || become_identity(procs.as_ref(), uid, gid, keep));
        }
        Ok(())
    }
}

fn become_identity(
    procs: Option<&File>,
    uid: Option<u32>,
    gid: Option<u32>,
    keep: bool,
) -> std::io::Result<()> {
    let check = |code: libc::c_int| match code {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    };
    if let Some(procs) = procs {
        // "0" means the process that writes (cgroups(7)).
        // SAFETY: the descriptor is open and the buffer is a constant of that length.
        if unsafe { libc::write(procs.as_raw_fd(), b"0\n".as_ptr().cast(), 2) } != 2 {
            return Err(std::io::Error::last_os_error());
        }
    }
    // SAFETY: plain system calls on values; an empty group list needs no pointer.
    unsafe {
        if let (Some(uid), Some(gid)) = (uid, gid) {
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setgid(gid))?;
            check(libc::setuid(uid))?;
        }
        if keep {
            check(libc::setsid())?;
        } else {
            // Set last: a change of user clears it (prctl(2)).
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
    }
    Ok(())
}

/// A process that runs until it is stopped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    keep: bool,
}

impl Daemon {
    /// Starts `command` with stdout and stderr appended to `log`.
    pub fn start(
        name: &str,
        command: &mut Command,
        identity: &Identity,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let file = append(log)?;
        identity.apply(command)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, keep: identity.keep })
    }

    /// Starts `command` with stderr appended to `log`, and waits for a line on stdout that begins with
    /// `prefix`; gives the rest of that line. Later lines go to the log too.
    pub fn start_until_line(
        name: &str,
        command: &mut Command,
        identity: &Identity,
        log: &Path,
        prefix: &str,
        wait: Duration,
    ) -> anyhow::Result<(Self, String)> {
        let file = append(log)?;
        identity.apply(command)?;
        command.stdin(Stdio::null()).stderr(file.try_clone()?);
        // A kept process must not depend on a pipe that ends with the harness.
        let watch = if identity.keep {
            let out = log.with_extension("stdout");
            command.stdout(File::create(&out)?);
            Watch::File(out)
        } else {
            command.stdout(Stdio::piped());
            Watch::Pipe
        };
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let lines = match (watch, child.stdout.take()) {
            (Watch::File(out), _) => Lines::File(out),
            (Watch::Pipe, Some(pipe)) => Lines::Channel(follow(BufReader::new(pipe), file)),
            (Watch::Pipe, None) => anyhow::bail!("{name} has no stdout"),
        };
        let mut daemon = Self { name: name.to_owned(), child, keep: identity.keep };
        let found = lines.find(prefix, wait, &mut daemon);
        let rest = found.with_context(|| {
            format!("{name} did not say {prefix:?}; its log ends:\n{}", super::tail(log))
        })?;
        Ok((daemon, rest))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGTERM, and SIGKILL when it takes too long (which is an error); waits for the end.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.stop_with(Signal::SIGTERM)
    }

    /// As [`Daemon::stop`], with another signal.
    pub fn stop_with(&mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        kill(self.raw_pid()?, signal)?;
        let deadline = Instant::now() + Duration::from_millis(STOP_MS_MAX);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        self.kill()?;
        anyhow::bail!("{} did not end within {STOP_MS_MAX} ms of {signal}", self.name)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn raw_pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.keep && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

enum Watch {
    File(PathBuf),
    Pipe,
}

enum Lines {
    File(PathBuf),
    Channel(mpsc::Receiver<String>),
}

impl Lines {
    fn find(&self, prefix: &str, wait: Duration, daemon: &mut Daemon) -> anyhow::Result<String> {
        let deadline = Instant::now() + wait;
        let pick = |line: &str| line.strip_prefix(prefix).map(|rest| rest.trim().to_owned());
        loop {
            let found = match self {
                Self::File(path) => std::fs::read_to_string(path)?.lines().find_map(pick),
                Self::Channel(lines) => {
                    match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                        Ok(line) => pick(&line),
                        Err(error) => anyhow::bail!("{error} (exit: {:?})", daemon.ended()?),
                    }
                }
            };
            if let Some(rest) = found {
                return Ok(rest);
            }
            if matches!(self, Self::File(_)) {
                anyhow::ensure!(daemon.ended()?.is_none(), "it ended: {:?}", daemon.ended()?);
                anyhow::ensure!(Instant::now() < deadline, "timed out after {wait:?}");
                std::thread::sleep(Duration::from_millis(LOOK_MS));
            }
        }
    }
}

/// Copies lines to the log and to the receiver until the pipe ends.
fn follow(mut from: BufReader<std::process::ChildStdout>, mut log: File) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while from.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = log.write_all(line.as_bytes());
            // Nobody listens once the ready line came.
            let _ = sender.send(line.trim_end().to_owned());
            line.clear();
        }
    });
    receiver
}

fn append(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

/// Looks every few milliseconds until `look` gives something, or the time is over.
pub fn wait_for<T>(
    what: &str,
    wait: Duration,
    look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    wait_slowly_for(what, wait, Duration::from_millis(LOOK_MS), look)
}

/// As [`wait_for`], with another pause between two looks: for a look that costs something.
pub fn wait_slowly_for<T>(
    what: &str,
    wait: Duration,
    pause: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        anyhow::ensure!(Instant::now() < deadline, "{what}: not so after {wait:?}");
        std::thread::sleep(pause);
    }
}
