//! What a session is told, as its database changes.

use tidegate_event::Relation;
use tidegate_sql::mysql::{Server, Settings as Reads};
use tidegate_sql::{KnownRelation, RelationKind};
use tidegate_wire_mysql::Analyze as _;

use super::*;
use crate::config::{Config, SystemAccounts};
use crate::telemetry::Metrics;

const CONFIG: &str = r#"
[agent]
id = "a"
state_dir = "."
[policy]
files = ["p.cedar"]
[[targets]]
name = "t"
protocol = "mysql"
destinations = ["10.0.0.5:1"]
[[protect]]
target = "t"
columns = ["bank.customers.ssn"]
class = "ssn"
mask = "redact"
"#;

const MARIADB: Reads = Reads {
    ansi_quotes: false,
    no_backslash_escapes: false,
    charset: mysql::Charset::Utf8,
    server: Server { mariadb: true, version: None },
};

/// A session of MySQL, and what it is told of its server.
fn session() -> (Sight, Arc<Source>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.cedar"), "").unwrap();
    let text = CONFIG.replace("state_dir = \".\"", &format!("state_dir = {:?}", dir.path()));
    let config = Config::parse(&dir.path().join("agent.toml"), &text, &SystemAccounts).unwrap();
    let masking = crate::masking::of(&config).unwrap().remove(0).unwrap();
    let metrics = Arc::new(Metrics::default());
    let site = Site {
        masking,
        catalogues: Arc::new(Catalogues::new(metrics, tokio::runtime::Handle::current())),
        protocol: Protocol::Mysql,
        target: "t".to_owned(),
        server: ([127, 0, 0, 1], 1).into(),
        verification: None,
    };
    let analyzers = Analyzers { postgres: Arc::default(), mysql: Arc::default() };
    let sight = Sight::new(analyzers, site);
    let source = Source::unread(Protocol::Mysql);
    sight.state().source = Some(Arc::clone(&source));
    (sight, source)
}

/// A server with one table.
fn holds(version: u64) -> tidegate_sql::Catalogue {
    let name = Relation { schema: Some("bank".to_owned()), name: "customers".to_owned() };
    let columns = Vec::new();
    let table =
        KnownRelation { oid: 1, name, kind: RelationKind::Table, columns, definition: None };
    tidegate_sql::Catalogue::new(version, vec![table], Vec::new())
}

fn statement(text: &str, via: Via, analysis: &Arc<Analysis>) -> Statement {
    Statement {
        via,
        text: text.into(),
        text_bytes: u64::try_from(text.len()).unwrap(),
        text_sha256: None,
        prepared: String::new(),
        parameters: Vec::new(),
        analysis: Arc::clone(analysis),
    }
}

fn is_opaque(analysis: &Analysis) -> bool {
    let lineage = &analysis.lineage;
    lineage.filters_opaque.is_some() && matches!(lineage.rows[..], [Rows::Opaque(_)])
}

#[test]
fn a_search_path_in_the_startup_message_is_noticed_however_it_is_written() {
    for (name, value, expected) in [
        ("search_path", "a", true),
        ("SEARCH_PATH", "a", true),
        ("Role", "owner", true),
        ("options", "-c search_path=a", true),
        ("options", "-csearch_path=a", true),
        ("options", "--search-path=a", true),
        ("options", "--search_path=a", true),
        ("options", r"-c se\arch\_path=a", true),
        ("options", "-c SEARCH_PATH=a", true),
        ("options", "-c role=owner", true),
        ("options", "-c session_authorization=owner", true),
        ("options", "-c work_mem=64MB", false),
        ("application_name", "search_path", false),
    ] {
        assert_eq!(moves_at_login(name, value), expected, "{name} = {value}");
    }
}

#[tokio::test]
async fn a_text_of_mysql_is_read_once_for_each_state_of_the_catalogue() {
    let (sight, source) = session();
    let text = "SELECT id FROM customers WHERE id = ?";
    let before = sight.analyze(text.as_bytes(), MARIADB, Some("bank"));
    let prepared = statement(text, Via::Parse, &before);
    assert!(sight.renewed(&prepared).is_none(), "nothing was read yet");
    sight.sent(&Operation::Statement(prepared));
    source.read_now(holds(1), 1);
    let epoch = sight.now().epoch;
    let runs = statement(text, Via::Execute, &before);
    // It is the analysis of the catalogue now, or was that all along.
    let renewed = sight.renewed(&runs).unwrap_or_else(|| Arc::clone(&before));
    let fresh = sight.analyze(text.as_bytes(), MARIADB, Some("bank"));
    assert!(Arc::ptr_eq(&renewed, &fresh));
    source.read_now(holds(2), 1);
    assert_eq!(sight.now().epoch, epoch, "it reads as before");
    source.read_now(holds(3), 2);
    assert_eq!(sight.now().epoch, epoch + 1);
}

#[tokio::test]
async fn what_is_not_known_to_be_read_in_one_way_cant_be_told() {
    let (sight, source) = session();
    source.read_now(holds(1), 1);
    let text = "SELECT id FROM customers WHERE id = ?";
    let unseen = Arc::new(Analysis {
        lineage: Lineage { rows: vec![Rows::Known(Vec::new())], ..Lineage::default() },
        ..Analysis::default()
    });
    let renewed = sight.renewed(&statement(text, Via::Execute, &unseen)).unwrap();
    assert!(is_opaque(&renewed), "nobody knows in which database it was prepared");
    // MySQL does not tell whether this is a column or a text.
    let doubt = "SELECT id FROM customers WHERE \"ssn\" = 'x'";
    let reads = Reads { server: Server::default(), ..MARIADB };
    let analysis = sight.analyze(doubt.as_bytes(), reads, Some("bank"));
    source.read_now(holds(2), 2);
    let other = Reads { ansi_quotes: true, ..reads };
    let differ = *sight.analyzers.mysql.analyze(doubt.as_bytes(), other)
        != *sight.analyzers.mysql.analyze(doubt.as_bytes(), reads);
    let renewed = sight.renewed(&statement(doubt, Via::Execute, &analysis));
    assert!(!differ || renewed.is_some_and(|renewed| is_opaque(&renewed)));
    let cut = Statement { text_bytes: 1000, ..statement(text, Via::Execute, &analysis) };
    assert!(sight.renewed(&cut).is_none_or(|renewed| is_opaque(&renewed)));
}

#[tokio::test]
async fn ddl_of_mysql_makes_views_unknown_until_the_next_reading() {
    let (sight, source) = session();
    source.read_now(holds(1), 1);
    let text = "CREATE VIEW bank.people AS SELECT id FROM bank.customers";
    let analysis = sight.analyze(text.as_bytes(), MARIADB, Some("bank"));
    let operation = |via| Operation::Statement(statement(text, via, &analysis));
    sight.sent(&operation(Via::Parse));
    assert!(!sight.is_changing(), "to prepare it changes nothing");
    sight.sent(&operation(Via::Simple));
    assert!(sight.is_changing());
    source.read_now(holds(2), 1);
    assert!(matches!(source.current(), Some((_, Fresh::No))), "read before it ended");
    sight.settled();
    assert!(!sight.is_changing() && sight.behind().is_some() && sight.behind().is_none());
    source.read_now(holds(3), 2);
    assert!(matches!(source.current(), Some((_, Fresh::Yes))));
    let select = sight.analyze(b"USE other", MARIADB, Some("bank"));
    let epoch = sight.now().epoch;
    sight.sent(&Operation::Statement(statement("USE other", Via::Simple, &select)));
    assert_eq!(sight.now().epoch, epoch, "a database is told with each text");
}
