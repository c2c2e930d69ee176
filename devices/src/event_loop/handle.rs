//! What a transport holds of a device that lives on an event loop's thread.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::{fmt, io};

use tracing::debug;
use vmm_sys_util::eventfd::EventFd;

use super::run_state::{RunState, Shared};
use crate::device::{Activation, Traits};

/// What a driver's register accesses ask of a device.
pub(super) enum Command {
    Start(Activation),
    WriteConfig { offset: usize, data: Vec<u8> },
    Stop,
}

/// Sends a device the commands that its driver's register accesses amount to. None of them waits:
/// the event loop executes them in order. For one transport.
pub struct DeviceHandle {
    commands: Sender<Command>,
    /// Wakes the loop.
    sent: EventFd,
    shared: Arc<Shared>,
}

impl DeviceHandle {
    pub(super) fn new(commands: Sender<Command>, sent: EventFd, shared: Arc<Shared>) -> Self {
        Self {
            commands,
            sent,
            shared,
        }
    }

    /// What the device is.
    pub fn traits(&self) -> &Traits {
        &self.shared.traits
    }

    /// How it is.
    pub fn state(&self) -> RunState {
        self.shared.state()
    }

    /// Starts the device; if that fails, its state becomes `Broken`.
    pub(crate) fn start(&self, activation: Activation) {
        self.shared.set_state(RunState::Started);
        if !self.send(Command::Start(activation)) {
            self.shared.complain(&"its event loop has ended");
            self.shared.broken();
        }
    }

    /// Marks a device that cannot be started as in need of a reset, and says why in the log.
    pub(crate) fn fail(&self, reason: &dyn fmt::Display) {
        self.shared.complain(reason);
        self.shared.set_state(RunState::Started);
        self.shared.broken();
    }

    /// Takes a broken device back to `Stopped`. The worker has let go of it already.
    pub(crate) fn recover(&self) {
        self.shared.set_state(RunState::Stopped);
    }

    /// Stops the device; done when its state is `Stopped`. Any state but `Stopping`.
    pub(crate) fn stop(&self) {
        self.shared.set_state(RunState::Stopping);
        // Without a loop there is nobody who could still use the queues.
        if !self.send(Command::Stop) {
            self.shared.set_state(RunState::Stopped);
        }
    }

    /// An eventfd that is signalled when the device has stopped.
    pub(crate) fn stopped(&self) -> io::Result<EventFd> {
        self.shared.stop_event()
    }

    /// Tells the device of a write to its configuration space.
    pub(crate) fn write_config(&self, offset: usize, data: &[u8]) {
        if !self.shared.begin_write() {
            let device = self.traits().kind;
            debug!("virtio {device}: configuration write lost");
            return;
        }
        let data = data.to_vec();
        // It does not matter to a device without a loop.
        self.send(Command::WriteConfig { offset, data });
    }

    /// Returns whether there is a loop that will execute the command.
    fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        // A full counter wakes the loop as well.
        let _ = self.sent.write(1);
        sent
    }
}
