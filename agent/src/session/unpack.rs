//! What a machine has taken in and unpacks in steps, so that a little that becomes much waits for the queues as
//! everything does.

use tidegate_wire::Machine;
use tidegate_wire_postgres::Duties;

use super::Session;
use crate::gate::Token;
use crate::upstream::Upstream;

impl<M: Machine<Token, Duties = Duties>> Session<M> {
    /// Whether a queue is too long for more of the client's bytes.
    pub(super) fn is_congested(&self) -> bool {
        self.outbox.is_congested()
            || self.to_client.is_congested()
            || self.upstream.as_ref().is_some_and(Upstream::is_congested)
    }

    /// One more step of what the client sent; `false` where there is none, or a queue is too long.
    pub(super) fn unpacks_client(&mut self) -> bool {
        let more = !self.is_congested() && self.machine.has_more_from_client();
        if more {
            self.machine.from_client(self.now_ns, &mut self.client_bytes);
        }
        more
    }

    /// One more step of what the server sent; `false` where there is none, or the client is behind.
    pub(super) fn unpacks_server(&mut self) -> bool {
        let more = !self.to_client.is_congested() && self.machine.has_more_from_server();
        if more {
            self.machine.from_server(self.now_ns, &mut self.server_bytes);
            self.offer_again = true;
        }
        more
    }
}
