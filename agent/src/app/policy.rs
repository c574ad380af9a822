//! Reads the policy files that the configuration names, and compiles them.

use anyhow::{Context as _, bail};
use tidegate_policy::{PolicySet, Source};

use crate::config::{Config, POLICY_FILE_BYTES_MAX};

/// The annotation that makes a statement wait for the collector.
const COLLECTOR_LEVEL: &str = "@durability(\"collector\")";

/// Reads and compiles. The error lists every complaint with file, line and column.
pub fn load(config: &Config) -> anyhow::Result<PolicySet> {
    let mut sources = Vec::new();
    for path in &config.policy.files {
        let shown = path.display();
        let bytes = std::fs::metadata(path).with_context(|| format!("{shown}"))?.len();
        if bytes > POLICY_FILE_BYTES_MAX {
            bail!(
                "{shown}: {bytes} bytes, more than the {POLICY_FILE_BYTES_MAX} allowed; split it"
            );
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{shown}"))?;
        if !config.collector && text.contains(COLLECTOR_LEVEL) {
            bail!(
                "{shown}: {COLLECTOR_LEVEL} without a [collector] in {}: such statements would wait \
                 for ever",
                config.path.display()
            );
        }
        sources.push(Source { name: shown.to_string(), text });
    }
    match PolicySet::compile(&sources) {
        Ok(set) => Ok(set.with_durability(config.policy.durability)),
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            bail!("the policy cannot be used:\n{}", lines.join("\n"))
        }
    }
}
