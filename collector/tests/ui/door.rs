//! Who comes in, with what, and what each role gets.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::process::Command;
use std::sync::Arc;
use tidegate_collector::config::{Config, Ui};
use tidegate_collector::ui::roles::{Role, Scope};
use tokio::net::TcpStream;

use crate::client::{Answer, Site, between, exchange, session};
use crate::demo;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lets_one_browser_in_once() {
    let site = Site::empty(None).await;
    let token = site.link("rita", Role::Reviewer, &Scope::default(), &[]);
    let door = format!("/enter?token={token}");
    for _ in 0..2 {
        let answer = site.get(&door, "").await;
        assert_eq!(answer.status, 200, "opening the link's page spends nothing");
        assert!(answer.body.contains("Begin the session"));
    }
    let form = format!("token={token}");
    let foreign = "sec-fetch-site: cross-site\r\n";
    let answer = site.send("POST /enter HTTP/1.1", "", foreign, &form).await;
    assert_eq!(answer.status, 400, "another site may not send it");

    let answer = site.post("/enter", "", &form).await;
    assert_eq!(answer.status, 303);
    let cookie = answer.header("set-cookie").to_owned();
    for part in ["tidegate=", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(&token) && !cookie.contains("Secure"));
    assert_eq!(site.post("/enter", "", &form).await.status, 403, "it was used");
    assert_eq!(site.get(&door, "").await.status, 403);

    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(site.get("/ask", cookie).await.status, 200);
    for wrong in ["", "tidegate=", "tidegate=00", "other=1", &format!("{cookie}0")] {
        let answer = site.get("/ask", wrong).await;
        assert_eq!(answer.status, 401, "{wrong:?}");
        assert!(!answer.body.contains("From (UTC)"));
    }
    let csrf = site.get("/ask", cookie).await.csrf();
    assert_eq!(site.post("/leave", cookie, &format!("csrf={csrf}")).await.status, 303);
    assert_eq!(site.get("/ask", cookie).await.status, 401, "it was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_for_its_roles_and_each_answer_carries_the_headers() {
    let site = Site::start().await;
    let people = [
        site.person("rita", Role::Reviewer).await,
        site.person("emil", Role::Examiner).await,
        site.person("ada", Role::Admin).await,
    ];
    let seen = session(demo::STATEMENTS);
    let refused =
        format!("/review/{}", site.entry(&people[0], "text=reported+%3D+true&verdict=deny").await);
    let rows: [(&str, [u16; 3]); 20] = [
        ("/", [303, 303, 303]),
        ("/ask", [200, 200, 403]),
        ("/ask?from=2026-11-21&for=24h", [200, 200, 403]),
        ("/ask?from=2026-11-21&for=nonsense", [200, 200, 403]),
        ("/ask.csv?from=2026-11-21&for=24h", [200, 200, 403]),
        ("/ask.json?from=2026-11-21&for=24h", [200, 200, 403]),
        (&seen, [200, 200, 403]),
        (&format!("{seen}/export.csv"), [200, 200, 403]),
        (&format!("{seen}/export.json"), [200, 200, 403]),
        ("/session/00", [404, 404, 403]),
        ("/review?from=2026-11-21&for=24h", [200, 200, 403]),
        (&refused, [200, 200, 403]),
        ("/review/1", [404, 404, 403]),
        ("/integrity", [200, 200, 200]),
        ("/policies", [200, 200, 200]),
        ("/exam", [200, 200, 403]),
        ("/exam/pack?from=2026-11-01&for=31d", [200, 200, 403]),
        ("/exam/pack.json?from=2026-11-01&for=31d", [200, 200, 403]),
        ("/exam/csv/LOG-01?from=2026-11-01&for=31d", [200, 200, 403]),
        ("/people", [403, 403, 200]),
    ];
    for (path, expected) in rows {
        for (person, expected) in people.iter().zip(expected) {
            let answer = person.get(path).await;
            assert_eq!(answer.status, expected, "{path}: {}", answer.body);
            check_headers(&answer, path);
        }
        let answer = site.get(path, "").await;
        assert_eq!(answer.status, 401, "{path} without a session");
        check_headers(&answer, path);
    }
    for path in ["/style.css", "/icon.svg", "/enter", "/nowhere", "/../etc/passwd"] {
        check_headers(&site.get(path, "").await, path);
    }
}

fn check_headers(answer: &Answer, path: &str) {
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';"), "{path}: {policy}");
    for lax in ["unsafe", "script-src", "*", "http:"] {
        assert!(!policy.contains(lax), "{path}: {policy}");
    }
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), value, "{path}: {name}");
    }
    if answer.header("content-type").starts_with("text/html") {
        for inline in ["<script", " style=", "<style", "javascript:", " onclick"] {
            assert!(!answer.body.contains(inline), "{path}: {inline}");
        }
        for needed in ["<html lang=\"en\"", "<title>", "<main", "<h1>", "Skip to the content"] {
            assert!(answer.body.contains(needed), "{path}: no {needed}");
        }
        assert_eq!(answer.body.matches("<h1>").count(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_counts_only_from_its_own_session() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let other = site.person("rob", Role::Reviewer).await;
    let path = format!("/review/{}", site.entry(&rita, "verdict=deny").await);
    let good = rita.get(&path).await.csrf();
    let others = other.get(&path).await.csrf();
    let fields = "outcome=as_expected&comment=seen";
    let foreign = "sec-fetch-site: same-site\r\n";
    for (csrf, extra, expected) in [
        ("", "", 403),
        ("00", "", 403),
        (others.as_str(), "", 403),
        (good.as_str(), foreign, 403),
        (good.as_str(), "sec-fetch-site: cross-site\r\n", 403),
        (good.as_str(), "sec-fetch-site: same-origin\r\n", 303),
    ] {
        let form = format!("{fields}&csrf={csrf}");
        let answer = site.send(&format!("POST {path} HTTP/1.1"), &rita.cookie, extra, &form).await;
        assert_eq!(answer.status, expected, "{csrf} {extra}");
    }
    assert_eq!(site.acts("signed_off").await.len(), 1);
    let long = format!("csrf={good}&comment={}", "x".repeat(70_000));
    assert_eq!(site.post(&path, &rita.cookie, &long).await.status, 400, "too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_cookie_is_bound_to_it() {
    let site = Site::empty(Some(true)).await;
    let token = site.link("rita", Role::Reviewer, &Scope::default(), &[]);
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(site.home.config.paths().ca_certificate()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(site.at).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    let form = format!("token={token}");
    let answer = exchange(stream, "POST /enter HTTP/1.1", "", "", &form).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-tidegate=") && cookie.contains("; Secure"), "{cookie}");
    assert!(answer.header("strict-transport-security").contains("max-age"));
}

#[test]
fn without_tls_the_pages_are_for_loopback_only() {
    for (listen, tls, over_tls, taken) in [
        ("127.0.0.1:1", None, false, true),
        ("[::1]:1", None, false, true),
        ("127.0.0.1:1", Some(true), true, true),
        ("0.0.0.0:1", None, true, true),
        ("10.0.0.1:1", Some(false), false, false),
        ("0.0.0.0:1", Some(false), false, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("collector.toml");
        let tls_line = tls.map(|tls| format!("tls = {tls}")).unwrap_or_default();
        let text = format!(
            "[collector]\norigin = \"t.example\"\ndata_dir = \".\"\n[uplink]\nlisten = \
             \"127.0.0.1:0\"\nname = \"localhost\"\n[ui]\nlisten = \"{listen}\"\n{tls_line}\n"
        );
        std::fs::write(&file, text).unwrap();
        assert_eq!(Config::load(&file).is_ok(), taken, "{listen} {tls:?}");
        let ui = Ui { listen: listen.parse().unwrap(), tls };
        assert_eq!(ui.over_tls(), over_tls, "{listen} {tls:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_a_link_with_its_scope() {
    let site = Site::start().await;
    let data = site.home.config.paths().dir;
    let file = data.join("collector.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[ui]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-collector"));
        command.args(["ui", "link", "--config"]).arg(&file).args(arguments);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (made, said) = run(&["--role", "examiner", "--name", "emil", "--target", "cards"]);
    assert!(made, "{said}");
    assert!(said.starts_with(&format!("http://{}/enter?token=", site.at)), "{said}");
    let token = between(&said, "token=", "\n");
    let answer = site.post("/enter", "", &format!("token={token}")).await;
    let cookie = answer.header("set-cookie").split(';').next().unwrap();
    let page = site.get("/ask?for=any", cookie).await.body;
    assert!(page.contains("svc-fraud") && !page.contains("svc-reports"));
    let acts = site.acts("link_made").await;
    assert_eq!((acts.len(), &acts[0].1["name"]), (1, &"emil".into()), "it is an act in the log");
    assert!(!run(&["--role", "examiner", "--name", "a b"]).0);
    assert!(!run(&["--role", "root", "--name", "a"]).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_looks_and_ends_sessions() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    rita.page("/ask?from=2026-11-21&for=24h&text=pan").await;
    let ada = site.person("ada", Role::Admin).await;
    let page = ada.page("/people").await;
    assert!(page.contains("text=pan") && page.contains("rita"));
    assert!(!page.contains("card_numbers"), "an admin reads no evidence");
    let number = between(&page, "name=\"session\" value=\"", "\"").to_owned();
    let fields = format!("session={number}");
    assert_eq!(ada.submit("/people/end", "/people", &fields).await.status, 303);
    assert_eq!(rita.get("/ask").await.status, 401);
    let answer = rita.site.post("/people/end", &rita.cookie, "session=1").await;
    assert_eq!(answer.status, 401);
}
