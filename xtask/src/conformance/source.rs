//! PostgreSQL's regression suite from Debian's source package.
//!
//! Promises: everything lands under `target/lab`, nothing is installed, and apt's own configuration
//! and lists are not touched: the machine's own sources are copied with `deb-src` into a
//! configuration of our own. Where the newest version's source is not served, the next one is taken.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::lab::{places, term};

/// The suite, ready to run.
pub struct Source {
    /// `src/test/regress`.
    pub regress: PathBuf,
    /// Where `regress.so`, `refint.so` and `autoinc.so` are.
    pub libraries: PathBuf,
}

/// Fetches and builds what is missing.
pub fn ready() -> anyhow::Result<Source> {
    let programs = places::postgres_programs()?;
    let major = programs.parent().and_then(Path::file_name).context("no version in the path")?;
    let package = format!("postgresql-{}", major.to_string_lossy());
    let cache = places::cache(&format!("{package}-source"))?;
    let regress = match unpacked(&cache)? {
        Some(regress) => regress,
        None => fetch(&cache, &package)?,
    };
    let libraries = cache.join("lib");
    if !libraries.join("regress.so").exists() {
        build(&cache, &regress, &libraries, &major.to_string_lossy())?;
    }
    Ok(Source { regress, libraries })
}

fn unpacked(cache: &Path) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(cache)? {
        let regress = entry?.path().join("src/test/regress");
        if regress.join("parallel_schedule").exists() {
            return Ok(Some(regress));
        }
    }
    Ok(None)
}

fn fetch(cache: &Path, package: &str) -> anyhow::Result<PathBuf> {
    term::note(&format!("fetching the source of {package} ..."));
    let apt = Apt::prepare(cache)?;
    let versions = apt.versions(package)?;
    let mut why = anyhow::anyhow!("apt knows no source of {package}");
    for version in versions {
        match places::run(
            apt.command("apt-get")
                .args(["source", "--download-only", &format!("{package}={version}")])
                .current_dir(cache),
        ) {
            Ok(_) => return unpack(cache),
            Err(error) => {
                term::note(&format!("{package} {version} is not to be had, trying an older one"));
                why = error;
            }
        }
    }
    Err(why)
}

fn unpack(cache: &Path) -> anyhow::Result<PathBuf> {
    let mut archive = None;
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        if path.file_name().unwrap_or_default().to_string_lossy().contains(".orig.tar") {
            archive = Some(path);
        }
    }
    let archive = archive.context("the source package holds no .orig.tar")?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(cache).args(["--wildcards", "*/src/test/regress"]);
    places::run(&mut tar)?;
    unpacked(cache)?.context("the source holds no src/test/regress")
}

/// The suite's own C functions, against the server's headers (taken from their package without
/// installing it, since that asks for a whole compiler).
fn build(cache: &Path, regress: &Path, libraries: &Path, major: &str) -> anyhow::Result<()> {
    let headers = cache.join("headers");
    let include = headers.join(format!("usr/include/postgresql/{major}/server"));
    if !include.join("postgres.h").exists() {
        fs::create_dir_all(&headers)?;
        let package = format!("postgresql-server-dev-{major}");
        term::note(&format!("fetching the headers in {package} ..."));
        places::run(Command::new("apt-get").args(["download", &package]).current_dir(&headers))?;
        for entry in fs::read_dir(&headers)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                places::run(Command::new("dpkg-deb").arg("-x").arg(path).arg(&headers))?;
            }
        }
    }
    fs::create_dir_all(libraries)?;
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fPIC", "-shared", "-w", "-o"]).arg(libraries.join("regress.so"));
    cc.arg(regress.join("regress.c")).arg("-I").arg(&include);
    // postgres.h includes pg_config_ext.h and others from Debian's own multiarch place.
    cc.arg("-I").arg(headers.join("usr/include/postgresql"));
    places::run(&mut cc)?;
    let installed = places::postgres_programs()?.with_file_name("lib");
    for name in ["refint.so", "autoinc.so"] {
        fs::copy(installed.join(name), libraries.join(name))?;
    }
    Ok(())
}

/// apt with sources and lists of our own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn prepare(cache: &Path) -> anyhow::Result<Self> {
        let dir = cache.join("apt");
        let lists = dir.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        let parts = dir.join("sources.list.d");
        fs::create_dir_all(&parts)?;
        for (at, path) in configured()?.iter().enumerate() {
            let text = fs::read_to_string(path)?;
            let name = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            fs::write(parts.join(format!("{at}.{name}")), with_sources(&text, name == "sources"))?;
        }
        let apt = Self {
            options: vec![
                "Dir::Etc::sourcelist=/dev/null".to_owned(),
                format!("Dir::Etc::sourceparts={}", parts.display()),
                format!("Dir::State::lists={}", lists.display()),
            ],
        };
        places::run(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// Versions of a source package, newest first.
    fn versions(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let text = places::run(self.command("apt-cache").args(["showsrc", package]))?;
        let versions = text.lines().filter_map(|line| line.strip_prefix("Version: "));
        let mut versions = versions.map(str::to_owned).collect::<Vec<_>>();
        // Within one release of Debian, versions differ in their first two numbers only.
        versions.sort_by_key(|version| numbers(version));
        versions.dedup();
        versions.reverse();
        Ok(versions)
    }
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The machine's own apt sources.
fn configured() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let list = PathBuf::from("/etc/apt/sources.list");
    if list.exists() {
        found.push(list);
    }
    for entry in fs::read_dir("/etc/apt/sources.list.d")? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default();
        if extension == "list" || extension == "sources" {
            found.push(path);
        }
    }
    Ok(found)
}

/// The same sources for source packages.
fn with_sources(text: &str, is_deb822: bool) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let changed = match (is_deb822, line.strip_prefix("deb ")) {
            (true, _) if line.starts_with("Types:") => "Types: deb-src".to_owned(),
            (false, Some(rest)) => format!("deb-src {rest}"),
            _ => line.to_owned(),
        };
        out += &changed;
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_both_styles_become_sources_of_source_packages() {
        let new = "Types: deb\nURIs: http://mirror.test/debian\n";
        assert!(with_sources(new, true).starts_with("Types: deb-src\nURIs: http://mirror.test"));
        let old = "deb http://mirror.test/debian stable main\n";
        assert_eq!(with_sources(old, false), "deb-src http://mirror.test/debian stable main\n");
        assert!(numbers("15.20-0+deb12u1") > numbers("15.9-0+deb12u1"));
    }
}
