//! How far the capture reaches: strict accounts, targets for everyone, connections from before.

/// What becomes of a strict account's connection to what is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrictDefault {
    /// It is refused, with a record that names the destination.
    #[default]
    Refuse,
    /// It passes through the gate unread; its bytes, what kind of protocol it begins with and the
    /// TLS server name are on record.
    Pass,
}

/// What becomes of a connection to a target that was there before the hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Earlier {
    /// It is recorded and ended, so that its client comes back through the gate.
    #[default]
    End,
    /// It is recorded and goes on.
    Keep,
}

/// Whom a target is protected from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Every user id is led to the gate, but for the exempt ones.
    pub everyone: bool,
    /// With `everyone`: user ids that may go there directly, such as the server's own.
    pub exempt: Vec<u32>,
}
