//! Hearing of one end of a stream.

use std::os::fd::RawFd;

use vmm_sys_util::epoll::EventSet;

use crate::device::{DeviceError, Token, Watch};

/// Whether the descriptor of a stream is watched. It is from the moment that it first blocks, and
/// edge-triggered: each event is followed by moving as much as possible, and while the queue is
/// what keeps more from moving, a ready descriptor does not wake the loop.
#[derive(Debug, Default)]
pub(super) enum Readiness {
    #[default]
    Unwatched,
    Watched(RawFd),
}

impl Readiness {
    /// Watches `fd`, unless it is already.
    pub(super) fn watch(
        &mut self,
        fd: RawFd,
        token: Token,
        events: EventSet,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        if let Self::Unwatched = self {
            watch
                .watch(fd, token, events | EventSet::EDGE_TRIGGERED)
                .map_err(|source| DeviceError::Host {
                    what: "watch a stream of the console".to_owned(),
                    source,
                })?;
            *self = Self::Watched(fd);
        }
        Ok(())
    }

    /// To be called before the descriptor is closed.
    pub(super) fn unwatch(&mut self, watch: &mut dyn Watch) {
        if let Self::Watched(fd) = std::mem::take(self) {
            watch.unwatch(fd);
        }
    }
}
