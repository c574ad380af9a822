//! Installing what is missing, in an order in which one need can use another.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use super::need::{Need, Provide};
use super::root;
use crate::run;

/// Package lists older than this are fetched anew.
const LISTS_SECONDS_MAX: u64 = 24 * 60 * 60;

/// Where Debian's package lists lie.
const LISTS_DIR: &str = "/var/lib/apt/lists";

/// Installed by us, these would start a service at boot.
const SERVICES: [&str; 2] = ["haproxy", "pgbouncer"];

/// Keeps postgresql-common from making and starting a cluster (pg_createcluster(8)).
const NO_CLUSTER: (&str, &str) =
    ("/etc/postgresql-common/createcluster.d/tidegate-setup.conf", "create_main_cluster = false\n");

/// Keeps maintainer scripts from starting services (invoke-rc.d(8)): 101 means "not allowed".
const NO_SERVICES: (&str, &str) = ("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");

/// The whole output of what setup ran.
pub(super) fn log() -> PathBuf {
    run::tools().join("setup.log")
}

/// Gets all of `missing`.
pub(super) fn install(missing: &[&Need]) -> anyhow::Result<()> {
    let packages: Vec<&str> = missing
        .iter()
        .filter_map(|need| match need.provide {
            Provide::Apt(packages) => Some(packages),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    if !packages.is_empty() {
        apt(&packages)?;
    }
    for need in missing {
        let step = Step::start(need);
        match need.provide {
            Provide::Apt(_) => continue,
            Provide::Rustup(component) => {
                run::quietly(run::command("rustup").args(["component", "add", component]), &log())
                    .with_context(|| format!("to type: rustup component add {component}"))?;
            }
            Provide::Cargo { krate, args, env } => cargo(krate, args, env)?,
            Provide::Pip(packages) => pip(packages)?,
            Provide::Npm(packages) => npm(packages)?,
            Provide::VmKernel => vm_kernel()?,
            Provide::Root(root) => root::unpack(root)?,
            Provide::Bpffs => bpffs()?,
        }
        step.end();
    }
    Ok(())
}

/// One thing that is being done, and for how long.
struct Step<'a> {
    need: &'a Need,
    started: Instant,
}

impl<'a> Step<'a> {
    fn start(need: &'a Need) -> Self {
        if !matches!(need.provide, Provide::Apt(_)) {
            run::say(&format!("  {} (about {})", need.name, super::duration(need.seconds)));
        }
        Self { need, started: Instant::now() }
    }

    fn end(self) {
        let took = super::duration(self.started.elapsed().as_secs());
        run::say(&format!("  {} done in {took}", self.need.name));
    }
}

fn apt(packages: &[&str]) -> anyhow::Result<()> {
    let line = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if run::find_program("apt-get").is_none() {
        anyhow::bail!(
            "this is no Debian, so install these by hand (Debian's names): {}",
            packages.join(" ")
        );
    }
    if !run::is_root() {
        let cluster = if packages.contains(&"postgresql") {
            format!(
                "\nTo get no PostgreSQL cluster with it, first put `{}` into {}",
                NO_CLUSTER.1.trim(),
                NO_CLUSTER.0
            )
        } else {
            String::new()
        };
        anyhow::bail!("setup is not root. To type: sudo apt-get update && sudo {line}{cluster}");
    }
    run::say(&format!("  {line}"));
    let started = Instant::now();
    let _no_cluster = run::find_program("pg_createcluster")
        .is_none()
        .then(|| Temporary::make(NO_CLUSTER, 0o644))
        .transpose()?
        .flatten();
    let no_services = Temporary::make(NO_SERVICES, 0o755)?;
    if lists_are_old() {
        run::quietly(run::command("apt-get").args(["-q", "update"]), &log())?;
    }
    let installed = run::quietly(&mut apt_install(packages), &log());
    if installed.is_err() {
        // A list may name a file that the mirror has replaced since.
        run::quietly(run::command("apt-get").args(["-q", "update"]), &log())?;
        run::quietly(&mut apt_install(packages), &log())?;
    }
    drop(no_services);
    for service in SERVICES.into_iter().filter(|service| packages.contains(service)) {
        disable(service);
    }
    run::say(&format!("  packages done in {}", super::duration(started.elapsed().as_secs())));
    Ok(())
}

fn apt_install(packages: &[&str]) -> std::process::Command {
    let mut command = run::command("apt-get");
    command
        .args(["-q", "-y", "-o", "Dpkg::Use-Pty=0", "install", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn lists_are_old() -> bool {
    let Ok(entries) = std::fs::read_dir(LISTS_DIR) else {
        return true;
    };
    let newest = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().and_then(|meta| meta.modified()).ok())
        .max();
    // The lists bear the mirror's time; the directory bears ours.
    let looked = std::fs::metadata(LISTS_DIR).and_then(|meta| meta.modified()).ok();
    let age = |at: SystemTime| SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO);
    newest.is_none() || looked.is_none_or(|at| age(at).as_secs() > LISTS_SECONDS_MAX)
}

/// A service that our installation brought must not start at the next boot either.
fn disable(service: &str) {
    let Some(systemctl) = run::find_program("systemctl") else {
        return;
    };
    let disabled = run::quietly(run::command(systemctl).args(["disable", service]), &log());
    if disabled.is_err() {
        run::say(&format!("  {service} may start at boot; to type: systemctl disable {service}"));
    }
}

/// A file that is there for as long as this value.
struct Temporary(PathBuf);

impl Temporary {
    /// Makes the file; `None` where somebody has made it before us.
    fn make((path, text): (&str, &str), mode: u32) -> anyhow::Result<Option<Self>> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = Path::new(path);
        if path.exists() {
            return Ok(None);
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Some(Self(path.to_owned())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if std::fs::remove_file(&self.0).is_err() {
            run::say(&format!("  {} could not be removed: remove it", self.0.display()));
        }
    }
}

fn cargo(krate: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = run::cargo();
    command
        .args(["install", "--locked", krate])
        .args(args)
        .arg("--root")
        .arg(run::tools())
        .envs(env.iter().copied())
        // Elsewhere than the repository, whose own settings are for the repository.
        .current_dir("/");
    run::quietly(&mut command, &log())
}

fn pip(packages: &[&str]) -> anyhow::Result<()> {
    let venv = run::tools().join("venv");
    let python = venv.join("bin/python3");
    if !python.exists() {
        // The system's own Python, so that service accounts can run it too.
        run::quietly(run::command("/usr/bin/python3").args(["-m", "venv"]).arg(&venv), &log())?;
    }
    let mut command = run::command(&python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    run::quietly(&mut command, &log())
}

fn npm(packages: &[&str]) -> anyhow::Result<()> {
    let dir = run::tools().join("node");
    std::fs::create_dir_all(&dir)?;
    let mut command = run::command("npm");
    command.args([
        "install",
        "--no-save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
    ]);
    command.arg(&dir).args(packages).current_dir(&dir);
    run::quietly(&mut command, &log())
}

fn vm_kernel() -> anyhow::Result<()> {
    if run::find_program("apt-get").is_none() {
        anyhow::bail!(
            "this is no Debian: unpack Debian's package linux-image-*-cloud-amd64 into {}",
            run::tools().join("kernel").display()
        );
    }
    let depends = run::output(run::command("apt-cache").args([
        "depends",
        "--important",
        "linux-image-cloud-amd64",
    ]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("linux-image-cloud-amd64 names no kernel; to type: apt-get update")?;
    let dir = run::tools().join("kernel");
    std::fs::create_dir_all(&dir)?;
    let mut download = run::command("apt-get");
    run::quietly(download.args(["-q", "download", package]).current_dir(&dir), &log())?;
    for file in super::probe::expand(&dir.join(format!("{package}_*.deb"))) {
        run::quietly(run::command("dpkg-deb").arg("-x").arg(&file).arg(&dir), &log())?;
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

fn bpffs() -> anyhow::Result<()> {
    let line = "mount -t bpf bpf /sys/fs/bpf";
    anyhow::ensure!(run::is_root(), "setup is not root. To type: sudo {line}");
    let words = line.split(' ').skip(1);
    run::quietly(run::command("mount").args(words), &log())
        .with_context(|| format!("this host allows no bpffs; to type: {line}"))
}
