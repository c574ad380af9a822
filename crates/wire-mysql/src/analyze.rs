//! What the machine needs of the SQL analyser, as a trait, so that tests can bring their own.

use std::sync::Arc;

use tidegate_event::Analysis;
use tidegate_sql::mysql::{Analyzer, Settings};

/// Says what a text does.
pub trait Analyze: Send + Sync {
    /// What `text` does, read under `settings` in that database (empty for none, `None` where it is not
    /// known).
    fn analyze(&self, text: &[u8], settings: Settings, database: Option<&str>) -> Arc<Analysis>;

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
