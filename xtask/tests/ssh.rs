//! SSH: an unmodified OpenSSH client as a protected account, and Debian's own sshd behind the gate.

use std::fs;

use xtask::lab::client::run;
use xtask::lab::sshd::Site;

/// Permits some commands, a variable and nothing else.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env"], resource == Target::"host");
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has about && (context.about like "echo *" || context.about == "cat") };
@reason("nobody deletes here")
forbid (principal, action == Action::"exec", resource == Target::"host")
when { context has about && context.about like "*rm *" };
permit (principal, action in [Action::"shell", Action::"subsystem", Action::"file"], resource == Target::"host");
"#;

#[test]
fn a_command_runs_with_its_streams_and_status_and_is_recorded() {
    let site = Site::start(POLICY).unwrap();
    let said = site.ssh(&["root@127.0.0.1", "echo out; echo err >&2; exit 7"], b"").unwrap();
    assert_eq!((said.code, said.stdout.as_str()), (Some(7), "out\n"), "{said}");
    assert_eq!(said.stderr, "err\n", "{said}");
    // Half-close: cat ends when its input does, and all of it comes back.
    let input: Vec<u8> = (0..8_000_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
    let said = site.ssh(&["root@127.0.0.1", "cat"], &input).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.as_bytes() == input, "{} bytes came back", said.stdout.len());
    let evidence = site.lab.evidence().unwrap();
    evidence.is_in_order().unwrap();
    let first = "echo out; echo err >&2; exit 7";
    assert_eq!(evidence.statements(first).count(), 1, "not recorded");
    assert!(evidence.finished("cat").is_some(), "no outcome");
    site.finish().unwrap();
}

#[test]
fn a_refused_command_never_reaches_the_server_and_says_why() {
    let site = Site::start(POLICY).unwrap();
    let said = site.ssh(&["root@127.0.0.1", "echo a; rm -f /nowhere"], b"").unwrap();
    assert_eq!(said.code, Some(126), "{said}");
    assert!(said.stderr.contains("nobody deletes here"), "{said}");
    let said = site.ssh(&["root@127.0.0.1", "id"], b"").unwrap();
    assert_ne!(said.code, Some(0), "{said}");
    assert!(!said.stdout.contains("uid="), "{said}");
    let log = site.log().unwrap();
    assert!(!log.contains("rm -f /nowhere"), "it reached the server:\n{log}");
    let evidence = site.lab.evidence().unwrap();
    let refused: Vec<&str> = evidence
        .operations()
        .filter(|event| event.verdict() == "deny")
        .map(xtask::lab::evidence::Event::text)
        .collect();
    assert_eq!(refused, ["echo a; rm -f /nowhere", "id"]);
    site.finish().unwrap();
}

#[test]
fn forwards_and_the_key_agent_are_refused_where_no_policy_names_them() {
    let site = Site::start(POLICY).unwrap();
    let port = site.lab.postgres.port();
    let said = site.ssh(&["-W", &format!("127.0.0.1:{port}"), "root@127.0.0.1"], b"").unwrap();
    assert_ne!(said.code, Some(0), "{said}");
    assert!(said.stderr.contains("administratively prohibited"), "{said}");
    let back = format!("0:127.0.0.1:{port}");
    let said = site
        .ssh(&["-o", "ExitOnForwardFailure=yes", "-R", &back, "root@127.0.0.1", "echo x"], b"")
        .unwrap();
    assert_ne!(said.code, Some(0), "{said}");
    let evidence = site.lab.evidence().unwrap();
    assert!(evidence.statements(&format!("127.0.0.1:{port}")).count() >= 1, "not recorded");
    site.finish().unwrap();
}

#[test]
fn files_go_by_sftp_and_scp_where_the_subsystem_is_permitted() {
    let site = Site::start(POLICY).unwrap();
    let file = site.dir.path().join("carried");
    fs::write(&file, "carried over\n").unwrap();
    let from = format!("root@127.0.0.1:{}", file.display());
    let mut scp = site.client("/usr/bin/scp", "-P").unwrap();
    let said = run(scp.arg(from).arg("got"), b"").unwrap();
    assert!(said.ok(), "{said}");
    let got = fs::read_to_string(site.lab.path("home").join("got")).unwrap();
    assert_eq!(got, "carried over\n");
    let mut sftp = site.client("/usr/bin/sftp", "-P").unwrap();
    sftp.args(["-b", "-", "root@127.0.0.1"]);
    let said = run(&mut sftp, format!("ls -l {}\n", file.display()).as_bytes()).unwrap();
    assert!(said.ok() && said.stdout.contains("carried"), "{said}");
    let evidence = site.lab.evidence().unwrap();
    assert_eq!(evidence.statements("sftp").count(), 2);
    site.finish().unwrap();
}

#[test]
fn a_shell_has_a_terminal_and_the_line_of_trust_can_be_taken_back() {
    let site = Site::start(POLICY).unwrap();
    let said = site.ssh(&["-tt", "root@127.0.0.1"], b"tty; exit 3\n").unwrap();
    assert_eq!(said.code, Some(3), "{said}");
    assert!(said.stdout.contains("/dev/pts/"), "{said}");
    site.trust(&["--undo"]).unwrap();
    let said = site.ssh(&["root@127.0.0.1", "echo x"], b"").unwrap();
    assert!(said.stderr.contains("Host key verification failed"), "{said}");
    site.finish().unwrap();
}
