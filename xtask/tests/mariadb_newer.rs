//! MariaDB 11.8 through the gate: what 10.11 lacks. Its own clients, unmodified, with its own libraries.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use xtask::lab::mariadb::APP_PASSWORD;
use xtask::lab::mariadb::clients::{cli, log_and_records_agree, ours, own_cli, own_python};
use xtask::lab::{AgentOptions, Lab, MariadbOptions, Options, Server};

const TABLES: &str = "CREATE TABLE app.notes (id int PRIMARY KEY, note text); \
    INSERT INTO app.notes VALUES (1, 'note 1'), (2, 'note 2'), (3, 'note 3')";

fn lab(client: &'static str, server: &'static str) -> Lab {
    let agent = AgentOptions {
        mariadb_client_tls: client,
        mariadb_server_tls: server,
        ..AgentOptions::default()
    };
    let tls = server == "verify-full";
    let mariadb = MariadbOptions { server: Server::Mariadb11, tls, ..MariadbOptions::default() };
    let lab = Lab::start(Options { agent, mariadb: Some(mariadb), ..Options::default() }).unwrap();
    lab.mariadb().unwrap().admin(TABLES).unwrap();
    lab
}

/// The option that makes a client believe the gate's certificates.
fn authority(lab: &Lab) -> String {
    let file = lab.path("home").join("host-ca.crt");
    std::fs::copy(lab.agent().unwrap().host_ca(), &file).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    format!("--ssl-ca={}", file.display())
}

#[test]
fn every_authentication_of_it_works_and_what_may_not_be_is_refused() {
    for (client, server) in
        [("refuse", "off"), ("offer", "verify-full"), ("offer", "off"), ("refuse", "verify-full")]
    {
        let lab = lab(client, server);
        let ca = authority(&lab);
        let args: &[&str] = if client == "offer" { &[&ca] } else { &["--skip-ssl"] };
        for user in ["app", "app_ed25519", "app_parsec"] {
            for compress in [&[][..], &["--compress"]] {
                let args = [args, compress].concat();
                let script = "SELECT current_user();\nDELETE FROM notes;\nSELECT 'alive';\n";
                let answer = own_cli(&lab, user, &args, script).unwrap();
                let case = format!("{client} {server} {user} {args:?}: {answer}");
                assert_eq!(answer.stdout, format!("{user}@%\nalive\n"), "{case}");
                assert!(answer.stderr.contains("refused by tidegate"), "{case}");
            }
            let wrong = [args, &["-pwrong"]].concat();
            let wrong = own_cli(&lab, user, &wrong, "SELECT 1").unwrap();
            assert!(
                wrong.stderr.contains("ERROR 1045 (28000)"),
                "{client} {server} {user}: {wrong}"
            );
        }
        let evidence = lab.evidence().unwrap();
        assert!(evidence.events.iter().all(|event| !event.json.to_string().contains(APP_PASSWORD)));
        assert_eq!(ours(&evidence).filter(|event| event.via() == "login").count(), 9);
        lab.finish().unwrap();
    }
}

/// A client of 11.4 and later believes a certificate for which the server gives a proof by the password. The gate has
/// its own certificate, and passes the proof on as it is: it does not fit. On loopback, where the laboratory
/// is, the client asks for no proof, so that only the certificate's authority can be tried here.
#[test]
fn its_client_verifies_the_gate_by_its_authority() {
    let lab = lab("offer", "verify-full");
    let ca = authority(&lab);
    let script = "SELECT 1;\nSHOW STATUS LIKE 'Ssl_version';\n";
    for args in [&[ca.as_str(), "--ssl-verify-server-cert"][..], &[]] {
        let answer = own_cli(&lab, "app", args, script).unwrap();
        assert_eq!(answer.stdout, "1\nSsl_version\tTLSv1.3\n", "{args:?} {answer}");
    }
    lab.finish().unwrap();
}

#[test]
fn mariadbs_connector_for_python_over_its_newest_library() {
    for (client, server) in [("refuse", "off"), ("refuse", "verify-full")] {
        let lab = lab(client, server);
        let script = include_str!("clients/mariadb_connector.py");
        let answer = own_python(&lab, script, &[]).unwrap();
        assert!(answer.ok() && answer.stdout == "ok\n", "{client} {server}: {answer}");
        let evidence = lab.evidence().unwrap();
        let insert = "INSERT INTO notes (id, note) VALUES (?, ?)";
        let bulk = evidence.statements(insert).filter(|event| event.via() == "execute");
        assert_eq!(bulk.count(), 1);
        assert!(evidence.operations().any(|event| event.via() == "fetch"));
        log_and_records_agree(&lab).unwrap();
        lab.finish().unwrap();
    }
}

#[test]
fn the_cli_of_10_11_works_with_it() {
    let lab = lab("offer", "off");
    let answer = cli(&lab, "app", &[], "SELECT note FROM notes;\nDELETE FROM notes;\n").unwrap();
    assert_eq!(answer.stdout, "note 1\nnote 2\nnote 3\n", "{answer}");
    assert!(answer.stderr.contains("ERROR 1142 (42000)"), "{answer}");
    log_and_records_agree(&lab).unwrap();
    lab.finish().unwrap();
}
