//! What a database holds, as a catalogue connection has read it: relations, their columns, and what
//! stands behind views.
//!
//! Promises: plain data, filled by whoever can ask the server; a name that is not in it resolves to
//! nothing, never to a guess. Each catalogue has a version of its own, so that what was resolved with
//! one can't be taken for what another says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidegate_event::Relation;

/// How the schemas of temporary relations begin.
const TEMPORARY: &str = "pg_temp_";

/// What kind of relation it is (`pg_class.relkind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// A table, partitioned or not, with rows of its own.
    Table,
    /// A view: its rows are those of its definition.
    View,
    /// A materialised view: its rows were those of its definition.
    MaterializedView,
    /// A foreign table.
    Foreign,
}

/// One column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownColumn {
    /// `pg_attribute.attnum`, from 1.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// `pg_type.oid` of its type.
    pub type_oid: u32,
    /// Whether it is computed from others (`GENERATED ALWAYS AS`): COPY leaves it out where no columns are
    /// named.
    pub generated: bool,
}

/// One relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRelation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its schema and name; the schema is always there.
    pub name: Relation,
    /// What kind it is.
    pub kind: RelationKind,
    /// Its columns in order, without dropped ones.
    pub columns: Vec<KnownColumn>,
    /// The query behind a view (`pg_get_viewdef`).
    pub definition: Option<String>,
}

/// One function (`pg_proc`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFunction {
    /// `pg_proc.oid`.
    pub oid: u32,
    /// Its schema and name.
    pub name: Relation,
    /// `pg_language.lanname`.
    pub language: String,
    /// Its source, where it is SQL or PL/pgSQL.
    pub source: Option<String>,
}

/// A database's relations and functions.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    version: u64,
    by_name: HashMap<Relation, Arc<KnownRelation>>,
    by_bare_name: HashMap<String, Vec<Arc<KnownRelation>>>,
    by_oid: HashMap<u32, Arc<KnownRelation>>,
    functions: HashMap<Relation, Vec<Arc<KnownFunction>>>,
    /// Names of temporary relations, of whichever session.
    temporary: HashSet<String>,
    enums: HashSet<Relation>,
    system: HashSet<String>,
}

impl Catalogue {
    /// A catalogue of these; `version` must differ from that of every other one in this process.
    pub fn new(version: u64, relations: Vec<KnownRelation>, functions: Vec<KnownFunction>) -> Self {
        let mut known = Self { version, ..Self::default() };
        for relation in relations.into_iter().map(Arc::new) {
            if relation.name.schema.as_deref().is_some_and(|schema| schema.starts_with(TEMPORARY)) {
                known.temporary.insert(relation.name.name.clone());
            }
            known.by_oid.insert(relation.oid, Arc::clone(&relation));
            let bare = known.by_bare_name.entry(relation.name.name.clone()).or_default();
            bare.push(Arc::clone(&relation));
            known.by_name.insert(relation.name.clone(), relation);
        }
        for function in functions.into_iter().map(Arc::new) {
            known.functions.entry(function.name.clone()).or_default().push(function);
        }
        known
    }

    /// All relations, in no order.
    pub fn relations(&self) -> impl Iterator<Item = &Arc<KnownRelation>> {
        self.by_oid.values()
    }

    /// The same without what may stand for something else by now: views have no definition, functions
    /// are gone. `version` is the new one's own.
    #[must_use]
    pub fn only_tables(&self, version: u64) -> Self {
        let relations = self
            .by_oid
            .values()
            .map(|relation| KnownRelation { definition: None, ..KnownRelation::clone(relation) });
        Self::new(version, relations.collect(), Vec::new()).with_system(self.system.iter().cloned())
    }

    /// Which reading of the database this is.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The relation of that schema and name.
    pub fn relation(&self, name: &Relation) -> Option<&Arc<KnownRelation>> {
        self.by_name.get(name)
    }

    /// The relations of that name, in whatever schema.
    pub fn named(&self, name: &str) -> &[Arc<KnownRelation>] {
        self.by_bare_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The same with these enumerated types (`pg_type.typtype = 'e'`), by schema and name. To cast to
    /// one runs nothing but PostgreSQL's own code, so that it is no `execute` then.
    #[must_use]
    pub fn with_enums(mut self, enums: impl IntoIterator<Item = Relation>) -> Self {
        self.enums.extend(enums);
        self
    }

    /// The same for a server whose own relations stand in these schemas, beside `pg_catalog` and
    /// `information_schema`.
    #[must_use]
    pub fn with_system(mut self, schemas: impl IntoIterator<Item = String>) -> Self {
        self.system.extend(schemas);
        self
    }

    /// Whether the relations of that schema are the server's own.
    pub fn is_system(&self, schema: &str) -> bool {
        matches!(schema, "pg_catalog" | "information_schema") || self.system.contains(schema)
    }

    /// Whether that is an enumerated type.
    pub fn is_enum(&self, name: &Relation) -> bool {
        self.enums.contains(name)
    }

    /// Whether some session has a temporary relation of that name, which hides others from it.
    pub fn may_be_temporary(&self, name: &str) -> bool {
        self.temporary.contains(name)
    }

    /// The relation of that OID, as a RowDescription names it.
    pub fn by_oid(&self, oid: u32) -> Option<&Arc<KnownRelation>> {
        self.by_oid.get(&oid)
    }

    /// All functions of that schema and name.
    pub fn functions(&self, name: &Relation) -> &[Arc<KnownFunction>] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }
}
