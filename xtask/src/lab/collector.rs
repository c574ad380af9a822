//! A collector of its own.
//!
//! Promises: serving when [`Collector::serve`] returns; the address stays the same over restarts, so
//! that an enrolled agent finds it again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context as _;

use super::evidence::Evidence;
use super::places;
use super::process::{Daemon, Identity, wait_for, wait_slowly_for};

/// How long a collector may take to serve; opening a long log takes the most of it.
const START_MS_MAX: u64 = 60_000;
/// How long evidence may take from the agent's journal into the index.
const EVIDENCE_MS_MAX: u64 = 600_000;
/// Pause between two looks into the index.
const EVIDENCE_LOOK_MS: u64 = 100;
/// More records than any laboratory makes.
const QUERY_LIMIT: &str = "10000000";
/// How long the collector may take to sign what it has.
const VERIFY_MS_MAX: u64 = 20_000;
/// Exit code of `verify`: whole and true.
pub const VERIFY_GREEN: i32 = 0;
/// Exit code of `verify`: not decided.
pub const VERIFY_UNDECIDED: i32 = 30;
/// Exit code of `verify` when the agent itself declared gaps.
pub const VERIFY_GAPS: i32 = 10;
/// Exit code of `verify` when something was changed.
pub const VERIFY_TAMPERED: i32 = 20;

/// A collector's data, and its process while it serves.
#[derive(Debug)]
pub struct Collector {
    dir: PathBuf,
    program: PathBuf,
    daemon: Option<Daemon>,
    keep: bool,
}

impl Collector {
    /// Makes a collector's data in `dir/data`. `toml` is put behind the configuration it writes.
    pub fn init(dir: &Path, toml: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let program = places::our_program("tidegate-collector")?;
        let collector = Self { dir: dir.to_owned(), program, daemon: None, keep: false };
        let listen = format!("127.0.0.1:{}", places::free_port()?);
        let mut init = collector.program();
        init.arg("init").arg("--data-dir").arg(collector.data());
        init.args(["--origin", "lab.tidegate.test/log", "--listen", &listen]);
        places::run(&mut init)?;
        let config = fs::read_to_string(collector.config())
            .with_context(|| format!("reading {}", collector.config().display()))?;
        fs::write(collector.config(), format!("{config}\n{toml}"))?;
        Ok(collector)
    }

    /// Serves until stopped, with the harness's end or without.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Starts serving, if it does not.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let mut command = self.program();
        command.arg("serve").arg("--config").arg(self.config());
        let (daemon, _) = Daemon::start_until_line(
            "tidegate-collector serve",
            &mut command,
            &Identity { keep: self.keep, ..Identity::default() },
            &self.dir.join("serve.log"),
            "ready:",
            Duration::from_millis(START_MS_MAX),
        )?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends serving in good order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        match self.daemon.take() {
            Some(mut daemon) => {
                let status = daemon.stop()?;
                anyhow::ensure!(status.success(), "the collector ended with {status}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Its process id while it serves.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.data().join("collector.toml")
    }

    /// A command of the collector's program.
    pub fn program(&self) -> Command {
        Command::new(&self.program)
    }

    /// Makes an enrolment for agent `name`, in `file`; gives the file back.
    pub fn enrol(&self, name: &str, file: &Path) -> anyhow::Result<PathBuf> {
        let mut command = self.program();
        command.arg("enrol").arg("--config").arg(self.config());
        command.args(["--agent", name]).arg("--out").arg(file);
        places::run(&mut command)?;
        Ok(file.to_owned())
    }

    /// Everything in its index, but heartbeats and the beginnings of chains.
    pub fn evidence(&self) -> anyhow::Result<Evidence> {
        let mut all = self.query(&[])?;
        for quiet in ["session_open", "session_close"] {
            all.merge(self.query(&["--kind", quiet])?);
        }
        Ok(all)
    }

    /// What `query` answers with these arguments.
    pub fn query(&self, args: &[&str]) -> anyhow::Result<Evidence> {
        let mut query = self.program();
        query.arg("query").arg("--config").arg(self.config());
        query.args(["--json", "--limit", QUERY_LIMIT]).args(args);
        Evidence::parse(&places::run(&mut query)?)
    }

    /// Exit code and text of `coverage` with these arguments.
    pub fn coverage(&self, args: &[&str]) -> anyhow::Result<(i32, String)> {
        let mut coverage = self.program();
        coverage.arg("coverage").arg("--config").arg(self.config()).args(args);
        let output = coverage.output()?;
        let code = output.status.code().context("coverage was killed")?;
        Ok((code, said(&output)))
    }

    /// Waits until the index has the outcome of a statement with this text.
    pub fn wait_for_statement(&self, text: &str) -> anyhow::Result<()> {
        let wait = Duration::from_millis(EVIDENCE_MS_MAX);
        let pause = Duration::from_millis(EVIDENCE_LOOK_MS);
        wait_slowly_for("the evidence is in the collector", wait, pause, || {
            Ok(self.query(&["--text", text])?.finished(text).map(drop))
        })
    }

    /// Runs `verify` on its own log.
    pub fn verify(&self) -> anyhow::Result<Output> {
        let mut verify = self.program();
        verify.arg("verify").arg("--config").arg(self.config());
        Ok(verify.output()?)
    }

    /// Fails unless `verify` finds nothing. A log younger than its first checkpoint cannot be
    /// decided yet, so that answer is asked again.
    pub fn verify_is_green(&self) -> anyhow::Result<String> {
        self.verify_says(VERIFY_GREEN)
    }

    /// Fails unless `verify` ends with this code.
    pub fn verify_says(&self, verdict: i32) -> anyhow::Result<String> {
        wait_for("verify is decided", Duration::from_millis(VERIFY_MS_MAX), || {
            let output = self.verify()?;
            let said = said(&output);
            match output.status.code() {
                Some(code) if code == verdict => Ok(Some(said)),
                Some(VERIFY_UNDECIDED) => Ok(None),
                _ => anyhow::bail!("verify does not end with {verdict}: {said}"),
            }
        })
    }

    /// Flips one byte of one record in a copy of the log: `verify` must fail and name the file. Gives
    /// what `verify` said.
    pub fn verify_names_a_flipped_byte(&self, copy: &Path) -> anyhow::Result<String> {
        self.wait_for_checkpoint()?;
        let flipped = self.copy_with_a_flipped_byte(copy)?;
        let mut verify = self.program();
        verify.arg("verify").arg("--log").arg(&flipped.log);
        verify.arg("--keys").arg(&flipped.keys);
        let output = verify.output()?;
        let said = said(&output);
        anyhow::ensure!(
            output.status.code() == Some(VERIFY_TAMPERED),
            "verify did not see bit 0 of byte {} of {} flipped: {said}",
            flipped.offset,
            flipped.file.display()
        );
        let name = flipped.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        anyhow::ensure!(said.contains(&name), "verify does not name {name}: {said}");
        Ok(said)
    }

    /// Waits until a checkpoint stands over all entries: a flipped bit behind the last one could be what
    /// a crash of the collector left, and `verify` says so.
    pub fn wait_for_checkpoint(&self) -> anyhow::Result<()> {
        wait_for("a checkpoint over all entries", Duration::from_millis(VERIFY_MS_MAX), || {
            let mut verify = self.program();
            verify.args(["verify", "--json", "--config"]).arg(self.config());
            let report: serde_json::Value = serde_json::from_slice(&verify.output()?.stdout)?;
            let number = |name: &str| report.get(name).and_then(serde_json::Value::as_u64);
            let (entries, bound) = (number("entries"), number("bound_size"));
            let entries = entries.with_context(|| format!("verify --json says {report}"))?;
            Ok((bound == Some(entries)).then_some(()))
        })
    }

    /// A copy of the log with one bit of its newest segment flipped, half way through what is
    /// written. An older segment may end in bytes that the log no longer uses: what was not proven
    /// durable when the collector was killed is written again at the start of the next one.
    pub fn copy_with_a_flipped_byte(&self, copy: &Path) -> anyhow::Result<Flipped> {
        let mut cp = Command::new("cp");
        cp.arg("-a").arg(self.data()).arg(copy);
        places::run(&mut cp)?;
        let log = copy.join("log");
        let (file, bytes, written) = newest_segment(&log.join("seg"))?;
        let offset = written / 2;
        let byte = bytes.get(offset).copied().context("half of a length is inside")?;
        let segment = File::options().write(true).open(&file)?;
        segment.write_all_at(&[byte ^ 0x01], u64::try_from(offset)?)?;
        Ok(Flipped { log, keys: copy.join("log/keys.json"), file, offset })
    }
}

/// A damaged copy of a log.
#[derive(Debug)]
pub struct Flipped {
    /// The copied log.
    pub log: PathBuf,
    /// The keys to verify it with.
    pub keys: PathBuf,
    /// The damaged file.
    pub file: PathBuf,
    /// Where the byte is.
    pub offset: usize,
}

/// Bytes that a segment must have in use: more than its header.
const SEGMENT_BYTES_MIN: usize = 512;

/// The newest segment with frames in it, its bytes, and where the last one in use is.
fn newest_segment(dir: &Path) -> anyhow::Result<(PathBuf, Vec<u8>, usize)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files.into_iter().rev() {
        let bytes = fs::read(&file)?;
        let written = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
        if written >= SEGMENT_BYTES_MIN {
            return Ok((file, bytes, written));
        }
    }
    anyhow::bail!("the log in {} is empty", dir.display())
}

fn said(output: &Output) -> String {
    format!(
        "exit {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
