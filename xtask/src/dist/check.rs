//! Tries the packages in a plain Debian: install, upgrade, remove and purge, up to a first record.
//!
//! Promises: the Debian is made from its archive alone and thrown away; what is mounted for it is in a mount namespace
//! of its own; the hooks are on a cgroup of its own. Cannot do: start units, since no systemd runs there; it
//! verifies them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::package::{ALL, directory};
use crate::run;

/// The version that is upgraded from.
const BEFORE: &str = "0.0.1";

/// What is done inside.
const SCRIPT: &str = include_str!("check.sh");

/// Runs the check on packages of these programs.
pub fn run(programs: &Path, packages: &[PathBuf]) -> anyhow::Result<()> {
    anyhow::ensure!(run::is_root(), "the check needs root: it makes a Debian, and attaches hooks");
    let archive = plain_debian()?;
    let root = tempfile::Builder::new().prefix("tidegate-dist-").tempdir()?;
    run::run(run::command("tar").arg("-xf").arg(archive).arg("-C").arg(root.path()))?;
    let inside = root.path().join("packages");
    for dir in ["before", "now"] {
        fs::create_dir_all(inside.join(dir))?;
    }
    for file in packages {
        let name = file.file_name().context("a package has a name")?;
        fs::copy(file, inside.join("now").join(name))?;
    }
    for package in &ALL {
        let file = package.make(programs, BEFORE)?;
        let name = file.file_name().context("a package has a name")?;
        fs::rename(&file, inside.join("before").join(name))?;
    }
    fs::write(inside.join("check.sh"), SCRIPT)?;
    run::say("dist: trying the packages in a plain Debian ...");
    let mut check = run::command("unshare");
    check.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh"]);
    check.args(["-eu", "-c", ENTER, "enter"]).arg(root.path());
    run::run(&mut check)?;
    run::print("dist: installed, upgraded, removed and purged, with a first record")
}

/// Mounts what programs need, and goes in. The argument is the Debian's directory.
const ENTER: &str = "mount --rbind /sys \"$1/sys\"; mount --rbind /dev \"$1/dev\"; \
                     mount -t proc proc \"$1/proc\"; mount -t tmpfs tmpfs \"$1/run\"; \
                     exec chroot \"$1\" /bin/sh -eu /packages/check.sh";

/// An archive of a plain Debian of this host's release, with systemd for its units. Kept for the next time.
fn plain_debian() -> anyhow::Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("this host does not name its release: it is no Debian")?;
    let archive = directory().join(format!("{suite}.tar"));
    if !archive.exists() {
        run::say("dist: making a plain Debian (about a minute) ...");
        let fresh = archive.with_extension("new");
        let mut make = run::command("mmdebstrap");
        make.args(["--variant=minbase", "--include=systemd", "--format=tar", suite]).arg(&fresh);
        run::quietly(&mut make, &directory().join("mmdebstrap.log"))?;
        fs::rename(&fresh, &archive)?;
    }
    Ok(archive)
}
