//! `cargo xtask vm`: the main job on a kernel of its own.
//!
//! Promises: boots Debian's cloud kernel under QEMU's plain CPU emulation (no KVM needed) with an
//! initramfs that holds the agent, the collector, a real PostgreSQL and `psql`; its PID 1 is
//! `vm-tests`, which captures, decides and verifies for real, and says exactly one verdict line.
//! Anything but that one line `vm-tests: pass` is a failure: another line, none, two, or the time
//! being over.
//!
//! Limits: one kernel a run, x86-64, no network device. Emulation is 10 to 20 times slower than the
//! machine.

mod image;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::lab::{places, term};
use crate::{run, setup};

/// What begins the verdict line.
const VERDICT: &str = "vm-tests: ";
/// What begins a line of progress.
const STEP: &str = "vm-step: ";
/// Memory of the machine; its file system is in there too.
const MEMORY_MIB: &str = "1536";
/// Lines of the console that are shown after a failure.
const CONSOLE_LINES_SHOWN: usize = 120;
/// Kernel parameters: serial console, quick end after a panic, BPF among the security modules.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 loglevel=4 random.trust_cpu=on \
    lsm=landlock,lockdown,yama,integrity,bpf";

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernel image; the newest of Debian's cloud kernels where absent.
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// How long the machine may take.
    #[arg(long, default_value_t = 900)]
    seconds_max: u64,
    /// Show the whole console.
    #[arg(long)]
    console: bool,
}

/// Runs `cargo xtask vm`.
pub fn run(args: Args) -> anyhow::Result<()> {
    setup::ensure(setup::Purpose::Vm)?;
    let kernel = match args.kernel {
        Some(kernel) => kernel,
        None => setup::vm_kernel().context("no cloud kernel, although set-up went well")?.image,
    };
    build()?;
    let dir = tempfile::Builder::new().prefix("tidegate-vm-").tempdir()?;
    let image = dir.path().join("initramfs.cpio");
    let bytes = image::pack(&image)?;
    term::note(&format!(
        "booting {} with an initramfs of {} MiB",
        kernel.display(),
        bytes / 1024 / 1024
    ));
    let console = boot(&kernel, &image, Duration::from_secs(args.seconds_max), args.console)?;
    let verdicts = console.iter().filter(|line| line.starts_with(VERDICT)).collect::<Vec<_>>();
    if let [verdict] = verdicts.as_slice()
        && *verdict == "vm-tests: pass"
    {
        term::line(verdict);
        return Ok(());
    }
    let from = console.len().saturating_sub(CONSOLE_LINES_SHOWN);
    for line in console.get(from..).unwrap_or_default() {
        term::note(line);
    }
    anyhow::bail!("the machine's verdict: {verdicts:?}; wanted exactly one \"vm-tests: pass\"")
}

fn build() -> anyhow::Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--package", "tidegate-vm-tests"]);
    if std::env::var_os(places::BIN_DIR_ENV).is_none() {
        cargo.args(["--package", "tidegate-agent", "--package", "tidegate-collector"]);
    }
    run::run(&mut cargo)
}

/// Boots the machine and gives its console, line by line, once it is off.
fn boot(kernel: &Path, image: &Path, wait: Duration, show: bool) -> anyhow::Result<Vec<String>> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", MEMORY_MIB])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .args(["-append", KERNEL_ARGUMENTS])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = qemu.spawn().context("starting qemu-system-x86_64: run `cargo xtask setup`")?;
    let serial = child.stdout.take().context("its stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut console = Vec::new();
    let ended = loop {
        match lines.recv_timeout(wait.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if show || line.starts_with(STEP) {
                    term::note(&format!("[{:>4} s] {line}", start.elapsed().as_secs()));
                }
                console.push(line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        child.kill()?;
        console.push(format!("(the machine was stopped after {} s)", wait.as_secs()));
    }
    child.wait()?;
    Ok(console)
}
