//! The machine as the driver of all protocols sees it.

use std::sync::Arc;

use bytes::BytesMut;
use tidegate_mask::Duties;

use crate::{Action, Answer, AskId, Machine};

impl<R: Clone> tidegate_wire::Machine<R> for Machine<R> {
    type Duties = Duties;

    fn from_client(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        Self::from_client(self, now_ns, bytes);
    }

    fn from_server(&mut self, now_ns: u64, bytes: &mut BytesMut) {
        Self::from_server(self, now_ns, bytes);
    }

    fn client_closed(&mut self, now_ns: u64) {
        Self::client_closed(self, now_ns);
    }

    fn server_closed(&mut self, now_ns: u64) {
        Self::server_closed(self, now_ns);
    }

    fn poll(&mut self) -> Option<Action<R>> {
        Self::poll(self)
    }

    fn answer(&mut self, now_ns: u64, id: AskId, answer: Answer<R>) {
        Self::answer(self, now_ns, id, answer);
    }

    fn permit_with(&mut self, now_ns: u64, id: AskId, receipt: R, duties: Arc<Duties>) {
        Self::permit_with(self, now_ns, id, receipt, duties);
    }

    fn client_tls_started(&mut self) {
        Self::client_tls_started(self);
    }

    fn server_connected(&mut self) {
        Self::server_connected(self);
    }

    fn server_tls_started(&mut self) {
        Self::server_tls_started(self);
    }

    fn abort(&mut self, now_ns: u64, sqlstate: &'static str, message: &str, hint: &str) {
        Self::abort(self, now_ns, sqlstate, message, hint);
    }

    fn reads_client(&self) -> bool {
        Self::reads_client(self)
    }

    fn client_bytes_max(&self, buffered: usize) -> Option<usize> {
        Self::client_bytes_max(self, buffered)
    }

    fn reads_server(&self) -> bool {
        Self::reads_server(self)
    }

    fn is_idle(&self) -> bool {
        Self::is_idle(self)
    }

    fn has_more_from_client(&self) -> bool {
        Self::has_more_from_client(self)
    }

    fn has_more_from_server(&self) -> bool {
        Self::has_more_from_server(self)
    }

    fn database(&self) -> Option<&str> {
        Self::database(self)
    }
}
