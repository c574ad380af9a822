//! The laboratory keeps its own promises; nothing of Tidegate is needed for these.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use xtask::lab::client::run;
use xtask::lab::{Auth, Lab, Log, Options, PostgresOptions, Tls, Who};

fn prepared(postgres: PostgresOptions) -> Lab {
    Lab::prepare(Options { postgres, ..Options::default() }).unwrap()
}

#[test]
fn a_client_is_the_service_account_in_the_cgroup_of_the_laboratory() {
    let lab = prepared(PostgresOptions::default());
    let script = "id -u; id -g; id -G; cat /proc/self/cgroup; echo $HOME; touch $HOME/mine";
    let mut shell = lab.command(Who::Service, Path::new("/bin/sh")).unwrap();
    let answer = run(shell.args(["-c", script]), b"").unwrap();
    assert!(answer.ok(), "{answer}");
    let uid = lab.service_uid.to_string();
    let lines = answer.stdout.lines().collect::<Vec<_>>();
    assert_eq!(lines[..3], [&uid, &uid, &uid]);
    let name = lab.cgroup.path().file_name().unwrap().to_str().unwrap();
    assert!(lines.contains(&format!("0::/{name}").as_str()), "{answer}");
    assert_eq!(*lines.last().unwrap(), lab.path("home").to_str().unwrap());
    lab.discard().unwrap();
}

#[test]
fn two_laboratories_stand_side_by_side_and_leave_nothing() {
    let one = prepared(PostgresOptions::default());
    let two = prepared(PostgresOptions::default());
    assert_ne!(one.postgres.port(), two.postgres.port());
    one.postgres.app("CREATE TABLE only_here ()").unwrap();
    assert!(two.postgres.app("TABLE only_here").is_err());
    let left: Vec<PathBuf> =
        [&one, &two].iter().flat_map(|lab| [lab.path("."), lab.cgroup.path().to_owned()]).collect();
    one.discard().unwrap();
    two.discard().unwrap();
    assert_eq!(left.iter().find(|path| path.exists()), None);
}

#[test]
fn a_cgroup_is_removed_with_what_runs_in_it() {
    let lab = prepared(PostgresOptions::default());
    let mut shell = lab.command(Who::Other, Path::new("/bin/sleep")).unwrap();
    let mut child = shell.arg("1000").spawn().unwrap();
    lab.discard().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn the_server_asks_for_what_it_was_told_to_ask() {
    for auth in [Auth::Trust, Auth::Scram, Auth::Md5, Auth::Password] {
        let lab = prepared(PostgresOptions { auth, ..PostgresOptions::default() });
        let answer = lab.psql(Who::Service, &["-At"], "SELECT current_user").unwrap();
        assert_eq!(answer.stdout, "app\n", "{auth:?}: {answer}");
        let without = format!("host=127.0.0.1 port={} user=app dbname=app", lab.postgres.port());
        let answer = lab.psql_at(Who::Service, &without, &["-w"], "SELECT 1").unwrap();
        assert_eq!(answer.ok(), auth == Auth::Trust, "{auth:?}: {answer}");
        lab.discard().unwrap();
    }
}

#[test]
fn the_server_speaks_tls_with_a_certificate_of_its_own_authority() {
    let tls = PostgresOptions { tls: Tls::Required, ..PostgresOptions::default() };
    let lab = prepared(tls);
    let ca = lab.postgres.ca().unwrap();
    std::fs::copy(&ca, lab.path("ca.crt")).unwrap();
    let dsn =
        format!("{} sslmode=verify-full sslrootcert={}", lab.dsn(), lab.path("ca.crt").display());
    let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "SHOW ssl").unwrap();
    assert_eq!(answer.stdout, "on\n", "{answer}");
    let answer =
        lab.psql_at(Who::Service, &format!("{} sslmode=disable", lab.dsn()), &[], "").unwrap();
    assert!(!answer.ok(), "{answer}");
    lab.discard().unwrap();
}

#[test]
fn the_server_logs_each_statement_with_its_parameters() {
    let log = PostgresOptions { log: Log::Statements, ..PostgresOptions::default() };
    let lab = prepared(log);
    let answer = lab.psql(Who::Service, &["-At"], "SELECT 2;").unwrap();
    assert!(answer.stdout.ends_with("2\n"), "{answer}");
    let text = std::fs::read_to_string(lab.postgres.statement_log()).unwrap();
    assert!(text.lines().any(|line| line.contains("statement: SELECT 2;")), "{text}");
    lab.discard().unwrap();
}
