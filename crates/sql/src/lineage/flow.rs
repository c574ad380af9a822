//! What an expression is made of, and the columns that a part of a query hands on.

use std::collections::BTreeSet;
use std::rc::Rc;

use tidegate_event::{ColumnRef, Output, Relation, Shown, Sources, ValueAt};

/// What one expression is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) columns: BTreeSet<Rc<ColumnRef>>,
    pub(crate) opaque: Option<String>,
    /// It is the stored value of its one column.
    pub(crate) stored: bool,
    /// Working it out can fail, so that whether it is worked out can be told.
    pub(crate) fails: bool,
    /// It may be an array or row whose shape, or a text whose size, differs from row to row without
    /// bounds.
    pub(crate) varies: bool,
    pub(crate) values: BTreeSet<ValueAt>,
}

impl Flow {
    /// The stored value of a column.
    pub(crate) fn column(relation: &Relation, column: &str) -> Self {
        let column = ColumnRef { relation: relation.clone(), column: Some(column.to_owned()) };
        Self { columns: BTreeSet::from([Rc::new(column)]), stored: true, ..Self::default() }
    }

    /// A whole row.
    pub(crate) fn row(relation: &Relation) -> Self {
        let row = ColumnRef { relation: relation.clone(), column: None };
        Self { columns: BTreeSet::from([Rc::new(row)]), ..Self::default() }
    }

    /// What can't be told.
    pub(crate) fn opaque(reason: impl Into<String>) -> Self {
        Self { opaque: Some(reason.into()), fails: true, ..Self::default() }
    }

    pub(crate) fn value(at: ValueAt) -> Self {
        Self { values: BTreeSet::from([at]), ..Self::default() }
    }

    /// Takes in what another part is made of; the whole is then computed.
    pub(crate) fn add(&mut self, other: Self) {
        self.stored = false;
        if self.columns.is_empty() {
            self.columns = other.columns;
        } else {
            self.columns.extend(other.columns);
        }
        self.opaque = self.opaque.take().or(other.opaque);
        self.fails |= other.fails;
        self.varies |= other.varies;
        self.values.extend(other.values);
    }

    /// The same, no longer as it is stored.
    pub(crate) fn computed(self) -> Self {
        Self { stored: false, ..self }
    }

    /// The same, as a truth value or number.
    pub(crate) fn scalar(self) -> Self {
        Self { stored: false, varies: false, ..self }
    }

    /// The same, of any shape and size where `varies`.
    pub(crate) fn varying(mut self, varies: bool) -> Self {
        self.varies |= varies;
        self
    }

    /// How much of the budget a copy takes.
    pub(crate) fn weight(&self) -> usize {
        1 + self.columns.len() + self.values.len()
    }

    fn sources(&self) -> Sources {
        Sources {
            columns: self.columns.iter().map(|column| ColumnRef::clone(column)).collect(),
            opaque: self.opaque.clone(),
        }
    }
}

/// The union of several flows.
pub(crate) fn union(flows: impl IntoIterator<Item = Flow>) -> Flow {
    let mut all = Flow::default();
    flows.into_iter().for_each(|flow| all.add(flow));
    all
}

/// One or more columns that a range or a select list hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// One column.
    One(Option<String>, Flow),
    /// One column of that name, whose place among the others isn't known.
    Loose(String, Flow),
    /// The columns of a relation that no catalogue spells out, in order.
    Star(Star),
    /// A number of columns, of any name.
    Several(Flow),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Star {
    pub(crate) relation: Relation,
    /// Columns that a `USING` has taken out.
    pub(crate) without: Vec<String>,
    /// `NATURAL` may have taken out others.
    pub(crate) inexact: bool,
    /// Columns that hold other relations' values.
    pub(crate) elsewhere: &'static [&'static str],
}

impl Star {
    pub(crate) const fn of(relation: Relation) -> Self {
        Self { relation, without: Vec::new(), inexact: false, elsewhere: &[] }
    }

    fn flow(&self) -> Flow {
        let mut row = Flow::row(&self.relation);
        if !self.elsewhere.is_empty() {
            row.add(self.opaque());
        }
        row
    }

    fn opaque(&self) -> Flow {
        Flow::opaque(format!("{} holds values of other relations", self.relation))
    }

    fn find(&self, name: &str) -> Option<Flow> {
        if self.without.iter().any(|taken| taken == name) {
            return None;
        }
        let elsewhere = self.elsewhere.iter().any(|column| *column == name || *column == "*");
        Some(if elsewhere { self.opaque() } else { Flow::column(&self.relation, name) })
    }
}

impl Item {
    /// Everything that its columns are made of.
    pub(crate) fn flow(&self) -> Flow {
        match self {
            Self::One(_, flow) | Self::Loose(_, flow) | Self::Several(flow) => flow.clone(),
            Self::Star(star) => star.flow(),
        }
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::One(_, flow) | Self::Loose(_, flow) | Self::Several(flow) => flow.weight(),
            Self::Star(_) => 1,
        }
    }

    pub(crate) fn output(&self) -> Output {
        match self {
            Self::One(name, flow) => Output::One {
                name: name.clone(),
                shown: if flow.stored && flow.columns.len() == 1 && flow.opaque.is_none() {
                    Shown::AsStored
                } else {
                    Shown::Computed
                },
                sources: flow.sources(),
            },
            Self::Star(star)
                if star.without.is_empty() && !star.inexact && star.elsewhere.is_empty() =>
            {
                Output::Star(star.relation.clone())
            }
            Self::Star(star) => Output::Several(star.flow().sources()),
            Self::Loose(_, flow) | Self::Several(flow) => Output::Several(flow.sources()),
        }
    }
}

/// What looking for a name among columns gives.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    /// The column of that name.
    pub(crate) exact: Option<Flow>,
    /// Columns that may have that name.
    pub(crate) maybe: Vec<Flow>,
}

/// Looks for a column by name.
pub(crate) fn find(name: &str, items: &[Item]) -> Lookup {
    let mut found = Lookup::default();
    for item in items {
        match item {
            Item::One(Some(own), flow) | Item::Loose(own, flow) if own == name => {
                match &mut found.exact {
                    Some(exact) => exact.add(flow.clone()),
                    None => found.exact = Some(flow.clone()),
                }
            }
            Item::One(Some(_), _) | Item::Loose(..) => {}
            Item::One(None, flow) => found.maybe.push(flow.clone()),
            Item::Several(flow) => found.maybe.push(flow.clone().computed()),
            Item::Star(star) => found.maybe.extend(star.find(name)),
        }
    }
    found
}

/// Gives the first columns the names of an alias list. Where it can't be told which columns those
/// are, all may have any name.
pub(crate) fn rename(items: Vec<Item>, names: &[String]) -> Vec<Item> {
    if names.is_empty() {
        return items;
    }
    let spelt = items.iter().take_while(|item| matches!(item, Item::One(..))).count();
    if spelt < names.len() && spelt < items.len() {
        return vec![Item::Several(union(items.iter().map(Item::flow)))];
    }
    let mut names = names.iter();
    items
        .into_iter()
        .map(|item| match (item, names.next()) {
            (Item::One(_, flow), Some(name)) => Item::One(Some(name.clone()), flow),
            (item, _) => item,
        })
        .collect()
}

/// Merges the columns of a set operation's sides by position; names come from the left.
pub(crate) fn by_position(left: Vec<Item>, right: Vec<Item>) -> Vec<Item> {
    let spelt = |items: &[Item]| items.iter().all(|item| matches!(item, Item::One(..)));
    if left.len() != right.len() || !spelt(&left) || !spelt(&right) {
        return vec![Item::Several(union(left.iter().chain(&right).map(Item::flow)))];
    }
    left.into_iter()
        .zip(right)
        .map(|(left, right)| match (left, right) {
            (Item::One(name, mut flow), other) => {
                flow.add(other.flow());
                Item::One(name, flow)
            }
            (left, _) => left,
        })
        .collect()
}

/// Which value goes into which of a statement's places, by position; every value into any place, where that can't be
/// told.
pub(crate) fn stored(items: &[Item], places: &[Flow]) -> Vec<(Flow, Flow)> {
    let spelt = items.iter().all(|item| matches!(item, Item::One(..)));
    let single = |flow: &Flow| flow.columns.iter().all(|column| column.column.is_some());
    if spelt && places.iter().all(single) && items.len() <= places.len() {
        let pairs = items.iter().zip(places);
        return pairs.map(|(item, place)| (item.flow(), place.clone())).collect();
    }
    let any = union(places.iter().cloned());
    items.iter().map(|item| (item.flow(), any.clone())).collect()
}

/// Whether another turn of a recursion brings nothing that the turn before did not have.
pub(crate) fn is_settled(turn: &[Item], before: &[Item]) -> bool {
    let same = |(turn, before): (&Item, &Item)| {
        let (turn, before) = (turn.flow(), before.flow());
        turn.columns == before.columns
            && turn.values == before.values
            && turn.opaque == before.opaque
    };
    turn.len() == before.len() && turn.iter().zip(before).all(same)
}

/// The columns of a recursion where they change places from turn to turn: any may hold what any holds.
pub(crate) fn mixed(turn: Vec<Item>) -> Vec<Item> {
    let any = union(turn.iter().map(Item::flow));
    let mix = |item| match item {
        Item::One(name, _) => Item::One(name, any.clone()),
        _ => Item::Several(any.clone()),
    };
    turn.into_iter().map(mix).collect()
}
