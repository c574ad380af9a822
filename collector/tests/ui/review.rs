//! Review queue, sign-off, sample, exam pack.

use tidegate_collector::ui::roles::{Role, Scope};

use crate::client::{Site, between};

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_holds_what_somebody_should_look_at() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let page = rita.page("/review?from=2026-11-21&for=24h&n=3&seed=a").await;
    for (category, count) in [
        ("Refused", 2),
        ("Would be refused", 2),
        ("Passed open", 0),
        ("Not understood", 1),
        ("Without bound", 1),
        ("Large", 1),
        ("Sample", 3),
    ] {
        assert!(page.contains(&format!(">{category} ({count})</h2>")), "{category}");
    }
    let outside = rita.page("/review?from=2026-10-01&for=24h").await;
    assert!(outside.contains(">Refused (0)</h2>") && outside.contains("0</strong> of 0 entries"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_can_be_drawn_again_by_its_seed() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let other = site.person("rob", Role::Reviewer).await;
    let draw = async |person: &crate::client::Person<'_>, seed: &str| {
        let path = format!("/exam/csv/SMP-01?from=2026-11-21&for=24h&n=5&seed={seed}");
        person.page(&path).await
    };
    let first = draw(&rita, "examiner-7").await;
    assert_eq!(first.lines().count(), 6);
    assert_eq!(draw(&other, "examiner-7").await, first);
    assert_ne!(draw(&rita, "examiner-8").await, first);
    for n in ["0", "201", "x"] {
        let answer = rita.get(&format!("/review?from=2026-11-21&for=24h&n={n}")).await;
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_off_what_is_theirs() {
    let site = Site::start().await;
    let all = Scope::default();
    let rita = site.person("rita", Role::Reviewer).await;
    let entry = site.entry(&rita, "text=reported+%3D+true&verdict=deny").await;
    let path = format!("/review/{entry}");
    for (name, role, operates, expected) in [
        ("rita", Role::Reviewer, &[][..], 303),
        ("svc-reports", Role::Reviewer, &[], 403),
        ("reporting", Role::Reviewer, &[], 403),
        ("otto", Role::Reviewer, &["svc-reports"], 403),
        ("otto", Role::Reviewer, &["reporting"], 403),
        ("otto", Role::Reviewer, &["svc-fraud"], 303),
        ("emil", Role::Examiner, &[], 403),
        ("ada", Role::Admin, &[], 403),
    ] {
        let person = site.scoped(name, role, &all, operates).await;
        let page = if role == Role::Admin { "/people" } else { path.as_str() };
        let fields = "outcome=follow_up&comment=why+without+WHERE";
        let answer = person.submit(&path, page, fields).await;
        assert_eq!(answer.status, expected, "{name} {operates:?}");
    }
    for fields in [
        "outcome=as_expected&comment=+",
        "outcome=perhaps&comment=x",
        "comment=x",
        "outcome=as_expected",
    ] {
        assert_eq!(rita.submit(&path, &path, fields).await.status, 400, "{fields}");
    }
    let page = rita.page(&path).await;
    assert_eq!(page.matches("why without WHERE").count(), 2, "at once, before they are in the log");
    let signed = site.acts("signed_off").await;
    let signed: Vec<_> =
        signed.iter().map(|(who, sign)| (who.as_str(), sign["entry"].as_u64().unwrap())).collect();
    assert_eq!(signed, [("rita", entry), ("otto", entry)], "and in the log");
    let page = rita.page(&path).await;
    assert_eq!(page.matches("why without WHERE").count(), 2, "each once");
    assert!(page.contains("why without WHERE") && page.contains("follow up"));
    let csv = rita.page("/exam/csv/REV-01?from=2026-11-21&for=24h").await;
    assert!(
        csv.contains(&format!("rita,{entry},svc-reports,yes,follow_up,why without WHERE")),
        "{csv}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exam_pack_holds_every_artifact_and_never_says_compliant() {
    let site = Site::start().await;
    let emil = site.person("emil", Role::Examiner).await;
    let query = "from=2026-11-01&for=31d&seed=s&n=4";
    let page = emil.page(&format!("/exam/pack?{query}")).await;
    let pack = emil.page(&format!("/exam/pack.json?{query}")).await;
    let pack: serde_json::Value = serde_json::from_str(&pack).unwrap();
    assert!(page.contains("Produces evidence for"));
    assert!(!page.to_lowercase().contains("complian"));
    assert!(!pack.to_string().to_lowercase().contains("complian"));
    for (id, expected) in [
        ("MET-01", "Operations,29"),
        ("NHI-01", "svc-statements,core-app-01.bank.example,991,/usr/lib/bank/statement-run"),
        ("PAM-03", "core,statements,2,\"svc-"),
        ("DBA-01", "svc-statements,core,select,public.customers,2,424,0,0"),
        ("DEN-01", "no-card-numbers"),
        ("SMP-01", "verified"),
        ("LOG-01", "cards-app-01,cards-app-01.bank.example"),
        ("LOG-02", "Operations,29"),
        ("LOG-03", "Exit code of verify,"),
        ("LOG-06", "emil,examiner,exam pack"),
        ("LOG-07", "Receiver"),
        ("REV-01", "Reviewer"),
        ("SOD-01", "emil,examiner,yes"),
    ] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        // Looks are of today, the night is of another day.
        let query = if id == "LOG-06" { "for=24h" } else { query };
        let csv = emil.page(&format!("/exam/csv/{id}?{query}")).await;
        assert!(csv.contains(expected), "{id}: {csv}");
        let artifacts = pack["artifacts"].as_array().unwrap();
        let artifact = artifacts.iter().find(|artifact| artifact["id"] == id).unwrap();
        let rows = artifact["rows"].as_array().unwrap();
        let columns = artifact["columns"].as_array().unwrap().len();
        assert!(rows.iter().all(|row| row.as_array().unwrap().len() == columns), "{id}");
        assert!(artifact["produces_evidence_for"].as_str().unwrap().len() > 20, "{id}");
    }
    assert_eq!(pack["sample"]["entries"].as_array().unwrap().len(), 4);
    assert_eq!(emil.get(&format!("/exam/csv/OTHER-01?{query}")).await.status, 404);
    let foot = between(&page, "print-foot", "</div>");
    assert!(foot.contains("test.example/log") && foot.contains("root "));
}
