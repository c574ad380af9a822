//! What the machine needs of the SQL analyser, as a trait, so that tests can bring their own.

use std::sync::Arc;

use tidegate_event::{Analysis, StatementKind};
use tidegate_sql::mysql::{Analyzer, Settings};

/// Says what a text does.
pub trait Analyze: Send + Sync {
    /// What `text` does, read under `settings` in that database (empty for none, `None` where it is not
    /// known).
    fn analyze(&self, text: &[u8], settings: Settings, database: Option<&str>) -> Arc<Analysis>;

    /// What SQL's own `EXECUTE` does of a statement that `text` prepared, read so.
    fn executed(&self, text: &str, settings: Settings, database: Option<&str>) -> Arc<Analysis> {
        Arc::new(executed(&self.analyze(text.as_bytes(), settings, database)))
    }

    /// For a text of which only the head is held: always unknown.
    fn too_long(&self, bytes: u64) -> Arc<Analysis>;
}

impl Analyze for Analyzer {
    /// Without a catalogue the database does not matter.
    fn analyze(&self, text: &[u8], settings: Settings, _: Option<&str>) -> Arc<Analysis> {
        Self::analyze(self, text, settings)
    }

    fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        Self::too_long(self, bytes)
    }
}

/// The analysis of an `EXECUTE` of what a text of that analysis prepared.
pub fn executed(prepared: &Analysis) -> Analysis {
    let mut analysis = prepared.clone();
    analysis.kinds = vec![StatementKind("execute".to_owned())];
    let later = std::mem::take(&mut analysis.lineage.later);
    analysis.lineage.rows = later.into_iter().map(|later| later.rows).collect();
    // Its values stand in the text that prepared it.
    analysis.lineage.values.clear();
    analysis.lineage.values_opaque = Some("its values were prepared by another text".to_owned());
    analysis
}
