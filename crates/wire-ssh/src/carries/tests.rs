//! What clients send is told, and what could do more is not.

use super::*;
use crate::shell::{Reading, read};

fn words(text: &str) -> Vec<String> {
    match read(text.as_bytes()) {
        Reading::Simple(words) => words,
        Reading::Unknown(why) => panic!("{text}: {why}"),
    }
}

/// `text` is the half of `by`, and carries `paths`: `r:` or `w:` and the path of each.
pub(super) fn told(text: &str, by: &str, paths: &str) {
    let carries = carries(&words(text)).unwrap_or_else(|| panic!("{text} isn't told"));
    assert_eq!(carries.by, by, "{text}");
    let paths: Vec<Carry> = paths
        .split_ascii_whitespace()
        .map(|path| match path.split_once(':') {
            Some(("r", path)) => Carry::Read(path.to_owned()),
            Some(("w", path)) => Carry::Write(path.to_owned()),
            _ => panic!("{path}"),
        })
        .collect();
    assert_eq!(carries.paths, paths, "{text}");
}

/// `text` isn't told.
pub(super) fn none(text: &str) {
    assert_eq!(carries(&words(text)), None, "{text}");
}

/// As OpenSSH 9.2's `scp -O` and git 2.39 send them.
#[test]
fn what_clients_send_is_told() {
    for (text, by, paths) in [
        ("scp -f /srv/a", "scp", "r:/srv/a"),
        ("scp -f /srv/a b", "scp", "r:/srv/a r:b"),
        ("scp -d -t /dst", "scp", "w:/dst"),
        ("scp -v -r -p -t .", "scp", "w:."),
        ("scp -v -r -p -d -t -- -x", "scp", "w:-x"),
        ("scp -q -rpf -- /a", "scp", "r:/a"),
        ("/usr/bin/scp -t /dst", "scp", "w:/dst"),
        ("git-upload-pack 'repo.git'", "git", "r:repo.git"),
        ("git-upload-pack '~u/repo'", "git", "r:~u/repo"),
        ("git upload-pack --strict --timeout=30 '/srv/r'", "git", "r:/srv/r"),
        ("git-receive-pack '/x'", "git", "w:/x"),
        ("git receive-pack '/x'", "git", "w:/x"),
        ("/usr/lib/git-core/git-receive-pack '/x'", "git", "w:/x"),
        ("git-upload-archive '/srv/x'", "git", "r:/srv/x"),
        ("/usr/lib/openssh/sftp-server", "sftp-server", ""),
        ("/usr/libexec/sftp-server -e -l INFO -f AUTH -u 0027", "sftp-server", ""),
    ] {
        told(text, by, paths);
    }
}

#[test]
fn others_are_not_told() {
    assert_eq!(carries(&[]), None);
    for text in [
        "scp",
        "scp -f",
        "scp -t",
        "scp -t /a /b",
        "scp -t ''",
        "scp -f -t /a",
        "scp /a host:/b",
        "scp -S /bin/sh -f /a",
        "scp -f -oProxyCommand=x /a",
        "scp -f /a -S /bin/sh",
        "scp -D /x -f /a",
        "scp - -f /a",
        "scp -fx /a",
        "xscp -f /a",
        "scp.sh -f /a",
        "sudo scp -f /a",
        "git",
        "git-",
        "git upload-pack",
        "git -C /x upload-pack /y",
        "git -c core.x=y upload-pack /y",
        "git upload-pack --exec=sh /y",
        "git upload-pack --timeout= /y",
        "git upload-pack /x /y",
        "git upload-pack --strict",
        "git-receive-pack --skip-connectivity-check /x",
        "git-upload-archive --x /x",
        "git push /x",
        "git-shell -c x",
        "git-upload-pack ''",
        "sftp-server -Q requests",
        "sftp-server -h",
        "sftp-server -d",
        "sftp-server /x",
        "cat /x",
    ] {
        none(text);
    }
}
