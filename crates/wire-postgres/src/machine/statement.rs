//! From the texts that the client sends to operations.
//!
//! Promises: an operation holds what the server will run: its text (cut for the record, with its
//! SHA-256), its parameters, and what it does. What the machine cannot know is asked as unknown.
//!
//! Method for settings: a text with a backslash or with bytes beyond ASCII reads differently under
//! `standard_conforming_strings` and `client_encoding`. While a message that may change settings
//! has not been answered, such a text is analysed both ways; where they differ, it is unknown.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, OnceLock};

use sha2::{Digest as _, Sha256};
use tidegate_event::limits::{STATEMENT_TEXT_BYTES_MAX, cut};
use tidegate_event::{
    Action as Does, Analysis, Effect, Operation, Parameter, Statement, Unknown, Via,
};
use tidegate_sql::Settings;

use super::Machine;
use crate::Duties;
use crate::duty::{Described, Told};
use crate::message::bind::Bound;
use crate::names::{Change, Found, Weigh};
use crate::sql_names::{self, Forget, Names, Naming};

/// A text as it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    head: Arc<str>,
    bytes: u64,
    sha256: Option<[u8; 32]>,
}

/// What a text may do to what the machine knows.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing of its own")]
pub(crate) struct Touches {
    statements: Option<Forget>,
    portals: bool,
    settings: bool,
    /// It may open cursors that nobody sees.
    opens: bool,
    /// Cursors and statements that it names.
    named: Arc<[Naming]>,
    /// The analysis alone tells all of this, but for functions that set something.
    by_analysis: bool,
}

/// A text with what it does.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    text: Text,
    pub analysis: Arc<Analysis>,
    pub touches: Touches,
}

/// Longest text that a session remembers as its last, in bytes.
const RECENT_TEXT_BYTES_MAX: usize = 4 * 1024;

/// The last text that a session sent: drivers that prepare each time send the same one again.
#[derive(Debug)]
pub(super) struct Recent {
    text: Vec<u8>,
    settings: Settings,
    known: Known,
}

impl Recent {
    pub(super) fn held_bytes(&self) -> usize {
        self.text.capacity()
    }
}

/// A statement that the client prepared.
pub(crate) struct Prepared<R> {
    name: String,
    known: Known,
    types: Vec<u32>,
    described: OnceLock<Vec<u32>>,
    /// Columns of its results, as the server describes them.
    pub columns: Described,
    /// What SQL's EXECUTE and FETCH make of it is subject to these.
    pub duties: Option<Arc<Duties>>,
    pub receipt: R,
}

impl<R> Prepared<R> {
    pub fn new(
        name: &[u8],
        known: Known,
        types: Vec<u32>,
        duties: Option<Arc<Duties>>,
        receipt: R,
    ) -> Self {
        let name = String::from_utf8_lossy(name).into_owned();
        let (described, columns) = (OnceLock::new(), Described::default());
        Self { name, known, types, described, columns, duties, receipt }
    }

    /// The server says of which types the parameters are.
    pub fn describe(&self, types: Vec<u32>) {
        // A second description of one statement says the same.
        let _ = self.described.set(types);
    }

    /// Types of the parameters, as far as they are known.
    pub fn types(&self) -> &[u32] {
        self.described.get().map_or(self.types.as_slice(), Vec::as_slice)
    }
}

impl<R> Weigh for Arc<Prepared<R>> {
    fn weight(&self) -> usize {
        size_of::<Prepared<R>>()
            + self.name.len()
            + self.known.text.head.len()
            // Declared, and once more described.
            + self.types.len() * 8
    }
}

/// A portal that the client bound.
pub(crate) struct Portal<R> {
    pub statement: Option<Arc<Prepared<R>>>,
    pub parameters: Vec<Parameter>,
    /// Format codes of its result's columns.
    pub results: Vec<u16>,
    /// Columns of its result, as the server describes them.
    pub columns: Described,
}

impl<R> Portal<R> {
    pub fn new(statement: Option<Arc<Prepared<R>>>, bound: Bound) -> Self {
        let Bound { parameters, results } = bound;
        Self { statement, parameters, results, columns: Described::default() }
    }
}

impl<R> Weigh for Arc<Portal<R>> {
    fn weight(&self) -> usize {
        let held = |parameter: &Parameter| match parameter {
            Parameter::Null => 0,
            Parameter::Text(value) | Parameter::Binary { value, .. } => value.len(),
            Parameter::Cut { head, .. } => head.len(),
        };
        let values: usize = self.parameters.iter().map(held).sum();
        let formats = self.results.len() * size_of::<u16>();
        size_of::<Portal<R>>() + self.parameters.len() * size_of::<Parameter>() + values + formats
    }
}

static SETTINGS_IN_DOUBT: LazyLock<Arc<Analysis>> = LazyLock::new(|| {
    unknown("a setting that changes how this text is read may be changing in the same pipeline")
});

fn unknown(reason: &str) -> Arc<Analysis> {
    Arc::new(Analysis {
        kinds: Vec::new(),
        effects: vec![Effect { action: Does::Unknown, relation: None, bounded: true }],
        unknown: Some(Unknown { reason: reason.to_owned() }),
        fingerprint: None,
        ..Analysis::default()
    })
}

impl Touches {
    /// What a text may touch that nobody has read.
    fn anything() -> Self {
        let statements = Some(Forget::All);
        let named = Arc::default();
        Self { statements, portals: true, settings: true, opens: true, named, by_analysis: false }
    }

    /// Whether the text may open cursors that nobody sees.
    pub const fn opens(&self) -> bool {
        self.opens
    }

    /// Cursors and statements that the text names.
    pub fn named(&self) -> &[Naming] {
        &self.named
    }
}

/// An Execute that is to be asked.
pub(super) struct Execution<R> {
    pub operation: Operation,
    pub known: Known,
    pub portal: Option<Arc<Portal<R>>>,
}

impl Text {
    fn whole(text: &[u8]) -> Self {
        // Checked at once; to look for what is wrong goes character by character.
        let lossy = match std::str::from_utf8(text) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(text),
        };
        let (head, was_cut) = cut(&lossy, STATEMENT_TEXT_BYTES_MAX);
        let exact = matches!(lossy, Cow::Borrowed(_));
        // A text that the record can't hold as it is, is held by its digest.
        let sha256 = (was_cut || !exact).then(|| Sha256::digest(text).into());
        Self { head: head.into(), bytes: u64::try_from(text.len()).unwrap_or(u64::MAX), sha256 }
    }
}

impl Known {
    /// The text, where all of it is at hand.
    pub fn whole_text(&self) -> Option<Arc<str>> {
        let whole = u64::try_from(self.text.head.len()) == Ok(self.text.bytes);
        (whole && self.text.sha256.is_none()).then(|| Arc::clone(&self.text.head))
    }

    /// The operation of sending this text, or of running it with `parameters`.
    pub fn operation(&self, via: Via, prepared: String, parameters: Vec<Parameter>) -> Operation {
        Operation::Statement(Statement {
            via,
            text: Arc::clone(&self.text.head),
            text_bytes: self.text.bytes,
            text_sha256: self.text.sha256,
            prepared,
            parameters,
            analysis: Arc::clone(&self.analysis),
        })
    }
}

fn touches(text: &[u8], analysis: &Analysis) -> Touches {
    let does = |wanted: &[Does]| analysis.effects.iter().any(|done| wanted.contains(&done.action));
    let names_it = |kind: &str| {
        ["PREPARE", "DEALLOCATE", "DISCARD", "DECLARE"]
            .iter()
            .any(|word| kind.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)))
    };
    let unknown = does(&[Does::Unknown, Does::Execute]);
    let by_name = does(&[Does::Session, Does::Set, Does::Unknown])
        || analysis.kinds.iter().any(|kind| names_it(&kind.0));
    Touches {
        statements: by_name
            .then(|| sql_names::statements(text))
            .filter(|forget| *forget != Forget::Names(Vec::new())),
        portals: by_name && sql_names::declares(text),
        settings: does(&[Does::Set, Does::Unknown, Does::Execute])
            || sql_names::sets_by_function(text),
        opens: unknown,
        named: sql_names::names(&analysis.lineage),
        by_analysis: !by_name,
    }
}

impl<R: Clone> Machine<R> {
    /// A text that is there as a whole.
    pub(super) fn known(&mut self, text: &[u8]) -> Known {
        let settings = self.session.settings;
        let sure = self.session.doubt.is_none();
        if sure
            && let Some(recent) = &self.session.recent
            && recent.settings == settings
            && recent.text == text
        {
            return recent.known.clone();
        }
        let analysis = self.analyze(text);
        let touches = match &self.session.recent {
            // Texts that share an analysis differ in the values of literals at most.
            Some(Recent { known: Known { analysis: same, touches, .. }, .. })
                if touches.by_analysis && Arc::ptr_eq(same, &analysis) =>
            {
                let settings = touches.settings || sql_names::sets_by_function(text);
                Touches { settings, ..touches.clone() }
            }
            _ => touches(text, &analysis),
        };
        let known = Known { text: Text::whole(text), analysis, touches };
        if sure && text.len() <= RECENT_TEXT_BYTES_MAX {
            let recent = self.session.recent.get_or_insert_with(|| Recent {
                text: Vec::new(),
                settings,
                known: known.clone(),
            });
            recent.text.clear();
            recent.text.extend_from_slice(text);
            recent.settings = settings;
            recent.known = known.clone();
        }
        known
    }

    /// A text of which only the head is there. It may touch anything.
    pub(super) fn known_by_head(&self, head: &[u8], bytes: usize) -> Known {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let text = Text { bytes, sha256: None, ..Text::whole(head) };
        let analysis = self.analyzer.too_long(bytes);
        Known { text, analysis, touches: Touches::anything() }
    }

    fn analyze(&self, text: &[u8]) -> Arc<Analysis> {
        let settings = self.session.settings;
        if text.is_ascii() {
            // ASCII reads alike in every client encoding.
            let settings = Settings { utf8: true, ..settings };
            let analysis = self.analyzer.analyze(text, settings);
            return self.unless_in_doubt(text, settings, analysis);
        }
        let utf8 = settings.utf8 && std::str::from_utf8(text).is_ok();
        let settings = Settings { utf8, ..settings };
        let analysis = self.analyzer.analyze(text, settings);
        self.unless_in_doubt(text, settings, analysis)
    }

    fn unless_in_doubt(
        &self,
        text: &[u8],
        settings: Settings,
        analysis: Arc<Analysis>,
    ) -> Arc<Analysis> {
        if self.session.doubt.is_none() || (text.is_ascii() && !text.contains(&b'\\')) {
            return analysis;
        }
        let standard_conforming_strings = !settings.standard_conforming_strings;
        let mut others = vec![Settings { standard_conforming_strings, ..settings }];
        if !text.is_ascii() {
            others.push(Settings { utf8: false, ..settings });
            others.push(Settings { standard_conforming_strings, utf8: false });
        }
        let differs = |other: Settings| *self.analyzer.analyze(text, other) != *analysis;
        if others.into_iter().any(differs) {
            return Arc::clone(&SETTINGS_IN_DOUBT);
        }
        analysis
    }

    /// The operation of executing the portal of that name, what it touches, and the portal; `None` when
    /// the name can't be resolved before the server has answered.
    pub(super) fn execution(&mut self, portal: &[u8]) -> Option<Execution<R>> {
        let found = match self.session.portals.find(portal, self.session.segment) {
            Found::Value(portal) => Some(portal),
            Found::Wait if self.may_wait() => return None,
            Found::Unknown | Found::Wait => None,
        };
        let parameters = found.as_ref().map_or_else(Vec::new, |portal| portal.parameters.clone());
        if let Some(prepared) = found.as_ref().and_then(|portal| portal.statement.as_ref()) {
            let known = prepared.known.clone();
            let operation = known.operation(Via::Execute, prepared.name.clone(), parameters);
            return Some(Execution { operation, known, portal: found });
        }
        let analysis = self.session.unseen.get_or_insert_with(|| {
            unknown("the gate did not see the text of what this executes (SQL PREPARE, a cursor)")
        });
        let text = Text { head: Arc::from(""), bytes: 0, sha256: None };
        let touches = Touches::anything();
        let known = Known { text, analysis: Arc::clone(analysis), touches };
        let operation = known.operation(Via::Execute, String::new(), parameters);
        Some(Execution { operation, known, portal: found })
    }

    /// Notes what the permitted message `seq` may change.
    pub(super) fn touch(&mut self, seq: u64, touches: &Touches, duties: Option<&Arc<Duties>>) {
        let session = &mut self.session;
        let segment = session.segment;
        match &touches.statements {
            None => {}
            Some(Forget::All) => {
                session.statements.change(seq, segment, Change::RemoveNamed);
                session.prepared_in_sql.change(seq, segment, Change::RemoveNamed);
            }
            Some(Forget::Names(names)) => {
                for name in names {
                    session.statements.change(seq, segment, Change::Remove(name.clone()));
                    session.prepared_in_sql.change(seq, segment, Change::Remove(name.clone()));
                }
            }
        }
        if touches.portals {
            session.portals.change(seq, segment, Change::RemoveNamed);
        }
        // A cursor that the lineage does not tell of may take any name.
        let cursor = |naming: &Naming| naming.what == Names::Cursor;
        if touches.opens || (touches.portals && !touches.named.iter().any(cursor)) {
            session.cursors.change(seq, segment, Change::RemoveNamed);
        }
        for naming in touches.named.iter() {
            let names = match naming.what {
                Names::Cursor => &mut session.cursors,
                Names::Prepared => &mut session.prepared_in_sql,
            };
            let name = naming.name.clone();
            names.change(
                seq,
                segment,
                match duties.filter(|duties| duties.order.is_some()) {
                    Some(duties) => {
                        let (duties, statement) = (Arc::clone(duties), naming.statement);
                        Change::Set(name, Told { duties, statement })
                    }
                    None => Change::Remove(name),
                },
            );
        }
        if touches.settings {
            session.doubt = Some(seq);
        }
    }
}
