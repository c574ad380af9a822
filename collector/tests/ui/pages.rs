//! What the pages say, to whom, and that saying it is recorded.

use tidegate_collector::clock::signed_ns;
use tidegate_collector::ui::roles::{Role, Scope};

use crate::client::{Site, session};
use crate::{demo, terminal};

#[tokio::test(flavor = "multi_thread")]
async fn who_read_a_customer_record_at_0215() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let page = rita.page("/ask?from=2026-11-21+02:15&for=1m&table=customers").await;
    for needed in [
        "2 answers",
        "svc-statements",
        "read public.customers; read public.accounts",
        "statement-run",
        "allowed",
        "verified",
        "212",
    ] {
        assert!(page.contains(needed), "no {needed}");
    }
    assert!(!page.contains("svc-reports") && !page.contains("svc-legacy"));
    let path = session(demo::STATEMENTS);
    assert!(page.contains(&format!("href=\"{path}#e")), "each row leads to its session");

    let page = rita.page(&path).await;
    for needed in [
        "/usr/lib/bank/statement-run",
        "/system.slice/statement-run.service",
        "991:991",
        "JOIN accounts a",
        "Zürich-Enge",
        "by <bdi>statements-read</bdi>",
        "refused",
        "a policy forbids select on cards.card_numbers",
        "they alone give exactly what this page shows",
        "the client said goodbye",
    ] {
        assert!(page.contains(needed), "no {needed} in {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_narrows() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    for (query, answers) in [
        ("", 32),
        ("who=svc-fraud", 5),
        ("who=reporting", 8),
        ("exe=python3.11", 8),
        ("exe=/usr/bin/psql", 3),
        ("exe=sql", 0),
        ("target=cards", 5),
        ("table=public.customers", 5),
        ("table=other.customers", 0),
        ("verdict=deny", 2),
        ("verdict=would_deny", 2),
        ("kind=insert", 1),
        ("kind=gap", 1),
        ("kind=heartbeat", 3),
        ("agent=cards-app-01", 7),
        ("text=POSTINGS", 5),
        ("who=svc-fraud&table=customers", 0),
        ("limit=3", 3),
        ("action=insert", 1),
        ("action=select&table=accounts", 5),
        ("rows=1000", 1),
    ] {
        let page = rita.page(&format!("/ask?from=2026-11-20&for=7d&{query}")).await;
        let rows = page.matches("<td class=\"what\">").count();
        assert_eq!(rows, answers, "{query}");
        let csv = rita.get(&format!("/ask.csv?from=2026-11-20&for=7d&{query}")).await.body;
        assert_eq!(
            csv.lines().filter(|line| line.starts_with(char::is_numeric)).count(),
            answers,
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_becomes_an_url_that_can_be_cited() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    for (query, expected) in [
        ("for=1h", "for=1h"),
        ("from=2h&for=1m&who=a%26b", "for=1m&who=a%26b"),
        ("from=02:15&for=1m", "T02%3A15%3A00Z&for=1m"),
    ] {
        let answer = rita.get(&format!("/ask?{query}")).await;
        assert_eq!(answer.status, 303, "{query}");
        assert!(answer.to().starts_with("/ask?from=20"), "{}", answer.to());
        assert!(answer.to().ends_with(expected), "{}", answer.to());
        assert_eq!(rita.get(answer.to()).await.status, 200);
    }
    let page = rita.page("/ask?from=yesterday&for=1h").await;
    assert!(page.contains("Not understood") && page.contains("role=\"alert\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_evidence_cannot_act() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    for path in [
        session(demo::HOSTILE),
        "/ask?from=2026-11-21+04:00&for=1h".to_owned(),
        "/review?from=2026-11-21&for=24h&seed=%3Cscript%3E".to_owned(),
        format!("/review/{}", site.entry(&rita, "text=onerror").await),
        "/exam/pack?from=2026-11-21&for=24h&seed=%3Cscript%3E".to_owned(),
        "/ask?from=2026-11-21&for=24h&who=%22%3E%3Cscript%3Ealert(1)".to_owned(),
        "/ask?from=%3Cscript%3E&for=24h".to_owned(),
    ] {
        let page = rita.page(&path).await;
        for live in ["<script", "<img", "<b>run", "<i>red"] {
            assert!(!page.contains(live), "{path}: {live}");
        }
        let steers = |c: &char| {
            (c.is_control() && *c != '\n')
                || "\u{202e}\u{202c}\u{200b}\u{2066}\u{2069}".contains(*c)
        };
        assert_eq!(page.chars().find(steers), None, "{path}");
    }
    let page = rita.page(&session(demo::HOSTILE)).await;
    for shown in
        ["&lt;script&gt;alert(1)", "⟨ESC⟩", "⟨U+202E⟩", "⟨U+009B⟩", "&amp;amp; &quot;q&quot;"]
    {
        assert!(page.contains(shown), "no {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_is_recorded_before_it_is_shown() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let denied = site.entry(&rita, "verdict=deny").await;
    let done = site.acts("looked").await;
    assert_eq!((done[0].0.as_str(), &done[0].1["page"]), ("rita", &"enter".into()));
    let rows = [
        ("/ask".to_owned(), "ask", 0),
        ("/ask?from=2026-11-21+02:15&for=1m&table=customers".into(), "ask", 2),
        ("/ask.csv?from=2026-11-21+02:15&for=1m&table=customers".into(), "ask, export as CSV", 2),
        ("/ask.json?from=2026-11-21+02:15&for=1m&table=customers".into(), "ask, export as JSON", 2),
        (session(demo::STATEMENTS), "session", 11),
        (format!("{}/export.json", session(demo::STATEMENTS)), "session, export as JSON", 11),
        // All that there is: a smaller sample goes by the log's indexes.
        ("/review?from=2026-11-21&for=24h&n=200".into(), "review", 29),
        (format!("/review/{denied}"), "review, one entry", 1),
        ("/integrity".into(), "integrity", 0),
        ("/policies".into(), "policies", 0),
        ("/exam/pack?from=2026-11-01&for=31d&n=7".into(), "exam pack", 7),
        ("/people".into(), "refused", 0),
        ("/session/00".into(), "refused", 0),
    ];
    for (path, ..) in &rows {
        rita.get(path).await;
    }
    let looks = site.acts("looked").await;
    assert_eq!(looks.len(), done.len() + rows.len(), "each once");
    for ((path, page, answers), (who, look)) in rows.into_iter().zip(&looks[done.len()..]) {
        assert_eq!((who.as_str(), &look["role"]), ("rita", &"reviewer".into()));
        assert_eq!((&look["page"], &look["question"]), (&page.into(), &path.clone().into()));
        assert_eq!(look["answers"], answers, "{path}");
        assert_eq!(look["range"].is_array(), answers > 0, "{path}");
    }
    assert_eq!(site.home.verify().exit_code(), 10, "the story has a Gap record");
    let file = site.home.config.paths().state();
    rusqlite::Connection::open(file).unwrap().execute("DROP TABLE acts", []).unwrap();
    let answer = rita.get(&session(demo::STATEMENTS)).await;
    assert_eq!(answer.status, 503);
    assert!(!answer.body.contains("customers"), "no record, no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_examiner_sees_the_scope_and_nothing_else() {
    let site = Site::start().await;
    let cards = Scope { target: Some("cards".into()), ..Scope::default() };
    let emil = site.scoped("emil", Role::Examiner, &cards, &[]).await;
    let (mine, other) = (session(demo::CARDS), session(demo::STATEMENTS));
    assert_eq!(emil.get(&mine).await.status, 200);
    for path in [other.clone(), format!("{other}/export.csv"), format!("{other}/export.json")] {
        assert_eq!(emil.get(&path).await.status, 404, "{path}");
    }
    let rita = site.person("rita", Role::Reviewer).await;
    let denied = format!("/review/{}", site.entry(&rita, "who=svc-reports").await);
    let fields = "outcome=follow_up&comment=about+postings";
    assert_eq!(rita.submit(&denied, &denied, fields).await.status, 303);
    for path in [
        "/ask?for=any",
        "/exam/csv/LOG-06?for=24h",
        "/exam/csv/REV-01?for=24h",
        "/ask?for=any&target=core",
        "/ask?for=any&who=svc-statements",
        "/ask.csv?for=any",
        "/ask.json?for=any&limit=10000",
        "/review?from=2026-11-21&for=24h",
        "/exam/pack?from=2026-11-01&for=31d",
        "/exam/pack.json?from=2026-11-01&for=31d",
        "/exam/csv/NHI-01?from=2026-11-01&for=31d",
        "/exam/csv/DBA-01?from=2026-11-01&for=31d",
        "/policies",
    ] {
        let body = emil.page(path).await;
        for hidden in ["svc-reports", "svc-legacy", "postings", "statements-read"] {
            assert!(!body.contains(hidden), "{path}: {hidden}");
        }
    }
    for (query, status) in [("verdict=deny", 404), ("who=svc-fraud", 200)] {
        let entry = site.entry(&rita, query).await;
        assert_eq!(emil.get(&format!("/review/{entry}")).await.status, status, "{query}");
    }
    let path = "/exam/pack?from=2026-11-01&for=31d&target=core";
    assert_eq!(emil.get(path).await.status, 403);

    let minute = 60_000_000_000;
    let from = signed_ns(demo::AT_0215 * 1_000_000_000);
    let narrow = Scope { since_ns: Some(from), until_ns: Some(from + minute), ..Scope::default() };
    let emma = site.scoped("emma", Role::Examiner, &narrow, &[]).await;
    let page = emma.page("/ask?for=any").await;
    assert!(page.contains("<bdi>svc-statements</bdi>") && !page.contains("svc-fraud"));
    assert_eq!(emma.get(&mine).await.status, 404, "a session of another hour");
    let pack = emma.page("/exam/csv/NHI-01?from=2026-11-01&for=31d").await;
    assert_eq!(pack.lines().count(), 2, "{pack}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_as_text_and_given_to_a_player_without_harm() {
    let site = Site::start().await;
    terminal::fill(&site.home, &site.running).await;
    let rita = site.person("rita", Role::Reviewer).await;
    let path = session(terminal::TERMINAL);
    let page = rita.page(&path).await;
    for needed in [
        "opened a shell",
        "What it wrote",
        "deploy done ✓",
        "&lt;script&gt;alert(1)",
        "read the file /srv/data/report",
        "4321 bytes read",
        "abababab",
    ] {
        assert!(page.contains(needed), "no {needed} in {page}");
    }
    assert!(!page.contains("ZXZpbA==") && !page.contains('\u{1b}'), "{page}");
    let (_, rest) = page.split_once(&format!("{path}/terminal/")).unwrap();
    let index = rest.split('"').next().unwrap();
    let answer = rita.get(&format!("{path}/terminal/{index}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let head: serde_json::Value =
        serde_json::from_str(answer.body.lines().next().unwrap()).unwrap();
    assert_eq!((&head["version"], &head["term"]["cols"]), (&3.into(), &100.into()));
    assert!(answer.body.contains("\\u001b[1mdeploy") && !answer.body.contains("]52;"));
    assert_eq!(rita.get(&format!("{path}/terminal/0")).await.status, 404);
}
