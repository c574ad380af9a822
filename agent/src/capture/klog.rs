//! Carries the kernel programs' rare messages (refusals) to the agent's log.
//!
//! Limits: 128 KiB in the kernel; what does not fit is lost, and the counters tell how much.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// The reader of the kernel's messages.
pub(super) struct KernelLog(EbpfLogger<Tracing>);

impl KernelLog {
    /// `None` where the kernel gives no ring buffer; the hooks work without.
    pub(super) fn take(ebpf: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(ebpf, Tracing) {
            Ok(logger) => Some(Self(logger)),
            Err(error) => {
                tracing::warn!(%error, "the kernel programs' messages cannot be read");
                None
            }
        }
    }

    /// Logs what has come.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

struct Tracing;

impl log::Log for Tracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "tidegate_kernel", "{message}"),
            log::Level::Warn => tracing::warn!(target: "tidegate_kernel", "{message}"),
            _ => tracing::info!(target: "tidegate_kernel", "{message}"),
        }
    }

    fn flush(&self) {}
}
