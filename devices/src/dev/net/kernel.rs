//! The network device served by the kernel: vhost-net moves packets between rings and tap.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use ::vhost::VhostBackend;
use ::vhost::vhost_kern::vhost_binding::{VHOST_NET_SET_BACKEND, vhost_vring_file};
use tracing::debug;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};

use super::features::MRG_RXBUF;
use super::interface::Interface;
use crate::Memory;
use crate::device::{DeviceError, Traits};
use crate::queue::VirtQueue;
use crate::vhost::{Backend, GET_FEATURES, Kernel, request, require};

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

/// Whether a descriptor is one of vhost's: a tap knows no such request.
#[allow(unsafe_code)] // A request that the library makes for files only that it opened itself.
pub(super) fn is_vhost(file: &OwnedFd) -> bool {
    let mut features = 0_u64;
    // SAFETY: the request writes a `u64`, which lives through the call; by its number (_IOR of 8
    // bytes), whatever else the descriptor is writes no more.
    unsafe { ioctl_with_mut_ref(file, GET_FEATURES, &mut features) == 0 }
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

#[cfg(test)]
mod tests {
    use super::super::features::{CTRL_VQ, MQ};
    use super::super::guest_test::{MAC, wire};
    use super::*;

    /// Two pairs, with files that are not vhost-net's.
    fn interface() -> KernelNet {
        let taps = vec![wire().0, wire().0];
        let null = || Arc::new(File::open("/dev/null").unwrap());
        KernelNet {
            interface: Interface::new("eth0".to_owned(), MAC, 1500, taps).unwrap(),
            files: vec![null(), null()],
        }
    }

    #[test]
    fn the_kernel_serves_the_pairs_that_the_driver_may_use() {
        let mut net = interface();
        assert!(!net.traits().own_loop);
        let mut start = |features| {
            let queues = net.start(features).unwrap();
            net.stop();
            queues.into_iter().map(Vec::from_iter).collect::<Vec<_>>()
        };
        assert_eq!(start(CTRL_VQ | MQ), [[0, 1], [2, 3]]);
        assert_eq!(start(CTRL_VQ), [[0, 1]]);
        // MQ needs CTRL_VQ.
        assert_eq!(start(MQ), [[0, 1]]);
    }

    #[test]
    fn a_kernel_that_refuses_the_tap_is_an_error_with_a_name() {
        let mut net = interface();
        net.start(0).unwrap();
        net.run(0, &[]).unwrap();
        let error = net.run(0, &[0, 1]).unwrap_err().to_string();
        assert!(error.contains("vhost-net the tap of eth0"), "{error}");
        net.halt(0);
        assert!(net.kernel(2, &Arc::default()).is_none());
    }
}
