//! The network device served by the kernel: vhost-net moves packets between rings and tap.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use ::vhost::VhostBackend;
use ::vhost::vhost_kern::vhost_binding::{VHOST_NET_SET_BACKEND, vhost_vring_file};
use tracing::debug;
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::features::MRG_RXBUF;
use super::interface::Interface;
use crate::Memory;
use crate::device::{DeviceError, Traits};
use crate::queue::VirtQueue;
use crate::vhost::{Backend, Kernel, request, require};

pub(super) const NET_SET_BACKEND: u64 = request::<vhost_vring_file>(0x30);

/// A network interface, and a vhost-net file for each queue pair.
pub(super) struct KernelNet {
    interface: Interface,
    files: Vec<Arc<File>>,
}

impl KernelNet {
    /// # Errors
    /// When the kernel's vhost-net lacks a feature that the device needs.
    pub(super) fn new(interface: Interface, files: Vec<File>) -> io::Result<Self> {
        let files: Vec<_> = files.into_iter().map(Arc::new).collect();
        for file in &files {
            let kernel = Kernel::new(file, &Arc::default());
            let known = kernel.get_features().map_err(io::Error::other)?;
            require(known, MRG_RXBUF, "MRG_RXBUF")?;
        }
        Ok(Self { interface, files })
    }

    fn connect(&self, pair: usize, ring: usize, tap: Option<RawFd>) -> io::Result<()> {
        let file = self.files.get(pair).ok_or(io::ErrorKind::NotFound)?;
        set_backend(file, ring, tap)
    }
}

impl Backend for KernelNet {
    type Kernel = Kernel;

    fn traits(&self) -> Traits {
        self.interface.traits(false)
    }

    fn kernel(&self, device: usize, memory: &Arc<Memory>) -> Option<Kernel> {
        let file = self.files.get(device)?;
        Some(Kernel::new(file, memory))
    }

    fn start(&mut self, features: u64) -> Result<Vec<Range<usize>>, DeviceError> {
        self.interface.start(features)?;
        let pairs = 0..self.interface.max_pairs();
        Ok(pairs.map(|pair| 2 * pair..2 * pair + 2).collect())
    }

    fn run(&mut self, device: usize, rings: &[usize]) -> Result<(), DeviceError> {
        let tap = self.interface.tap(device).map(AsRawFd::as_raw_fd);
        for &ring in rings {
            self.connect(device, ring, tap)
                .map_err(|source| self.interface.host("give vhost-net the tap", source))?;
        }
        Ok(())
    }

    fn halt(&mut self, device: usize) {
        for ring in 0..2 {
            if let Err(error) = self.connect(device, ring, None) {
                let name = self.interface.name();
                debug!("virtio net {name}: take the tap from vhost-net: {error}");
            }
        }
    }

    fn kicked(&mut self, index: usize, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        if self.interface.is_control(index) {
            self.interface.serve_control(queue)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.interface.stop();
    }
}

/// Connects a ring of vhost-net with `tap`, or with nothing: then the kernel uses neither the ring
/// nor a tap when this returns.
#[allow(unsafe_code)] // A request that the library makes for files only that it opened itself.
fn set_backend(file: &File, ring: usize, tap: Option<RawFd>) -> io::Result<()> {
    let backend = vhost_vring_file {
        index: ring as u32,
        fd: tap.unwrap_or(-1),
    };
    // SAFETY: the request reads a `vhost_vring_file`, which lives through the call.
    if unsafe { ioctl_with_ref(file, VHOST_NET_SET_BACKEND(), &backend) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
