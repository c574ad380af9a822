//! What ran over SSH, recorded as it was written, and played again.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use base64ct::{Base64, Encoding as _};
use serde_json::Value;
use xtask::lab::Who;
use xtask::lab::client::run;
use xtask::lab::places;
use xtask::lab::sshd::{Different, Site};

/// Keeps what shells and some commands write.
const POLICY: &str = r#"
permit (principal, action in [Action::"login", Action::"env"], resource == Target::"host");
@record("rows")
permit (principal, action == Action::"shell", resource == Target::"host");
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has about && context.about like "*digest*" };
@record("rows")
permit (principal, action == Action::"exec", resource == Target::"host")
when { context has about && context.about like "*kept*" };
"#;

/// Runs the collector's `replay`, and says what it printed.
fn replay(site: &Site, args: &[&str]) -> String {
    let collector = site.lab.collector().unwrap();
    let mut replay = collector.program();
    replay.arg("replay").arg("--config").arg(collector.config()).args(args);
    places::run(&mut replay).unwrap()
}

/// The events of a cast: seconds since the one before, code, data.
fn events(path: &Path) -> (Value, Vec<(f64, String, String)>) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let head = serde_json::from_str(lines.next().unwrap()).unwrap();
    let events = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    (head, events)
}

/// Everything that a screen shows.
fn screen(parser: &vt100::Parser) -> (String, (u16, u16), (u16, u16)) {
    let screen = parser.screen();
    let (rows, columns) = screen.size();
    (screen.contents_formatted(), screen.cursor_position(), (rows.get(), columns.get()))
}

fn emulator() -> vt100::Parser {
    vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0)
}

#[test]
fn a_terminal_played_again_ends_with_the_screen_that_was_seen() {
    let site = Site::start(POLICY).unwrap();
    let mut python = site.lab.command(Who::Service, Path::new("/usr/bin/python3")).unwrap();
    python.env("TERM", "xterm-256color").args(["-", "80", "24", "/usr/bin/ssh"]);
    python.args(site.options()).args(["-p", &site.port.to_string(), "-q", "-tt", "root@127.0.0.1"]);
    let said = run(&mut python, include_bytes!("clients/terminal.py")).unwrap();
    assert!(said.ok(), "{said}");
    let seen: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(seen["status"], 5, "{said}");
    let live = Base64::decode_vec(seen["seen"].as_str().unwrap()).unwrap();
    let sizes = seen["sizes"].as_array().unwrap();

    let evidence = site.lab.evidence().unwrap();
    let shell = evidence.operations().find(|event| event.via() == "shell").unwrap();
    assert_eq!(shell.text_of("tags"), "exit 5");
    let cast = site.lab.path("shell.cast");
    replay(&site, &[shell.session(), "--cast", cast.to_str().unwrap()]);
    let (head, events) = events(&cast);
    assert_eq!((&head["term"]["cols"], &head["term"]["rows"]), (&80.into(), &24.into()));

    let mut was = emulator();
    let at = usize::try_from(sizes[0][0].as_u64().unwrap()).unwrap();
    was.process(&live[..at]);
    was.screen_mut().set_size(30.try_into().unwrap(), 100.try_into().unwrap());
    was.process(&live[at..]);

    let mut played = emulator();
    let mut showed_vim = false;
    for (after, code, data) in &events {
        assert!((0.0..60.0).contains(after));
        match code.as_str() {
            "o" => played.process(data.as_bytes()),
            "r" => {
                let (columns, rows) = data.split_once('x').unwrap();
                played.screen_mut().set_size(rows.parse().unwrap(), columns.parse().unwrap());
            }
            "x" => assert_eq!(data, "5"),
            other => panic!("{other}"),
        }
        let (_, columns) = played.screen().size();
        let columns = columns.get();
        let text = played.screen().contents();
        showed_vim |= columns == 100
            && played.screen().alternate_screen()
            && text.contains("  1 hello größe\n~");
    }
    assert!(showed_vim, "vim was never shown at its second size");
    assert_eq!(
        screen(&played),
        screen(&was),
        "played:\n{}\nwas:\n{}",
        played.screen().contents(),
        was.screen().contents()
    );
    assert!(events.iter().any(|(_, _, data)| data.contains("größe ✓ 🌊")));

    // What could harm the reader's terminal is in the record, and in no cast.
    let cast = fs::read_to_string(&cast).unwrap();
    for harm in ["]52;", "]0;evil", "[6n"] {
        assert!(String::from_utf8_lossy(&live).contains(harm), "{harm} was not written");
        let shown = events
            .iter()
            .any(|(_, code, data)| code == "o" && data.contains(&format!("\u{1b}{harm}")));
        assert!(!shown, "{harm}: {cast}");
    }
    // What was typed where nothing is shown is kept nowhere.
    let json = replay(&site, &[shell.session(), "--json"]);
    assert!(json.contains("was 14") && !json.contains("hunter2"), "{json}");
    assert!(!cast.contains("hunter2"));
    let shown = replay(&site, &[shell.session(), "--rows", "1000"]);
    assert!(shown.contains("größe ✓ 🌊") && !shown.contains('\u{1b}'), "{shown}");
    site.finish().unwrap();
}

#[test]
fn output_of_a_command_is_kept_or_told_by_its_digest() {
    let site = Site::start(POLICY).unwrap();
    for command in ["echo kept; echo oops >&2", "echo digest"] {
        assert!(site.ssh(&["root@127.0.0.1", command], b"").unwrap().ok());
    }
    let evidence = site.lab.evidence().unwrap();
    let result = |text: &str| evidence.finished(text).unwrap().json["result"].clone();
    let kept = result("echo kept; echo oops >&2");
    assert_eq!((&kept["bytes"], &kept["kept"]), (&10.into(), &10.into()));
    let digest = result("echo digest");
    assert_eq!((&digest["bytes"], &digest["kept"]), (&7.into(), &0.into()));
    assert_eq!(digest["digest"], blake3::hash(b"digest\n").to_hex().as_str());
    let session = evidence.finished("echo kept; echo oops >&2").unwrap().session().to_owned();
    let json = replay(&site, &[&session, "--json"]);
    let exec = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|event| event["kind"] == "exec")
        .unwrap();
    assert_eq!(exec["kept"]["digest_agrees"], true);
    let mut written: Vec<(&str, &str)> = exec["kept"]["written"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["stream"].as_str().unwrap(), part["text"].as_str().unwrap()))
        .collect();
    written.sort_unstable();
    assert_eq!(written, [("errors", "oops\n"), ("output", "kept\n")]);
    let shown = replay(&site, &[&session]);
    assert!(shown.contains("| kept\n") && shown.contains("| oops\n"), "{shown}");
    site.finish().unwrap();
}

#[test]
fn what_detectors_find_in_a_commands_output_is_covered_for_the_client_and_in_the_record() {
    let ssh = r#"identity_file = "DIR/identity", known_hosts_file = "DIR/known_hosts" }
masking = { detectors = ["card", "ssn", "secret"]"#;
    let different = Different { ssh: ssh.to_owned(), ..Different::default() };
    let site = Site::start_with(POLICY, &different).unwrap();
    let said = site
        .ssh(
            &[
                "root@127.0.0.1",
                "echo kept 4111 1111 1111 1111 paid; printf 'ssn 078-05-1120' >&2; printf no-end",
            ],
            b"",
        )
        .unwrap();
    assert_eq!(said.stdout, "kept ******************* paid\nno-end", "{said}");
    assert_eq!(said.stderr, "ssn ***********", "{said}");
    let evidence = site.lab.evidence().unwrap();
    let exec = evidence.operations().find(|one| one.via() == "exec").unwrap();
    let json = replay(&site, &[exec.session(), "--json"]);
    assert!(json.contains("paid") && json.contains("no-end"), "{json}");
    // The command itself holds the number, as the client sent it; what it wrote does not.
    let written = json.split("\"written\":").nth(1).unwrap();
    assert!(!written.contains("4111") && !written.contains("078-05"), "{written}");
    site.finish().unwrap();
}
