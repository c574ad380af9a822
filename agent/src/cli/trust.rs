//! `ssh trust`: the one line by which OpenSSH clients of this host take the gate's host certificate.
//!
//! Promises: other lines of the file stay as they are; the file is replaced whole or not at all; doing or
//! undoing it twice changes nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::ssh::host::trust_line;

/// Where OpenSSH's clients look for host keys of the whole system (ssh_config(5), GlobalKnownHostsFile).
pub(super) const KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";

/// Writes the line into `file`, or takes it away; says what was done.
pub(super) fn run(state_dir: &Path, file: &Path, undo: bool) -> anyhow::Result<String> {
    let line = trust_line(state_dir)?;
    let shown = file.display();
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("{shown} can't be read")),
    };
    let has = before.lines().any(|known| known == line);
    if has != undo {
        return Ok(format!("{shown} {} the line already", if undo { "lacks" } else { "has" }));
    }
    let after = if undo { without(&before, &line) } else { with(&before, &line) };
    replace(file, &after).with_context(|| format!("{shown} can't be written"))?;
    Ok(format!("{shown} {} the line of the gate's CA", if undo { "no more has" } else { "has" }))
}

fn with(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}\n")
}

fn without(text: &str, line: &str) -> String {
    text.split_inclusive('\n').filter(|known| known.trim_end_matches('\n') != line).collect()
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".tidegate-new");
    let new = Path::new(&name);
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o644).open(new)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_comes_and_goes_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs::write(&file, "db ssh-ed25519 AAAA").unwrap();
        run(dir.path(), &file, false).unwrap();
        let once = fs::read_to_string(&file).unwrap();
        assert!(once.starts_with("db ssh-ed25519 AAAA\n@cert-authority * ssh-ed25519 "), "{once}");
        run(dir.path(), &file, false).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), once);
        run(dir.path(), &file, true).unwrap();
        run(dir.path(), &file, true).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "db ssh-ed25519 AAAA\n");
    }
}
