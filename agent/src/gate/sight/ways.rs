//! In which way the texts of one session were read, for those that are read anew.
//!
//! Promises: a way is that in which the text was read whose analysis it stands for. Texts of several
//! ways that share one analysis have none.
//!
//! Limits: [`RECENT_MAX`] analyses, and [`PREPARED_MAX`] of statements that were prepared; when full, all
//! of the kind are forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_event::Analysis;
use tidegate_sql::mysql::Settings;

/// Analyses of whichever texts.
const RECENT_MAX: usize = 512;

/// Analyses of prepared statements: MySQL's own `max_prepared_stmt_count`.
const PREPARED_MAX: usize = 16_382;

/// How a text of MySQL was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// What changes how it reads.
    pub settings: Settings,
    /// In which database; `None` where that was not known.
    pub database: Option<String>,
}

/// By the analysis' address, which stays its own since it is held. No way where there were several.
type Known = HashMap<usize, (Arc<Analysis>, Option<Way>)>;

/// The ways of one session.
#[derive(Default)]
pub(super) struct Ways {
    recent: Known,
    prepared: Known,
}

impl Ways {
    /// `analysis` is what a text is that was read so.
    pub fn note(&mut self, analysis: &Arc<Analysis>, way: Way) {
        let key = Arc::as_ptr(analysis).addr();
        for known in [&mut self.recent, &mut self.prepared] {
            if let Some((_, other)) = known.get_mut(&key)
                && other.as_ref() != Some(&way)
            {
                *other = None;
            }
        }
        if self.recent.contains_key(&key) {
            return;
        }
        // One that has several among the prepared has several here too.
        let way = match self.prepared.get(&key) {
            Some((_, known)) => known.clone(),
            None => Some(way),
        };
        make_room(&mut self.recent, RECENT_MAX);
        self.recent.insert(key, (Arc::clone(analysis), way));
    }

    /// A statement of that analysis is prepared: it may run much later.
    pub fn keep(&mut self, analysis: &Arc<Analysis>) {
        let key = Arc::as_ptr(analysis).addr();
        if let Some(known) = self.recent.get(&key)
            && !self.prepared.contains_key(&key)
        {
            make_room(&mut self.prepared, PREPARED_MAX);
            self.prepared.insert(key, known.clone());
        }
    }

    /// In which way a text of that analysis was read; `None` where that can't be told.
    pub fn of(&self, analysis: &Arc<Analysis>) -> Option<&Way> {
        let key = Arc::as_ptr(analysis).addr();
        let known = self.prepared.get(&key).or_else(|| self.recent.get(&key));
        known.and_then(|(_, way)| way.as_ref())
    }
}

fn make_room(known: &mut Known, max: usize) {
    if known.len() >= max {
        known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(database: &str) -> Way {
        Way { settings: Settings::default(), database: Some(database.to_owned()) }
    }

    #[test]
    fn a_prepared_statement_keeps_its_way_unless_there_were_several() {
        let mut ways = Ways::default();
        let (one, other): (Arc<Analysis>, Arc<Analysis>) = Default::default();
        ways.note(&one, way("a"));
        ways.keep(&one);
        ways.note(&other, way("b"));
        ways.keep(&other);
        let passing: Vec<Arc<Analysis>> = (0..=RECENT_MAX).map(|_| Arc::default()).collect();
        for analysis in &passing {
            ways.note(analysis, way("c"));
        }
        assert_eq!(ways.of(&passing[0]), None);
        assert_eq!(ways.of(&passing[RECENT_MAX]), Some(&way("c")));
        assert_eq!(ways.of(&one), Some(&way("a")));
        ways.note(&one, way("b"));
        assert_eq!(ways.of(&one), None);
        ways.note(&one, way("a"));
        assert_eq!(ways.of(&one), None, "it still stands for both");
        assert_eq!(ways.of(&other), Some(&way("b")));
    }
}
