//! What the pages say of proof is so: exports can be checked without us, damage shows on every page.

use tidegate_collector::ui::roles::Role;
use tidegate_ledger::checkpoint::{self, VerifierKey};
use tidegate_ledger::tree::{leaf_hash, verify_inclusion};

use crate::client::{Site, session};
use crate::demo;

fn hash(value: &serde_json::Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entries_of_an_export_are_proven_by_the_export_alone() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    for (path, entries) in [
        (format!("{}/export.json", session(demo::STATEMENTS)), 21),
        ("/ask.json?from=2026-11-21+02:15&for=1m&table=customers".to_owned(), 2),
    ] {
        let bundle: serde_json::Value = serde_json::from_str(&rita.page(&path).await).unwrap();
        let key: VerifierKey = bundle["log_key"].as_str().unwrap().parse().unwrap();
        let signed = checkpoint::open(bundle["checkpoint"].as_str().unwrap(), &key).unwrap();
        let leaves = bundle["entries"].as_array().unwrap();
        assert_eq!(leaves.len(), entries, "{path}");
        for leaf in leaves {
            let bytes = hex::decode(leaf["entry"].as_str().unwrap()).unwrap();
            let hashed = leaf_hash(&bytes);
            assert_eq!(hashed, hash(&leaf["inclusion"]["leaf_hash"]));
            let path = leaf["inclusion"]["path"].as_array().unwrap();
            let path: Vec<_> = path.iter().map(hash).collect();
            let index = leaf["index"].as_u64().unwrap();
            assert!(verify_inclusion(&hashed, index, signed.size, &path, &signed.root));
        }
        assert_eq!(bundle["proofs_left_out"], false);
    }
    // Each export is a look, so the log grows under the next one.
    let path = format!("{}/export.json", session(demo::STATEMENTS));
    let ask = "/ask.json?from=2026-11-21+02:15&for=1m&table=customers";
    for _ in 0..20 {
        let (one, other) = tokio::join!(rita.get(&path), rita.get(ask));
        assert_eq!((one.status, other.status), (200, 200), "{} {}", one.body, other.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_shows() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let before = rita.submit("/integrity/verify", "/integrity", "").await;
    assert_eq!(before.status, 200);
    assert!(before.body.contains("verified, with declared gaps"), "{}", before.body);

    let segments = site.home.log().join("seg");
    let file = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(9).position(|bytes| bytes == b"customers").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let answer = rita.submit("/integrity/verify", "/integrity", "").await;
    assert!(answer.body.contains("tampering found"), "{}", answer.body);
    assert!(answer.body.contains("at byte"), "the place is named");
    let page = rita.page("/ask?from=2026-11-21+02:15&for=1m&table=customers").await;
    assert!(page.contains("the log does not verify"));
    let csv = rita.page("/exam/csv/LOG-03?from=2026-11-01&for=31d").await;
    assert!(csv.contains("Exit code of verify,20"), "{csv}");
    let answer = rita.get(&session(demo::STATEMENTS)).await;
    assert_eq!(answer.status, 503, "an entry that cannot be read is not shown as if it could");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_says_something_else_is_told() {
    let site = Site::start().await;
    let rita = site.person("rita", Role::Reviewer).await;
    let path = session(demo::STATEMENTS);
    assert!(rita.page(&path).await.contains("they alone give exactly what this page shows"));
    let db = rusqlite::Connection::open(site.home.config.paths().index()).unwrap();
    for sql in [
        "UPDATE operations SET rows = 2 WHERE text LIKE '%JOIN accounts%'",
        "DELETE FROM operations WHERE text LIKE '%JOIN accounts%'",
        "UPDATE sessions SET principal = 'svc-nobody'",
    ] {
        db.execute(sql, []).unwrap();
        let page = rita.page(&path).await;
        assert!(page.contains("The index does not say what the log says"), "{sql}");
    }
}
