//! Records of what goes, or could go, past the gate.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_event::{Capture, Durability, Principal, SessionId};
use tidegate_proto::audit::v1::audit_record::Body;
use tidegate_proto::record::{self, Found};
use tidegate_spool::{Files, Level};

use crate::writer::{About, Push};
use crate::{Journal, JournalError, Pledge, SessionLog};

/// A connection of a strict account to what is no target, about to pass unread.
#[derive(Debug, Clone, Copy)]
pub struct OpaqueOpening<'a> {
    /// What the kernel and `/proc` said.
    pub capture: &'a Capture,
    /// Who.
    pub principal: &'a Principal,
    /// The client's end, as the gate accepted it.
    pub client: SocketAddr,
}

impl<F: Files> Journal<F> {
    /// Records a finding. It may use the spool's reserve: who floods must not silence it, so callers
    /// bound how many they write.
    pub fn finding(&self, found: &Found<'_>) -> Result<(), JournalError> {
        let made = record::finding(found);
        let body = Body::Finding(made.message);
        self.shared.append_message(About::AGENT, &body, made.cut).map(|_| ())
    }

    /// Records that a session opens that is not read. Refused like other sessions while the spool
    /// fills.
    pub fn opaque_session(
        &self,
        opening: &OpaqueOpening<'_>,
    ) -> Result<SessionLog<F>, JournalError> {
        self.shared.admit(Level::NoNewSessions80)?;
        let mut id = SessionId([0; 16]);
        getrandom::fill(&mut id.0)
            .map_err(|error| JournalError::System(format!("no random bytes: {error}")))?;
        let made = record::session_open(&record::Opening {
            capture: opening.capture,
            principal: &opening.principal.name,
            target: "",
            protocol: "opaque",
            mode: "enforce",
            client: opening.client,
        });
        let about = About { session: Some(&id), cause: None, reserved: false, push: Push::Buffer };
        self.shared.append_message(about, &Body::SessionOpen(made.message), made.cut)?;
        Ok(SessionLog::new(Arc::clone(&self.shared), id))
    }
}

impl<F: Files> SessionLog<F> {
    /// Records what an opaque session begins with, ahead of its bytes; its level is `host`.
    pub fn opaque(&self, found: &Found<'_>) -> Result<Pledge, JournalError> {
        let made = record::finding(found);
        let id = self.id();
        let about = About { session: Some(&id), cause: None, reserved: false, push: Push::Sync };
        let body = Body::Finding(made.message);
        let seq = self.shared().append_message(about, &body, made.cut)?;
        Ok(Pledge { seq, level: Durability::Host })
    }
}
