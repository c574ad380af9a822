//! What a permit asks of whoever relays a result.

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
    /// Count what would be masked, withheld or cut, and let all pass.
    pub shadow: bool,
}

impl Duties {
    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        let idle = self.order.as_ref().is_none_or(Order::is_idle);
        idle && self.rows_max.is_none() && self.bytes_max.is_none() && !self.keep_rows
    }
}
