//! The policies of the laboratory.

/// Reads and appends are allowed, changes only with a WHERE, the rest is refused.
pub const CAREFUL: &str = include_str!("policies/careful.cedar");

/// Everything is allowed, what is not understood too: for the conformance suite.
pub const PERMIT_ALL: &str = include_str!("policies/permit_all.cedar");

/// Protected columns: by database user some see them, some filter by them, some are bounded.
pub const MASKED: &str = include_str!("policies/masked.cedar");

/// What is deleted must be approved.
pub const APPROVED: &str = include_str!("policies/approved.cedar");
