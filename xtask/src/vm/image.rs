//! The initramfs: a cpio archive (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst
//! of the kernel) with everything that the machine needs.
//!
//! Promises: programs come with the shared libraries that `ldd` names; the server's data directory
//! is the laboratory's ready-made one. Limits: files are read whole; links are packed as what they
//! point at.

mod newc;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use newc::Archive;
use nix::unistd::User;

use crate::lab::postgres::Postgres;
use crate::lab::{places, policies};

/// Directories that PID 1 mounts on, or that programs want.
const DIRECTORIES: [(&str, u32); 9] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/lib", 0o755),
];

/// Where PID 1 finds PostgreSQL's data.
const DATA: &str = "var/lib/postgres";

/// Writes the image; gives its size in bytes.
pub fn pack(into: &Path) -> anyhow::Result<u64> {
    let mut archive = Archive::create(into)?;
    for (name, mode) in DIRECTORIES {
        archive.directory(name, mode, 0)?;
    }
    archive.console("dev/console")?;
    let init = places::target().join("debug/tidegate-vm-tests");
    let postgres = places::postgres_programs()?;
    let mut programs = vec![(init, "init".to_owned())];
    for name in ["tidegate-agent", "tidegate-collector"] {
        programs.push((places::our_program(name)?, format!("bin/{name}")));
    }
    for name in ["postgres", "psql"] {
        let path = postgres.join(name);
        programs.push((path.clone(), inside(&path)));
    }
    let language = postgres.with_file_name("lib").join("plpgsql.so");
    programs.push((language.clone(), inside(&language)));
    let mut libraries = BTreeSet::new();
    for (path, name) in &programs {
        archive.file(name, &stripped(path)?, 0o755, 0)?;
        libraries.extend(shared_libraries(path)?);
    }
    for library in &libraries {
        archive.file(&inside(library), &fs::read(library)?, 0o755, 0)?;
    }
    share(&mut archive, &postgres)?;
    accounts(&mut archive)?;
    archive.file("etc/tidegate/policy/careful.cedar", policies::CAREFUL.as_bytes(), 0o644, 0)?;
    data(&mut archive)?;
    archive.finish()
}

fn inside(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}

/// The program without debug information, which the machine has no use for.
fn stripped(path: &Path) -> anyhow::Result<Vec<u8>> {
    let out = tempfile::NamedTempFile::new()?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(out.path()).arg(path);
    places::run(&mut strip)?;
    Ok(fs::read(out.path())?)
}

/// The libraries that `ldd` finds, and the dynamic loader.
fn shared_libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = places::run(Command::new("ldd").arg(program))?;
    let path_of = |line: &str| {
        let words = line.split_whitespace().collect::<Vec<_>>();
        words.into_iter().find(|word| word.starts_with('/')).map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path_of).collect())
}

/// What the server reads while it runs: time zone abbreviations, time zones, text search files.
fn share(archive: &mut Archive, programs: &Path) -> anyhow::Result<()> {
    let said = places::run(Command::new(programs.join("pg_config")).arg("--sharedir"));
    let version = programs.parent().and_then(Path::file_name).context("no version in the path")?;
    let dir = said.map_or_else(
        |_| Path::new("/usr/share/postgresql").join(version),
        |text| PathBuf::from(text.trim()),
    );
    for part in ["timezonesets", "extension/plpgsql.control"] {
        tree(archive, &dir.join(part), &inside(&dir.join(part)), 0)?;
    }
    for zone in ["Etc/UTC", "UTC", "GMT"] {
        let path = Path::new("/usr/share/zoneinfo").join(zone);
        archive.file(&inside(&path), &fs::read(&path)?, 0o644, 0)?;
    }
    Ok(())
}

fn accounts(archive: &mut Archive) -> anyhow::Result<()> {
    let owner = owner()?;
    let passwd = format!(
        "root:x:0:0::/root:/bin/false\npostgres:x:{owner}:{owner}::/var/lib/postgres:/bin/false\n"
    );
    archive.file("etc/passwd", passwd.as_bytes(), 0o644, 0)?;
    let group = format!("root:x:0:\npostgres:x:{owner}:\n");
    archive.file("etc/group", group.as_bytes(), 0o644, 0)
}

fn owner() -> anyhow::Result<u32> {
    let account = User::from_name("postgres")?.context("no user `postgres` on this machine")?;
    Ok(account.uid.as_raw())
}

/// The laboratory's ready-made cluster.
fn data(archive: &mut Archive) -> anyhow::Result<()> {
    let template = Postgres::template()?;
    tree(archive, &template, DATA, owner()?)
}

fn tree(archive: &mut Archive, path: &Path, name: &str, owner: u32) -> anyhow::Result<()> {
    if path.is_dir() {
        archive.directory(name, if owner == 0 { 0o755 } else { 0o700 }, owner)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let below = format!("{name}/{}", entry.file_name().to_string_lossy());
            tree(archive, &entry.path(), &below, owner)?;
        }
        return Ok(());
    }
    let mode = if owner == 0 { 0o644 } else { 0o600 };
    archive.file(name, &fs::read(path)?, mode, owner)
}
