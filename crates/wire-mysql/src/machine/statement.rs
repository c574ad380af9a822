//! From the texts and commands that the client sends to operations.
//!
//! Promises: an operation holds what the server will run: its text (cut for the record, with its
//! SHA-256), its parameters, and what it does. What the machine cannot know is asked as unknown.
//!
//! Method for settings: the server's status flags say how it reads backslashes, and MariaDB's how it
//! reads double quotes. MySQL does not tell that: there a text with a double quote is analysed both
//! ways, and where they differ, it is unknown.

use std::sync::{Arc, LazyLock};

use sha2::{Digest as _, Sha256};
use tidegate_event::limits::{STATEMENT_TEXT_BYTES_MAX, cut};
use tidegate_event::{
    Action as Does, Analysis, Effect, Lineage, Operation, Parameter, Relation, Rows, Statement,
    StatementKind, Unknown, Via,
};
use tidegate_sql::mysql::{
    Charset, Named, Server, Settings, Touch, Touches, charset_of_name, touches,
};

use super::{ByName, Machine, Tracks};
use crate::message::ok;

/// A text as it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    head: Arc<str>,
    bytes: u64,
    sha256: Option<[u8; 32]>,
}

/// A text with what it does.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    text: Text,
    pub analysis: Arc<Analysis>,
    pub touches: Touches,
    /// It may run SQL that does not stand in it, which may turn session tracking off.
    hides: bool,
}

impl Text {
    fn whole(text: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(text);
        let exact = matches!(shown, std::borrow::Cow::Borrowed(_));
        let (head, was_cut) = cut(&shown, STATEMENT_TEXT_BYTES_MAX);
        // A text that the record can't hold as it is, is held by its digest.
        let sha256 = (was_cut || !exact).then(|| Sha256::digest(text).into());
        Self { head: head.into(), bytes: u64::try_from(text.len()).unwrap_or(u64::MAX), sha256 }
    }
}

impl Known {
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

    /// Memory that it holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.head.len()
    }

    /// Whether `name` stands in its text as it is.
    pub fn names(&self, name: &str) -> bool {
        self.text.head.contains(name)
    }
}

/// The analysis of what is not understood.
pub(super) fn unknown(reason: &str) -> Arc<Analysis> {
    Arc::new(Analysis {
        kinds: vec![StatementKind("unknown".to_owned())],
        effects: vec![Effect { action: Does::Unknown, relation: None, bounded: true }],
        unknown: Some(Unknown { reason: reason.to_owned() }),
        fingerprint: None,
        lineage: opaque(reason),
    })
}

fn opaque(reason: &str) -> Lineage {
    Lineage {
        rows: vec![Rows::Opaque(reason.to_owned())],
        filters_opaque: Some(reason.to_owned()),
        values_opaque: Some(reason.to_owned()),
        ..Lineage::default()
    }
}

/// The analysis of a command that is no SQL.
pub(super) fn command(kind: &str, action: Does, relation: Option<Relation>) -> Arc<Analysis> {
    if action == Does::Unknown {
        return unknown(&format!("what {kind} does is not followed"));
    }
    let of_others = relation.as_ref().is_some_and(|relation| relation.name == "processlist");
    Arc::new(Analysis {
        kinds: vec![StatementKind(kind.to_owned())],
        effects: vec![Effect { action, relation, bounded: true }],
        unknown: None,
        fingerprint: None,
        lineage: match action {
            // What other sessions run, and the server's log of changes.
            Does::Show | Does::Replicate if of_others || action == Does::Replicate => {
                opaque("it may show values, or texts of statements")
            }
            _ => Lineage { rows: vec![Rows::None], ..Lineage::default() },
        },
    })
}

static QUOTES_IN_DOUBT: LazyLock<Arc<Analysis>> = LazyLock::new(|| {
    unknown("how it reads depends on ANSI_QUOTES, which this server does not tell")
});
static DATABASE_IN_DOUBT: LazyLock<Arc<Analysis>> =
    LazyLock::new(|| unknown("an earlier statement may have changed the database"));

/// Most statements of SQL's own that are held in a session; others are unknown when they run.
const NAMED_MAX: usize = 64;

impl<R: Clone> Machine<R> {
    /// Where a command runs what was prepared in SQL, what that does, if nothing that it hangs on has
    /// changed since.
    pub(super) fn run_by_name(&self, mut known: Known) -> Known {
        if let Named::Executes(name) = &known.touches.named
            && let Some(held) = self.session.named.get(name)
            && self.session.database.as_ref() == Some(&held.database)
            && self.settings() == held.settings
        {
            let database = Some(held.database.as_str());
            known.analysis = self.analyzer.executed(&held.text, held.settings, database);
        }
        known
    }

    /// Notes what was prepared in SQL. What runs under a name is what the last `PREPARE` gave it; where
    /// anything may have given names, none is known.
    fn note_named(&mut self, known: &Known, failed: bool) {
        let settings = self.settings();
        let session = &mut self.session;
        match &known.touches.named {
            Named::No | Named::Executes(_) => {}
            Named::Doubt => session.named.clear(),
            Named::Prepares(name) => {
                session.named.remove(name);
                let Some(database) = session.database.clone() else { return };
                // What the record can't hold as it is, is not held here either.
                let whole = known.text.sha256.is_none();
                let plain = known.analysis.unknown.is_none() && !known.touches.prepares && whole;
                if !failed && plain && session.named.len() < NAMED_MAX {
                    let text = Arc::clone(&known.text.head);
                    session.named.insert(name.clone(), ByName { text, database, settings });
                }
            }
        }
    }
}

/// Whether a text may run SQL that does not stand in it, or itself changes what the server tells of the
/// session. The words are looked for in its bytes: in every character set that a client may have, ASCII is
/// ASCII.
fn hides(text: &[u8], analysis: &Analysis, touches: &Touches) -> bool {
    let has = |word: &[u8]| text.windows(word.len()).any(|here| here.eq_ignore_ascii_case(word));
    let doubtful = analysis.unknown.is_some() || touches.prepares || touches.executes;
    has(b"session_track") || (doubtful && (has(b"call") || has(b"execute")))
}

impl<R: Clone> Machine<R> {
    /// A text that is there as a whole.
    pub(super) fn known(&self, text: &[u8]) -> Known {
        let settings = self.settings();
        let database = self.session.database.as_deref();
        let mut analysis = self.analyzer.analyze(text, settings, database);
        if !self.tells_quotes() && text.contains(&b'"') {
            let other = Settings { ansi_quotes: !settings.ansi_quotes, ..settings };
            let other = self.analyzer.analyze(text, other, database);
            if other.effects != analysis.effects || other.unknown != analysis.unknown {
                analysis = Arc::clone(&QUOTES_IN_DOUBT);
            } else if other.lineage != analysis.lineage {
                let lineage = opaque("it depends on ANSI_QUOTES, which this server does not tell");
                analysis = Arc::new(Analysis { lineage, ..(*analysis).clone() });
            }
        }
        let touches = Self::touched(text, settings, &analysis);
        let moves = matches!(touches.database, Touch::Sets(_));
        if self.session.database.is_none() && !moves {
            analysis = Arc::clone(&DATABASE_IN_DOUBT);
        }
        let hides = hides(text, &analysis, &touches);
        Known { text: Text::whole(text), analysis, touches, hides }
    }

    fn touched(text: &[u8], settings: Settings, analysis: &Analysis) -> Touches {
        let looks = |effect: &Effect| {
            matches!(
                effect.action,
                Does::Set | Does::Unknown | Does::Execute | Does::Session | Does::Ddl
            )
        };
        if analysis.effects.iter().any(looks) {
            touches(text, settings)
        } else {
            Touches::default()
        }
    }

    /// A text of which only the head is there. It may touch anything.
    pub(super) fn known_by_head(&self, head: &[u8], bytes: usize) -> Known {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let text = Text { bytes, sha256: None, ..Text::whole(head) };
        let analysis = self.analyzer.too_long(bytes);
        Known { text, analysis, touches: Touches::ALL, hides: true }
    }

    /// What a statement that the gate did not see prepared does.
    pub(super) fn known_unseen(&mut self) -> Known {
        let analysis = self
            .session
            .unseen
            .get_or_insert_with(|| unknown("the gate did not see the text of what this executes"));
        let text = Text { head: Arc::from(""), bytes: 0, sha256: None };
        Known { text, analysis: Arc::clone(analysis), touches: Touches::ALL, hides: true }
    }

    /// A command that is no SQL, with its name and argument for a text.
    pub(super) fn known_command(name: &str, argument: &str, analysis: Arc<Analysis>) -> Known {
        let text = if argument.is_empty() { name.to_owned() } else { format!("{name} {argument}") };
        let touches = Touches::default();
        Known { text: Text::whole(text.as_bytes()), analysis, touches, hides: false }
    }

    fn server(&self) -> Server {
        self.greeting.as_ref().map_or(Server::default(), |greeting| greeting.server)
    }

    /// Whether the server's status flags say how it reads double quotes.
    fn tells_quotes(&self) -> bool {
        self.server().mariadb
    }

    fn settings(&self) -> Settings {
        Settings {
            ansi_quotes: self.tells_quotes() && self.session.status & ok::ANSI_QUOTES != 0,
            no_backslash_escapes: self.session.status & ok::NO_BACKSLASH_ESCAPES != 0,
            charset: self.session.charset,
            server: self.server(),
        }
    }

    /// Notes what a text that has run has changed. Of several statements that failed together some may
    /// have run.
    pub(super) fn touch(&mut self, known: &Known, failed: bool) {
        self.note_named(known, failed);
        let session = &mut self.session;
        // A routine that failed may have prepared something before.
        session.prepared_in_doubt |= known.touches.prepares;
        let whole = known.analysis.kinds.len() == 1 && known.analysis.unknown.is_none();
        if failed && whole {
            return;
        }
        if known.hides {
            session.tracks = Tracks::default();
        }
        // A change of which the server would have told did not happen.
        let told = Tracks {
            database: session.tracks.database || session.told_database,
            charset: session.tracks.charset,
        };
        if known.touches.executes && session.prepared_in_doubt {
            if !told.charset {
                session.charset = Charset::Other;
            }
            if !told.database {
                session.database = None;
            }
        }
        match &known.touches.database {
            Touch::Keeps => {}
            _ if told.database => {}
            Touch::Sets(name) if !failed => session.database = Some(name.clone()),
            Touch::Sets(_) | Touch::Doubt => session.database = None,
        }
        match known.touches.charset {
            Touch::Keeps => {}
            _ if told.charset => {}
            Touch::Sets(charset) if !failed => session.charset = charset,
            Touch::Sets(_) | Touch::Doubt => session.charset = Charset::Other,
        }
    }

    /// Notes what the server itself says of its state.
    pub(super) fn state(&mut self, said: &ok::Ok) {
        self.session.status = said.status;
        if let Some(database) = &said.database {
            self.session.database = Some(String::from_utf8_lossy(database).into_owned());
            self.session.told_database = true;
            self.session.tracks.database = true;
        }
        if let Some(charset) = &said.charset {
            self.session.tracks.charset = true;
            self.session.charset = charset_of_name(&String::from_utf8_lossy(charset));
        }
    }
}
