//! TLS on both legs, and the client's own credentials, through the gate.

#![expect(clippy::unwrap_used, reason = "tests")]

use xtask::lab::postgres::APP_PASSWORD;
use xtask::lab::{AgentOptions, Auth, Lab, Options, PostgresOptions, Tls, Who};

fn lab(auth: Auth, tls: Tls, server_tls: &'static str) -> Lab {
    let postgres = PostgresOptions { auth, tls, ..PostgresOptions::default() };
    let agent = AgentOptions { server_tls, ..AgentOptions::default() };
    Lab::start(Options { postgres, agent, ..Options::default() }).unwrap()
}

#[test]
fn every_kind_of_login_works_and_a_wrong_password_does_not() {
    for auth in [Auth::Scram, Auth::Md5, Auth::Password] {
        let lab = lab(auth, Tls::Off, "off");
        let answer = lab.sql(Who::Service, &["SELECT current_user"]).unwrap();
        assert_eq!(answer.stdout, "app\n", "{auth:?}: {answer}");
        // With TLS allowed, libpq tries a second time without it.
        let wrong = lab.dsn().replace(APP_PASSWORD, "wrong") + " sslmode=disable";
        let answer = lab.psql_at(Who::Service, &wrong, &["-w"], "SELECT 1").unwrap();
        assert!(answer.stderr.contains("password authentication failed"), "{auth:?}: {answer}");
        let evidence = lab.evidence().unwrap();
        let failed = evidence.operations().filter(|event| event.text_of("code") == "28P01");
        assert_eq!(failed.count(), 1, "{auth:?}");
        let said =
            evidence.events.iter().any(|event| event.json.to_string().contains(APP_PASSWORD));
        assert!(!said, "{auth:?}: a password is in the evidence");
        lab.finish().unwrap();
    }
}

#[test]
fn a_client_that_asks_for_tls_gets_it_and_can_verify_the_host() {
    let lab = lab(Auth::Scram, Tls::Off, "off");
    let dsn = format!("{} sslmode=require", lab.dsn());
    let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "\\conninfo\nSELECT 1").unwrap();
    assert!(answer.stdout.contains("SSL connection"), "{answer}");
    let ca = lab.path("home").join("host-ca.crt");
    std::fs::copy(lab.agent().unwrap().host_ca(), &ca).unwrap();
    std::os::unix::fs::chown(&ca, Some(lab.service_uid), None).unwrap();
    let dsn = format!("{} sslmode=verify-full sslrootcert={}", lab.dsn(), ca.display());
    let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "SELECT 2").unwrap();
    assert_eq!(answer.stdout, "2\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn the_server_leg_is_verified_and_encrypted_whatever_the_client_does() {
    let lab = lab(Auth::Md5, Tls::Required, "verify-full");
    for mode in ["disable", "require"] {
        let dsn = format!("{} sslmode={mode}", lab.dsn());
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let answer = lab.psql_at(Who::Service, &dsn, &["-At"], sql).unwrap();
        assert_eq!(answer.stdout, "t\n", "{mode}: {answer}");
    }
    lab.finish().unwrap();
}

#[test]
fn scram_works_over_tls_on_both_legs() {
    let lab = lab(Auth::Scram, Tls::Required, "verify-full");
    let dsn = format!("{} sslmode=require channel_binding=disable", lab.dsn());
    let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "SELECT 1").unwrap();
    assert_eq!(answer.stdout, "1\n", "{answer}");
    lab.finish().unwrap();
}

#[test]
fn channel_binding_through_a_terminated_tls_is_a_clear_error() {
    let lab = lab(Auth::Scram, Tls::Required, "verify-full");
    let dsn = format!("{} sslmode=require channel_binding=require", lab.dsn());
    let answer = lab.psql_at(Who::Service, &dsn, &["-At"], "SELECT 1").unwrap();
    assert!(!answer.ok() && answer.stderr.contains("channel binding"), "{answer}");
    lab.finish().unwrap();
}

#[test]
fn a_server_that_cannot_be_verified_is_not_spoken_to() {
    // Without the server's own CA, that of the system is used, which did not sign it.
    let postgres = PostgresOptions { tls: Tls::Required, ..PostgresOptions::default() };
    let agent = AgentOptions { server_tls: "verify-full", ..AgentOptions::default() };
    let mut lab = Lab::prepare(Options { postgres, agent, ..Options::default() }).unwrap();
    lab.forget_server_ca();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    let answer = lab.sql(Who::Service, &["SELECT 1"]).unwrap();
    assert!(!answer.ok() && answer.stderr.contains("certificate"), "{answer}");
    lab.finish().unwrap();
}
