//! `cargo xtask setup`: finds what the chores need, and installs what is missing.
//!
//! Promises: what is there is found by looking at files only, so a second run changes nothing and
//! ends at once. What it installs it names first, with the reason and about how long it takes. What
//! it can't do (no root, no Debian) it says as the line to type, and fails. Chores ask for their own
//! purposes only.
//!
//! What it does to the host: Debian packages; a bpffs at `/sys/fs/bpf`. No service is started by an
//! installation: no PostgreSQL cluster is made, and services of packages that it installs are left
//! disabled. All else lands in `target/tools`.
//!
//! Known gaps: outside Debian it only says which packages are missing, by Debian's names. Programs
//! in `target/tools` can be run by another user only where the repository's own directory can be
//! entered by that user.

use std::time::Instant;

use crate::run;

mod install;
mod need;
mod probe;
mod root;
#[cfg(test)]
mod tests;

pub use probe::{VmKernel, vm_kernel};

use need::{NEEDS, Need, Part};

/// A chore that needs things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    /// All but what takes minutes to build and only `lint --all` asks for, and what changes every day.
    All,
    /// Building the workspace.
    Build,
    /// Building the kernel programs.
    Ebpf,
    /// `lint`.
    Lint,
    /// `lint --all`.
    LintAll,
    /// `test`.
    Test,
    /// `demo`.
    Demo,
    /// `vm`.
    Vm,
    /// `bench`.
    Bench,
    /// `soak`.
    Soak,
    /// `conformance`.
    Conformance,
    /// `conformance mysql-servers`.
    MysqlServers,
    /// `dist`.
    Dist,
}

impl Purpose {
    /// What it is made of.
    const fn parts(self) -> &'static [Part] {
        use Part::{
            Bench, Browser, Build, Capture, Clients, Conformance, Dist, Ebpf, Lint, LintAll,
            MysqlServer, Postgres, Test, Vm,
        };
        match self {
            Self::All => &[
                Build,
                Ebpf,
                Lint,
                Test,
                Postgres,
                Capture,
                Clients,
                Browser,
                Vm,
                Bench,
                Conformance,
                Dist,
            ],
            Self::Build => &[Build],
            Self::Ebpf => &[Build, Ebpf],
            Self::Lint => &[Build, Ebpf, Lint],
            Self::LintAll => &[Build, Ebpf, Lint, LintAll],
            Self::Test => &[Build, Ebpf, Postgres, Capture, Clients, Browser, Vm, Test],
            Self::Demo | Self::Soak => &[Build, Ebpf, Postgres, Capture],
            Self::Vm => &[Build, Ebpf, Postgres, Vm],
            Self::Bench => &[Build, Ebpf, Postgres, Capture, Bench],
            Self::Dist => &[Build, Ebpf, Dist],
            Self::MysqlServers => {
                &[Build, Ebpf, Postgres, Capture, Clients, Conformance, Test, MysqlServer]
            }
            Self::Conformance => &[Build, Ebpf, Postgres, Capture, Conformance],
        }
    }
}

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Change nothing; say what is missing, and exit with 1 when something is.
    #[arg(long)]
    check: bool,
    /// Only what this chore needs.
    #[arg(value_enum, default_value = "all")]
    purpose: Purpose,
}

/// Runs `cargo xtask setup`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if !args.check {
        ensure(args.purpose)?;
        let count = wanted(args.purpose).count();
        return run::print(&format!("setup: all {count} needs are met"));
    }
    let mut missing = 0_usize;
    for need in wanted(args.purpose) {
        let found = probe::probe(need.probe);
        let state = if found { "ok     " } else { "MISSING" };
        missing += usize::from(!found);
        run::print(&format!("{state} {:24} {}", need.name, need.why))?;
    }
    anyhow::ensure!(missing == 0, "{missing} needs are not met; run `cargo xtask setup`");
    Ok(())
}

/// Makes sure that everything for `purpose` is there. Says nothing where it is.
pub fn ensure(purpose: Purpose) -> anyhow::Result<()> {
    let missing: Vec<&Need> = wanted(purpose).filter(|need| !probe::probe(need.probe)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run::say("setup: missing here:");
    for need in &missing {
        run::say(&format!("  {:24} {} (about {})", need.name, need.why, duration(need.seconds)));
    }
    let started = Instant::now();
    install::install(&missing)?;
    for need in &missing {
        anyhow::ensure!(
            probe::probe(need.probe),
            "{} was installed and is still not found ({}); see {}",
            need.name,
            need.why,
            install::log().display()
        );
    }
    run::say(&format!("setup: done in {}", duration(started.elapsed().as_secs())));
    Ok(())
}

/// What `purpose` needs, each once, in the table's order.
fn wanted(purpose: Purpose) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| need.parts.iter().any(|part| purpose.parts().contains(part)))
}

fn duration(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}
