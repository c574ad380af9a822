//! Builds the kernel programs into `target/ebpf/tidegate.bpf.o`, from which the agent embeds them.
//!
//! Promises: works with Debian's compiler packages and with a rustup nightly that has `rust-src`;
//! does nothing where the object is up to date; an error says the line to type.
//!
//! Limits: `core` is built from source (`-Z build-std`), which stable compilers refuse; a stable
//! Debian compiler is asked with `RUSTC_BOOTSTRAP=1`, for this one crate. The compiler's LLVM must
//! not be newer than the one that bpf-linker was built with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, bail};

pub mod sources;

/// Names a bpf-linker before all the usual places.
pub const LINKER_ENV: &str = "TIDEGATE_BPF_LINKER";

/// The oldest compiler that aya-ebpf 0.2 takes, as 1.x.
const RUSTC_MINOR_MIN: u32 = 87;

/// What the build uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The linker.
    pub linker: PathBuf,
}

/// A compiler that can build `core` for the kernel's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// Debian's own, with `rust-src` beside it.
    Debian {
        /// As it names itself.
        version: String,
    },
    /// A rustup nightly with its `rust-src` component.
    Nightly {
        /// As it names itself.
        version: String,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.compiler {
            Compiler::Debian { version } => write!(f, "Debian's {version} with its rust-src")?,
            Compiler::Nightly { version } => write!(f, "rustup's {version} with its rust-src")?,
        }
        write!(f, ", linked by {}", self.linker.display())
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Whether the object is there and built from the sources as they are.
pub fn is_current() -> anyhow::Result<bool> {
    let root = root();
    let wanted = sources::digest(&root).context("cannot read the kernel programs' sources")?;
    let built = fs::read_to_string(root.join(sources::SIDECAR)).unwrap_or_default();
    Ok(root.join(sources::OBJECT).is_file() && built.trim() == wanted)
}

/// Builds the object where it is missing or stale; says where it is.
pub fn build() -> anyhow::Result<PathBuf> {
    let root = root();
    let object = root.join(sources::OBJECT);
    if is_current()? {
        return Ok(object);
    }
    let toolchain = find_toolchain()?;
    // Taken before the build: what changes while it runs makes the object stale.
    let digest = sources::digest(&root)?;
    let target_dir = root.join("target/ebpf-build");
    let status = command(&toolchain, &root, &target_dir)?
        .status()
        .with_context(|| format!("cannot start the build with {toolchain}"))?;
    if !status.success() {
        bail!(
            "the kernel programs did not build with {toolchain} ({status}); where the linker \
             complains of unknown bitcode, it was built with an older LLVM than the compiler's: \
             type `cargo xtask setup`"
        );
    }
    let built = target_dir.join("bpfel-unknown-none/release/tidegate");
    let directory = object.parent().context("the object has no directory")?;
    fs::create_dir_all(directory)?;
    fs::copy(&built, &object).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::write(root.join(sources::SIDECAR), format!("{digest}\n"))?;
    Ok(object)
}

/// Finds what can build the kernel programs, or says what to install.
pub fn find_toolchain() -> anyhow::Result<Toolchain> {
    let linker = find_linker();
    let mut tried = Vec::new();
    let compiler = match debian() {
        Ok(compiler) => Some(compiler),
        Err(why) => {
            tried.push(format!("Debian's compiler: {why}"));
            nightly().map_err(|why| tried.push(format!("rustup's nightly: {why}"))).ok()
        }
    };
    match (compiler, linker) {
        (Some(compiler), Some(linker)) => Ok(Toolchain { compiler, linker }),
        (None, _) => bail!(
            "no compiler for the kernel programs was found ({}); type `cargo xtask setup`, or \
             `rustup toolchain install nightly --component rust-src`",
            tried.join("; ")
        ),
        (Some(_), None) => bail!(
            "bpf-linker was not found in target/tools/bin, PATH or ~/.cargo/bin; type \
             `cargo xtask setup`, or set {LINKER_ENV} to its path"
        ),
    }
}

fn command(toolchain: &Toolchain, root: &Path, target_dir: &Path) -> anyhow::Result<Command> {
    let mut command = match &toolchain.compiler {
        Compiler::Debian { .. } => {
            let mut cargo = Command::new("/usr/bin/cargo");
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            cargo.env_remove("RUSTUP_TOOLCHAIN");
            cargo
        }
        Compiler::Nightly { .. } => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
            cargo
        }
    };
    for inherited in
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "RUSTDOC"]
    {
        command.env_remove(inherited);
    }
    let linker = toolchain.linker.to_str().context("the path of bpf-linker is not UTF-8")?;
    let flags = [
        format!("-Clinker={linker}"),
        // The kernel wants BTF for socket storage, and the linker makes it from debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // 32-bit ALU and jumps: kernel 5.1 up.
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        format!("--remap-path-prefix={}=.", root.display()),
    ];
    command
        .current_dir(root.join("agent-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--release", "--locked", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .stdin(Stdio::null());
    Ok(command)
}

fn debian() -> Result<Compiler, String> {
    let rustc = Path::new("/usr/bin/rustc");
    if !rustc.is_file() || !Path::new("/usr/bin/cargo").is_file() {
        return Err("no /usr/bin/rustc and /usr/bin/cargo".to_owned());
    }
    let version = usable(|| Command::new(rustc))?;
    Ok(Compiler::Debian { version })
}

fn nightly() -> Result<Compiler, String> {
    let version = usable(|| {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", "nightly", "rustc"]);
        rustc
    })?;
    Ok(Compiler::Nightly { version })
}

/// The version of a compiler that is new enough and has the sources of `core`.
fn usable(rustc: impl Fn() -> Command) -> Result<String, String> {
    let version = ask(rustc(), "--version")?;
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < RUSTC_MINOR_MIN) {
        return Err(format!("{version:?} is older than 1.{RUSTC_MINOR_MIN}"));
    }
    let sysroot = ask(rustc(), "--print=sysroot")?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !core.is_file() {
        return Err(format!("{version} has no rust-src ({} is missing)", core.display()));
    }
    Ok(version)
}

fn ask(mut rustc: Command, question: &str) -> Result<String, String> {
    rustc.env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN").arg(question);
    let output = rustc.output().map_err(|error| format!("cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn find_linker() -> Option<PathBuf> {
    let named = env::var_os(LINKER_ENV).map(PathBuf::from);
    let ours = root().join("target/tools/bin/bpf-linker");
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join("bpf-linker"));
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin/bpf-linker"));
    named.into_iter().chain([ours]).chain(in_path).chain(home).find(|linker| linker.is_file())
}
