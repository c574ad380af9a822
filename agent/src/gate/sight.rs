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
//! In MySQL there is no search path: a text is read in the session's database, a prepared statement in
//! the one in which it was prepared. Where that is not known it can't be told what it shows.
//!
//! Known gaps: a function that sets the search path for its session is not noticed. In MySQL, DDL inside
//! of routines is seen at the next regular reading.

mod ways;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_event::{
    Action, Analysis, Effect, Lineage, Login, Operation, Protocol, Rows, Statement, Via,
};
use tidegate_sql::{Analyzer, Settings, mysql};

use crate::catalogue::{Catalogues, Change, Fresh, Place, Source};
use crate::masking::{TargetMasking, View};
use crate::tls::ServerVerification;
use ways::{Way, Ways};

/// Analyses that one session remembers as those of its present view.
const TOLD_MAX: usize = 512;

/// What a session needs to know of its database, and where it asks.
pub struct Site {
    /// What is protected at its target.
    pub masking: Arc<TargetMasking>,
    /// All catalogues.
    pub catalogues: Arc<Catalogues>,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// The target's name.
    pub target: String,
    /// The server that it goes to.
    pub server: SocketAddr,
    /// How that server is verified.
    pub verification: Option<Arc<ServerVerification>>,
}

/// Who reads texts.
pub struct Analyzers {
    /// Those of PostgreSQL.
    pub postgres: Arc<Analyzer>,
    /// Those of MySQL.
    pub mysql: Arc<mysql::Analyzer>,
}

/// What one session sees.
pub struct Sight {
    analyzers: Analyzers,
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
    /// It has changed what its database holds, or has just logged in, and not waited for the next reading.
    behind: bool,
    /// [`Source::changes`] when `seen` was made.
    changes: u64,
    seen: Seen,
    user: String,
    /// Whether the session has set its path, or may have.
    any_path: bool,
    told: HashMap<usize, Arc<Analysis>>,
    /// In MySQL: how texts were read.
    ways: Ways,
    /// What became of analyses of before.
    renewed: HashMap<usize, (Arc<Analysis>, Arc<Analysis>)>,
}

impl Sight {
    /// For a session that has not logged in yet.
    pub fn new(analyzers: Analyzers, site: Site) -> Self {
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
            ways: Ways::default(),
            renewed: HashMap::new(),
        };
        Self { analyzers, site, state: Mutex::new(state) }
    }

    /// The session logs in. In MySQL [`Self::sent`] says so.
    pub(super) fn logged_in(&self, login: &Login) {
        let mut state = self.state();
        state.user.clone_from(&login.user);
        let postgres = self.site.protocol == Protocol::Postgres;
        state.any_path =
            postgres && login.options.iter().any(|(name, value)| moves_at_login(name, value));
        let Some(config) = &self.site.masking.catalogue else { return };
        let place = Place {
            protocol: self.site.protocol,
            target: self.site.target.clone(),
            server: self.site.server,
            // A session of MySQL may go from one database to another.
            database: if postgres { login.database.clone() } else { String::new() },
        };
        let verification = self.site.verification.clone();
        state.source = self.site.catalogues.of(place, config, verification);
        self.refresh(&mut state);
    }

    /// What is spoken to its target.
    pub(super) const fn protocol(&self) -> Protocol {
        self.site.protocol
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
        let fresh = self
            .read_anew(&state, statement)
            .unwrap_or_else(|| Arc::new(opaque(&statement.analysis)));
        if state.renewed.len() >= TOLD_MAX {
            state.renewed.clear();
        }
        let pair = (Arc::clone(&statement.analysis), Arc::clone(&fresh));
        state.renewed.insert(key, pair);
        (!Arc::ptr_eq(&fresh, &statement.analysis)).then_some(fresh)
    }

    /// The statement's text as it reads now, where it is known how it is read.
    fn read_anew(&self, state: &State, statement: &Statement) -> Option<Arc<Analysis>> {
        let whole = u64::try_from(statement.text.len()) == Ok(statement.text_bytes)
            && statement.text_sha256.is_none();
        let text = statement.text.as_bytes();
        if !whole {
            return None;
        }
        if self.site.protocol == Protocol::Mysql {
            let way = state.ways.of(&statement.analysis)?;
            let read = self.read_mysql(&state.seen, text, way);
            let quotes = !way.settings.ansi_quotes;
            let other = Way {
                settings: mysql::Settings { ansi_quotes: quotes, ..way.settings },
                ..way.clone()
            };
            // MySQL does not tell how it reads double quotes.
            let told = way.settings.server.mariadb
                || !text.contains(&b'"')
                || *self.read_mysql(&state.seen, text, &other) == *read;
            return told.then_some(read);
        }
        // How the session reads a backslash is not known here.
        (!text.contains(&b'\\')).then(|| self.read(&state.seen, text, Settings::default()))
    }

    /// A permitted operation is about to be sent: what it changes counts from now on.
    pub(super) fn sent(&self, operation: &Operation) {
        let statement = match operation {
            // Its server is dialled already, and does not wait long: the first statement does.
            Operation::Login(login) if self.site.protocol == Protocol::Mysql => {
                self.logged_in(login);
                self.state().behind = true;
                return;
            }
            Operation::Statement(statement) => statement,
            _ => return,
        };
        if statement.via == Via::Parse {
            self.state().ways.keep(&statement.analysis);
            return;
        }
        let effects = &statement.analysis.effects;
        let postgres = self.site.protocol == Protocol::Postgres;
        let defines = effects.iter().any(defines);
        let moves = postgres && effects.iter().any(moves);
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

    /// The catalogue, where this session has changed it, or has just logged in, and has not waited for it
    /// since.
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
                self.analyzers.postgres.resolve(text, settings, catalogue, &seen.path)
            }
            _ => self.analyzers.postgres.analyze(text, settings),
        }
    }

    fn read_mysql(&self, seen: &Seen, text: &[u8], way: &Way) -> Arc<Analysis> {
        let analyzer = &self.analyzers.mysql;
        match (&seen.view.catalogue, &seen.view.paths) {
            (Some(catalogue), Some(_)) => {
                analyzer.resolve(text, way.settings, catalogue, way.database.as_deref())
            }
            _ => analyzer.analyze(text, way.settings),
        }
    }

    /// A text was read; where that is still what the session sees, it need not be read anew.
    fn told(&self, seen: &Seen, analysis: &Arc<Analysis>, way: Option<Way>) {
        let mut state = self.state();
        if let Some(way) = way {
            state.ways.note(analysis, way);
        }
        if state.seen.epoch == seen.epoch {
            if state.told.len() >= TOLD_MAX {
                state.told.clear();
            }
            state.told.insert(Arc::as_ptr(analysis).addr(), Arc::clone(analysis));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between calls, so a panic elsewhere can't have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl tidegate_wire_postgres::Analyze for Sight {
    fn analyze(&self, text: &[u8], settings: Settings) -> Arc<Analysis> {
        let seen = self.now();
        let analysis = self.read(&seen, text, settings);
        self.told(&seen, &analysis, None);
        analysis
    }

    fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        self.analyzers.postgres.too_long(bytes)
    }
}

impl tidegate_wire_mysql::Analyze for Sight {
    fn analyze(
        &self,
        text: &[u8],
        settings: mysql::Settings,
        database: Option<&str>,
    ) -> Arc<Analysis> {
        let seen = self.now();
        let way = Way { settings, database: database.map(str::to_owned) };
        let analysis = self.read_mysql(&seen, text, &way);
        self.told(&seen, &analysis, Some(way));
        analysis
    }

    /// Read anew each time: so does the server, where something has changed since.
    fn executed(
        &self,
        text: &str,
        settings: mysql::Settings,
        database: Option<&str>,
    ) -> Arc<Analysis> {
        let seen = self.now();
        let way = Way { settings, database: database.map(str::to_owned) };
        let prepared = self.read_mysql(&seen, text.as_bytes(), &way);
        let analysis = Arc::new(tidegate_wire_mysql::executed(&prepared));
        self.told(&seen, &analysis, None);
        analysis
    }

    fn too_long(&self, bytes: u64) -> Arc<Analysis> {
        self.analyzers.mysql.too_long(bytes)
    }
}

/// Whether it may change what relations and functions there are.
pub(super) fn defines(effect: &Effect) -> bool {
    matches!(effect.action, Action::Ddl | Action::Unknown)
}

/// Whether it may change in which schemas names are looked up: in MySQL, in which database (`USE`).
pub(super) fn moves(effect: &Effect) -> bool {
    let about = |names: &[&str]| {
        let named = effect.relation.as_ref().map(|relation| relation.name.as_str());
        named.is_none_or(|name| names.contains(&name))
    };
    match effect.action {
        Action::Set => about(&["search_path", "database"]),
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
    let why = || "it was prepared before the catalogue changed".to_owned();
    let lineage = &analysis.lineage;
    let rows = lineage.rows.iter().map(|rows| match rows {
        Rows::Opaque(known) => Rows::Opaque(known.clone()),
        _ => Rows::Opaque(why()),
    });
    let lineage = Lineage {
        rows: rows.collect(),
        filters_opaque: lineage.filters_opaque.clone().or_else(|| Some(why())),
        values_opaque: lineage.values_opaque.clone().or_else(|| Some(why())),
        ..lineage.clone()
    };
    Analysis { lineage, ..analysis.clone() }
}

#[cfg(test)]
mod tests;
