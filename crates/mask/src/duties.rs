//! What a permit asks of whoever relays a result.

use tidegate_event::Masked;
use tidegate_recording::How;

use crate::Order;

/// What is to be done to the results of a permitted operation. Those of a Parse hold for what SQL's
/// own EXECUTE and FETCH run of it, those of an Execute for that Execute.
#[derive(Clone, Default)]
pub struct Duties {
    /// What the client may not see.
    pub order: Option<Order>,
    /// Most rows that the client gets; a result with more is cut.
    pub rows_max: Option<u64>,
    /// Most bytes of result data that the client gets.
    pub bytes_max: Option<u64>,
    /// Keep the rows as they leave.
    pub keep_rows: bool,
    /// Values of the statement's text are not recorded, so names that a server makes of that text must not be either.
    pub hides_text: bool,
    /// Count what would be masked, withheld or cut, and let all pass.
    pub shadow: bool,
}

impl Duties {
    /// How the result of an operation under these duties is recorded.
    pub fn how(&self) -> How {
        let order = self.order.as_ref();
        let key = order.and_then(|order| order.protection.digest_key());
        How { keep: self.keep_rows, secret: self.shows_clear(), key }
    }

    /// Whether the client may see what is protected.
    pub fn shows_clear(&self) -> bool {
        let order = self.order.as_ref();
        order.is_some_and(|order| order.shows_clear() || (self.shadow && order.concerns()))
    }

    /// Which of the bounds there are, in words.
    pub fn bounds(&self) -> String {
        let limit = |what: &str, max: Option<u64>| max.map(|max| format!("{max} {what}"));
        let limits = [limit("rows", self.rows_max), limit("bytes", self.bytes_max)];
        limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        let idle = self.order.as_ref().is_none_or(Order::is_idle);
        idle && self.rows_max.is_none()
            && self.bytes_max.is_none()
            && !self.keep_rows
            && !self.hides_text
    }
}

/// What was done to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Values that something stands for.
    pub values: u64,
    /// Values in which a detector covered something.
    pub detected: u64,
}

/// What of one operation's results went to the client, and what was kept from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    rows: u64,
    bytes: u64,
    /// What was done to them.
    pub masked: Masked,
}

impl Tally {
    /// Whether so many more rows and bytes are over what is allowed.
    pub fn is_over(&self, duties: &Duties, rows: u64, bytes: u64) -> bool {
        let over = |had: u64, more: u64, max: Option<u64>| {
            max.is_some_and(|max| had.saturating_add(more) > max)
        };
        over(self.rows, rows, duties.rows_max) || over(self.bytes, bytes, duties.bytes_max)
    }

    /// Counts what went to the client.
    pub fn went(&mut self, rows: u64, bytes: u64) {
        self.rows = self.rows.saturating_add(rows);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts what was done to values.
    pub fn add(&mut self, counts: Counts) {
        self.masked.values = self.masked.values.saturating_add(counts.values);
        self.masked.detected = self.masked.detected.saturating_add(counts.detected);
    }

    /// For the outcome: what was kept from the client, where something was.
    pub fn outcome(&self) -> Option<Masked> {
        let masked = self.masked;
        let some = masked.columns > 0 || masked.detected > 0 || masked.stopped.is_some();
        some.then_some(masked)
    }
}
