//! What is in each package, and how it is packed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::run;

/// One package.
#[derive(Debug)]
pub struct Package {
    /// Its name, which is that of its program.
    pub name: &'static str,
    /// Directory of its scripts below `dist/debian`.
    scripts: &'static str,
    /// What it depends on beside the C library.
    depends: &'static str,
    summary: &'static str,
    /// Lines of at most 79 characters.
    description: &'static str,
    /// From the repository to the host; below `/etc` they are the administrator's (conffiles).
    files: &'static [(&'static str, &'static str)],
}

/// All packages.
pub const ALL: [Package; 2] = [
    Package {
        name: "tidegate-agent",
        scripts: "agent",
        depends: "libgcc-s1",
        summary: "guards service accounts' database connections",
        description: " Kernel programs lead the connections of protected accounts into a proxy on this\n \
                      host, which decides on each statement and writes evidence before it takes effect.\n",
        files: &[
            (
                "dist/systemd/tidegate-agent.service",
                "usr/lib/systemd/system/tidegate-agent.service",
            ),
            ("dist/agent.toml", "etc/tidegate/agent.toml"),
            ("docs/policies/batch-read-only.cedar", "etc/tidegate/policy/batch-read-only.cedar"),
        ],
    },
    Package {
        name: "tidegate-collector",
        scripts: "collector",
        depends: "libgcc-s1, passwd",
        summary: "keeps Tidegate agents' records, and proves them",
        description: " Takes the agents' sealed records in, keeps them in a transparency log, shows them to\n \
                      reviewers and hands them on to a SIEM.\n",
        files: &[(
            "dist/systemd/tidegate-collector.service",
            "usr/lib/systemd/system/tidegate-collector.service",
        )],
    },
];

/// Where completions go, by shell.
fn completion(shell: &str, name: &str) -> String {
    match shell {
        "bash" => format!("usr/share/bash-completion/completions/{name}"),
        "zsh" => format!("usr/share/zsh/vendor-completions/_{name}"),
        _ => format!("usr/share/fish/vendor_completions.d/{name}.fish"),
    }
}

/// Where packages are made.
pub fn directory() -> PathBuf {
    run::target().join("dist")
}

impl Package {
    /// Packs the program of this directory as this version; gives the file.
    pub fn make(&self, programs: &Path, version: &str) -> anyhow::Result<PathBuf> {
        let root = directory().join(self.name);
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let program = root.join("usr/bin").join(self.name);
        copy(&programs.join(self.name), &program, 0o755)?;
        self.complete_and_document(&root, &program)?;
        run::run(run::command("strip").arg("--strip-unneeded").arg(&program))?;
        for (from, to) in self.files {
            copy(&run::repository().join(from), &root.join(to), 0o644)?;
        }
        let doc = root.join("usr/share/doc").join(self.name);
        copy(&run::repository().join("dist/debian/copyright"), &doc.join("copyright"), 0o644)?;
        copy(&run::repository().join("CHANGELOG.md"), &doc.join("changelog"), 0o644)?;
        self.control(&root, &program, version)?;
        compress(&root)?;
        let architecture = run::output(run::command("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.trim();
        let file = directory().join(format!("{}_{version}_{architecture}.deb", self.name));
        let mut pack = run::command("dpkg-deb");
        pack.args(["--root-owner-group", "-Zgzip", "--build"]).arg(&root).arg(&file);
        pack.env("SOURCE_DATE_EPOCH", commit_time()?);
        run::output(&mut pack)?;
        Ok(file)
    }

    /// Completions and man pages, as the program itself writes them.
    fn complete_and_document(&self, root: &Path, program: &Path) -> anyhow::Result<()> {
        for shell in ["bash", "zsh", "fish"] {
            let script = run::output(Command::new(program).args(["completions", shell]))?;
            write(&root.join(completion(shell, self.name)), &script, 0o644)?;
        }
        let man = root.join("usr/share/man/man1");
        fs::create_dir_all(&man)?;
        run::output(Command::new(program).arg("man").arg("--out").arg(&man))?;
        Ok(())
    }

    fn control(&self, root: &Path, program: &Path, version: &str) -> anyhow::Result<()> {
        let control = root.join("DEBIAN");
        let architecture = run::output(run::command("dpkg").arg("--print-architecture"))?;
        let text = format!(
            "Package: {}\nVersion: {version}\nArchitecture: {}Maintainer: The Tidegate contributors \
             <root@localhost>\nDepends: libc6 (>= {}), {}\nSection: admin\nPriority: optional\n\
             Installed-Size: {}\nDescription: {}\n{}",
            self.name,
            architecture,
            libc_version(program)?,
            self.depends,
            size_kib(root)?,
            self.summary,
            self.description,
        );
        write(&control.join("control"), &text, 0o644)?;
        let conffiles = self.files.iter().filter(|(_, to)| to.starts_with("etc/")).fold(
            String::new(),
            |mut all, (_, to)| {
                // Writing to a String can't fail.
                let _ = writeln!(all, "/{to}");
                all
            },
        );
        if !conffiles.is_empty() {
            write(&control.join("conffiles"), &conffiles, 0o644)?;
        }
        for script in ["postinst", "prerm", "postrm"] {
            let from = run::repository().join("dist/debian").join(self.scripts).join(script);
            copy(&from, &control.join(script), 0o755)?;
        }
        Ok(())
    }
}

/// Man pages and change logs are compressed (Debian policy, 12.1 and 12.7), without a time of their own.
fn compress(root: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for dir in ["usr/share/man/man1", "usr/share/doc"] {
        walk(&root.join(dir), &mut files)?;
    }
    for file in files.iter().filter(|file| !file.ends_with("copyright")) {
        run::run(run::command("gzip").args(["-9", "-n"]).arg(file))?;
    }
    Ok(())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// The newest version of the C library whose symbols the program asks for.
fn libc_version(program: &Path) -> anyhow::Result<String> {
    let symbols = run::output(run::command("objdump").arg("-T").arg(program))?;
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let numbers = rest.get(..end)?.split('.').map(str::parse);
        numbers.collect::<Result<Vec<u32>, _>>().ok()
    });
    let newest = versions.max().context("the program asks for no C library")?;
    Ok(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

fn size_kib(root: &Path) -> anyhow::Result<u64> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    let sizes = files.iter().map(|file| fs::metadata(file).map(|meta| meta.len()));
    Ok(sizes.sum::<Result<u64, _>>()?.div_ceil(1024))
}

/// The time of the commit, which is that of every file in the package.
fn commit_time() -> anyhow::Result<String> {
    let time = run::output(run::command("git").args(["log", "-1", "--format=%ct"]))?;
    Ok(time.trim().to_owned())
}

fn copy(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let dir = to.parent().context("a file has a directory")?;
    fs::create_dir_all(dir)?;
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn write(to: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::write(to, text)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}
