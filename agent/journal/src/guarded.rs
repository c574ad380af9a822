//! Records of what the agent guards, and by what.

use tidegate_event::Digest;
use tidegate_proto::audit::v1::{self, audit_record::Body, lifecycle::Kind};
use tidegate_proto::record;
use tidegate_spool::Files;

use crate::writer::About;
use crate::{HookState, Journal, JournalError};

impl<F: Files> Journal<F> {
    /// Records that the hooks are in place, one by one; `taken_over` where those of the run before were there
    /// all the time.
    pub fn attached(
        &self,
        detail: &str,
        object: &Digest,
        hooks: &[HookState],
        taken_over: bool,
    ) -> Result<(), JournalError> {
        let message = v1::Lifecycle {
            hooks: hooks.iter().map(Into::into).collect(),
            taken_over,
            ..lifecycle(Kind::Attached, detail, object)
        };
        self.shared.append_message(About::AGENT, &Body::Lifecycle(message), false).map(|_| ())
    }

    /// Records which configuration is in force, and the names of what it guards from whom.
    pub fn config_loaded(
        &self,
        file: &str,
        digest: &Digest,
        targets: &[&str],
        principals: &[&str],
    ) -> Result<(), JournalError> {
        let mut was_cut = false;
        let (targets, targets_total) = record::names(targets, &mut was_cut);
        let (principals, principals_total) = record::names(principals, &mut was_cut);
        let message = v1::Lifecycle {
            targets,
            targets_total,
            principals,
            principals_total,
            ..lifecycle(Kind::ConfigLoaded, file, digest)
        };
        self.shared.append_message(About::AGENT, &Body::Lifecycle(message), was_cut).map(|_| ())
    }
}

fn lifecycle(kind: Kind, detail: &str, digest: &Digest) -> v1::Lifecycle {
    let (detail, _) = tidegate_event::limits::cut(detail, tidegate_event::limits::NAME_BYTES_MAX);
    v1::Lifecycle {
        kind: kind.into(),
        detail: detail.to_owned(),
        digest: digest.0.to_vec().into(),
        ..v1::Lifecycle::default()
    }
}
