//! `tidegate-agent policy replay` over what the collector really answers.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde_json::{Value, json};
use xtask::lab::client::run;
use xtask::lab::{Lab, Options, Who};

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, note text); \
    INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 3) n; \
    GRANT ALL ON notes TO PUBLIC";

/// Reads what the laboratory's own policy lets pass, deletes too, and adds nothing.
const NEW: &str = r#"
    permit (principal, action in [Action::"login", Action::"read", Action::"talk"], resource);
    permit (principal, action == Action::"delete", resource);"#;

/// What the collector answers to `query --json`, in a file.
fn records(lab: &Lab) -> std::path::PathBuf {
    lab.evidence().unwrap();
    let collector = lab.collector().unwrap();
    let mut query = collector.program();
    query.arg("query").arg("--config").arg(collector.config());
    let answer = run(query.args(["--json", "--limit", "100000"]), b"").unwrap();
    assert!(answer.ok(), "{answer}");
    let path = lab.path("records.jsonl");
    std::fs::write(&path, answer.stdout).unwrap();
    path
}

fn replay(lab: &Lab, config: &Path, more: &[&Path]) -> Value {
    let mut command = lab.agent().unwrap().program().unwrap();
    command.args(["policy", "replay", "--json", "--config"]).arg(config).args(more);
    let answer = run(&mut command, b"").unwrap();
    assert!(answer.ok(), "{answer}");
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn what_was_recorded_is_decided_again_as_it_was_or_as_other_policies_say() {
    let lab = Lab::start(Options::default()).unwrap();
    lab.postgres.app(NOTES).unwrap();
    let read = "SELECT note FROM notes ORDER BY id";
    let add = "INSERT INTO notes VALUES (4, 'four')";
    let statements = [
        read,
        read,
        add,
        "DELETE FROM notes",
        "SELECT id FROM notes WHERE note = 'note 1'",
        "nonsense 1",
    ];
    lab.sql(Who::Service, &statements).unwrap();
    let records = records(&lab);
    let config = lab.agent().unwrap().config();

    let same = replay(&lab, &config, &[&records]);
    assert_eq!((&same["changed"], &same["not_replayed"]), (&json!(0), &json!({})), "{same}");
    assert!(same["unchanged"].as_u64().unwrap() >= 7, "{same}");

    let (new, policy) = (config.with_file_name("new.toml"), lab.path("new.cedar"));
    let protect = "\n[[protect]]\ntarget = \"lab-db\"\nclass = \"note\"\n\
                   columns = [\"public.notes.note\"]\nmask = \"redact\"\n";
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&new, format!("{text}{protect}")).unwrap();
    std::fs::write(&policy, NEW).unwrap();
    let other = replay(&lab, &new, &[Path::new("--policy"), &policy, &records]);
    let ways = json!({
        "passed, would be masked": 2,
        // One filters by what is protected, one adds.
        "passed, would be refused": 2,
        "was refused, would pass": 1,
    });
    assert_eq!((&other["ways"], &other["not_replayed"]), (&ways, &json!({})), "{other}");
    let first = &other["changes"][0];
    assert_eq!((&first["text"], &first["times"]), (&json!(read), &json!(2)), "{other}");
    lab.finish().unwrap();
}
