//! COPY data on its way to the client.

/// Rewrites COPY data by a plan.
pub(crate) struct Copier;
