//! Hands the kernel object to the agent, which embeds it; refuses a missing or stale one.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../xtask/src/ebpf/sources.rs"]
mod sources;

/// Names an object built elsewhere; it is taken as it is.
const OBJECT_ENV: &str = "TIDEGATE_EBPF_OBJECT";

fn main() -> Result<(), String> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?);
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let root = manifest.parent().ok_or("the agent's directory has no parent")?;
    rerun_if_changed(root);
    let object = match env::var_os(OBJECT_ENV) {
        Some(object) => PathBuf::from(object),
        None => current(root)?,
    };
    let copy = out.join("tidegate.bpf.o");
    fs::copy(&object, &copy)
        .map_err(|error| format!("cannot read {}: {error}", object.display()))?;
    directive(&format!("rerun-if-changed={}", object.display()));
    directive(&format!("rustc-env=TIDEGATE_EMBEDDED_OBJECT={}", copy.display()));
    Ok(())
}

fn rerun_if_changed(root: &Path) {
    directive(&format!("rerun-if-env-changed={OBJECT_ENV}"));
    for path in sources::SOURCES.iter().chain([&sources::SIDECAR]) {
        directive(&format!("rerun-if-changed={}", root.join(path).display()));
    }
}

fn current(root: &Path) -> Result<PathBuf, String> {
    let object = root.join(sources::OBJECT);
    let wanted = sources::digest(root).map_err(|error| error.to_string())?;
    let built = fs::read_to_string(root.join(sources::SIDECAR)).unwrap_or_default();
    if !object.is_file() || built.trim().is_empty() {
        return Err("the kernel programs are not built; type `cargo xtask ebpf`".to_owned());
    }
    if built.trim() != wanted {
        return Err(
            "the kernel programs are older than their sources; type `cargo xtask ebpf`".to_owned()
        );
    }
    Ok(object)
}

// Cargo reads a build script's instructions from its standard output.
fn directive(text: &str) {
    println!("cargo::{text}");
}
