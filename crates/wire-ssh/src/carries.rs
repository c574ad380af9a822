//! What a remote half of a known file-carrying program reads or writes there.
//!
//! `scp -O`, rsync and git run a program on the far side that speaks a protocol of its own on the channel.
//! Its words say which paths it carries.
//!
//! Promises: a command that is told has only options that are known to name no other path and to run
//! nothing, or whose paths are told too. Every other is None. No input can panic.
//!
//! Believed: that a program is what its name says, whatever directory it is named in. Who lets a client
//! name programs by path should compare the whole command.
//!
//! Cannot see: which files below a path are carried, symbolic links, `..` and `~` (git opens `~user`
//! itself), a path that the program's own configuration adds, and hooks that git runs at the far side.
//! rsync with `--files-from` or `--secluded-args` says its paths on the channel, and its daemon's are in
//! its configuration: None.

mod rsync;

/// One path that is carried, as the command names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carry {
    /// It is read, with all that is below it.
    Read(String),
    /// It is written, with all that is below it.
    Write(String),
}

/// What a command carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carries {
    /// Whose remote half it is: `scp`, `rsync`, `git` or `sftp-server`.
    pub by: &'static str,
    /// What it reads and writes, in the order of its words. Empty for `sftp-server`, which is asked for
    /// each file on the channel.
    pub paths: Vec<Carry>,
}

/// What a remote half of a known file-carrying program reads or writes; None for any other, or one whose
/// options can't be told. `words` are a command's as [`crate::shell::read`] tells them.
pub fn carries(words: &[String]) -> Option<Carries> {
    let (program, rest) = words.split_first()?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let name = program.rsplit('/').next()?;
    let (by, paths) = match name {
        "scp" => ("scp", scp(&rest)?),
        "rsync" => ("rsync", rsync::paths(&rest)?),
        "git" => {
            let (command, rest) = rest.split_first()?;
            ("git", git(command, rest)?)
        }
        "sftp-server" => ("sftp-server", sftp_server(&rest)?),
        _ => ("git", git(name.strip_prefix("git-")?, &rest)?),
    };
    Some(Carries { by, paths })
}

/// OpenSSH's `scp.c`: `-f` sends what is named, `-t` takes into it. Both are in no manual.
fn scp(words: &[&str]) -> Option<Vec<Carry>> {
    let (options, paths) = options_and_paths(words, |letter| "rpdvqft".contains(letter))?;
    match (options.contains('f'), options.contains('t'), paths) {
        (true, false, [_, ..]) => {
            paths.iter().map(|path| named(path).map(Carry::Read)).collect::<Option<Vec<_>>>()
        }
        (false, true, [path]) => Some(vec![Carry::Write(named(path)?)]),
        _ => None,
    }
}

/// The letters of single-letter options that `known` knows, and the words after them. None where one
/// isn't known, or where a later word might be an option too (GNU's getopt looks for them to the end).
fn options_and_paths<'a, 'b>(
    words: &'a [&'b str],
    known: impl Fn(char) -> bool,
) -> Option<(String, &'a [&'b str])> {
    let mut letters = String::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        if *word == "--" {
            return Some((letters, after));
        }
        let Some(cluster) = word.strip_prefix('-') else { break };
        if cluster.is_empty() || !cluster.chars().all(&known) {
            return None;
        }
        letters.push_str(cluster);
        rest = after;
    }
    rest.iter().all(|word| !word.starts_with('-')).then_some((letters, rest))
}

/// git-upload-pack(1), git-upload-archive(1), git-receive-pack(1).
fn git(command: &str, words: &[&str]) -> Option<Vec<Carry>> {
    let (repository, options) = words.split_last()?;
    let repository = named(repository).filter(|name| !name.starts_with('-'))?;
    match command {
        "upload-pack" => {
            let known = |option: &&str| {
                matches!(*option, "--strict" | "--no-strict")
                    || option.strip_prefix("--timeout=").is_some_and(is_number)
            };
            options.iter().all(known).then(|| vec![Carry::Read(repository)])
        }
        "upload-archive" => options.is_empty().then(|| vec![Carry::Read(repository)]),
        "receive-pack" => options.is_empty().then(|| vec![Carry::Write(repository)]),
        _ => None,
    }
}

/// sftp-server(8). `-h` and `-Q` only say something and end.
fn sftp_server(words: &[&str]) -> Option<Vec<Carry>> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-e" | "-R" => {}
            "-d" | "-f" | "-l" | "-P" | "-p" | "-u" => {
                words.next()?;
            }
            _ => return None,
        }
    }
    Some(Vec::new())
}

/// A path that is named; an empty one stands for another, which differs by version.
fn named(path: &str) -> Option<String> {
    (!path.is_empty()).then(|| path.to_owned())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
