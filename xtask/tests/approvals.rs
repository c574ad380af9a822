//! Statements that wait for people: unmodified clients go on once the approval is there, and nothing
//! runs without it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::lab::client::{CLIENT_MS_MAX, finish};
use xtask::lab::process::wait_for;
use xtask::lab::{AgentOptions, Answer, Lab, Options, Who, policies};

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, note text); \
    INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 3) n; \
    GRANT ALL ON notes TO PUBLIC";
const DELETE: &str = "DELETE FROM notes WHERE id = 2";

/// The user id whose votes count here, as the collector's command line sees it.
fn voter() -> u32 {
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    login.trim().parse().ok().filter(|uid| *uid != u32::MAX).unwrap_or(0)
}

fn lab_with(policy: &str) -> Lab {
    let agent = AgentOptions { policy: policy.to_owned(), ..AgentOptions::default() };
    let collector_toml =
        format!("[[approvers]]\nname = \"dora\"\nuid = {}\ngroups = [\"dba\"]\n", voter());
    let lab = Lab::start(Options { agent, collector_toml, ..Options::default() }).unwrap();
    lab.postgres.app(NOTES).unwrap();
    lab
}

fn lab() -> Lab {
    lab_with(policies::APPROVED)
}

/// The same with a short time to wait.
fn impatient_lab() -> Lab {
    lab_with(&policies::APPROVED.replace("@approvers", "@approval_wait(\"1\")\n@approvers"))
}

fn start(mut command: Command, input: &[u8]) -> Child {
    use std::io::Write as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child
}

fn psql(lab: &Lab, statements: &[&str]) -> Child {
    let mut command = lab.command(Who::Service, Path::new("/usr/bin/psql")).unwrap();
    command.args(["-X", "-At", "-v", "VERBOSITY=verbose", "-d", &lab.dsn()]);
    command.args(statements.iter().flat_map(|statement| ["-c", statement]));
    start(command, b"")
}

fn end(child: Child) -> Answer {
    finish(child, CLIENT_MS_MAX).unwrap()
}

fn approvals(lab: &Lab, verb: &str, more: &[&str]) -> Output {
    let collector = lab.collector.as_ref().unwrap();
    let mut command = collector.program();
    command.args(["approvals", verb, "--json", "--config"]).arg(collector.config()).args(more);
    command.output().unwrap()
}

fn listed(lab: &Lab) -> Vec<Value> {
    let output = approvals(lab, "list", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The one request that is open, once it is there.
fn request(lab: &Lab) -> Value {
    wait_for("a request for approval", Duration::from_mins(1), || {
        Ok(listed(lab).into_iter().find(|request| request["standing"] == "open"))
    })
    .unwrap()
}

fn id(request: &Value) -> &str {
    request["id"].as_str().unwrap()
}

fn vote(lab: &Lab, verb: &str, request: &Value) {
    let output = approvals(lab, verb, &[id(request), "--note", "as agreed"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn count(lab: &Lab) -> String {
    lab.postgres.app("SELECT count(*) FROM notes").unwrap()
}

#[test]
fn psql_goes_on_when_the_approval_comes_and_all_of_it_is_recorded() {
    let lab = lab();
    let client = psql(&lab, &[DELETE, "SELECT count(*) FROM notes"]);
    let request = request(&lab);
    assert_eq!(request["principal"], "batch");
    assert_eq!(request["target"], "lab-db");
    assert_eq!(request["statement"], DELETE);
    assert_eq!(count(&lab), "3", "it ran before it was approved");
    vote(&lab, "grant", &request);
    let answer = end(client);
    assert!(answer.ok() && answer.stdout == "DELETE 1\n2\n", "{answer}");
    assert!(answer.stderr.contains("NOTICE:") && answer.stderr.contains(id(&request)), "{answer}");
    let evidence = lab.evidence().unwrap();
    let statement = evidence.statements(DELETE).next().unwrap();
    assert_eq!((statement.verdict(), statement.status()), ("allow", "ok"));
    assert_eq!(statement.text_of("reason"), format!("approved by dora; request {}", id(&request)));
    let told = evidence.named("finding").map(|event| event.text().to_owned());
    let told: Vec<String> = told.filter(|text| text.contains(id(&request))).collect();
    for word in ["needs 1 of dba", "granted by dora", "used"] {
        assert!(told.iter().any(|text| text.contains(word)), "{word}: {told:?}");
    }
    for act in ["approval_asked", "approval_granted", "approval_answered"] {
        wait_for("the collector's own record", Duration::from_mins(1), || {
            let own = lab.collector.as_ref().unwrap().query(&["--kind", "administration"])?;
            let found =
                own.named("administration").any(|event| event.json.to_string().contains(act));
            Ok(found.then_some(()))
        })
        .unwrap();
    }
    lab.finish().unwrap();
}

#[test]
fn what_is_denied_fails_with_the_name_of_who_denied_it() {
    let lab = lab();
    let client = psql(&lab, &[DELETE]);
    vote(&lab, "deny", &request(&lab));
    let answer = end(client);
    assert!(answer.stderr.contains("ERROR:  42501: "), "{answer}");
    assert!(answer.stderr.contains("denied by dora"), "{answer}");
    assert_eq!(count(&lab), "3");
    lab.finish().unwrap();
}

#[test]
fn ctrl_c_and_a_hang_up_while_held_leave_nothing_running() {
    let lab = lab();
    let client = psql(&lab, &[DELETE]);
    let first = request(&lab);
    kill(Pid::from_raw(i32::try_from(client.id()).unwrap()), Signal::SIGINT).unwrap();
    let answer = end(client);
    assert!(answer.stderr.contains("ERROR:  57014: "), "{answer}");
    assert!(answer.stderr.contains(id(&first)), "{answer}");
    // The ticket stays; who asks again waits for the same one, and may hang up.
    let mut client = psql(&lab, &[DELETE]);
    wait_for("the second client is held", Duration::from_mins(1), || {
        let busy = lab.postgres.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'",
        )?;
        Ok((busy.trim() == "1").then_some(()))
    })
    .unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("its session is gone", Duration::from_mins(1), || {
        let left =
            lab.postgres.admin("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")?;
        Ok((left.trim() == "0").then_some(()))
    })
    .unwrap();
    vote(&lab, "grant", &first);
    assert_eq!(count(&lab), "3", "an approval ran what nobody waited for");
    let evidence = lab.evidence().unwrap();
    assert!(evidence.statements(DELETE).all(|event| event.verdict() == "deny"));
    lab.finish().unwrap();
}

#[test]
fn held_too_long_it_passes_when_it_comes_again_and_once_only() {
    let mut lab = impatient_lab();
    let answer = end(psql(&lab, &[DELETE]));
    let first = request(&lab);
    assert!(answer.stderr.contains("ERROR:  57014: "), "{answer}");
    assert!(answer.stderr.contains(id(&first)), "{answer}");
    // Neither a restart of the agent nor one of the collector loses the request.
    lab.agent.as_mut().unwrap().kill().unwrap();
    lab.agent.as_mut().unwrap().run().unwrap();
    lab.collector.as_mut().unwrap().kill().unwrap();
    lab.collector.as_mut().unwrap().serve().unwrap();
    vote(&lab, "grant", &first);
    wait_for("the agent has its answer", Duration::from_mins(1), || {
        Ok((listed(&lab)[0]["standing"] == "granted").then_some(()))
    })
    .unwrap();
    // Another statement does not pass with it.
    let other = "DELETE FROM notes WHERE id = 3";
    let answer = end(psql(&lab, &[other]));
    assert!(answer.stderr.contains("ERROR:  57014: "), "{answer}");
    let answer = end(psql(&lab, &[DELETE]));
    assert!(answer.stdout == "DELETE 1\n", "{answer}");
    let answer = end(psql(&lab, &[DELETE]));
    assert!(answer.stderr.contains("ERROR:  57014: "), "a second use: {answer}");
    assert!(!answer.stderr.contains(id(&first)), "{answer}");
    assert_eq!(count(&lab), "2");
    lab.finish().unwrap();
}

#[test]
fn psycopg_and_jdbc_go_on_with_their_parameters() {
    let lab = lab();
    let mut python = lab.python(Who::Service).unwrap();
    python.arg(lab.dsn());
    let script = "import sys, psycopg\n\
        with psycopg.connect(sys.argv[1]) as connection:\n    \
        print('deleted', connection.execute('DELETE FROM notes WHERE id = %s', [3]).rowcount)\n";
    let client = start(python, script.as_bytes());
    let asked = request(&lab);
    assert!(asked["statement"].as_str().unwrap().contains("$1"), "{asked}");
    vote(&lab, "grant", &asked);
    let answer = end(client);
    assert!(answer.ok() && answer.stdout == "deleted 1\n", "{answer}");

    let source = lab.path("Held.java");
    std::fs::write(&source, include_str!("clients/Held.java")).unwrap();
    let mut java = lab.command(Who::Service, Path::new("/usr/bin/java")).unwrap();
    java.args(["-cp", "/usr/share/java/postgresql.jar"]).arg(&source);
    java.arg(lab.postgres.port().to_string());
    let client = start(java, b"");
    vote(&lab, "grant", &request(&lab));
    let answer = end(client);
    assert!(answer.ok() && answer.stdout == "deleted 1\n", "{answer}");
    assert_eq!(count(&lab), "1");
    lab.finish().unwrap();
}
