//! A busy device's event loop, on a thread of its own: it keeps the others from nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
struct DeviceThread {
    kind: &'static DeviceKind,
    stopper: Stopper,
    thread: JoinHandle<Result<()>>,
}

/// Those that run, by the slots of their devices.
#[derive(Clone, Default)]
pub(crate) struct DeviceThreads(Arc<Mutex<BTreeMap<u8, DeviceThread>>>);

impl DeviceThreads {
    /// Serves the device in `slot` until [`Self::finish`], with the system calls that this takes. If
    /// it cannot go on, it ends the VM by `vm`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(crate) fn start(&self, slot: u8, device_loop: DeviceLoop, vm: Stopper) -> io::Result<()> {
        let thread = device_loop.spawn(vm)?;
        self.threads().insert(slot, thread);
        Ok(())
    }

    /// For a device off the bus, if it has a thread: returns when the device is gone.
    ///
    /// # Errors
    /// When the device could not be served.
    pub(crate) fn finish(&self, slot: u8) -> Result<()> {
        let thread = self.threads().remove(&slot);
        thread.map_or(Ok(()), DeviceThread::finish)
    }

    /// For the end, when no vCPU runs any more: returns when the devices have handed on what they had.
    ///
    /// # Errors
    /// When one could not be served.
    pub(crate) fn finish_all(&self) -> Result<()> {
        let threads = std::mem::take(&mut *self.threads());
        threads.into_values().try_for_each(DeviceThread::finish)
    }

    fn threads(&self) -> MutexGuard<'_, BTreeMap<u8, DeviceThread>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    fn spawn(mut self, vm: Stopper) -> io::Result<DeviceThread> {
        let (kind, stopper) = (self.kind, self.event_loop.stopper());
        let thread = Builder::new().name(kind.name.to_owned());
        let thread = thread.spawn(move || {
            let served = self.serve();
            if served.is_err() {
                vm.stop();
            }
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
    fn finish(self) -> Result<()> {
        self.stopper.stop();
        let kind = self.kind;
        let served = self.thread.join();
        served
            .map_err(|_| anyhow!("a device's thread panicked: this is a bug"))?
            .with_context(|| format!("virtio {kind}"))
    }
}
