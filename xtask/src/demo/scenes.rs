//! The scenes of the demo.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::Receiver;
use super::story::Story;
use crate::lab::client::run;
use crate::lab::process::wait_for;
use crate::lab::{Answer, Lab, Who, agent, policies};

/// How long the OTLP feed may take.
const FEED_MS_MAX: u64 = 30_000;
/// The refused statement.
const REFUSED: &str = "DELETE FROM accounts";
/// The last statement of the service account.
const COPIED_IN: &str = "COPY accounts FROM STDIN (FORMAT csv)";
/// Marks the statement of the other account, which must be in no record.
const UNSEEN: &str = "SELECT 'not for the gate'";

const TABLE: &str = "\
    CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL);\
    INSERT INTO accounts VALUES (1, 'Ada', 120.50), (2, 'Grace', 80.00), (3, 'Edsger', 42.00);\
    CREATE ROLE other LOGIN; GRANT ALL ON accounts TO other";

/// Tells all of them.
pub fn all(story: &mut Story, lab: &Lab, receiver: &Receiver) -> anyhow::Result<()> {
    stage(story, lab)?;
    allowed(story, lab)?;
    refused(story, lab)?;
    in_a_transaction(story, lab)?;
    prepared(story, lab)?;
    copy(story, lab)?;
    somebody_else(story, lab)?;
    the_record(story, lab)?;
    otlp(story, receiver)?;
    verify(story, lab)
}

fn stage(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    lab.postgres.sql("postgres", "app", TABLE)?;
    lab.postgres.sql("postgres", "app", "ALTER TABLE accounts OWNER TO app")?;
    story.scene(
        "The stage",
        &format!(
            "A private PostgreSQL on port {}, a collector, and an agent whose hooks sit on one cgroup.\n\
             The service account `{}` has uid {}; it and its clients know nothing of Tidegate.\n\
             The clients' environment: PGHOST=127.0.0.1 PGPORT={} PGUSER=app PGDATABASE=app",
            lab.postgres.port(),
            agent::PRINCIPAL,
            lab.service_uid,
            lab.postgres.port(),
        ),
    );
    story.show("policy/lab.cedar", policies::CAREFUL);
    let said = lab.agent()?.ask("check", &[])?;
    let answer = Answer { code: Some(0), stdout: said, stderr: String::new() };
    story.command("root", "tidegate-agent check --config agent.toml", &answer);
    story.check("the agent guards the server", answer.stdout.contains(agent::TARGET))
}

fn allowed(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene("An allowed SELECT", "The job reads as ever: same address, same client, its rows.");
    let answer = psql(
        story,
        lab,
        Who::Service,
        &["-c", "SELECT id, owner, balance FROM accounts ORDER BY id"],
    )?;
    story.check("its three rows came", answer.ok() && answer.stdout.contains("(3 rows)"))
}

fn refused(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "A refused DELETE without WHERE",
        "No policy permits it, so it never reaches the server. The refusal is PostgreSQL's own kind\n\
         of error, with the reason; the session lives on.",
    );
    let answer = psql(
        story,
        lab,
        Who::Service,
        &["-v", "VERBOSITY=verbose", "-c", REFUSED, "-c", "SELECT count(*) FROM accounts"],
    )?;
    story.check("SQLSTATE 42501 with a reason", answer.stderr.contains("42501"))?;
    story.check(
        "the same session counts three rows afterwards",
        answer.stdout.lines().any(|line| line.trim() == "3"),
    )
}

fn in_a_transaction(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "The same in a transaction",
        "A refusal fails the block as any error of the server would: ROLLBACK works, nothing is kept.",
    );
    let answer = psql(
        story,
        lab,
        Who::Service,
        &[
            "-c",
            "BEGIN",
            "-c",
            "INSERT INTO accounts VALUES (4, 'Barbara', 7)",
            "-c",
            REFUSED,
            "-c",
            "ROLLBACK",
            "-c",
            "SELECT count(*) FROM accounts",
        ],
    )?;
    let lines = answer.stdout.lines().map(str::trim).collect::<Vec<_>>();
    story.check("the block was rolled back", lines.contains(&"ROLLBACK"))?;
    story.check("nothing of it is left", lines.contains(&"3"))
}

fn prepared(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "A prepared statement",
        "What EXECUTE runs is known by its PREPARE, and recorded with its parameter.",
    );
    let answer = psql(
        story,
        lab,
        Who::Service,
        &[
            "-c",
            "PREPARE one_account (int) AS SELECT owner FROM accounts WHERE id = $1",
            "-c",
            "EXECUTE one_account (2)",
        ],
    )?;
    story.check("it brings Grace", answer.ok() && answer.stdout.contains("Grace"))
}

fn copy(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene("COPY, both ways", "In bulk too, streamed; rows and bytes are counted.");
    let out = psql(story, lab, Who::Service, &["-c", "COPY accounts TO STDOUT (FORMAT csv)"])?;
    story.check("three lines came out", out.ok() && out.stdout.lines().count() == 3)?;
    let mut command = client(lab, Who::Service)?;
    command.args(["-c", COPIED_IN]);
    let answer = run(&mut command, b"4,Barbara,7.00\n5,Donald,9.00\n")?;
    let line = "printf '4,Barbara,7.00\\n5,Donald,9.00\\n' | psql -c \"COPY accounts FROM STDIN (FORMAT csv)\"";
    story.command(&prompt(lab, Who::Service), line, &answer);
    story.check("two rows went in", answer.stdout.contains("COPY 2"))
}

fn somebody_else(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "Another account is not touched",
        "A uid that no rule names goes straight to the server, as before.",
    );
    let script = ["-c", UNSEEN, "-c", "BEGIN", "-c", REFUSED, "-c", "ROLLBACK"];
    let answer = psql(story, lab, Who::Other, &script)?;
    story.check("its DELETE ran (and was rolled back)", answer.stdout.contains("DELETE 5"))
}

fn the_record(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "The same story from the collector's side",
        "Who asked what of which target, what was decided, and why.",
    );
    let collector = lab.collector()?;
    collector.wait_for_statement(COPIED_IN)?;
    let evidence = collector.evidence()?;
    let mut query = collector.program();
    query.arg("query").arg("--config").arg(collector.config()).args(["--who", agent::PRINCIPAL]);
    let answer = run(&mut query, b"")?;
    story.command("root", "tidegate-collector query --config collector.toml --who batch", &answer);
    let denied = evidence.statements(REFUSED).filter(|event| event.verdict() == "deny").count();
    story.check("both refusals are there", answer.ok() && denied == 2)?;
    let unseen = evidence.statements(UNSEEN).count();
    story.check("the other account is in no record", unseen == 0)?;
    story.check("all of it is there once, in order", evidence.is_in_order().is_ok())
}

fn otlp(story: &mut Story, receiver: &Receiver) -> anyhow::Result<()> {
    story.scene("What a SIEM gets", "The collector's OTLP feed, as a receiver took it over gRPC.");
    let record =
        wait_for("the refusal is in the OTLP feed", Duration::from_millis(FEED_MS_MAX), || {
            let text = std::fs::read_to_string(receiver.records.path())?;
            let refusal = text
                .lines()
                .find(|line| line.contains(&format!("{REFUSED:?}")) && line.contains("deny"));
            Ok(refusal.map(str::to_owned))
        })?;
    let value: Value = serde_json::from_str(&record).context("a line of the receiver")?;
    story.show("the refusal, as received", &serde_json::to_string_pretty(&value)?);
    story.check("it names statement and verdict", true)
}

fn verify(story: &mut Story, lab: &Lab) -> anyhow::Result<()> {
    story.scene(
        "Nothing can be changed unseen",
        "`verify` walks every record, link, seal and checkpoint. Then one bit is flipped in a copy.",
    );
    let copy = lab.path("copy");
    let collector = lab.collector()?;
    // The story may take less than the second between two checkpoints, and nothing is proven before one.
    collector.wait_for_checkpoint()?;
    let mut verify = collector.program();
    verify.arg("verify").arg("--config").arg(collector.config());
    let answer = run(&mut verify, b"")?;
    story.command("root", "tidegate-collector verify --config collector.toml", &answer);
    story.check("the log is whole and true", answer.ok())?;
    let flipped = collector.copy_with_a_flipped_byte(&copy)?;
    let mut verify = collector.program();
    verify.arg("verify").arg("--log").arg(&flipped.log).arg("--keys").arg(&flipped.keys);
    let answer = run(&mut verify, b"")?;
    let file = flipped.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    story.command(
        "root",
        &format!("tidegate-collector verify --log copy/log --keys copy/log/keys.json   # byte {} of {file} flipped", flipped.offset),
        &answer,
    );
    let said = format!("{}{}", answer.stdout, answer.stderr);
    story.check("verify fails, and names the file", !answer.ok() && said.contains(&file))
}

/// Writes `stop.sh`, and says how to use and stop what runs on.
pub fn leave_running(story: &mut Story, lab: Lab, receiver: Receiver) -> anyhow::Result<()> {
    let (agent, collector) =
        (lab.agent.as_ref().context("no agent")?, lab.collector.as_ref().context("no collector")?);
    let cgroup = lab.cgroup.path().display().to_string();
    let mut text = "# psql as the service account:\n    ".to_owned();
    write!(
        text,
        "sh -c 'echo 0 >{cgroup}/cgroup.procs; cd /; exec setpriv --reuid={uid} --regid={uid} \
         --clear-groups env HOME=/tmp psql \"{dsn}\"'\n\
         # what the collector knows:\n    {collector} query --config {collector_config}\n\
         # how the agent is:\n    {agent} status --config {agent_config}\n",
        uid = lab.service_uid,
        dsn = lab.dsn(),
        collector = crate::lab::places::our_program("tidegate-collector")?.display(),
        collector_config = collector.config().display(),
        agent = crate::lab::places::our_program("tidegate-agent")?.display(),
        agent_config = agent.config().display(),
    )?;
    let pids = [agent.pid()?, collector.pid().context("no collector")?, receiver.daemon.pid()];
    let stop = format!(
        "kill {} 2>/dev/null\nwhile kill -0 {} 2>/dev/null; do sleep 0.1; done\n\
         sh -c 'echo 0 >{cgroup}/cgroup.procs; exec {} detach --config {}'\nkill -INT {} 2>/dev/null\n\
         sleep 1\nrmdir {cgroup}\nrm -rf {}\n",
        pids.map(|pid| pid.to_string()).join(" "),
        agent.pid()?,
        crate::lab::places::our_program("tidegate-agent")?.display(),
        agent.config().display(),
        lab.postgres.pid()?,
        lab.path("").display(),
    );
    std::fs::write(lab.path("stop.sh"), stop)?;
    writeln!(text, "# stop and remove all of it:\n    sh {}", lab.path("stop.sh").display())?;
    story.say(&format!("Everything stays up.\n{text}"));
    let _ = receiver.records.keep()?;
    std::mem::forget(receiver.daemon);
    lab.leave();
    Ok(())
}

fn prompt(lab: &Lab, who: Who) -> String {
    match who {
        Who::Service => format!("{}(uid {})", agent::PRINCIPAL, lab.service_uid),
        Who::Other => format!("other(uid {})", lab.other_uid),
    }
}

fn client(lab: &Lab, who: Who) -> anyhow::Result<std::process::Command> {
    let mut command = lab.command(who, Path::new("/usr/bin/psql"))?;
    let port = lab.postgres.port().to_string();
    let user = if who == Who::Service { "app" } else { "other" };
    command
        .envs([("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", user), ("PGDATABASE", "app")])
        .arg("-X");
    Ok(command)
}

fn psql(story: &mut Story, lab: &Lab, who: Who, args: &[&str]) -> anyhow::Result<Answer> {
    let mut command = client(lab, who)?;
    let answer = run(command.args(args), b"")?;
    let mut line = String::from("psql");
    for arg in args {
        let quoted =
            if arg.contains([' ', '*', '(']) { format!("\"{arg}\"") } else { (*arg).to_owned() };
        write!(line, " {quoted}")?;
    }
    story.command(&prompt(lab, who), &line, &answer);
    Ok(answer)
}
