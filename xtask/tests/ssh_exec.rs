//! Commands over SSH against an allowlist: none gets round it, and the far side's shell is the judge.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use xtask::lab::sshd::{Shared, Site};

/// The allowlist of the corpora.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env"], resource == Target::"host");
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has command && (
    context.command == "backup --full" || context.command like "backup --host=*" ||
    context.command == "ls -l /srv/data" || context.command == "cat /srv/data/report.txt" ) };
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has program && context has arguments && context.program == "probe" &&
    ["--quick", "--quiet"].containsAll(context.arguments) };
"#;

const EVASIONS: &str = include_str!("../../crates/wire-ssh/tests/data/evasions.txt");

/// The text of a corpus' line; `None` where no client can send it.
fn text(line: &str) -> Option<Vec<u8>> {
    let text = line.rsplitn(3, " ;; ").last()?;
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '⏎' => bytes.push(b'\n'),
            '␍' => bytes.push(b'\r'),
            '␉' => bytes.push(b'\t'),
            '␠' => bytes.push(b' '),
            '⟨' => {
                let number: String = chars.by_ref().take_while(|c| *c != '⟩').collect();
                bytes.push(u8::from_str_radix(&number, 16).unwrap());
            }
            c => bytes.extend_from_slice(c.to_string().as_bytes()),
        }
    }
    (!bytes.contains(&0) && !bytes.is_empty()).then_some(bytes)
}

#[test]
fn no_evasion_of_an_allowlist_reaches_the_far_sides_shell() {
    let site = Site::start(POLICY).unwrap();
    let shared = Shared::start(&site).unwrap();
    let lines = EVASIONS.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    let mut asked = 0;
    for command in lines.filter_map(text) {
        assert_eq!(
            shared.run(&command).unwrap().code,
            Some(126),
            "{}",
            String::from_utf8_lossy(&command)
        );
        asked += 1;
    }
    assert!(asked > 250, "{asked} evasions");
    // What is on the list passes, in whatever spelling means the same.
    for command in [
        "backup --full",
        "backup   '--full'",
        "\"backup\" --host=db-1",
        "cat /srv/data/report.txt",
        "probe --quiet --quick",
        "probe",
    ] {
        assert_ne!(shared.run(command.as_bytes()).unwrap().code, Some(126), "{command}");
    }
    assert_eq!(shared.run(b"probe --quiet --all").unwrap().code, Some(126));
    let ran = site.commands().unwrap();
    assert_eq!(ran.len(), 6, "{ran:?}");
    let evidence = site.lab.evidence().unwrap();
    let of = |verdict: &str| {
        evidence.operations().filter(|one| one.via() == "exec" && one.verdict() == verdict).count()
    };
    assert_eq!((of("allow"), of("deny")), (6, asked + 1));
    let sessions: BTreeSet<&str> = evidence
        .operations()
        .filter(|one| one.via() == "exec")
        .map(xtask::lab::evidence::Event::session)
        .collect();
    assert_eq!(sessions.len(), 1, "they shared one connection");
    let told = evidence.statements("backup   '--full'").next().unwrap();
    assert_eq!(told.text_of("command"), "backup --full");
    let untold = evidence.statements("backup --full; id").next().unwrap();
    assert!(untold.text_of("unknown").contains("`;`"), "{}", untold.text_of("unknown"));
    shared.end().unwrap();
    site.finish().unwrap();
}
