//! What is protected at a target, in words.

use tidegate_event::{Mode, Protocol};
use tidegate_mask::{Mask, Unresolved};

use crate::config::TargetConfig;

/// What leaves masked, and what becomes of what can't be told.
pub(super) fn words(target: &TargetConfig) -> Vec<String> {
    let mut words = Vec::new();
    for entry in &target.protect {
        let columns: Vec<String> = entry.columns.iter().map(ToString::to_string).collect();
        words.push(format!(
            "  Protected as {}: {}; {}.",
            entry.class,
            columns.join(", "),
            mask_words(entry.mask)
        ));
    }
    if let Some(catalogue) = &target.catalogue {
        let whose = match target.protocol {
            Protocol::Mysql => "the server's",
            Protocol::Postgres | Protocol::Ssh => "each database's",
        };
        words.push(format!(
            "  Views and functions are seen through: user {} reads {whose} catalogue, anew \
             every {} seconds and after DDL.",
            catalogue.user,
            catalogue.refresh_ms / 1000
        ));
    }
    let detectors: Vec<&str> =
        target.masking.detectors.iter().map(|detector| detector.name()).collect();
    let found = detectors.join(", ");
    if !detectors.is_empty() {
        words.push(format!("  Looked for in all values that pass, and masked: {found}."));
    }
    match (target.masking.unresolved, target.protect.is_empty()) {
        (Unresolved::Withhold, _) => words.push(
            "  Results of which it can't be told whether protected columns are in them are withheld."
                .to_owned(),
        ),
        (Unresolved::Detect, _) => words.push(
            "  Results of which it can't be told: masked is only what is found so.".to_owned(),
        ),
        (Unresolved::Clear, false) => words.push(
            "  Results of which it can't be told whether protected columns are in them pass as they \
             are."
                .to_owned(),
        ),
        (Unresolved::Clear, true) => {}
    }
    words
}

fn mask_words(mask: Mask) -> String {
    match mask {
        Mask::Redact => "a fixed text stands in their place".to_owned(),
        Mask::Partial { keep_last } => format!("the last {keep_last} characters stay"),
        Mask::Hash => "a keyed hash stands in their place".to_owned(),
        Mask::Tokenise => "another value of the same form stands in their place".to_owned(),
        Mask::Null => "NULL stands in their place".to_owned(),
    }
}

/// What a careful operator would want to know.
pub(super) fn warnings(target: &TargetConfig, warnings: &mut Vec<String>) {
    let name = &target.name;
    if target.protect.is_empty() {
        return;
    }
    if target.masking.unresolved != Unresolved::Withhold {
        warnings.push(format!(
            "target \"{name}\" has protected columns, and results that can't be told are not \
             withheld: protected values may pass"
        ));
    }
    if target.catalogue.is_none() {
        warnings.push(format!(
            "target \"{name}\" has protected columns and no [targets.catalogue]: of relations that \
             [[protect]] does not name it can't be told whether they show them"
        ));
    }
    if target.mode == Mode::Shadow {
        warnings.push(format!(
            "target \"{name}\" is in shadow mode: protected values pass as they are, \
             and are masked in the record only"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::explain;
    use crate::config::{Config, SystemAccounts};

    #[test]
    fn in_mysql_names_are_in_lower_case_and_one_catalogue_is_the_servers() {
        let text = r#"
[agent]
id = "a"
[policy]
files = ["p.cedar"]
[[targets]]
name = "t"
protocol = "mysql"
destinations = ["10.0.0.5:1"]
catalogue = { user = "Tidegate" }
[[protect]]
target = "t"
columns = ["Bank.`Customers`.SSN"]
class = "ssn"
mask = "null"
"#;
        let all = said(text);
        for expected in [
            "  Protected as ssn: bank.customers.ssn; NULL stands in their place.",
            "user Tidegate reads the server's catalogue, anew every 60 seconds and after DDL.",
        ] {
            assert!(all.contains(expected), "{expected} is not in:\n{all}");
        }
    }

    /// Words and warnings on that configuration.
    fn said(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.cedar"), "").unwrap();
        let config = Config::parse(&dir.path().join("agent.toml"), text, &SystemAccounts).unwrap();
        let explained = explain(&config, &[]);
        [explained.words.join("\n"), explained.warnings.join("\n")].join("\n")
    }

    #[test]
    fn what_is_protected_stands_there_in_words() {
        let text = r#"
[agent]
id = "a"
[policy]
files = ["p.cedar"]
[[targets]]
name = "t"
protocol = "postgres"
destinations = ["10.0.0.5:1"]
tls.server_name = "db"
mode = "shadow"
masking.unresolved = "detect"
[[protect]]
target = "t"
columns = ["s.c.card"]
class = "card"
mask = "partial"
"#;
        let all = said(text);
        for expected in [
            "  Protected as card: s.c.card; the last 4 characters stay.",
            "values that pass, and masked: card, ssn, iban, email, phone, secret.",
            "\"t\" has protected columns and no [targets.catalogue]",
            "results that can't be told are not withheld",
            "is in shadow mode: protected values pass as they are",
        ] {
            assert!(all.contains(expected), "{expected} is not in:\n{all}");
        }
    }
}
