//! The agent's own logs and metrics; the evidence goes another way (`journal`).
//!
//! Promises: log lines go to stderr, one event a line, in words or as JSON; the level comes from
//! `TIDEGATE_LOG` (the filter syntax of `tracing-subscriber`), else it is `info`. Counting never
//! blocks and never allocates on the way of a statement. [`Metrics`] keeps every count twice: in
//! itself, for `status`, and in the `opentelemetry` API, for whoever installs a meter provider.
//!
//! Limits: statement text, parameters and secrets are never logged; nothing here can check that.
//!
//! Known gaps: no exporter is installed yet, so the OpenTelemetry side is a no-op until one is set
//! with `opentelemetry::global::set_meter_provider` before [`Metrics::new`].

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};
use tracing_subscriber::EnvFilter;

/// Names the log filter.
pub const LOG_ENV: &str = "TIDEGATE_LOG";

/// `json` for JSON lines, anything else for words.
pub const LOG_FORMAT_ENV: &str = "TIDEGATE_LOG_FORMAT";

/// The filter where none is named.
const LOG_DEFAULT: &str = "info";

/// The name under which our metrics appear.
const METER: &str = "tidegate-agent";

/// Starts logging; later calls have no effect.
pub fn init() {
    let filter = std::env::var(LOG_ENV).ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(LOG_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that the log's disk does not take is lost; to complain of it on the same stderr would
        // panic, and take the gate down.
        .log_internal_errors(false)
        .with_target(false);
    let json = std::env::var(LOG_FORMAT_ENV).is_ok_and(|format| format == "json");
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let started = if json { builder.json().try_init() } else { builder.with_ansi(ansi).try_init() };
    // Only a second call fails, and then logging is there already.
    drop(started);
}

/// One count, kept here and in the OpenTelemetry API.
#[derive(Debug)]
struct Count {
    here: AtomicU64,
    there: Counter<u64>,
}

impl Count {
    fn new(meter: &opentelemetry::metrics::Meter, name: &'static str, what: &'static str) -> Self {
        let there = meter.u64_counter(name).with_description(what).build();
        Self { here: AtomicU64::new(0), there }
    }

    fn add(&self, labels: &[KeyValue]) {
        self.here.fetch_add(1, Ordering::Relaxed);
        self.there.add(1, labels);
    }

    fn get(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }
}

/// What the agent counts.
#[derive(Debug)]
pub struct Metrics {
    sessions: Count,
    sessions_refused: Count,
    operations: Count,
    refused: Count,
    would_refuse: Count,
    catalogue_failures: Count,
    alerts: Count,
    sessions_ended: AtomicU64,
    sessions_active: UpDownCounter<i64>,
}

/// The labels of one target's counts; make them once a session.
#[derive(Debug, Clone)]
pub struct Labels([KeyValue; 1]);

impl Labels {
    /// For the target of this name.
    pub fn target(name: &str) -> Self {
        Self([KeyValue::new("tidegate.target", name.to_owned())])
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sessions opened.
    pub sessions: u64,
    /// Sessions open now.
    pub sessions_active: u64,
    /// Connections that got no session.
    pub sessions_refused: u64,
    /// Operations decided.
    pub operations: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Of these, let pass by a target in shadow mode that would have refused.
    pub would_refuse: u64,
}

/// How an operation was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It passed.
    Passed,
    /// It was refused.
    Refused,
    /// It passed, and would have been refused in enforce mode.
    WouldRefuse,
}

impl Metrics {
    /// All at zero. Takes the meter provider that is installed now.
    pub fn new() -> Self {
        let meter = opentelemetry::global::meter(METER);
        let count = |name, what| Count::new(&meter, name, what);
        Self {
            sessions: count("tidegate.sessions", "Sessions opened."),
            sessions_refused: count("tidegate.sessions.refused", "Connections without a session."),
            operations: count("tidegate.operations", "Operations decided."),
            refused: count("tidegate.operations.refused", "Operations refused."),
            would_refuse: count(
                "tidegate.operations.would_refuse",
                "Operations that passed in shadow mode only.",
            ),
            catalogue_failures: count(
                "tidegate.catalogue.failures",
                "Readings of a database's catalogue that failed.",
            ),
            alerts: count("tidegate.alerts", "Operations of which a policy alerts."),
            sessions_ended: AtomicU64::new(0),
            sessions_active: meter
                .i64_up_down_counter("tidegate.sessions.active")
                .with_description("Sessions open now.")
                .build(),
        }
    }

    /// A session opened; pair it with [`Self::session_ended`].
    pub fn session_opened(&self, labels: &Labels) {
        self.sessions.add(&labels.0);
        self.sessions_active.add(1, &labels.0);
    }

    /// A session ended.
    pub fn session_ended(&self, labels: &Labels) {
        self.sessions_ended.fetch_add(1, Ordering::Relaxed);
        self.sessions_active.add(-1, &labels.0);
    }

    /// A connection got no session.
    pub fn session_refused(&self) {
        self.sessions_refused.add(&[]);
    }

    /// A policy alerts of an operation.
    pub fn alert(&self, labels: &Labels) {
        self.alerts.add(&labels.0);
    }

    /// A database's catalogue could not be read.
    pub fn catalogue_failed(&self) {
        self.catalogue_failures.add(&[]);
    }

    /// An operation was decided.
    pub fn operation(&self, labels: &Labels, decided: Decided) {
        self.operations.add(&labels.0);
        match decided {
            Decided::Passed => {}
            Decided::Refused => self.refused.add(&labels.0),
            Decided::WouldRefuse => self.would_refuse.add(&labels.0),
        }
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        // Ends first: a session that ends in between may be shown as open, never as less than none.
        let ended = self.sessions_ended.load(Ordering::Relaxed);
        let sessions = self.sessions.get();
        Counts {
            sessions,
            sessions_active: sessions.saturating_sub(ended),
            sessions_refused: self.sessions_refused.get(),
            operations: self.operations.get(),
            refused: self.refused.get(),
            would_refuse: self.would_refuse.get(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_what_was_counted() {
        let metrics = Metrics::new();
        let labels = Labels::target("ledger");
        metrics.session_opened(&labels);
        metrics.session_opened(&labels);
        metrics.session_ended(&labels);
        metrics.session_refused();
        for decided in [Decided::Passed, Decided::Refused, Decided::WouldRefuse] {
            metrics.operation(&labels, decided);
        }
        let expected = Counts {
            sessions: 2,
            sessions_active: 1,
            sessions_refused: 1,
            operations: 3,
            refused: 1,
            would_refuse: 1,
        };
        assert_eq!(metrics.counts(), expected);
    }
}
