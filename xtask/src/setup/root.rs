//! Programs of another Debian suite, which this one could not install: unpacked with all that they depend on, and run
//! with their own loader (`lab::mariadb::Server`).
//!
//! Promises: nothing of the system's own packages changes: apt works on a state, lists and sources of its own, with
//! the mirror that the system's apt names. A root that is there is whole, since it gets its name last.
//!
//! Limits: maintainer scripts don't run. `sid` changes every day, so what is there may be older than what the
//! archive has now; remove the directory to get it anew.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::install::log;
use crate::run;

/// What is unpacked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    /// Its directory is `target/tools/<name>-root`.
    pub name: &'static str,
    /// Debian's suite.
    pub suite: &'static str,
    /// The packages, without those that they depend on.
    pub packages: &'static [&'static str],
}

/// What Debian's own keys are in.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Gets a root.
pub(super) fn unpack(root: Root) -> anyhow::Result<()> {
    anyhow::ensure!(
        run::find_program("apt-get").is_some() && run::find_program("dpkg-deb").is_some(),
        "this is no Debian, so {} can't be got from its suite {}",
        root.packages.join(" "),
        root.suite
    );
    let making = run::tools().join(format!("{}-root.making", root.name));
    if making.exists() {
        std::fs::remove_dir_all(&making)?;
    }
    let apt = making.join("apt");
    configure(&apt, root.suite)?;
    let apt_get = |args: &[&str]| {
        let mut command = run::command("apt-get");
        command.arg("-q").args(args).env("APT_CONFIG", apt.join("apt.conf"));
        run::quietly(&mut command, &log())
    };
    apt_get(&["update"])
        .with_context(|| format!("the mirror has no usable list of suite {}", root.suite))?;
    let install = ["-y", "--no-install-recommends", "--download-only", "install"];
    apt_get(&[&install, root.packages].concat())
        .with_context(|| format!("{} of suite {}", root.packages.join(" "), root.suite))?;
    let into = making.join("root");
    let mut count = 0_usize;
    for entry in std::fs::read_dir(apt.join("cache/archives"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            run::quietly(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&into), &log())?;
            count += 1;
        }
    }
    let done = run::tools().join(format!("{}-root", root.name));
    if done.exists() {
        std::fs::remove_dir_all(&done)?;
    }
    std::fs::rename(&into, &done)?;
    std::fs::remove_dir_all(&making)?;
    run::say(&format!("  {count} packages of {} unpacked into {}", root.suite, done.display()));
    Ok(())
}

/// An apt of its own, which believes that nothing is installed.
fn configure(apt: &Path, suite: &str) -> anyhow::Result<()> {
    for dir in ["lists/partial", "cache/archives/partial", "state"] {
        std::fs::create_dir_all(apt.join(dir))?;
    }
    std::fs::write(apt.join("status"), "")?;
    let signed =
        if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let sources = apt.join("sources.list");
    std::fs::write(&sources, format!("deb {signed}{} {suite} main\n", mirror()?))?;
    let at = |name: &str| apt.join(name).display().to_string();
    let settings = [
        ("Dir::State", at("state")),
        ("Dir::State::lists", at("lists")),
        ("Dir::State::status", at("status")),
        ("Dir::Cache", at("cache")),
        ("Dir::Etc::sourcelist", sources.display().to_string()),
        ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
        ("Dir::Etc::preferences", "/dev/null".to_owned()),
        ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
        ("APT::Sandbox::User", "root".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
    ];
    let text = settings
        .iter()
        .fold(String::new(), |text, (name, value)| text + name + " \"" + value + "\";\n");
    std::fs::write(apt.join("apt.conf"), text).context("writing apt's configuration")
}

/// Where the system's apt gets Debian's own packages.
fn mirror() -> anyhow::Result<String> {
    let format = "$(REPO_URI)|$(LABEL)|$(COMPONENT)";
    let mut command = run::command("apt-get");
    command.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let targets = run::output(&mut command)?;
    pick(&targets).context(
        "the system's apt names no mirror of Debian's main archive; to type: apt-get update",
    )
}

/// The mirror in what apt says of its lists: the updates for security are in another archive.
fn pick(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_suffix("|Debian|main")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_main_archive() {
        let targets = "http://a.example/security/|Debian-Security|main\n\
            http://b.example/other/|Other|main\nhttp://c.example/debian/|Debian|main\n";
        assert_eq!(pick(targets).as_deref(), Some("http://c.example/debian/"));
        assert_eq!(pick("http://b.example/other/|Other|main\n"), None);
    }

    #[test]
    fn apt_is_configured_in_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        if configure(dir.path(), "trixie").is_err() {
            return assert!(run::find_program("apt-get").is_none(), "Debian without a mirror");
        }
        let settings = std::fs::read_to_string(dir.path().join("apt.conf")).unwrap();
        for line in settings.lines().filter(|line| line.starts_with("Dir::")) {
            let own = line.contains(&dir.path().display().to_string());
            assert!(own || line.contains("/dev/null"), "{line}");
        }
        let sources = std::fs::read_to_string(dir.path().join("sources.list")).unwrap();
        assert!(sources.starts_with("deb ") && sources.ends_with(" trixie main\n"), "{sources}");
    }
}
