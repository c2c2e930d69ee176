//! One port: what it is to the guest, and its two directions.

use super::Streams;
use super::control::{Notices, ToDriver};
use super::sink::Sink;
use super::source::Source;
use crate::device::{DeviceError, Token, Watch};
use crate::queue::VirtQueue;

/// What a port is to the guest.
#[derive(Debug)]
pub(super) enum Kind {
    /// A terminal line with a driver in the guest's kernel.
    Console,
    /// A stream for a process in the guest.
    Named(String),
}

#[derive(Debug)]
pub(super) struct Port {
    kind: Kind,
    source: Source,
    sink: Sink,
    /// What the driver does not know yet.
    pub(super) notices: Notices,
}

impl Port {
    pub(super) fn new(kind: Kind, streams: Streams) -> Self {
        Self {
            source: Source::new(streams.input),
            sink: match &kind {
                Kind::Console => Sink::console(streams.output),
                Kind::Named(_) => Sink::stream(streams.output),
            },
            kind,
            notices: Notices::default(),
        }
    }

    /// How the driver is told what the port is.
    pub(super) fn identity(&self) -> ToDriver<'_> {
        match &self.kind {
            Kind::Console => ToDriver::Console,
            Kind::Named(name) => ToDriver::Name(name),
        }
    }

    /// The driver has set the port up, and is to hear all about it.
    pub(super) fn announce(&mut self) {
        self.notices.open = Some(self.is_host_open());
        self.notices.identity = true;
        self.notices.resize = matches!(self.kind, Kind::Console);
    }

    /// The guest opened the port.
    pub(super) fn open(&mut self) {
        self.source.open();
        self.sink.open();
    }

    /// The guest closed the port; [`Self::transmit`] ends the output.
    pub(super) fn close(&mut self, watch: &mut dyn Watch) {
        self.source.close(watch);
        self.sink.close();
    }

    /// The driver is gone.
    pub(super) fn reset(&mut self) {
        self.source.reset();
        self.sink.reset();
        self.notices = Notices::default();
    }

    /// Moves input into the driver's buffers.
    pub(super) fn receive(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let was_open = self.is_host_open();
        self.source.receive(queue, token, watch)?;
        self.notice_close(was_open);
        Ok(())
    }

    /// Moves the driver's buffers into the output. Returns whether all of them are out.
    pub(super) fn transmit(
        &mut self,
        queue: &mut VirtQueue,
        token: Token,
        watch: &mut dyn Watch,
    ) -> Result<bool, DeviceError> {
        let was_open = self.is_host_open();
        let all_out = self.sink.transmit(queue, token, watch)?;
        self.notice_close(was_open);
        Ok(all_out)
    }

    /// Whether both directions work. If one does not, the process in the guest is to end its use of
    /// the port, as one at the other end of a pipe does.
    fn is_host_open(&self) -> bool {
        !self.source.has_ended() && !self.sink.is_abandoned()
    }

    fn notice_close(&mut self, was_open: bool) {
        if was_open && !self.is_host_open() {
            self.notices.open = Some(false);
        }
    }
}
