//! Files over SSH: what sftp-server says that it did is what the records say, and nothing else.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;

use sha2::{Digest as _, Sha256};
use xtask::lab::client::{Answer, run};
use xtask::lab::evidence::{Event, Evidence};
use xtask::lab::sshd::Site;

/// Permits files below `DIR`, but for what is private there.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env", Action::"subsystem"], resource == Target::"host");
permit (principal, action in Action::"file", resource == Target::"host")
when { context has about && (context.about like "DIR/*" || context.about == "DIR") };
@reason("that is private")
forbid (principal, action in Action::"file", resource == Target::"host")
when { context has about && context.about like "DIR/private/*" };
"#;

struct Files {
    site: Site,
    dir: String,
}

impl Files {
    fn start() -> Self {
        // The directory is named in the policy, so it is there before the site is.
        let dir = tempfile::Builder::new().prefix("tidegate-files-").tempdir().unwrap().keep();
        let dir = dir.to_str().unwrap().to_owned();
        fs::create_dir(format!("{dir}/private")).unwrap();
        fs::write(format!("{dir}/private/key"), "secret\n").unwrap();
        let site = Site::start(&POLICY.replace("DIR", &dir)).unwrap();
        Self { site, dir }
    }

    fn sftp(&self, batch: &str) -> Answer {
        let mut sftp = self.site.client("/usr/bin/sftp", "-P").unwrap();
        sftp.args(["-b", "-", "root@127.0.0.1"]);
        run(&mut sftp, batch.replace("DIR", &self.dir).as_bytes()).unwrap()
    }

    fn finish(self) {
        self.site.finish().unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// What sftp-server did: each line of its log that tells of a file, as kind and paths.
fn done(lines: &[String]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut last = String::new();
    for line in lines {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let names = rest.split('"').skip(1).step_by(2).map(|name| name.trim_end_matches('/'));
        let names: Vec<&str> = names.collect();
        let kind = match verb {
            "open" => "file_open",
            "opendir" => "file_list",
            "stat" | "lstat" | "readlink" | "statvfs" => "file_look",
            "set" => "file_attributes",
            "remove" => "file_remove",
            "posix-rename" => "rename",
            "mkdir" | "rmdir" | "rename" | "symlink" | "hardlink" => verb,
            _ => continue,
        };
        // It tells the link's two names in the order in which they came.
        let names = if verb == "symlink" { vec![names[1], names[0]] } else { names };
        let said = format!("{kind} {}", names.join(" -> "));
        // Of one request that sets several attributes it tells each.
        if verb == "set" && said == last {
            continue;
        }
        *found.entry(said.clone()).or_default() += 1;
        last = said;
    }
    found
}

/// The same of the records: what was permitted. What sftp-server does not tell of is left out.
fn recorded(evidence: &Evidence) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for event in evidence.operations().filter(|event| event.verdict() == "allow") {
        let kind = event.via();
        let tells = matches!(
            kind,
            "file_open"
                | "file_list"
                | "file_look"
                | "file_attributes"
                | "file_remove"
                | "mkdir"
                | "rmdir"
                | "rename"
                | "symlink"
                | "hardlink"
        );
        if tells {
            let text = event.text().split(" (").next().unwrap_or_default();
            let text = match (event.text_of("sent"), text.split_once(" -> ")) {
                ("", _) => text.to_owned(),
                (sent, None) => sent.trim_end_matches('/').to_owned(),
                (sent, Some((_, to))) => format!("{sent} -> {to}"),
            };
            *found.entry(format!("{kind} {text}")).or_default() += 1;
        }
    }
    found
}

fn carried<'a>(event: &'a Event, way: &str) -> (u64, &'a str) {
    let carried = &event.json["carried"];
    let ranges = carried[way].as_array().unwrap();
    assert_eq!(carried[format!("{way}_total")], 0, "not all are listed");
    let bytes = ranges.iter().map(|range| range["bytes"].as_u64().unwrap()).sum();
    (bytes, carried["sha256"].as_str().unwrap())
}

#[test]
fn each_line_of_the_servers_log_has_its_record_and_each_record_its_line() {
    let files = Files::start();
    let big: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    let home = files.site.lab.path("home");
    fs::write(home.join("big"), &big).unwrap();
    fs::write(home.join("empty"), "").unwrap();
    let said = files.sftp(
        "put big DIR/big\nput empty DIR/empty\nmkdir DIR/sub\nput -p big DIR/sub/big\nget DIR/big again\n\
         ls -l DIR\nrename DIR/sub/big DIR/sub/moved\nln -s DIR/sub/moved DIR/link\nln DIR/big DIR/hard\n\
         chmod 600 DIR/hard\nget DIR/link linked\nls DIR/sub/..\nrm DIR/sub/moved\nrmdir DIR/sub\ndf DIR\n\
         -get DIR/nothing\n",
    );
    assert!(said.ok(), "{said}");
    assert!(
        fs::read(home.join("again")).unwrap() == big
            && fs::read(home.join("linked")).unwrap() == big
    );
    let evidence = files.site.lab.evidence().unwrap();
    let lines = files.site.files().unwrap();
    let (done, recorded) = (done(&lines), recorded(&evidence));
    assert_eq!(recorded, done, "{}", lines.join("\n"));
    assert!(done.len() >= 20, "{done:?}");
    // What went over whole has its digest; links are told by what they lead to.
    let digest = digest_of(&big);
    let dir = &files.dir;
    let find = |text: String| {
        evidence.finished(&text).unwrap_or_else(|| panic!("no outcome of {text}: {recorded:?}"))
    };
    let put = find(format!("{dir}/big (write create truncate) (mode 0644)"));
    assert_eq!(carried(put, "written"), (3_000_001, digest.as_str()));
    let got = find(format!("{dir}/big (read)"));
    assert_eq!(carried(got, "read"), (3_000_001, digest.as_str()));
    let linked = find(format!("{dir}/sub/moved (read)"));
    assert_eq!(carried(linked, "read"), (3_000_001, digest.as_str()));
    let empty = find(format!("{dir}/empty (write create truncate) (mode 0644)"));
    assert_eq!(carried(empty, "written"), (0, digest_of(b"").as_str()));
    files.finish();
}

#[test]
fn what_is_refused_is_not_in_the_servers_log_and_the_session_goes_on() {
    let files = Files::start();
    let dir = files.dir.clone();
    std::os::unix::fs::symlink(format!("{dir}/private"), format!("{dir}/aside")).unwrap();
    fs::create_dir(format!("{dir}/open")).unwrap();
    let home = files.site.lab.path("home");
    fs::write(home.join("new"), "new\n").unwrap();
    let said = files.sftp(
        "-get DIR/private/key\n-get DIR/aside/key\n-get DIR/open/../private/key\n-put new DIR/private/new\n\
         -put new DIR/aside/new\n-rm DIR/private/key\n-rename DIR/private/key DIR/key\n\
         -rename DIR/open DIR/private/open\n-ln DIR/private/key DIR/key\n-chmod 666 DIR/aside/key\n\
         -ln -s /etc DIR/private/etc\n-get /etc/hostname\n-mkdir DIR/aside/sub\nput new DIR/open/new\n",
    );
    assert!(said.ok(), "{said}");
    assert!(said.stderr.contains("Permission denied"), "{said}");
    assert!(fs::read_to_string(format!("{dir}/open/new")).unwrap() == "new\n");
    assert_eq!(fs::read_dir(format!("{dir}/private")).unwrap().count(), 1);
    assert!(!home.join("key").exists() && !home.join("hostname").exists());
    let evidence = files.site.lab.evidence().unwrap();
    let refused: Vec<&str> = evidence
        .operations()
        .filter(|event| event.verdict() == "deny" && event.via() != "file_look")
        .map(Event::text)
        .collect();
    assert!(refused.len() >= 5, "{refused:?}");
    let mut reasons = evidence.operations().filter(|event| event.text().contains("/private"));
    assert!(reasons.any(|event| event.text_of("reason").contains("that is private")));
    let lines = files.site.files().unwrap();
    assert_eq!(recorded(&evidence), done(&lines), "{}", lines.join("\n"));
    for line in lines.iter().filter(|line| !line.starts_with("realpath ")) {
        assert!(!line.contains("private/"), "it reached the server: {line}");
        assert!(!line.contains("aside/"), "it reached the server: {line}");
    }
    files.finish();
}

fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
