//! Protected columns of a MariaDB, end to end: real clients, a real server, the real agent.

#![expect(clippy::unwrap_used, reason = "tests")]

use xtask::lab::client::run;
use xtask::lab::mariadb::{APP_PASSWORD, CATALOGUE, CATALOGUE_GRANTS, clients, masked_lab};
use xtask::lab::{AgentOptions, Answer, Lab, MariadbOptions, Options, policies};

/// One column for each mask.
const MASKS: &str = r#"
[[protect]]
target = "lab-mariadb"
columns = ["app.customers.ssn"]
class = "ssn"
mask = "redact"
[[protect]]
target = "lab-mariadb"
columns = ["customers.card"]
class = "card"
mask = "partial"
[[protect]]
target = "lab-mariadb"
columns = ["customers.email"]
class = "email"
mask = "hash"
[[protect]]
target = "lab-mariadb"
columns = ["customers.account"]
class = "account"
mask = "null"
"#;

/// A table with a protected column of each kind, and what leads to it.
const MASKED_TABLES: &str = "CREATE TABLE app.customers (id int NOT NULL PRIMARY KEY, name varchar(40), \
        ssn varchar(11) NOT NULL UNIQUE, card char(16) NOT NULL, email text, account bigint NOT NULL); \
    INSERT INTO app.customers VALUES (1, 'one', '123-45-6789', '4111222233334444', 'one@x.example', 71), \
        (2, 'two', '987-65-4321', '4111222233335555', 'two@x.example', 72); \
    CREATE VIEW app.people AS SELECT id, ssn AS number FROM app.customers; \
    CREATE FUNCTION app.number_of(who int) RETURNS varchar(11) READS SQL DATA \
        RETURN (SELECT ssn FROM app.customers WHERE id = who); \
    CREATE PROCEDURE app.everybody() SELECT ssn AS shown FROM app.customers; \
    CREATE USER auditor@'%' IDENTIFIED BY 'app-lab-password', analyst@'%' IDENTIFIED BY 'app-lab-password', \
        bounded@'%' IDENTIFIED BY 'app-lab-password'; \
    GRANT ALL ON app.* TO auditor@'%', analyst@'%', bounded@'%'";

/// What no client but the auditor's may see.
const VALUES: [&str; 8] = [
    "123-45-6789",
    "987-65-4321",
    "4111222233334444",
    "4111222233335555",
    "one@x.example",
    "ONE@X.EXAMPLE",
    "two@x.example",
    "TWO@X.EXAMPLE",
];

/// What is protected.
const PROTECT: &str = r#"
[[protect]]
target = "lab-mariadb"
columns = ["App.`Customers`.SSN"]
class = "ssn"
mask = "redact"
"#;

const TABLES: &str = "CREATE TABLE app.customers (id int PRIMARY KEY, name varchar(40), ssn varchar(11)); \
    INSERT INTO app.customers VALUES (1, 'one', '123-45-6789'), (2, 'two', '987-65-4321'); \
    CREATE VIEW app.people AS SELECT id, ssn AS number FROM app.customers; \
    CREATE FUNCTION app.number_of(who int) RETURNS varchar(11) READS SQL DATA \
        RETURN (SELECT ssn FROM app.customers WHERE id = who)";

/// A laboratory whose catalogue's account has that authentication and those grants. In shadow mode, since
/// the policies are not what is tried here.
fn lab(plugin: &str, grants: &str, tls: bool) -> Lab {
    let agent = AgentOptions {
        policy: policies::PERMIT_ALL.to_owned(),
        mode: "shadow",
        mariadb_toml: format!("{CATALOGUE}{PROTECT}"),
        mariadb_server_tls: if tls { "verify-full" } else { "off" },
        ..AgentOptions::default()
    };
    let mariadb = Some(MariadbOptions { tls, ..MariadbOptions::default() });
    let mut lab = Lab::prepare(Options { agent, mariadb, ..Options::default() }).unwrap();
    let server = lab.mariadb().unwrap();
    server.admin(TABLES).unwrap();
    server.add_catalogue_account(plugin, grants, &lab.path("agent")).unwrap();
    lab.start_collector().unwrap();
    lab.start_agent().unwrap();
    lab
}

/// A laboratory that masks.
fn masking_lab() -> Lab {
    masked_lab(MASKS, &[MASKED_TABLES], "").unwrap()
}

/// MariaDB's own client in batch mode, going on after errors.
fn cli(lab: &Lab, script: &str) -> Answer {
    cli_as(lab, "app", script)
}

fn cli_as(lab: &Lab, user: &str, script: &str) -> Answer {
    clients::cli(lab, user, &[], script).unwrap()
}

/// The agent's lines on its catalogue.
fn said(lab: &Lab) -> Vec<String> {
    let log = std::fs::read_to_string(lab.path("agent/agent.log")).unwrap();
    let about = |line: &&str| line.contains("catalogue") && line.contains("lab-mariadb");
    log.lines().filter(about).map(str::to_owned).collect()
}

#[track_caller]
fn check(lab: &Lab, expected: &[&str]) {
    let said = said(lab);
    let all = said.len() == expected.len()
        && said.iter().zip(expected).all(|(line, part)| line.contains(part));
    assert!(all, "{said:#?}\nis not\n{expected:#?}");
}

#[test]
fn the_catalogue_is_read_at_the_login_and_again_after_ddl() {
    for (plugin, tls) in [("mysql_native_password", false), ("ed25519", true)] {
        let lab = lab(plugin, CATALOGUE_GRANTS, tls);
        assert_eq!(cli(&lab, "SELECT name FROM customers WHERE id = 1").stdout, "one\n");
        check(&lab, &["relations=2"]);
        let view = "CREATE VIEW names AS SELECT name FROM customers;\n";
        // The session waits for the reading before its next statement.
        let answer = cli(&lab, &format!("{view}SELECT name FROM names WHERE name = 'two';\n"));
        assert_eq!(answer.stdout, "two\n", "{answer}");
        check(&lab, &["relations=2", "relations=3"]);
        // In a transaction DDL ends it, in MySQL; it is read anew all the same.
        let script = "BEGIN;\nSELECT count(*) FROM customers;\nDROP VIEW names;\nSELECT 'on';\n";
        assert_eq!(cli(&lab, script).stdout, "2\non\n");
        check(&lab, &["relations=2", "relations=3", "relations=2"]);
        lab.finish().unwrap();
    }
}

#[test]
fn what_the_account_may_not_read_is_said() {
    let lab = lab("mysql_native_password", "SHOW VIEW, REFERENCES", false);
    assert_eq!(cli(&lab, "SELECT 'on'").stdout, "on\n");
    check(&lab, &["relations=2", "may not read the definitions of some views"]);
    lab.mariadb().unwrap().admin("DROP USER tidegate@'%'").unwrap();
    let script = "CREATE VIEW names AS SELECT name FROM customers;\nSELECT 'on';\n";
    assert_eq!(cli(&lab, script).stdout, "on\n");
    let lines = said(&lab);
    let last = lines.last().unwrap();
    assert!(last.contains("a catalogue cannot be read") && last.contains("error 1045"), "{last}");
    lab.finish().unwrap();
}

#[test]
fn the_words_of_the_configuration_are_those_of_check() {
    let lab = lab("mysql_native_password", CATALOGUE_GRANTS, false);
    let said = lab.agent().unwrap().ask("check", &[]).unwrap();
    for expected in [
        "Protected as ssn: app.customers.ssn; a fixed text stands in their place.",
        "user tidegate reads the server's catalogue, anew every 3600 seconds and after DDL.",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    lab.finish().unwrap();
}

fn shows_none(what: &str, shown: &str) {
    for value in VALUES {
        assert!(!shown.contains(value), "{what} shows {value}: {shown}");
    }
}

#[test]
fn values_leave_masked_unless_a_policy_permits_to_unmask() {
    let lab = masking_lab();
    let select = "SELECT ssn, card, email, account, name FROM customers WHERE id = 1";
    let answer = cli(&lab, select);
    let shown: Vec<&str> = answer.stdout.trim_end().split('\t').collect();
    assert_eq!(shown.len(), 5, "{answer}");
    assert_eq!((shown[0], shown[1]), ("****", "************4444"), "{answer}");
    assert_eq!((shown[2].len(), shown[3], shown[4]), (32, "NULL", "one"), "{answer}");
    let clear = "123-45-6789\t4111222233334444\tone@x.example\t71\tone\n";
    assert_eq!(cli_as(&lab, "auditor", select).stdout, clear);
    let evidence = lab.evidence().unwrap();
    let unmasked: Vec<String> =
        evidence.statements(select).map(|one| one.json["unmasked"].to_string()).collect();
    assert_eq!(unmasked[0], "[]");
    assert!(unmasked[1].contains("app.customers.ssn (class ssn)"), "{unmasked:?}");
    lab.finish().unwrap();
}

#[test]
fn drivers_get_masked_rows_in_text_and_in_binary() {
    let lab = masking_lab();
    let args = ["app", APP_PASSWORD];
    let answer = clients::python(&lab, include_str!("clients/mysql_masking.py"), &args).unwrap();
    assert!(answer.ok() && answer.stdout.ends_with("done\n"), "{answer}");
    shows_none("a driver", &answer.stdout);
    for expected in [
        "pymysql 1|one|****|************4444|",
        "pymysql ****|1",
        "pymysql alive",
        "connector 2|****|************5555|",
        "prepared 2|****|************5555|",
        "parameter 1|****",
    ] {
        assert!(answer.stdout.contains(expected), "{expected}: {answer}");
    }
    for how in ["pymysql", "connector", "prepared"] {
        let both = answer.stdout.lines().filter(|line| *line == format!("{how} ****|****"));
        assert_eq!(both.count(), 2, "whether a computed value is NULL tells nothing: {answer}");
    }
    let refused: Vec<&str> =
        answer.stdout.lines().filter(|line| line.starts_with("refused")).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].contains("no policy permits filter"), "{refused:?}");
    assert!(refused[1].contains("withheld"), "{refused:?}");
    lab.finish().unwrap();
}

#[test]
fn filters_are_refused_unless_a_policy_permits_them_and_their_values_are_not_recorded() {
    let lab = masking_lab();
    let select = "SELECT name FROM customers WHERE ssn = '987-65-4321'";
    let answer = cli(&lab, &format!("{select};\nSELECT name FROM customers WHERE id = 1;\n"));
    assert_eq!(answer.stdout, "one\n", "{answer}");
    assert!(answer.stderr.contains("1142") && answer.stderr.contains("filter"), "{answer}");
    assert_eq!(cli_as(&lab, "analyst", select).stdout, "two\n");
    let evidence = lab.evidence().unwrap();
    let recorded = "SELECT name FROM customers WHERE ssn = '****'";
    let verdicts: Vec<&str> =
        evidence.statements(recorded).map(xtask::lab::evidence::Event::verdict).collect();
    assert_eq!(verdicts, ["deny", "allow"]);
    assert_eq!(evidence.statements(select).count(), 0);
    lab.finish().unwrap();
}

#[test]
fn errors_budgets_and_the_ways_of_sql_itself() {
    let lab = masking_lab();
    let script = "PREPARE p FROM 'SELECT id, ssn FROM customers ORDER BY id';\nEXECUTE p;\n\
        EXECUTE IMMEDIATE 'SELECT ssn FROM customers';\n\
        SHOW WARNINGS;\n\
        INSERT INTO customers SELECT 9, name, ssn, card, email, account FROM customers LIMIT 1;\n\
        CREATE TABLE taken AS SELECT ssn FROM customers;\nSELECT ssn INTO @x FROM customers LIMIT 1;\n\
        SELECT extractvalue(1, concat('~', ssn)) FROM customers;\nHANDLER customers OPEN;\n\
        HANDLER customers READ FIRST;\nEXPLAIN FORMAT=JSON SELECT * FROM customers WHERE ssn > '1';\n\
        SELECT * FROM information_schema.processlist;\nSELECT 'over';\n";
    let answer = cli(&lab, script);
    shows_none("the client", &format!("{}{}", answer.stdout, answer.stderr));
    assert!(answer.stdout.starts_with("1\t****\n2\t****\n****\n****\n"), "{answer}");
    assert!(answer.stdout.ends_with("over\n"), "{answer}");
    let rows = "SELECT a.id FROM customers a JOIN customers b JOIN customers c JOIN customers d JOIN \
        customers e JOIN customers f JOIN customers g JOIN customers h";
    let answer = cli_as(&lab, "bounded", &format!("{rows};\nSELECT 'on';\n"));
    assert!(answer.stderr.contains("cut at its budget: 150 rows"), "{answer}");
    assert!(answer.stdout.ends_with("on\n"), "{answer}");
    lab.finish().unwrap();
}

#[test]
fn masked_rows_are_kept_and_replayed() {
    let lab = masking_lab();
    let select = "SELECT id, ssn, account FROM customers ORDER BY id";
    assert!(cli(&lab, select).ok());
    let session = lab.evidence().unwrap().statements(select).last().unwrap().session().to_owned();
    let collector = lab.collector().unwrap();
    let replay = |more: &[&str]| {
        let mut command = collector.program();
        command.args(["replay", "--config"]).arg(collector.config()).arg(&session).args(more);
        let answer = run(&mut command, b"").unwrap();
        assert!(answer.ok(), "{answer}");
        answer.stdout
    };
    let all = replay(&["--json"]);
    let mut lines =
        all.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let answer = lines.find(|one| one["text"] == select && !one["result"].is_null()).unwrap();
    let kept = &answer["kept"];
    assert_eq!(kept["columns"], serde_json::json!(["id", "ssn", "account"]), "{answer}");
    assert_eq!(kept["rows"], serde_json::json!([["1", "****", null], ["2", "****", null]]));
    assert_eq!(kept["digest_agrees"], true, "{answer}");
    assert!(replay(&[]).contains("| 2  | **** |"), "{}", replay(&[]));
    lab.finish().unwrap();
}
