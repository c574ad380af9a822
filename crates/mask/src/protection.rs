//! Which columns of one target are protected, and how.
//!
//! Promises: a superset. A reference without a schema is taken for each protected relation of that
//! name, a protected column without a schema protects that name in every schema.
//!
//! Limits: [`COLUMNS_MAX`] protected columns for a target.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tidegate_event::{ColumnRef, Lineage, Output, Relation, Rows, Sources};
use tidegate_sql::Catalogue;

use crate::catalogue::{Stands, stands};
use crate::detect::Detectors;
use crate::secret::Secret;
use crate::transform::{Keyed, digest_key};

/// Most protected columns of one target.
pub const COLUMNS_MAX: usize = 4096;

/// What stands in place of a value. For which types: `form.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// `****`.
    Redact,
    /// Stars, and the last characters, where at least as many again stay hidden.
    Partial {
        /// How many characters stay.
        keep_last: u8,
    },
    /// Keyed HMAC-SHA256 of class and value, the first 16 bytes in hexadecimal.
    Hash,
    /// Digits for digits, letters for letters of the same case; ASCII punctuation stays.
    Tokenise,
    /// SQL NULL.
    Null,
}

impl Mask {
    /// [`Self::Partial`] as it is where nothing else is said.
    pub const PARTIAL: Self = Self::Partial { keep_last: 4 };

    /// Whether it needs a [`Secret`].
    pub const fn is_keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Tokenise)
    }
}

/// One column whose values are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedColumn {
    /// Schema; `None` for every schema.
    pub schema: Option<String>,
    /// Relation, as the catalogue spells it.
    pub relation: String,
    /// Column, as the catalogue spells it.
    pub column: String,
    /// What kind of data it is, for policies and records: `ssn`, `card`. Values of one class get the
    /// same hash and token in every column.
    pub class: String,
    /// What a client sees that has no leave to see the value.
    pub mask: Mask,
}

/// What happens to a result of which it can't be told where its values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Unresolved {
    /// It is withheld: the statement fails.
    #[default]
    Withhold,
    /// It passes, but for what the detectors find.
    Detect,
    /// It passes.
    Clear,
}

/// Why a protection can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectionError {
    /// More than [`COLUMNS_MAX`] columns.
    TooMany(usize),
    /// A column is hashed or tokenised, and there is no secret.
    NoSecret(usize),
}

impl std::fmt::Display for ProtectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMany(count) => {
                write!(f, "{count} protected columns, of at most {COLUMNS_MAX}")
            }
            Self::NoSecret(at) => {
                write!(f, "protected column {at} is hashed or tokenised, and no key is given")
            }
        }
    }
}

impl std::error::Error for ProtectionError {}

/// What is protected of one target.
pub struct Protection {
    columns: Vec<ProtectedColumn>,
    /// Places in `columns`, by the relation's name.
    by_relation: HashMap<String, Vec<usize>>,
    keyed: Vec<Option<Arc<Keyed>>>,
    detectors: Detectors,
    unresolved: Unresolved,
    digest_key: Option<[u8; 32]>,
}

/// Which protected columns a statement touches. Numbers are places in [`Protection::columns`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touched {
    /// Those whose values may be in what the statement returns.
    pub shown: BTreeSet<usize>,
    /// Those that decide what it returns, how long it takes, or whether it fails.
    pub filtered: BTreeSet<usize>,
    /// Why more may be shown than `shown` names; `None` where all is named.
    pub opaque: Option<String>,
    /// Why more may decide than `filtered` names; `None` where all is named, or where what can't be
    /// told may pass.
    pub filters_opaque: Option<String>,
}

impl Protection {
    /// Protects `columns`. `secret` keys hashes and tokens; it is needed where a mask
    /// [is keyed](Mask::is_keyed).
    pub fn new(
        columns: Vec<ProtectedColumn>,
        detectors: Detectors,
        unresolved: Unresolved,
        secret: Option<&Secret>,
    ) -> Result<Self, ProtectionError> {
        if columns.len() > COLUMNS_MAX {
            return Err(ProtectionError::TooMany(columns.len()));
        }
        let mut by_relation: HashMap<String, Vec<usize>> = HashMap::new();
        let mut keyed = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            by_relation.entry(column.relation.clone()).or_default().push(at);
            keyed.push(match (column.mask.is_keyed(), secret) {
                (false, _) => None,
                (true, Some(secret)) => Some(Arc::new(Keyed::new(secret, &column.class))),
                (true, None) => return Err(ProtectionError::NoSecret(at)),
            });
        }
        let digest_key = secret.map(digest_key);
        Ok(Self { columns, by_relation, keyed, detectors, unresolved, digest_key })
    }

    /// The protected columns, by number.
    pub fn columns(&self) -> &[ProtectedColumn] {
        &self.columns
    }

    /// Keys the digest of a result that may show what is protected; `None` where there is no secret.
    pub const fn digest_key(&self) -> Option<[u8; 32]> {
        self.digest_key
    }

    /// Which detectors are on.
    pub const fn detectors(&self) -> Detectors {
        self.detectors
    }

    /// What happens to what can't be told.
    pub const fn unresolved(&self) -> Unresolved {
        self.unresolved
    }

    /// Whether nothing is protected: no column, no detector.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && !self.detectors.any()
    }

    pub(crate) fn keyed(&self, at: usize) -> Option<&Arc<Keyed>> {
        self.keyed.get(at).and_then(Option::as_ref)
    }

    /// The protected columns that `reference` may be.
    pub fn matching(&self, reference: &ColumnRef) -> impl Iterator<Item = usize> + '_ {
        let column = reference.column.clone();
        self.of_relation(&reference.relation).filter(move |at| {
            let fits =
                |one: &ProtectedColumn| column.as_ref().is_none_or(|name| *name == one.column);
            self.columns.get(*at).is_some_and(fits)
        })
    }

    /// The protected columns that relation may have.
    pub fn of_relation(&self, relation: &Relation) -> impl Iterator<Item = usize> + '_ {
        let schema = relation.schema.clone();
        let all = self.by_relation.get(&relation.name).map_or(&[][..], Vec::as_slice);
        all.iter().copied().filter(move |at| {
            let theirs = self.columns.get(*at).and_then(|column| column.schema.as_ref());
            match (&schema, theirs) {
                (Some(schema), Some(theirs)) => schema == theirs,
                _ => true,
            }
        })
    }

    /// Which protected columns a statement of that lineage touches. Results of cursors and prepared
    /// statements are opaque here: what they hold was asked when they were named.
    pub fn touched(&self, lineage: &Lineage, catalogue: Option<&Catalogue>) -> Touched {
        let mut touched = Touched::default();
        for rows in lineage.rows.iter().chain(lineage.later.iter().map(|later| &later.rows)) {
            self.add_rows(rows, catalogue, &mut touched);
        }
        let mut filters_opaque = lineage.filters_opaque.clone();
        for reference in &lineage.filters {
            touched.filtered.extend(self.matching(reference));
            let stood = catalogue.map(|known| stands(known, &reference.relation));
            if let Some(Stands::Unresolved(why)) = stood {
                filters_opaque.get_or_insert(why);
            }
        }
        // What can't be told is withheld, or it may pass: so may what decides without being shown.
        touched.filters_opaque = filters_opaque.filter(|_| self.unresolved == Unresolved::Withhold);
        touched
    }

    /// Whether a statement of that lineage has to do with what is protected, as far as can be told.
    pub fn concerns(&self, lineage: &Lineage) -> bool {
        let touched = self.touched(lineage, None);
        // Where what can't be told may pass, its errors may too.
        (touched.opaque.is_some() && self.unresolved != Unresolved::Clear)
            || touched.filters_opaque.is_some()
            || !touched.shown.is_empty()
            || !touched.filtered.is_empty()
    }

    fn add_rows(&self, rows: &Rows, catalogue: Option<&Catalogue>, touched: &mut Touched) {
        let mut opaque = |why: String| {
            touched.opaque.get_or_insert(why);
        };
        match rows {
            Rows::None => {}
            Rows::Known(outputs) => {
                for output in outputs {
                    self.add_output(output, catalogue, touched);
                }
            }
            Rows::Cursor(name) => opaque(format!("it reads the cursor {name}")),
            Rows::Prepared(name) => opaque(format!("it runs the prepared statement {name}")),
            Rows::Opaque(why) => opaque(why.clone()),
        }
    }

    fn add_output(&self, output: &Output, catalogue: Option<&Catalogue>, touched: &mut Touched) {
        match output {
            Output::Several(sources) | Output::One { sources, .. } => {
                self.add_sources(sources, catalogue, touched);
            }
            Output::Star(relation) => {
                touched.shown.extend(self.of_relation(relation));
                if let Some(Stands::Unresolved(why)) =
                    catalogue.map(|known| stands(known, relation))
                {
                    touched.opaque.get_or_insert(why);
                }
            }
        }
    }

    fn add_sources(&self, sources: &Sources, catalogue: Option<&Catalogue>, touched: &mut Touched) {
        if let Some(why) = &sources.opaque {
            touched.opaque.get_or_insert_with(|| why.clone());
        }
        for reference in &sources.columns {
            touched.shown.extend(self.matching(reference));
            let relation = &reference.relation;
            if let Some(Stands::Unresolved(why)) = catalogue.map(|known| stands(known, relation)) {
                touched.opaque.get_or_insert(why);
            }
        }
    }
}
