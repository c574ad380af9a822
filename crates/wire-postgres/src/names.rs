//! Names of prepared statements or portals, in the order in which the client speaks.
//!
//! Promises: a name resolves to what it will mean when the server reaches the message that uses
//! it, if it reaches it at all; to [`Found::Unknown`] where that is not known; and to
//! [`Found::Wait`] where an earlier pipeline that may still fail decides it. So a text that runs
//! is never recorded as another.
//!
//! Known gaps: a name that the server has dropped may still resolve (the unnamed statement after a
//! Query); the server then fails the execution. A function or DO block that prepares, closes or opens names by dynamic SQL is not
//! seen; what it does inside is beyond the protocol.

use std::collections::{HashMap, VecDeque};

/// A name as the client sent it; empty for the unnamed one.
pub(crate) type Name = Vec<u8>;

/// Memory that a value takes, in bytes, roughly.
pub(crate) trait Weigh {
    fn weight(&self) -> usize;
}

/// A change to what names mean.
#[derive(Debug, Clone)]
pub(crate) enum Change<V> {
    /// The name means this from here on.
    Set(Name, V),
    /// The name means nothing.
    Remove(Name),
    /// All names but the unnamed one mean nothing.
    RemoveNamed,
}

/// What the server made of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    Failed,
    /// Discarded after an earlier failure.
    Skipped,
}

/// What a name means.
#[derive(Debug, Clone)]
pub(crate) enum Found<V> {
    Value(V),
    Unknown,
    Wait,
}

struct Pending<V> {
    seq: u64,
    segment: u64,
    change: Change<V>,
}

/// What the server is known to hold, and the changes that it has not answered yet.
pub(crate) struct Names<V> {
    /// All but the unnamed one.
    committed: HashMap<Name, V>,
    /// What most drivers use for most statements.
    unnamed: Option<V>,
    committed_bytes: usize,
    pending: VecDeque<Pending<V>>,
    pending_bytes: usize,
    bytes_max: usize,
}

impl<V: Clone + Weigh> Names<V> {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            committed: HashMap::new(),
            unnamed: None,
            committed_bytes: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            bytes_max,
        }
    }

    /// Memory held, in bytes, roughly.
    pub const fn held_bytes(&self) -> usize {
        self.committed_bytes.saturating_add(self.pending_bytes)
    }

    /// Whether the changes under way take more memory than all names may.
    pub const fn is_over(&self) -> bool {
        self.pending_bytes > self.bytes_max
    }

    /// Notes a change made by the message with reply number `seq` in pipeline `segment`.
    pub fn change(&mut self, seq: u64, segment: u64, change: Change<V>) {
        self.pending_bytes += weigh(&change);
        self.pending.push_back(Pending { seq, segment, change });
    }

    /// What `name` means to a message in pipeline `segment`.
    pub fn find(&self, name: &[u8], segment: u64) -> Found<V> {
        for pending in self.pending.iter().rev() {
            let value = match &pending.change {
                Change::Set(set, value) if set == name => Some(value),
                Change::Remove(removed) if removed == name => None,
                Change::RemoveNamed if !name.is_empty() => None,
                _ => continue,
            };
            // Within one pipeline a failure of the change skips its use as well; across pipelines
            // it does not, and the name would keep its old meaning.
            if pending.segment != segment {
                return Found::Wait;
            }
            return value.cloned().map_or(Found::Unknown, Found::Value);
        }
        let known = if name.is_empty() { self.unnamed.as_ref() } else { self.committed.get(name) };
        known.cloned().map_or(Found::Unknown, Found::Value)
    }

    /// The server took message `seq`: its changes hold, or never were. A failed Parse or Bind
    /// without a name still drops what had none before (manual, "Extended Query").
    pub fn resolve(&mut self, seq: u64, fate: Fate) {
        while self.pending.front().is_some_and(|pending| pending.seq <= seq) {
            let Some(pending) = self.pending.pop_front() else {
                return;
            };
            self.pending_bytes = self.pending_bytes.saturating_sub(weigh(&pending.change));
            if pending.seq != seq {
                continue;
            }
            match (fate, pending.change) {
                (Fate::Done, change) => self.commit(change),
                (Fate::Failed, Change::Set(name, _)) if name.is_empty() => self.remove(&name),
                // A text that failed may have done to names what it says before it failed.
                (Fate::Failed, change @ (Change::Remove(_) | Change::RemoveNamed)) => {
                    self.commit(change);
                }
                (Fate::Failed | Fate::Skipped, _) => {}
            }
        }
    }

    /// Messages from `seq` on are not sent after all.
    pub fn retract(&mut self, seq: u64) {
        while self.pending.back().is_some_and(|pending| pending.seq >= seq) {
            if let Some(pending) = self.pending.pop_back() {
                self.pending_bytes = self.pending_bytes.saturating_sub(weigh(&pending.change));
            }
        }
    }

    /// Nothing that the server held exists any more; changes under way still count.
    pub fn clear(&mut self) {
        if !self.committed.is_empty() {
            self.committed.clear();
        }
        self.unnamed = None;
        self.committed_bytes = 0;
    }

    fn commit(&mut self, change: Change<V>) {
        match change {
            Change::Set(name, value) => {
                self.remove(&name);
                let weight = value.weight() + name.len();
                if self.committed_bytes + weight <= self.bytes_max {
                    self.committed_bytes += weight;
                    if name.is_empty() {
                        self.unnamed = Some(value);
                    } else {
                        self.committed.insert(name, value);
                    }
                }
            }
            Change::Remove(name) => self.remove(&name),
            Change::RemoveNamed => {
                let unnamed = self.unnamed.take();
                self.clear();
                if let Some(value) = unnamed {
                    self.commit(Change::Set(Name::new(), value));
                }
            }
        }
    }

    fn remove(&mut self, name: &[u8]) {
        let removed =
            if name.is_empty() { self.unnamed.take() } else { self.committed.remove(name) };
        if let Some(value) = removed {
            let weight = value.weight() + name.len();
            self.committed_bytes = self.committed_bytes.saturating_sub(weight);
        }
    }
}

fn weigh<V: Weigh>(change: &Change<V>) -> usize {
    match change {
        Change::Set(name, value) => name.len() + value.weight(),
        Change::Remove(name) => name.len(),
        Change::RemoveNamed => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for &'static str {
        fn weight(&self) -> usize {
            self.len()
        }
    }

    fn meaning(names: &Names<&'static str>, name: &str, segment: u64) -> &'static str {
        match names.find(name.as_bytes(), segment) {
            Found::Value(value) => value,
            Found::Unknown => "unknown",
            Found::Wait => "wait",
        }
    }

    #[test]
    fn a_name_means_what_the_server_will_take_it_for() {
        let mut names = Names::new(100);
        names.change(1, 0, Change::Set(b"s".to_vec(), "old"));
        assert_eq!(meaning(&names, "s", 0), "old", "its own pipeline");
        assert_eq!(meaning(&names, "s", 1), "wait", "the next one cannot know");
        names.resolve(1, Fate::Done);
        assert_eq!(meaning(&names, "s", 1), "old");
        names.change(2, 1, Change::Remove(b"s".to_vec()));
        names.change(3, 1, Change::Set(b"s".to_vec(), "new"));
        assert_eq!(meaning(&names, "s", 1), "new");
        names.resolve(2, Fate::Skipped);
        names.resolve(3, Fate::Skipped);
        assert_eq!(meaning(&names, "s", 2), "old", "a failed pipeline changes nothing");
        names.change(4, 2, Change::Set(Name::new(), "unnamed"));
        names.change(5, 2, Change::RemoveNamed);
        names.resolve(5, Fate::Done);
        assert_eq!(meaning(&names, "s", 3), "unknown");
        assert_eq!(names.held_bytes(), 0, "4 was never answered, so it never held");
    }

    #[test]
    fn what_does_not_fit_is_not_known() {
        let mut names = Names::new(4);
        names.change(1, 0, Change::Set(b"s".to_vec(), "too long"));
        assert!(names.is_over());
        names.resolve(1, Fate::Done);
        assert_eq!(meaning(&names, "s", 1), "unknown");
        names.change(2, 1, Change::Set(b"s".to_vec(), "x"));
        names.retract(2);
        assert_eq!((meaning(&names, "s", 1), names.held_bytes()), ("unknown", 0));
    }
}
