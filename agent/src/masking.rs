//! What is protected at each target, as sessions see it.
//!
//! Promises: a target with neither protected columns nor detectors has none of this, so that its
//! sessions pay nothing. What is protected follows the catalogue: a partition or inheriting table of a
//! protected table is protected as it is, in policies under its parent's name.
//!
//! Without a catalogue, and where what can't be told is withheld, only the relations that the
//! configuration names are known: everything else counts as what it may be, a view of them.
//!
//! Limits: `tidegate_mask`'s number of protected columns, partitions counted; beyond that the
//! partitions make every relation of the database unknown.
//!
//! Known gaps: a partition whose column has another name than its parent's can't be (PostgreSQL forbids
//! it); copies of protected data in other tables are not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use tidegate_event::{Mode, Protocol, Relation};
use tidegate_mask::{Detectors, ProtectedColumn, Protection, Secret, Unresolved};
use tidegate_policy::ProtectedColumn as PolicyColumn;
use tidegate_sql::{Catalogue, KnownRelation, RelationKind};

use crate::catalogue::{Paths, Reading, SYSTEM_DATABASES};
use crate::config::masking::DetectorName;
use crate::config::{CatalogueConfig, Config, TargetConfig};
use crate::mask_key;

/// The version of a catalogue that was made from the configuration alone. Those that were read count
/// from 1.
const NAMED_VERSION: u64 = 0;

/// Most steps from a partition to the table that it is a part of in the end.
const ANCESTORS_MAX: usize = 64;

/// What is protected at one target.
pub struct TargetMasking {
    /// How the agent learns what databases hold.
    pub catalogue: Option<CatalogueConfig>,
    /// Whether decisions bind.
    pub mode: Mode,
    named: Arc<View>,
    nothing: Arc<View>,
    columns: Vec<ProtectedColumn>,
    detectors: Detectors,
    unresolved: Unresolved,
    secret: Secret,
}

/// What is protected, as far as a session knows what its database holds.
pub struct View {
    /// The protected columns.
    pub protection: Arc<Protection>,
    /// What the database holds; `None` where names are taken for tables.
    pub catalogue: Option<Arc<Catalogue>>,
    /// The protected columns as policies name them, by their number in the protection.
    pub policy: Vec<PolicyColumn>,
    /// How names are looked up; `None` where nothing was read.
    pub paths: Option<Arc<Paths>>,
}

/// What is made of one reading, once.
#[derive(Default)]
pub struct Views {
    whole: OnceLock<Arc<View>>,
    tables: OnceLock<Arc<View>>,
}

/// What is protected at each target of `config`; `None` for a target where nothing is.
pub fn of(config: &Config) -> anyhow::Result<Vec<Option<Arc<TargetMasking>>>> {
    let masks = |target: &TargetConfig| {
        target.ssh.is_none() && (!target.protect.is_empty() || !target.masking.detectors.is_empty())
    };
    if !config.targets.iter().any(masks) {
        return Ok(vec![None; config.targets.len()]);
    }
    let mut key = mask_key::open(&config.mask_key_file())?.0;
    let secret = Secret::new(&mut key);
    let one = |target: &TargetConfig| {
        let masking = masks(target).then(|| TargetMasking::new(target, &secret));
        Ok(masking.transpose()?.map(Arc::new))
    };
    config.targets.iter().map(one).collect()
}

impl TargetMasking {
    fn new(target: &TargetConfig, secret: &Secret) -> anyhow::Result<Self> {
        let columns: Vec<ProtectedColumn> = columns_of(target).collect();
        let unresolved = target.masking.unresolved;
        let detectors = detectors_of(&target.masking.detectors);
        let protection = Protection::new(columns.clone(), detectors, unresolved, Some(secret))
            .map_err(|error| anyhow::anyhow!("target {}: {error}", target.name))?;
        let policy: Vec<PolicyColumn> = columns.iter().map(policy_column).collect();
        let protection = Arc::new(protection);
        let strict = unresolved == Unresolved::Withhold;
        let mysql = target.protocol == Protocol::Mysql;
        let view = |relations: Vec<KnownRelation>| {
            let system = if mysql { SYSTEM_DATABASES.as_slice() } else { &[] };
            let catalogue = Catalogue::new(NAMED_VERSION, relations, Vec::new())
                .with_system(system.iter().map(|name| (*name).to_owned()));
            Arc::new(View {
                protection: Arc::clone(&protection),
                catalogue: strict.then(|| Arc::new(catalogue)),
                policy: policy.clone(),
                paths: None,
            })
        };
        Ok(Self {
            catalogue: target.catalogue.clone(),
            mode: target.mode,
            named: view(named_relations(&columns, target.protocol)),
            nothing: view(Vec::new()),
            columns,
            detectors,
            unresolved,
            secret: secret.clone(),
        })
    }

    /// With nothing but the configuration at hand.
    pub fn named(&self) -> &Arc<View> {
        &self.named
    }

    /// With what was read.
    pub fn whole(&self, reading: &Reading) -> Arc<View> {
        Arc::clone(reading.views.whole.get_or_init(|| self.view(reading, &reading.catalogue)))
    }

    /// With what was read of tables: views and functions may be others by now.
    pub fn tables(&self, reading: &Reading) -> Arc<View> {
        let only = || self.view(reading, &Arc::new(reading.catalogue.only_tables(reading.other)));
        Arc::clone(reading.views.tables.get_or_init(only))
    }

    fn view(&self, reading: &Reading, catalogue: &Arc<Catalogue>) -> Arc<View> {
        let mut policy: Vec<PolicyColumn> = self.columns.iter().map(policy_column).collect();
        let mut columns = self.columns.clone();
        for (column, like) in inherited(&self.columns, reading) {
            columns.push(column);
            policy.push(like);
        }
        let protection = if columns.len() == self.columns.len() {
            Arc::clone(&self.named.protection)
        } else {
            let made =
                Protection::new(columns, self.detectors, self.unresolved, Some(&self.secret));
            match made {
                Ok(protection) => Arc::new(protection),
                Err(error) => {
                    tracing::error!(%error, "too many partitions are protected: nothing counts as known");
                    return Arc::clone(&self.nothing);
                }
            }
        };
        Arc::new(View {
            protection,
            catalogue: Some(Arc::clone(catalogue)),
            policy,
            paths: Some(Arc::clone(&reading.paths)),
        })
    }
}

/// The columns that partitions and inheriting tables have from protected ones, each with the protected
/// column that policies know it by.
fn inherited(
    columns: &[ProtectedColumn],
    reading: &Reading,
) -> Vec<(ProtectedColumn, PolicyColumn)> {
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (child, parent) in &reading.parents {
        parents.entry(*child).or_default().push(*parent);
    }
    let mut found = Vec::new();
    for child in parents.keys() {
        let Some(relation) = reading.catalogue.by_oid(*child) else { continue };
        for ancestor in ancestors(*child, &parents) {
            let Some(above) = reading.catalogue.by_oid(ancestor) else { continue };
            let of_it = columns.iter().filter(|column| {
                column.relation == above.name.name
                    && (column.schema.is_none() || column.schema == above.name.schema)
            });
            found.extend(of_it.map(|column| {
                let own = ProtectedColumn {
                    schema: relation.name.schema.clone(),
                    relation: relation.name.name.clone(),
                    ..column.clone()
                };
                (own, policy_column(column))
            }));
        }
    }
    found
}

fn ancestors(child: u32, parents: &BTreeMap<u32, Vec<u32>>) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    let mut next = vec![child];
    for _ in 0..ANCESTORS_MAX {
        let above = next.iter().filter_map(|oid| parents.get(oid)).flatten().copied();
        next = above.filter(|oid| all.insert(*oid)).collect();
    }
    all
}

fn columns_of(target: &TargetConfig) -> impl Iterator<Item = ProtectedColumn> + '_ {
    target.protect.iter().flat_map(|entry| {
        entry.columns.iter().map(move |column| ProtectedColumn {
            schema: column.schema.clone(),
            relation: column.relation.clone(),
            column: column.column.clone(),
            class: entry.class.clone(),
            mask: entry.mask,
        })
    })
}

fn policy_column(column: &ProtectedColumn) -> PolicyColumn {
    PolicyColumn {
        relation: Relation { schema: column.schema.clone(), name: column.relation.clone() },
        column: column.column.clone(),
        class: column.class.clone(),
    }
}

/// The relations that the configuration names, as tables whose columns nobody has read. Where it names
/// no schema, the usual one is taken beside the bare name; MySQL has none.
fn named_relations(columns: &[ProtectedColumn], protocol: Protocol) -> Vec<KnownRelation> {
    let usual = if protocol == Protocol::Postgres { "public" } else { "" };
    let names: BTreeSet<Relation> = columns
        .iter()
        .map(|column| Relation {
            schema: Some(column.schema.clone().unwrap_or_else(|| usual.to_owned())),
            name: column.relation.clone(),
        })
        .collect();
    // No server gives out OIDs from the far end; that of nothing is 0, so these can't be taken for any.
    (0_u32..)
        .zip(names)
        .map(|(number, name)| KnownRelation {
            oid: u32::MAX - number,
            name,
            kind: RelationKind::Table,
            columns: Vec::new(),
            definition: None,
        })
        .collect()
}

/// The detectors of these names.
pub fn detectors_of(names: &[DetectorName]) -> Detectors {
    let on = |name: DetectorName| names.contains(&name);
    Detectors {
        cards: on(DetectorName::Card),
        ssns: on(DetectorName::Ssn),
        ibans: on(DetectorName::Iban),
        emails: on(DetectorName::Email),
        phones: on(DetectorName::Phone),
        secrets: on(DetectorName::Secret),
    }
}
