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
    use super::super::{Config, KIND, QUEUE_SIZES, new};
    use super::*;
    use crate::device::{Activation, VirtioDevice};
    use crate::testing::{DriverQueue, FakeWatch, memory};
    use crate::vhost::Vhost;
    use crate::vhost::tests::{Asked, FakeKernel};

    /// The device with a kernel that notes what it is asked for.
    struct Noted {
        vsock: KernelVsock,
        asked: Asked,
    }

    impl Noted {
        fn note(&self, what: String) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl Backend for Noted {
        type Kernel = FakeKernel;

        fn traits(&self) -> Traits {
            self.vsock.traits()
        }
        fn kernel(&self, device: usize, memory: &Arc<Memory>) -> Option<FakeKernel> {
            self.vsock.kernel(device, memory)?;
            Some(FakeKernel::new(device, &self.asked))
        }
        fn start(&mut self, features: u64) -> Result<Vec<Range<usize>>, DeviceError> {
            self.vsock.start(features)
        }
        fn run(&mut self, device: usize, rings: &[usize]) -> Result<(), DeviceError> {
            self.note(format!("{device}: run {rings:?}"));
            Ok(())
        }
        fn halt(&mut self, device: usize) {
            self.note(format!("{device}: halt"));
        }
        fn kicked(&mut self, index: usize, queue: &mut VirtQueue) -> Result<(), DeviceError> {
            self.note(format!("kicked {index}"));
            self.vsock.kicked(index, queue)
        }
        fn stop(&mut self) {
            self.vsock.stop();
        }
    }

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
    fn rings_are_handed_over_and_events_buffers_stay() {
        let asked = Asked::default();
        let mut device = Vhost::new(Noted {
            vsock: vsock(),
            asked: Arc::clone(&asked),
        });
        let memory = memory(1 << 20);
        let driver = |(at, size): (u64, u16)| DriverQueue::new(&memory, at * 0x1_0000, size);
        let mut drivers: Vec<_> = (0..).zip(QUEUE_SIZES).map(driver).collect();
        let mut activation = Activation {
            memory: Arc::clone(&memory),
            features: 1 << VIRTIO_F_VERSION_1,
            queues: drivers.iter().map(|d| d.device_end(true)).collect(),
        };
        let watch = &mut FakeWatch::default();
        device.start(&mut activation, watch).unwrap();
        let asked = || std::mem::take(&mut *asked.lock().unwrap());
        let handed = asked();
        let of = |what: &str| {
            let of = handed.iter().filter(|asked| asked.contains(what)).cloned();
            of.collect::<Vec<_>>()
        };
        assert_eq!(of("num"), ["0: num 0 256", "0: num 1 256"]);
        assert_eq!(of("addr"), ["0: addr 0 0x0", "0: addr 1 0x10000"]);
        assert_eq!(of("kick"), ["0: kick 0", "0: kick 1"]);
        assert_eq!(of("call"), ["0: call 0", "0: call 1"]);
        assert_eq!(handed.last().unwrap(), "0: run [0, 1]");
        let queues = &mut activation.queues;
        assert_eq!(queues.len(), 1);
        drivers[EVENT].receive(4);
        device.kicked(0, queues, watch).unwrap();
        assert_eq!(drivers[EVENT].used(), None);
        assert_eq!(asked(), ["kicked 2"]);
        device.stop();
        assert_eq!(asked(), ["0: halt"]);
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
        assert!(KIND.requests.concat().contains(&SET_RUNNING));
    }
}
