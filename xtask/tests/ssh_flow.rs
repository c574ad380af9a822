//! Flow over SSH: large data both ways at once, several sessions on one connection, and a client that reads late.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use xtask::lab::sshd::{Shared, Site};

const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env", Action::"exec"], resource == Target::"host");
"#;

/// More than every buffer on the way holds.
const BYTES: usize = 120_000_000;

#[test]
fn more_than_all_buffers_goes_both_ways_at_once() {
    let site = Site::start(POLICY).unwrap();
    let mut ssh = site.client("/usr/bin/ssh", "-p").unwrap();
    ssh.args(["root@127.0.0.1", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut ssh = ssh.spawn().unwrap();
    let mut stdin = ssh.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        let mut left = BYTES;
        while left > 0 {
            let now = left.min(block.len());
            stdin.write_all(&block[..now]).unwrap();
            left -= now;
        }
    });
    let mut stdout = ssh.stdout.take().unwrap();
    let (mut block, mut got) = (vec![0; 1 << 20], 0);
    loop {
        let count = stdout.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        assert!(block[..count].iter().all(|byte| *byte == b'x'));
        got += count;
    }
    writer.join().unwrap();
    assert!(ssh.wait().unwrap().success());
    assert_eq!(got, BYTES);
    site.finish().unwrap();
}

#[test]
fn a_session_whose_client_reads_late_does_not_hold_up_the_others() {
    let site = Site::start(POLICY).unwrap();
    let shared = Shared::start(&site).unwrap();
    let mut late = shared.client(b"head -c 12000000 /dev/zero; echo end >&2").unwrap();
    let mut late = late.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // All of it has left the server, and is on its way.
    let said =
        shared.run(b"while pgrep -f '^head -c 12000000' >/dev/null; do :; done; echo passed");
    assert_eq!(said.unwrap().stdout, "passed\n");
    let mut got = Vec::new();
    late.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert_eq!(got.len(), 12_000_000);
    assert!(late.wait().unwrap().success());
    shared.end().unwrap();
    site.finish().unwrap();
}

#[test]
fn requests_are_answered_while_another_session_is_given_more_than_all_buffers_hold() {
    let site = Site::start(POLICY).unwrap();
    let shared = Shared::start(&site).unwrap();
    let mut much = shared.client(b"head -c 150000000 /dev/zero").unwrap();
    let mut much = much.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = much.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut block, mut got) = (vec![0; 1 << 16], 0);
        loop {
            match stdout.read(&mut block).unwrap() {
                0 => return got,
                count => got += count,
            }
        }
    });
    for number in 0..20 {
        let said = shared.run(format!("echo {number}").as_bytes()).unwrap();
        assert_eq!(said.stdout, format!("{number}\n"), "{said}");
    }
    assert_eq!(reader.join().unwrap(), 150_000_000);
    assert!(much.wait().unwrap().success());
    shared.end().unwrap();
    site.finish().unwrap();
}

#[test]
fn a_command_that_closes_its_output_early_has_its_status_over_a_shared_connection() {
    let site = Site::start(POLICY).unwrap();
    let shared = Shared::start(&site).unwrap();
    for status in [0, 1, 44] {
        for command in [
            format!("exit {status}"),
            format!("echo x; exec >/dev/null 2>&1; sleep 1; exit {status}"),
        ] {
            let mut ssh = shared.client(command.as_bytes()).unwrap();
            // Its input has ended before the command begins.
            let ended = ssh.stdin(Stdio::null()).output().unwrap();
            assert_eq!(ended.status.code(), Some(status), "{command}");
        }
    }
    shared.end().unwrap();
    site.finish().unwrap();
}

#[test]
fn sessions_that_are_given_up_in_the_middle_stop_nothing_and_have_their_end() {
    let site = Site::start(POLICY).unwrap();
    let shared = Shared::start(&site).unwrap();
    for _ in 0..12 {
        // The client leaves while the server sends.
        let mut down = shared.client(b"cat /dev/zero").unwrap();
        let mut down = down.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut some = vec![0; 100_000];
        down.stdout.take().unwrap().read_exact(&mut some).unwrap();
        down.kill().unwrap();
        down.wait().unwrap();
        // The server leaves while the client sends.
        let mut up = shared.client(b"head -c 1 >/dev/null").unwrap();
        let mut up = up.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = up.stdin.take().unwrap();
        let block = vec![b'x'; 1 << 20];
        while stdin.write_all(&block).is_ok() {}
        drop(stdin);
        up.wait().unwrap();
    }
    assert_eq!(shared.run(b"echo on").unwrap().stdout, "on\n");
    shared.end().unwrap();
    let evidence = site.lab.evidence().unwrap();
    let ran: Vec<&str> = evidence
        .operations()
        .filter(|one| one.via() == "exec")
        .map(xtask::lab::evidence::Event::status)
        .collect();
    assert_eq!(ran.len(), 25);
    assert!(ran.iter().all(|status| *status == "ok"), "{ran:?}");
    site.finish().unwrap();
}
