//! Which protected columns an operation touches: what a decision needs to know of them.
//!
//! Promises: equal contents are equal and hash alike whatever order they were given in, and hashing
//! costs nothing, so that a decision can be remembered under what it was made from.
//!
//! What it can't do: it finds nothing. Who makes it must name every protected column that may be
//! shown or decide, or say [`opaque`](Touched::opaque).

use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher};

use rustc_hash::FxHasher;
use tidegate_event::Relation;

/// A column that the configuration protects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtectedColumn {
    /// Its relation; the schema where the catalogue, the configuration or the statement tells it.
    pub relation: Relation,
    /// Its name.
    pub column: String,
    /// Its class in the configuration: `card`.
    pub class: String,
}

impl std::fmt::Display for ProtectedColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} (class {})", self.relation, self.column, self.class)
    }
}

/// The protected columns that one operation touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    shown: Vec<ProtectedColumn>,
    filtered: Vec<ProtectedColumn>,
    opaque: bool,
    filters_opaque: bool,
    hash: u64,
}

impl Touched {
    /// - `shown`: what may flow into its result;
    /// - `filtered`: what may decide rows, order or failure, or be copied where no mask reaches;
    /// - `opaque`: whether its result may show protected columns beside those in `shown`.
    pub fn new(
        mut shown: Vec<ProtectedColumn>,
        mut filtered: Vec<ProtectedColumn>,
        opaque: bool,
    ) -> Self {
        for columns in [&mut shown, &mut filtered] {
            columns.sort_unstable();
            columns.dedup();
        }
        Self { shown, filtered, opaque, filters_opaque: false, hash: 0 }.hashed()
    }

    /// Whether protected columns beside those in `filtered` may decide.
    #[must_use]
    pub fn with_filters_opaque(self, filters_opaque: bool) -> Self {
        Self { filters_opaque, ..self }.hashed()
    }

    fn hashed(mut self) -> Self {
        let content = (&self.shown, &self.filtered, self.opaque, self.filters_opaque);
        self.hash = BuildHasherDefault::<FxHasher>::new().hash_one(content);
        self
    }

    /// What may flow into the result, sorted, each once.
    pub fn shown(&self) -> &[ProtectedColumn] {
        &self.shown
    }

    /// What may decide without being shown, sorted, each once.
    pub fn filtered(&self) -> &[ProtectedColumn] {
        &self.filtered
    }

    /// Whether the result may show protected columns beside [`Self::shown`].
    pub const fn opaque(&self) -> bool {
        self.opaque
    }

    /// Whether protected columns beside [`Self::filtered`] may decide.
    pub const fn filters_opaque(&self) -> bool {
        self.filters_opaque
    }

    /// Whether nothing protected is touched.
    pub const fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.filtered.is_empty() && !self.opaque && !self.filters_opaque
    }
}

impl Hash for Touched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
