//! Clients of the laboratory's MySQL or MariaDB, as the service account, and what is asked of every one of them.

use std::path::Path;
use std::process::Command;

use super::{APP_PASSWORD, agree, read_general_log};
use crate::lab::client::run;
use crate::lab::evidence::{Event, Evidence};
use crate::lab::{Answer, Lab, Who};

/// One of MariaDB's own programs as `who`, with the address and password that it needs.
pub fn program(lab: &Lab, who: Who, name: &str, user: &str) -> anyhow::Result<Command> {
    let mut command = lab.command(who, &Path::new("/usr/bin").join(name))?;
    let port = lab.mariadb()?.port();
    command.args(["--no-defaults", "-h127.0.0.1", "--protocol=tcp", "-u", user]);
    command.arg(format!("-P{port}")).arg(format!("-p{APP_PASSWORD}"));
    Ok(command)
}

/// MariaDB's CLI in batch mode on database `app`, going on after errors.
pub fn cli(lab: &Lab, user: &str, args: &[&str], script: &str) -> anyhow::Result<Answer> {
    let mut command = program(lab, Who::Service, "mariadb", user)?;
    command.args(["-N", "-B", "-f", "--default-character-set=utf8mb4"]).args(args).arg("app");
    run(&mut command, script.as_bytes())
}

/// A Python script from stdin; its first argument is the port.
pub fn python(lab: &Lab, script: &str, args: &[&str]) -> anyhow::Result<Answer> {
    let mut python = lab.python(Who::Service)?;
    python.arg(lab.mariadb()?.port().to_string()).args(args);
    run(&mut python, script.as_bytes())
}

/// Events of the MariaDB target.
pub fn ours(evidence: &Evidence) -> impl Iterator<Item = &Event> {
    evidence.operations().filter(|event| event.text_of("target") == "lab-mariadb")
}

/// One record for each statement in the server's general log, none missing, none twice.
pub fn log_and_records_agree(lab: &Lab) -> anyhow::Result<()> {
    let log = std::fs::read(lab.mariadb()?.general_log())?;
    let log = read_general_log(&String::from_utf8_lossy(&log));
    let found = agree::compare(&lab.evidence()?, &log, "app");
    anyhow::ensure!(found.lines > 0 && found.differences.is_empty(), "{found:#?}");
    Ok(())
}

/// A program that came with the laboratory's server, run by its own loader as the service account.
pub fn own_program(lab: &Lab, program: &str) -> anyhow::Result<Command> {
    let (starter, args) = lab.mariadb()?.server().started_by(program);
    let mut command = lab.command(Who::Service, &starter)?;
    command.args(args);
    Ok(command)
}

/// The CLI that came with the laboratory's server, in batch mode on database `app`.
pub fn own_cli(lab: &Lab, user: &str, args: &[&str], script: &str) -> anyhow::Result<Answer> {
    let server = lab.mariadb()?.server();
    let name = if server.is_mysql() { "usr/bin/mysql" } else { "usr/bin/mariadb" };
    let mut command = own_program(lab, name)?;
    command.arg("--no-defaults").args(server.client_settings());
    command.args(["-h127.0.0.1", "--protocol=tcp", "-u", user, "-N", "-B", "-f"]);
    command.arg(format!("-P{}", lab.mariadb()?.port())).arg(format!("-p{APP_PASSWORD}"));
    run(command.args(args).arg("app"), script.as_bytes())
}

/// A Python script, with the libraries of the laboratory's server: those that a client in C needs.
pub fn own_python(lab: &Lab, script: &str, args: &[&str]) -> anyhow::Result<Answer> {
    // Only to have the packages where the account can read them.
    let _ = lab.python(Who::Service)?;
    let mut python = own_program(lab, "usr/bin/python3")?;
    python.env("PYTHONPATH", lab.path("python")).arg("-");
    python.arg(lab.mariadb()?.port().to_string()).args(args);
    run(&mut python, script.as_bytes())
}
