//! Records of what goes, or could go, past the gate.

use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::record::{self, Found};
use tidegate_spool::Files;

use crate::writer::About;
use crate::{Journal, JournalError};

impl<F: Files> Journal<F> {
    /// Records a finding. It may use the spool's reserve: who floods must not silence it, so callers
    /// bound how many they write.
    pub fn finding(&self, found: &Found<'_>) -> Result<(), JournalError> {
        let made = record::finding(found);
        let body = Body::Finding(made.message);
        self.shared.append_message(About::AGENT, &body, made.cut).map(|_| ())
    }
}
