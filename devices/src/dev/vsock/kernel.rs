//! The socket device served by the kernel: vhost-vsock moves packets between rings and AF_VSOCK
//! sockets of the host.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use ::vhost::VhostBackend;
use ::vhost::vhost_kern::vhost_binding::{VHOST_VSOCK_SET_GUEST_CID, VHOST_VSOCK_SET_RUNNING};
use libc::c_int;
use tracing::debug;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::{EVENT, RX, TX};
use crate::Memory;
use crate::config_space::ConfigSpace;
use crate::device::{DeviceError, Traits};
use crate::queue::VirtQueue;
use crate::vhost::{Backend, Kernel, request, require};

pub(super) const SET_RUNNING: u64 = request::<c_int>(0x61);

/// A vhost-vsock file, which owns the guest's address.
pub(super) struct KernelVsock {
    config: Arc<ConfigSpace>,
    file: Arc<File>,
}

impl KernelVsock {
    /// # Errors
    /// When the file is not vhost's, or its kernel lacks a feature that the device needs.
    pub(super) fn new(cid: u32, file: File) -> io::Result<Self> {
        let file = Arc::new(file);
        let kernel = Kernel::new(&file, &Arc::default());
        let known = kernel.get_features().map_err(io::Error::other)?;
        // What every device needs, and nothing beyond.
        require(known, 1 << VIRTIO_F_VERSION_1, "VERSION_1")?;
        let config = super::config_space(cid)?;
        Ok(Self { config, file })
    }
}

impl Backend for KernelVsock {
    type Kernel = Kernel;

    fn traits(&self) -> Traits {
        super::traits(&self.config, false)
    }

    fn kernel(&self, device: usize, memory: &Arc<Memory>) -> Option<Kernel> {
        (device == 0).then(|| Kernel::new(&self.file, memory))
    }

    /// The event queue stays here.
    fn start(&mut self, _features: u64) -> Result<Vec<Range<usize>>, DeviceError> {
        let both = RX..EVENT;
        Ok(vec![both])
    }

    fn run(&mut self, _device: usize, rings: &[usize]) -> Result<(), DeviceError> {
        if rings != [RX, TX] {
            let error = "the vsock device needs both its rx and its tx queue";
            return Err(DeviceError::Driver(error.to_owned()));
        }
        set_running(&self.file, true).map_err(|source| DeviceError::Host {
            what: "run vhost-vsock".to_owned(),
            source,
        })
    }

    fn halt(&mut self, _device: usize) {
        if let Err(error) = set_running(&self.file, false) {
            debug!("virtio vsock: stop vhost-vsock: {error}");
        }
    }

    /// Only the event queue is kicked here: its buffers are for guests that move between hosts
    /// (section 5.10.6.7), which ours do not.
    fn kicked(&mut self, _index: usize, _queue: &mut VirtQueue) -> Result<(), DeviceError> {
        Ok(())
    }

    fn stop(&mut self) {}
}

/// Gives the guest of `file`, an opened /dev/vhost-vsock, the address `cid`, as long as it is open.
///
/// # Errors
/// EADDRINUSE if another guest has it; as ioctl(2) otherwise.
#[allow(unsafe_code)] // A request that the library makes for files only that it opened itself.
pub fn set_guest_cid(file: &File, cid: u32) -> io::Result<()> {
    let cid = u64::from(cid);
    // SAFETY: the request reads a `u64`, which lives through the call.
    if unsafe { ioctl_with_ref(file, VHOST_VSOCK_SET_GUEST_CID(), &cid) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has vhost-vsock use its rings, or none of them any more when this returns.
#[allow(unsafe_code)] // A request that the library makes for files only that it opened itself.
fn set_running(file: &File, running: bool) -> io::Result<()> {
    let running = c_int::from(running);
    // SAFETY: the request reads an `int`, which lives through the call.
    if unsafe { ioctl_with_ref(file, VHOST_VSOCK_SET_RUNNING(), &running) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, KIND, new};
    use super::*;

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    /// With a file that is not vhost-vsock's.
    fn vsock() -> KernelVsock {
        KernelVsock {
            config: super::super::config_space(0x1234_5678).unwrap(),
            file: Arc::new(null()),
        }
    }

    #[test]
    fn the_kernel_serves_both_packet_queues_and_not_the_events() {
        let mut vsock = vsock();
        let traits = vsock.traits();
        assert!(!traits.own_loop);
        assert_eq!((traits.features, traits.queue_sizes.len()), (0, 3));
        let mut bytes = [0xff; 8];
        traits.config.read(0, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), 0x1234_5678);
        let both = 0..2;
        assert_eq!(vsock.start(u64::MAX).unwrap(), [both]);
        assert!(vsock.kernel(0, &Arc::default()).is_some());
        assert!(vsock.kernel(1, &Arc::default()).is_none());
    }

    #[test]
    fn a_driver_that_leaves_out_a_queue_is_told() {
        let mut vsock = vsock();
        for rings in [&[][..], &[0], &[1]] {
            let error = vsock.run(0, rings).unwrap_err();
            assert!(matches!(error, DeviceError::Driver(_)), "{error}");
        }
    }

    #[test]
    fn a_kernel_that_refuses_is_an_error_with_a_name() {
        let mut vsock = vsock();
        let error = vsock.run(0, &[0, 1]).unwrap_err().to_string();
        assert!(error.contains("run vhost-vsock"), "{error}");
        vsock.halt(0);
        let error = set_guest_cid(&null(), 3).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        let backend = super::super::Backend::Kernel(null());
        let error = new(Config { cid: 3, backend }).err().unwrap().to_string();
        assert!(error.starts_with("vsock: "), "{error}");
    }

    #[test]
    fn the_filter_knows_the_request() {
        assert_eq!(SET_RUNNING, VHOST_VSOCK_SET_RUNNING());
        assert!(KIND.requests.contains(&SET_RUNNING));
    }
}
