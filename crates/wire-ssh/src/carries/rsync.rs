//! The server's half of rsync: `rsync --server [--sender] OPTIONS . PATH...`.
//!
//! Source: what rsync 3.2 and 3.5 send for their documented options; rsync(1).

use super::{Carry, is_number, named};

/// Options of one letter that name no path and take no argument. Not `s`: the paths then come on the
/// channel.
const LETTERS: &str = "vqnbumdlLkKHWSOJyogDtUNpAXrRcxzihEI";

/// Long options, without an argument, that name no path.
const PLAIN: &[&str] = &[
    "append",
    "append-verify",
    "copy-unsafe-links",
    "delay-updates",
    "delete",
    "delete-after",
    "delete-before",
    "delete-delay",
    "delete-during",
    "delete-excluded",
    "delete-missing-args",
    "existing",
    "fake-super",
    "force",
    "force-change",
    "fsync",
    "ignore-errors",
    "ignore-existing",
    "ignore-missing-args",
    "ignore-non-existing",
    "inplace",
    "list-only",
    "mkpath",
    "munge-links",
    "new-compress",
    "no-implied-dirs",
    "no-r",
    "no-relative",
    "numeric-ids",
    "old-compress",
    "open-noatime",
    "partial",
    "preallocate",
    "safe-links",
    "size-only",
    "specials",
    "stats",
    "super",
    "use-qsort",
];

/// Long options, with `=` and an argument, that name no path.
const VALUED: &[&str] = &[
    "bwlimit",
    "checksum-choice",
    "checksum-seed",
    "chown",
    "compress-choice",
    "compress-level",
    "debug",
    "groupmap",
    "iconv",
    "info",
    "log-format",
    "max-alloc",
    "max-delete",
    "max-size",
    "min-size",
    "modify-window",
    "skip-compress",
    "stop-after",
    "stop-at",
    "suffix",
    "timeout",
    "usermap",
];

/// Whether a path is read or written.
type Kind = fn(String) -> Carry;

/// What it reads or writes.
pub(super) fn paths(words: &[&str]) -> Option<Vec<Carry>> {
    let (server, rest) = words.split_first()?;
    if *server != "--server" {
        return None;
    }
    let (sends, rest) = match rest.split_first() {
        Some((word, after)) if *word == "--sender" => (true, after),
        _ => (false, rest),
    };
    // The first word that is no option is the directory to go to, which clients always say so.
    let mut rest = rest.iter().copied();
    let mut carried = Vec::new();
    let mut removes = false;
    loop {
        match rest.next()? {
            "." => break,
            "--remove-source-files" => removes = true,
            option => match beside(option) {
                Some((carry, value)) => {
                    let path = value.or_else(|| rest.next())?;
                    carried.push(carry(path_of(path)?));
                }
                None if is_known(option) => {}
                None => return None,
            },
        }
    }
    let paths: Vec<String> = rest.map(path_of).collect::<Option<_>>()?;
    match (sends, paths.as_slice()) {
        (true, [_, ..]) => {
            carried.extend(paths.iter().cloned().map(Carry::Read));
            if removes {
                carried.extend(paths.into_iter().map(Carry::Write));
            }
        }
        (false, [path]) => carried.push(Carry::Write(path.clone())),
        _ => return None,
    }
    Some(carried)
}

/// What `option` carries beside the paths, if it is one that does, and its path where that follows `=`;
/// else the path is the next word.
fn beside(option: &str) -> Option<(Kind, Option<&str>)> {
    let option = option.strip_prefix("--")?;
    let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
    match name {
        "compare-dest" | "copy-dest" | "link-dest" => Some((Carry::Read, value)),
        "backup-dir" | "partial-dir" | "temp-dir" => Some((Carry::Write, value)),
        _ => None,
    }
}

/// A path that is no option: rsync takes options behind paths too, and clients write `./-x`.
fn path_of(path: &str) -> Option<String> {
    named(path).filter(|path| !path.starts_with('-'))
}

/// Whether `option` is known to name no path and to run nothing.
fn is_known(option: &str) -> bool {
    if let Some(long) = option.strip_prefix("--") {
        return match long.split_once('=') {
            Some((name, _)) => VALUED.contains(&name),
            None => PLAIN.contains(&long),
        };
    }
    let Some(letters) = option.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
        return false;
    };
    if let Some(size) = letters.strip_prefix('B') {
        return is_number(size);
    }
    // `e` takes the rest as its argument: the client's version and what it can do.
    let (letters, client) = letters.split_once('e').unwrap_or((letters, "."));
    letters.chars().all(|letter| LETTERS.contains(letter))
        && client.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
        && client.contains('.')
}

#[cfg(test)]
mod tests {
    use super::super::tests::{none, told};

    /// As rsync 3.5 sends them for the options that stand beside.
    #[test]
    fn what_clients_send_is_told() {
        for (text, paths) in [
            ("--sender -logDtpre.iLsfxCIvu . /srv/a", "r:/srv/a"),
            ("--sender -logDtpre.iLsfxCIvu . a b ./-c", "r:a r:b r:./-c"),
            ("--sender -de.LsfxCIvu --list-only . /srv/a", "r:/srv/a"),
            ("--sender -de.LsfxCIvu . .", "r:."),
            ("-e.LsfxCIvu . .", "w:."),
            ("-vlogDtprze.iLsfxCIvu --delete . /srv/a", "w:/srv/a"),
            ("-logDtpre.iLsfxCIvu --log-format=X --partial . /srv/a", "w:/srv/a"),
            ("-logDtpre.iLsfxCIvu --numeric-ids --link-dest /prev . /a", "r:/prev w:/a"),
            ("-logDtpre.iLsfxCIvu --copy-dest /q --copy-dest /r . /a", "r:/q r:/r w:/a"),
            ("-blogDtpre.iLsfxCIvu --backup-dir /old . /srv/a", "w:/old w:/srv/a"),
            ("-logDtpre.iLsfxCIvu --partial-dir .p --temp-dir=/t . /srv/a", "w:.p w:/t w:/srv/a"),
            ("-blogDtpre.iLsfxCIvu --suffix=.b . /srv/a", "w:/srv/a"),
            ("-lHogDtpAXre.iLsfxCIvu --bwlimit=100 --inplace . /srv/a", "w:/srv/a"),
            ("-logDtpre.iLsfxCIvu -B8192 --iconv=latin1 . /srv/a", "w:/srv/a"),
            ("-nlmogDtprcRxe.iLsfxCIvu --log-format=%i --timeout=30 . /srv/a", "w:/srv/a"),
            ("-KOJyrSe.iLsfxCIvu --copy-unsafe-links --safe-links . /srv/a", "w:/srv/a"),
            (
                "-re.iLsfxCIvu --max-delete=5 --delete-after --delete-excluded --force --ignore-errors . /a",
                "w:/a",
            ),
            (
                "-logDtpre.iLsfxCIvu --compress-level=3 --checksum-choice=md5 --compress-choice=zstd . /a",
                "w:/a",
            ),
            ("--sender -logDtpre.iLsfxCIvu --remove-source-files . /a /b", "r:/a r:/b w:/a w:/b"),
            ("-logDtpre31.14iLsfxCIvu . /srv/a", "w:/srv/a"),
        ] {
            told(&format!("rsync --server {text}"), "rsync", paths);
        }
    }

    #[test]
    fn others_are_not_told() {
        for text in [
            "rsync",
            "rsync --server",
            "rsync --server --sender",
            "rsync --sender --server -r . /a",
            "rsync -a /a host:/b",
            "rsync --server --daemon .",
            // The paths come on the channel.
            "rsync --server -slogDtpre.iLsfxCIvu",
            "rsync --server --sender -slogDtpre.iLsfxCIvu . /a",
            "rsync --server --sender --secluded-args -re.iLs . /a",
            "rsync --server --sender -logDtpRe.LsfxCIvu --files-from=- --from0 . /a",
            "rsync --server --sender -re.iLs --files-from=/etc/list . /a",
            // A directory to go to.
            "rsync --server --sender -re.iLs /etc passwd",
            "rsync --server --sender -re.iLs passwd",
            "rsync --server --sender -re.iLs .",
            "rsync --server -re.iLs . /a /b",
            "rsync --server --sender -re.iLs . ''",
            // Options that write, run or are not known.
            "rsync --server --sender -re.iLs --log-file=/etc/cron.d/x . /a",
            "rsync --server --sender -re.iLs --log-file /etc/cron.d/x . /a",
            "rsync --server -re.iLs --write-batch=/x . /a",
            "rsync --server -re.iLs --rsync-path=x . /a",
            "rsync --server -re.iLs --rsh=sh . /a",
            "rsync --server -e sh . /a",
            "rsync --server -re.iLs -T/t . /a",
            "rsync --server -re.iLs -M--log-file=/x . /a",
            "rsync --server -re.iLs --write-devices . /a",
            "rsync --server -re.iLs --delete=x . /a",
            "rsync --server -re.iLs --timeout . /a",
            "rsync --server -re.iLs --backup-dir",
            "rsync --server -re.iLs --backup-dir= . /a",
            "rsync --server -re.iLs --link-dest --sender . /a",
            "rsync --server -re.iLs -- . /a",
            "rsync --server -re.iLs - . /a",
            "rsync --server -B/x . /a",
            // An option after the paths.
            "rsync --server --sender -re.iLs . /a --log-file=/x",
            "rsync --server --sender -re.iLs . /a --remove-source-files",
        ] {
            none(text);
        }
    }
}
