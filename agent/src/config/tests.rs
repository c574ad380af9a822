//! Files in, complaints out.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tidegate_event::{Durability, Mode, OnFailure, TargetName};

use tidegate_mask::{Mask, Unresolved};

use super::masking::DetectorName;
use super::{Accounts, ClientTls, Config, Destination, Earlier, Reach, ServerTls, StrictDefault};

/// A host with one user.
struct OneUser;

impl Accounts for OneUser {
    fn uid(&self, user: &str) -> Result<Option<u32>, String> {
        match user {
            "batch" => Ok(Some(991)),
            "broken" => Err("EIO".to_owned()),
            _ => Ok(None),
        }
    }

    fn own_uid(&self) -> u32 {
        500
    }
}

const HEAD: &str = "[agent]\nid = \"host-a\"\n[policy]\nfiles = [\"p.cedar\"]\n";

/// A directory with a policy, and the file's path in it.
fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.cedar"), "").unwrap();
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    dir
}

fn parse(dir: &Path, text: &str) -> Result<Config, String> {
    Config::parse(&dir.join("agent.toml"), text, &OneUser)
        .map_err(|errors| errors.to_string().replace(&format!("{}/", dir.display()), ""))
}

/// Every complaint about `text`, which stands behind four lines that are right.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let dir = dir();
    let errors = parse(dir.path(), &format!("{HEAD}{text}")).unwrap_err();
    let got: Vec<&str> = errors.lines().collect();
    assert_eq!(got, expected, "{text}");
}

#[test]
fn the_smallest_file_takes_every_default() {
    let dir = dir();
    let config = parse(dir.path(), HEAD).unwrap();
    assert_eq!(config.agent_id, "host-a");
    assert_eq!(config.state_dir, Path::new("/var/lib/tidegate/agent"));
    assert_eq!(config.control_socket(), Path::new("/run/tidegate/agent.sock"));
    assert_eq!((config.gate.port, config.gate.drain_ms_max), (15432, 30_000));
    assert_eq!(config.capture.cgroup, None);
    assert_eq!(config.capture.pin_dir, Path::new("/sys/fs/bpf/tidegate"));
    assert_eq!((config.spool.bytes_max, config.spool.segment_bytes), (4 << 30, 64 << 20));
    assert_eq!(config.policy.files, [dir.path().join("p.cedar")]);
    assert_eq!(config.policy.durability, Durability::Process);
    assert!(!config.collector && config.principals.is_empty() && config.targets.is_empty());
}

#[test]
fn strictness_and_reach_are_said_by_name_or_number() {
    let dir = dir();
    let text = r#"
[capture]
strict_default = "pass"
earlier = "keep"
[[principals]]
name = "batch"
user = "batch"
strict = true
[[principals]]
name = "report"
uid = 992
[[targets]]
name = "ledger"
protocol = "postgres"
destinations = ["10.0.0.5:5432"]
enforce_for = "everyone"
exempt = ["batch", "0", "34", "0"]
"#;
    let config = parse(dir.path(), &format!("{HEAD}{text}")).unwrap();
    assert_eq!(config.strict_uids, [991]);
    assert_eq!(config.capture.strict_default, StrictDefault::Pass);
    assert_eq!(config.capture.earlier, Earlier::Keep);
    let ledger = config.targets.first().unwrap();
    assert_eq!(ledger.reach, Reach { everyone: true, exempt: vec![0, 34, 991] });
    let target =
        "[[targets]]\nname = \"t\"\nprotocol = \"postgres\"\ndestinations = [\"10.0.0.5:1\"]\n";
    check(
        &format!("{target}exempt = [\"nobody\", \"4294967295\"]\n"),
        &[
            "agent.toml:9:10: exempt has no effect without enforce_for = \"everyone\"; leave it out, \
             or add enforce_for = \"everyone\"",
            "agent.toml:9:11: there is no user \"nobody\" on this host; create the account, or give \
             its uid",
            "agent.toml:9:21: 4294967295 is no uid; use 0 to 4294967294",
        ],
    );
}

#[test]
fn a_whole_file_says_what_it_means() {
    let dir = dir();
    let text = r#"
[collector]
[[principals]]
name = "batch"
user = "batch"
[[principals]]
name = "report"
uid = 992
[[targets]]
name = "ledger"
protocol = "postgres"
destinations = ["10.0.0.5:5432", "db.example:5432"]
principals = ["batch"]
mode = "shadow"
on_failure = "open"
open_seconds_max = 60
[targets.tls]
client = "refuse"
ca_file = "ca.pem"
server_name = "db.example"
[[targets]]
name = "all"
protocol = "postgres"
destinations = ["10.0.0.0/8:5432"]
tls.server = "off"
"#;
    let config = parse(dir.path(), &format!("{HEAD}{text}")).unwrap();
    assert!(config.collector);
    let [ledger, all] = config.targets.as_slice() else { panic!("two targets") };
    assert_eq!(ledger.name, TargetName("ledger".to_owned()));
    let addr: IpAddr = "10.0.0.5".parse().unwrap();
    assert_eq!(
        ledger.destinations,
        [
            Destination::Net { addr, prefix: 32, port: 5432 },
            Destination::Name { host: "db.example".to_owned(), port: 5432 }
        ]
    );
    assert_eq!((ledger.mode, ledger.on_failure), (Mode::Shadow, OnFailure::Open));
    assert_eq!(ledger.open_ms_max, 60_000);
    assert_eq!((ledger.tls.client, ledger.tls.server), (ClientTls::Refuse, ServerTls::VerifyFull));
    assert_eq!(ledger.tls.ca_file, Some(dir.path().join("ca.pem")));
    assert_eq!(config.uids_of(ledger), [991]);
    assert_eq!(config.uids_of(all), [991, 992]);
    assert_eq!((all.tls.client, all.tls.server), (ClientTls::Refuse, ServerTls::Off));
    assert_eq!(config.principal(991).map(|principal| principal.name.as_str()), Some("batch"));
    assert_eq!(config.principal(1), None);
}

#[test]
fn a_wrong_form_is_refused_with_its_place() {
    let see = "see dist/agent.toml for every key and its form";
    for (text, place, what) in [
        ("[gate]\nprot = 1", "6:1", "unknown field `prot`, expected `port` or `drain_seconds_max`"),
        ("[gate]\nport = \"x\"", "6:8", "invalid type: string \"x\", expected i64"),
        ("[collector]\naddress = \"x\"", "6:1", "unknown field `address`, there are no fields"),
        ("[[principals]]\nuid = 1", "5:1", "missing field `name`"),
        ("[agent]", "5:2", "duplicate key"),
    ] {
        check(text, &[&format!("agent.toml:{place}: {what}; {see}")]);
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_to_do() {
    for (text, expected) in [
        ("[gate]\nport = 0", "6:8: gate.port = 0 is out of bounds; use 1 to 65535"),
        ("[gate]\nport = 65536", "6:8: gate.port = 65536 is out of bounds; use 1 to 65535"),
        (
            "[gate]\ndrain_seconds_max = -1",
            "6:21: gate.drain_seconds_max = -1 is out of bounds; use 0 to 3600",
        ),
        (
            "[capture]\npin_dir = \"x\"",
            "6:11: capture.pin_dir \"x\" is no absolute path; start it with '/'",
        ),
        (
            "[spool]\nbytes_max = \"4 GB\"",
            "6:13: spool.bytes_max \"4 GB\" is no size; write a whole number and KiB, MiB, GiB or \
             TiB, such as \"4 GiB\"",
        ),
        (
            "[spool]\nsegment_bytes = \"1 KiB\"",
            "6:17: spool.segment_bytes \"1 KiB\" is out of bounds; use 1 MiB to 1 GiB",
        ),
        (
            "[spool]\nbytes_max = \"64 MiB\"",
            "6:13: spool.bytes_max holds fewer than 4 segments; give it 256 MiB or more, or make \
             spool.segment_bytes smaller",
        ),
    ] {
        check(text, &[&format!("agent.toml:{expected}")]);
    }
}

#[test]
fn a_principal_is_one_account_that_can_be_guarded() {
    for (text, expected) in [
        (
            "uid = 0",
            "7:7: uid 0 can't be a principal; root can take the hooks away, so catching it proves \
             nothing: run the client under an account of its own",
        ),
        (
            "uid = 500",
            "7:7: uid 500 is the agent's own; the agent would catch its own connections: run the \
             client under another account",
        ),
        ("uid = 4294967295", "7:7: 4294967295 is no uid; use 1 to 4294967294"),
        (
            "user = \"nobody-here\"",
            "7:8: there is no user \"nobody-here\" on this host; create the account, or give its \
             uid",
        ),
        ("user = \"broken\"", "7:8: user \"broken\" can't be looked up: EIO; give its uid instead"),
        (
            "uid = 7\nuser = \"batch\"",
            "7:7: principal \"b\" has both uid and user; keep one of them",
        ),
        ("", "5:1: principal \"b\" has neither uid nor user; add uid = 991 or user = \"name\""),
        (
            "uid = 7\n[[principals]]\nname = \"c\"\nuid = 7",
            "10:7: uid 7 is principal \"b\" already; a uid is one principal: keep one of them",
        ),
        (
            "uid = 7\n[[principals]]\nname = \"b\"\nuid = 8",
            "9:8: principal \"b\" stands twice; keep one of them",
        ),
    ] {
        let text = format!("[[principals]]\nname = \"b\"\n{text}");
        check(&text, &[&format!("agent.toml:{expected}")]);
    }
}

/// Lines 5 to 7 of a file with one principal; a target's own lines begin at 11.
const TARGET: &str = "[[principals]]\nname = \"b\"\nuid = 7\n[[targets]]\nname = \"t\"\nprotocol = \
                      \"postgres\"\n";

#[test]
fn a_target_can_be_caught_and_guarded() {
    let to = "destinations = [\"10.0.0.5:5432\"]\n";
    for (text, expected) in [
        ("destinations = []", "11:16: target \"t\" has 0 destinations; give it 1 to 256".to_owned()),
        (
            "destinations = [\"127.0.0.1:15432\"]",
            "11:17: destination \"127.0.0.1:15432\" covers the gate's own port; choose another \
             gate.port, or leave loopback out of the destination"
                .to_owned(),
        ),
        (
            "destinations = [\"[::/0]:15432\"]",
            "11:17: destination \"[::/0]:15432\" covers the gate's own port; choose another \
             gate.port, or leave loopback out of the destination"
                .to_owned(),
        ),
        (
            "destinations = [\"10.0.0.5:1\", \"10.0.0.5:1\"]",
            "11:31: destination \"10.0.0.5:1\" is in target \"t\" already; a connection has one \
             target: keep one of them"
                .to_owned(),
        ),
        (
            &format!("{to}principals = []"),
            "12:14: principals is empty, so nobody would be caught; name some, or leave the key \
             out to mean all"
                .to_owned(),
        ),
        (
            &format!("{to}principals = [\"x\"]"),
            "12:15: there is no valid principal \"x\"; add a [[principals]] entry of that name, or \
             correct it"
                .to_owned(),
        ),
        (
            &format!("{to}mode = \"off\""),
            "12:8: mode can't be \"off\"; use \"enforce\" or \"shadow\"".to_owned(),
        ),
        (
            &format!("{to}on_failure = \"open\""),
            "12:14: on_failure = \"open\" has no bound; add open_seconds_max = 6 to 3600: for so \
             long after the agent's last sign of life connections pass unrecorded"
                .to_owned(),
        ),
        (
            &format!("{to}open_seconds_max = 9"),
            "12:20: open_seconds_max has no effect with on_failure = \"closed\"; leave it out"
                .to_owned(),
        ),
        (
            &format!("{to}tls.server = \"prefer\""),
            "12:14: tls.server can't be \"prefer\"; use \"verify-full\" or \"off\"".to_owned(),
        ),
        (
            &format!("{to}tls = {{ server = \"off\", ca_file = \"ca.pem\" }}"),
            "12:35: tls.ca_file has no effect with tls.server = \"off\"; leave it out, or use \
             \"verify-full\""
                .to_owned(),
        ),
        (
            &format!("{to}tls.server_name = \"a b\""),
            "12:19: tls.server_name \"a b\" is no host name or address; write the name that the \
             server's certificate bears"
                .to_owned(),
        ),
    ] {
        check(&format!("{TARGET}{text}"), &[&format!("agent.toml:{expected}")]);
    }
}

#[test]
fn a_target_is_never_open_for_less_than_an_agent_takes_to_count_as_dead() {
    let text = format!(
        "{TARGET}destinations = [\"10.0.0.5:5432\"]\non_failure = \"open\"\nopen_seconds_max = 5"
    );
    let expected = "agent.toml:13:20: open_seconds_max = 5 is out of bounds; use 6 to 3600";
    check(&text, &[expected]);
}

#[test]
fn a_policy_that_is_not_there_is_never_silent() {
    let dir = dir();
    let files = |files: &str| format!("[agent]\nid = \"a\"\n[policy]\nfiles = [{files}]\n");
    let todo = "name a readable file, or a pattern with '*' in its last part that matches one";
    for (text, expected) in [
        (
            files(""),
            "4:9: policy.files is empty; name at least one Cedar file; without a permit \
             everything is refused"
                .to_owned(),
        ),
        (files("\"x*\""), format!("4:10: policy file \"x*\" matches nothing; {todo}")),
        (
            files("\"p.cedar\"") + "durability = \"collector\"",
            "5:14: policy.durability \"collector\" needs a collector, and none is configured; add \
             [collector] and enrol the agent, or use \"host\""
                .to_owned(),
        ),
        (
            files("\"p.cedar\"") + "durability = \"disk\"",
            "5:14: policy.durability can't be \"disk\"; use \"process\" or \"host\" or \
             \"collector\""
                .to_owned(),
        ),
    ] {
        assert_eq!(parse(dir.path(), &text).unwrap_err(), format!("agent.toml:{expected}"));
    }
}

#[test]
fn all_complaints_come_at_once_in_the_file_s_order() {
    check(
        "[gate]\nport = 0\n[[principals]]\nname = \"!\"\nuid = 0\n[[targets]]\nname = \
         \"t\"\nprotocol = \"oracle\"\ndestinations = [\"x\"]",
        &[
            "agent.toml:6:8: gate.port = 0 is out of bounds; use 1 to 65535",
            "agent.toml:8:8: principal \"!\" is no name; use up to 63 letters, digits, '-', '_' \
             and '.', a letter or digit first",
            "agent.toml:9:7: uid 0 can't be a principal; root can take the hooks away, so \
             catching it proves nothing: run the client under an account of its own",
            "agent.toml:12:12: protocol can't be \"oracle\"; use \"postgres\" or \"mysql\" or \"ssh\"",
            "agent.toml:13:17: destination \"x\" has no port; write \"10.0.0.5:5432\", \
             \"10.1.0.0/16:5432\", \"[fd00::1]:5432\" or \"db.example:5432\"",
        ],
    );
}

#[test]
fn the_shipped_example_is_valid_and_names_every_key() {
    let dir = dir();
    std::fs::create_dir(dir.path().join("policy")).unwrap();
    std::fs::write(dir.path().join("policy/a.cedar"), "").unwrap();
    let example = include_str!("../../../dist/agent.toml");
    let config = parse(dir.path(), example).unwrap();
    assert_eq!(config.targets.len(), 1);
    for key in [
        "id",
        "state_dir",
        "run_dir",
        "port",
        "drain_seconds_max",
        "cgroup",
        "pin_dir",
        "bytes_max",
        "segment_bytes",
        "files",
        "durability",
        "[collector]",
        "name",
        "uid",
        "user",
        "protocol",
        "destinations",
        "principals",
        "mode",
        "on_failure",
        "open_seconds_max",
        "client",
        "server",
        "ca_file",
        "server_name",
        "unresolved",
        "detectors",
        "password_file",
        "refresh_seconds",
        "target",
        "columns",
        "class",
        "mask",
        "keep_last",
    ] {
        let is_key = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            line == key || line.starts_with(&format!("{key} ="))
        };
        assert!(example.lines().any(is_key), "dist/agent.toml does not show {key}");
    }
}

#[test]
fn what_is_protected_says_what_it_means() {
    let dir = dir();
    std::fs::write(dir.path().join("pw"), "secret\n").unwrap();
    let text = format!(
        "{TARGET}destinations = [\"10.0.0.5:1\"]\ncatalogue = {{ user = \"u\", password_file = \
         \"pw\" }}\n[[targets]]\nname = \"o\"\nprotocol = \"postgres\"\ndestinations = \
         [\"10.0.0.6:1\"]\nmasking.unresolved = \"detect\"\n[[protect]]\ntarget = \
         \"t\"\ncolumns = [\"c.ssn\", \"s.C.x\"]\nclass = \"ssn\"\nmask = \
         \"partial\"\n[[protect]]\ntarget = \"t\"\ncolumns = [\"c.card\"]\nclass = \
         \"card\"\nmask = \"hash\"\n"
    );
    let config = parse(dir.path(), &format!("{HEAD}{text}")).unwrap();
    let [t, o] = config.targets.as_slice() else { panic!("two targets") };
    let masks: Vec<Mask> = t.protect.iter().map(|entry| entry.mask).collect();
    assert_eq!(masks, [Mask::Partial { keep_last: 4 }, Mask::Hash]);
    let columns: Vec<String> = t.protect[0].columns.iter().map(ToString::to_string).collect();
    assert_eq!(columns, ["c.ssn", "s.c.x"]);
    assert_eq!(t.masking.unresolved, Unresolved::Withhold);
    let catalogue = t.catalogue.as_ref().unwrap();
    assert_eq!((catalogue.user.as_str(), catalogue.refresh_ms), ("u", 60_000));
    assert_eq!(catalogue.password_file, Some(dir.path().join("pw")));
    assert!(o.protect.is_empty() && o.catalogue.is_none());
    assert_eq!(o.masking.unresolved, Unresolved::Detect);
    assert_eq!(o.masking.detectors, DetectorName::ALL);
}

#[test]
fn a_mysql_target_is_protected_by_names_in_lower_case_and_an_ssh_target_is_not() {
    let dir = dir();
    let entry = "[[protect]]\ntarget = \"t\"\nclass = \"c\"\nmask = \"null\"\n";
    let mysql = TARGET.replace("postgres", "mysql");
    let text = format!(
        "{HEAD}{mysql}destinations = [\"10.0.0.5:1\"]\nmasking.detectors = \
         [\"card\"]\ncatalogue.user = \"u\"\n{entry}columns = [\"Bank.`Customers`.SSN\", \"a.b\"]\n"
    );
    let config = parse(dir.path(), &text).unwrap();
    let target = &config.targets[0];
    let columns: Vec<String> = target.protect[0].columns.iter().map(ToString::to_string).collect();
    assert_eq!(columns, ["bank.customers.ssn", "a.b"]);
    assert_eq!(target.masking.unresolved, Unresolved::Withhold);
    assert!(target.catalogue.is_some());
    let twice = "columns = [\"`A`.b\", \"a.B\"]";
    check(
        &format!("{mysql}destinations = [\"10.0.0.5:1\"]\n{entry}{twice}"),
        &["agent.toml:16:21: column a.b is protected already; a column has one mask: keep one of \
           them"],
    );
    let ssh = TARGET.replace("postgres", "ssh");
    let keys = "ssh = { identity_file = \"p.cedar\", known_hosts_file = \"p.cedar\" }\n";
    let to = "destinations = [\"10.0.0.5:1\"]\n";
    let refused = "agent.toml:10:12: \"t\" has no columns that could be protected: it speaks ssh; leave out \
                   its [[protect]], masking.unresolved and catalogue; masking.detectors is for it too";
    std::fs::set_permissions(dir.path().join("p.cedar"), Permissions::from_mode(0o600)).unwrap();
    for more in [
        format!("{entry}columns = [\"a.b\"]"),
        "masking.unresolved = \"clear\"".to_owned(),
        "catalogue.user = \"u\"".to_owned(),
    ] {
        let said = parse(dir.path(), &format!("{HEAD}{ssh}{to}{keys}{more}")).unwrap_err();
        assert_eq!(said.trim_end(), refused, "{more}");
    }
}

#[test]
fn what_is_protected_is_refused_where_it_means_nothing() {
    let to = "destinations = [\"10.0.0.5:1\"]\n";
    let entry = "[[protect]]\ntarget = \"t\"\nclass = \"c\"\n";
    for (text, expected) in [
        (
            "masking.unresolved = \"pass\"".to_owned(),
            "12:22: masking.unresolved can't be \"pass\"; use \"withhold\" or \"detect\" or \
             \"clear\"",
        ),
        (
            "masking.detectors = [\"cart\"]".to_owned(),
            "12:22: masking.detectors can't be \"cart\"; use \"card\" or \"ssn\" or \"iban\" or \
             \"email\" or \"phone\" or \"secret\"",
        ),
        (
            "masking = { unresolved = \"detect\", detectors = [] }".to_owned(),
            "12:48: masking.detectors is empty, so nothing would be found; name some, or leave the \
             key out to mean all",
        ),
        (
            "catalogue = { user = \"\" }".to_owned(),
            "12:22: catalogue.user is no database user; write a name of 1 to 63 bytes",
        ),
        (
            "catalogue = { user = \"u\", refresh_seconds = 1 }".to_owned(),
            "12:45: catalogue.refresh_seconds = 1 is out of bounds; use 5 to 3600",
        ),
        (
            "catalogue = { user = \"u\", password_file = \"p.cedar\" }".to_owned(),
            "12:43: catalogue.password_file \"p.cedar\" is empty; name a file that holds the \
             password and nothing else",
        ),
        (
            format!("{entry}columns = []\nmask = \"null\""),
            "15:11: this entry protects 0 columns; give it 1 to 1024",
        ),
        (
            format!("{entry}columns = [\"a\"]\nmask = \"null\""),
            "15:12: column \"a\" has not two or three parts; write relation.column or \
             schema.relation.column, names that are not all lower case in double quotes",
        ),
        (
            format!("{entry}columns = [\"a.b\", \"A.B\"]\nmask = \"null\""),
            "15:19: column a.b is protected already; a column has one mask: keep one of them",
        ),
        (
            format!("{entry}columns = [\"a.b\"]\nmask = \"blur\""),
            "16:8: mask can't be \"blur\"; use \"redact\" or \"partial\" or \"hash\" or \
             \"tokenise\" or \"null\"",
        ),
        (
            format!("{entry}columns = [\"a.b\"]\nmask = \"null\"\nkeep_last = 4"),
            "17:13: keep_last has no effect without mask = \"partial\"; leave it out",
        ),
        (
            format!("{entry}columns = [\"a.b\"]\nmask = \"null\"").replace("\"t\"", "\"x\""),
            "13:10: there is no target \"x\"; add a [[targets]] entry of that name, or correct it",
        ),
    ] {
        check(&format!("{TARGET}{to}{text}"), &[&format!("agent.toml:{expected}")]);
    }
}
