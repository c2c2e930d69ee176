//! A busy device's event loop, on a thread of its own: it keeps the others from nothing.

use std::io;
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use devices::device::{DeviceKind, VirtioDevice};
use devices::event_loop::{DeviceHandle, EventLoop, Stopper, add_device};

use crate::filters::{self, DeviceCalls};

/// A loop with its device, before it runs.
pub(crate) struct DeviceLoop {
    kind: &'static DeviceKind,
    event_loop: EventLoop,
}

/// One that runs.
pub(crate) struct DeviceThread {
    kind: &'static DeviceKind,
    stopper: Stopper,
    thread: JoinHandle<Result<()>>,
}

impl DeviceLoop {
    /// A loop for this device, whose handle is for its transport.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn new(device: Box<dyn VirtioDevice>) -> Result<(Self, DeviceHandle)> {
        let kind = device.traits().kind;
        let mut event_loop = EventLoop::new().map_err(|e| anyhow!("event loop: {e:?}"))?;
        let handle = add_device(&mut event_loop, device).context("eventfd")?;
        Ok((Self { kind, event_loop }, handle))
    }

    /// Serves the device until [`DeviceThread::finish`], with the system calls that this takes. If it
    /// cannot go on, it ends the VM by `vm`.
    pub(crate) fn spawn(mut self, vm: Stopper) -> io::Result<DeviceThread> {
        let (kind, stopper) = (self.kind, self.event_loop.stopper());
        let thread = Builder::new().name(kind.name.to_owned());
        let thread = thread.spawn(move || {
            let served = self.serve();
            vm.stop();
            served
        })?;
        Ok(DeviceThread {
            kind,
            stopper,
            thread,
        })
    }

    fn serve(&mut self) -> Result<()> {
        let mut calls = DeviceCalls::default();
        calls.add(self.kind);
        filters::restrict_device_thread(&calls)?;
        let mut served = self.event_loop.run();
        if served.is_ok() {
            served = self.event_loop.drain();
        }
        served.map_err(|e| anyhow!("event loop: {e:?}"))
    }
}

impl DeviceThread {
    /// For the end, when no vCPU runs any more: returns when the device has handed on what it had.
    ///
    /// # Errors
    /// When the device could not be served.
    pub(crate) fn finish(self) -> Result<()> {
        self.stopper.stop();
        let kind = self.kind;
        let served = self.thread.join();
        served
            .map_err(|_| anyhow!("a device's thread panicked: this is a bug"))?
            .with_context(|| format!("virtio {kind}"))
    }
}
