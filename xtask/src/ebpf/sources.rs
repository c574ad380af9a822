//! Which sources the kernel object is built from, and their digest.
//!
//! Shared by path with `agent/build.rs`, so that the one who builds the object and the one who
//! embeds it agree on what *stale* means. Depends on nothing but `sha2`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

/// The object, below the root of the repository.
pub const OBJECT: &str = "target/ebpf/tidegate.bpf.o";

/// Beside the object: the digest of the sources that it was built from.
pub const SIDECAR: &str = "target/ebpf/tidegate.bpf.o.sources";

/// Files and directories that the object depends on, below the root.
pub const SOURCES: [&str; 5] = [
    "agent-common/Cargo.toml",
    "agent-common/src",
    "agent-ebpf/Cargo.lock",
    "agent-ebpf/Cargo.toml",
    "agent-ebpf/src",
];

/// SHA-256 over the names and contents of all sources, in hexadecimal.
pub fn digest(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let content = fs::read(&file)?;
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(content);
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}
