//! What the machine needs of the SQL analyser, as a trait, so that tests can bring their own.

use std::sync::Arc;

use tidegate_event::Analysis;
use tidegate_sql::mysql::{Analyzer, Settings};

/// Says what a text does.
pub trait Analyze: Send + Sync {
    /// What `text` does, read under `settings`.
    fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis>;

    /// For a text of which only the head is held: always unknown.
    fn too_long(&self, bytes: u64) -> Arc<Analysis>;
}

impl Analyze for Analyzer {
    fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        Self::analyze(self, text, settings)
    }

    fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        Self::too_long(self, bytes)
    }
}
