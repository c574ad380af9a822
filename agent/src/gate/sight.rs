//! What one session sees of its database, for the gate and for the machine's analyser alike.
//!
//! Promises: a text is read through the newest catalogue that may be trusted, and in the session's own
//! search path. A statement that was prepared under another one is read anew before it runs.
//!
//! While DDL of any session of the database is under way, and until the catalogue was read anew, only the
//! tables that were read before count. After DDL of its own, a session waits for that reading. A session
//! that has set its search path, or taken another role, is taken to have any.
//!
//! Limits: [`TOLD_MAX`] analyses are remembered as new; when full, all are read again.
//!
//! Known gaps: a function that sets the search path for its session is not noticed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{
    Action, Analysis, Effect, Lineage, Login, Operation, Protocol, Rows, Statement, Via,
};
use tidegate_sql::{Analyzer, Settings};
use tidegate_wire_postgres::Analyze;

use crate::catalogue::{Catalogues, Change, Fresh, Place, Source};
use crate::masking::{TargetMasking, View};
use crate::tls::ServerVerification;

/// Analyses that one session remembers as those of its present view.
const TOLD_MAX: usize = 512;

/// What a session needs to know of its database, and where it asks.
pub struct Site {
    /// What is protected at its target.
    pub masking: Arc<TargetMasking>,
    /// All catalogues.
    pub catalogues: Arc<Catalogues>,
    /// The target's name.
    pub target: String,
    /// The server that it goes to.
    pub server: SocketAddr,
    /// How that server is verified.
    pub verification: Option<Arc<ServerVerification>>,
}

/// What one session sees.
pub struct Sight {
    analyzer: Arc<Analyzer>,
    site: Site,
    state: Mutex<State>,
}

/// Of what an answer was made.
#[derive(Clone)]
pub(super) struct Seen {
    pub view: Arc<View>,
    /// Another number, another answer.
    pub epoch: u64,
    path: Arc<[String]>,
}

struct State {
    source: Option<Arc<Source>>,
    /// DDL of its own is under way.
    change: Option<Change>,
    /// It has changed what its database holds, and not waited for the next reading.
    behind: bool,
    /// [`Source::changes`] when `seen` was made.
    changes: u64,
    seen: Seen,
    user: String,
    /// Whether the session has set its path, or may have.
    any_path: bool,
    told: HashMap<usize, Arc<Analysis>>,
    /// What became of analyses of before.
    renewed: HashMap<usize, (Arc<Analysis>, Arc<Analysis>)>,
}

impl Sight {
    /// For a session that has not logged in yet.
    pub fn new(analyzer: Arc<Analyzer>, site: Site) -> Self {
        let view = Arc::clone(site.masking.named());
        let state = State {
            source: None,
            change: None,
            behind: false,
            changes: 0,
            seen: Seen { view, epoch: 0, path: Arc::default() },
            user: String::new(),
            any_path: false,
            told: HashMap::new(),
            renewed: HashMap::new(),
        };
        Self { analyzer, site, state: Mutex::new(state) }
    }

    /// The session logs in.
    pub(super) fn logged_in(&self, login: &Login) {
        let mut state = self.state();
        state.user.clone_from(&login.user);
        state.any_path = login.options.iter().any(|(name, value)| moves_at_login(name, value));
        let Some(config) = &self.site.masking.catalogue else { return };
        let place = Place {
            protocol: Protocol::Postgres,
            target: self.site.target.clone(),
            server: self.site.server,
            database: login.database.clone(),
        };
        let verification = self.site.verification.clone();
        state.source = self.site.catalogues.of(place, config, verification);
        self.refresh(&mut state);
    }

    /// Where its catalogue comes from.
    pub(super) fn source(&self) -> Option<Arc<Source>> {
        self.state().source.clone()
    }

    /// What it sees now.
    pub(super) fn now(&self) -> Seen {
        let mut state = self.state();
        self.look(&mut state);
        state.seen.clone()
    }

    /// The analysis of `statement` as the session sees it now; `None` where it is that already.
    pub(super) fn renewed(&self, statement: &Statement) -> Option<Arc<Analysis>> {
        let key = Arc::as_ptr(&statement.analysis).addr();
        let mut state = self.state();
        self.look(&mut state);
        if state.seen.view.paths.is_none() || state.told.contains_key(&key) {
            return None;
        }
        if let Some((_, known)) = state.renewed.get(&key) {
            return (!Arc::ptr_eq(known, &statement.analysis)).then(|| Arc::clone(known));
        }
        let whole = u64::try_from(statement.text.len()) == Ok(statement.text_bytes);
        // How the session reads a backslash is not known here.
        let fresh = if whole && !statement.text.contains('\\') {
            self.read(&state.seen, statement.text.as_bytes(), Settings::default())
        } else {
            Arc::new(opaque(&statement.analysis))
        };
        if state.renewed.len() >= TOLD_MAX {
            state.renewed.clear();
        }
        let pair = (Arc::clone(&statement.analysis), Arc::clone(&fresh));
        state.renewed.insert(key, pair);
        (!Arc::ptr_eq(&fresh, &statement.analysis)).then_some(fresh)
    }

    /// A permitted operation is about to be sent: what it changes counts from now on.
    pub(super) fn sent(&self, operation: &Operation) {
        let Operation::Statement(statement) = operation else { return };
        if statement.via == Via::Parse {
            return;
        }
        let effects = &statement.analysis.effects;
        let (defines, moves) = (effects.iter().any(defines), effects.iter().any(moves));
        if !defines && !moves {
            return;
        }
        let mut state = self.state();
        let state = &mut *state;
        let changes = defines && state.change.is_none();
        if let (true, Some(source)) = (changes, &state.source) {
            state.change = Some(source.changing());
        }
        if changes || (moves && !state.any_path) {
            state.any_path |= moves;
            self.refresh(state);
        }
    }

    /// Whether DDL of this session is under way.
    pub(super) fn is_changing(&self) -> bool {
        self.state().change.is_some()
    }

    /// No transaction is open, and nothing is under way: what was changed is there for all.
    pub(super) fn settled(&self) {
        let mut state = self.state();
        state.change = None;
        state.behind = true;
        self.refresh(&mut state);
    }

    /// The catalogue, where this session has changed it and has not waited for it since.
    pub(super) fn behind(&self) -> Option<Arc<Source>> {
        let mut state = self.state();
        std::mem::take(&mut state.behind).then(|| state.source.clone()).flatten()
    }

    fn look(&self, state: &mut State) {
        if state.source.as_ref().is_some_and(|source| source.changes() != state.changes) {
            self.refresh(state);
        }
    }

    fn refresh(&self, state: &mut State) {
        let Some(source) = &state.source else { return };
        state.changes = source.changes();
        let masking = &self.site.masking;
        let view = match source.current() {
            None => Arc::clone(masking.named()),
            Some((reading, Fresh::Yes)) => masking.whole(&reading),
            Some((reading, Fresh::No)) => masking.tables(&reading),
        };
        let path = match (&view.paths, state.any_path) {
            (None, _) => Vec::new(),
            (Some(paths), true) => paths.any(),
            (Some(paths), false) => paths.of(&state.user),
        };
        state.seen = Seen { view, epoch: state.seen.epoch + 1, path: path.into() };
        state.told.clear();
        state.renewed.clear();
    }

    fn read(&self, seen: &Seen, text: &[u8], settings: Settings) -> Arc<Analysis> {
        match (&seen.view.catalogue, &seen.view.paths) {
            (Some(catalogue), Some(_)) => {
                self.analyzer.resolve(text, settings, catalogue, &seen.path)
            }
            _ => self.analyzer.analyze(text, settings),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between calls, so a panic elsewhere can't have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Analyze for Sight {
    fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        let seen = self.now();
        let analysis = self.read(&seen, text, settings);
        let mut state = self.state();
        if state.seen.epoch == seen.epoch {
            if state.told.len() >= TOLD_MAX {
                state.told.clear();
            }
            let key = Arc::as_ptr(&analysis).addr();
            state.told.insert(key, Arc::clone(&analysis));
        }
        analysis
    }

    fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        self.analyzer.too_long(bytes)
    }
}

/// Whether it may change what relations and functions there are.
pub(super) fn defines(effect: &Effect) -> bool {
    matches!(effect.action, Action::Ddl | Action::Unknown)
}

/// Whether it may change in which schemas names are looked up.
pub(super) fn moves(effect: &Effect) -> bool {
    let about = |name: &str| effect.relation.as_ref().is_none_or(|relation| relation.name == name);
    match effect.action {
        Action::Set => about("search_path"),
        Action::SetRole | Action::Unknown => true,
        _ => false,
    }
}

/// Whether a parameter of the startup message may change in which schemas names are looked up.
///
/// Setting names are compared without case. In `options`, a backslash takes the next character as it is
/// (`pg_split_opts`), and `--search-path` is `search_path` (`ParseLongOption`): all spellings are one here.
fn moves_at_login(name: &str, value: &str) -> bool {
    let is = |text: &str, word: &str| text.eq_ignore_ascii_case(word);
    if is(name, "options") {
        let plain = value.replace('\\', "").replace('-', "_").to_ascii_lowercase();
        return ["search_path", "role", "session_authorization"]
            .iter()
            .any(|word| plain.contains(word));
    }
    ["search_path", "role", "session_authorization"].iter().any(|word| is(name, word))
}

/// The same, with everything that a catalogue could have told not told.
fn opaque(analysis: &Analysis) -> Analysis {
    let why = "it was prepared before the catalogue changed";
    let lineage = Lineage {
        rows: vec![Rows::Opaque(why.to_owned()); analysis.lineage.rows.len()],
        filters_opaque: Some(why.to_owned()),
        values_opaque: Some(why.to_owned()),
        ..analysis.lineage.clone()
    };
    Analysis { lineage, ..analysis.clone() }
}

#[cfg(test)]
mod tests {
    use super::moves_at_login;

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
}
