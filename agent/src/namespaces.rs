//! Containers: the gate listens inside of each network namespace in which a protected account runs.
//!
//! Promises: a namespace is found within [`LOOK_MS`] of the account's first process there; from then on its
//! connections are led to a gate of their own namespace, which dials from there too. Before that, and where the
//! gate can't listen, they are refused: the hooks lead them to a port at which nobody listens. Each
//! namespace is a finding when the gate joins it, can't, or leaves it.
//!
//! Limits: [`NAMESPACES_MAX`] at a time. The gate leaves a namespace once no process was in it for [`AWAY_LOOKS`]
//! looks; until then its socket keeps the namespace alive.
//!
//! Known gaps: a namespace that a process of the account enters and leaves between two looks is not joined; its
//! connections are refused. The catalogue of a target's database is read from the host's namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::capture::netns::{self, Netns, Seen};
use crate::drain::Guard;
use crate::findings;
use crate::ingress::{self, Door, Shared};
use crate::lanes::Lanes;

/// Time between two looks, in milliseconds.
pub const LOOK_MS: u64 = 500;

/// Most namespaces in which the gate listens.
pub const NAMESPACES_MAX: usize = 1024;

/// Looks without a process until the gate leaves.
pub const AWAY_LOOKS: u32 = 4;

/// A namespace in which the gate listens, until it is dropped.
struct Joined {
    accepting: Vec<tokio::task::JoinHandle<()>>,
    away: u32,
}

impl Drop for Joined {
    fn drop(&mut self) {
        for task in &self.accepting {
            task.abort();
        }
    }
}

/// What is known of namespaces.
struct Namespaces {
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    guard: Guard,
    joined: BTreeMap<u64, Joined>,
    /// Those that can't be joined, as was told.
    refused: BTreeSet<u64>,
}

/// Looks again and again, until dropped; the gate has left all namespaces then.
pub async fn follow(shared: Arc<Shared>, lanes: Arc<Lanes>, guard: Guard) {
    let uids: BTreeSet<u32> = shared.config.principals.iter().map(|one| one.uid).collect();
    let (joined, refused) = (BTreeMap::new(), BTreeSet::new());
    let mut all = Namespaces { shared, lanes, guard, joined, refused };
    let mut every = tokio::time::interval(Duration::from_millis(LOOK_MS));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let uids = uids.clone();
        if let Ok(seen) = tokio::task::spawn_blocking(move || netns::look(&uids)).await {
            all.leave(&seen);
            all.join(&seen);
        }
    }
}

impl Namespaces {
    fn join(&mut self, seen: &Seen) {
        self.refused.retain(|inode| seen.alive.contains(inode));
        for (inode, (file, pid)) in &seen.of_uids {
            if self.joined.contains_key(inode) || self.refused.contains(inode) {
                continue;
            }
            match self.listen(file) {
                Ok(joined) => {
                    self.joined.insert(*inode, joined);
                    self.tell("joined", &format!("network namespace {inode}, process {pid}: the gate listens there from now on; what was asked there before was refused"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // It ended meanwhile.
                Err(error) => {
                    self.refused.insert(*inode);
                    self.tell("refused", &format!("network namespace {inode}, process {pid}: the gate cannot listen there, and connections to targets are refused: {error}"));
                }
            }
        }
    }

    fn listen(&self, file: &std::path::PathBuf) -> io::Result<Joined> {
        if self.joined.len() >= NAMESPACES_MAX {
            return Err(io::Error::other(format!("it is in {NAMESPACES_MAX} namespaces already")));
        }
        let (namespace, port) = (Netns::open(file)?, self.shared.config.gate.port);
        let listeners = namespace.inside(|| ingress::listen(port))?;
        let lane = self.lanes.first()?;
        let accepting = listeners.into_iter().map(|listener| {
            let door = Door { guard: self.guard.clone(), namespace: Some(namespace.clone()) };
            let (lanes, shared) = (Arc::clone(&self.lanes), Arc::clone(&self.shared));
            lane.spawn(ingress::accept(listener, lanes, shared, door))
        });
        Ok(Joined { accepting: accepting.collect(), away: 0 })
    }

    fn leave(&mut self, seen: &Seen) {
        let mut left = Vec::new();
        for (inode, joined) in &mut self.joined {
            joined.away = if seen.alive.contains(inode) { 0 } else { joined.away + 1 };
            if joined.away >= AWAY_LOOKS {
                left.push(*inode);
            }
        }
        for inode in left {
            self.joined.remove(&inode);
            self.tell("left", &format!("network namespace {inode}: no process is in it any more"));
        }
    }

    fn tell(&self, outcome: &'static str, detail: &str) {
        tracing::info!(outcome, "{detail}");
        let found = findings::plain("namespace", outcome, detail);
        if let Err(error) = self.shared.journal.finding(&found) {
            tracing::error!(%error, "a network namespace could not be recorded");
        }
    }
}
