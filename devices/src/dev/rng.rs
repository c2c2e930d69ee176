//! Entropy device (virtio 1.3, section 5.4): the host's random numbers for the guest.

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::QueueT;

use crate::config_space::ConfigSpace;
use crate::device::{DeviceError, DeviceKind, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;
use crate::queue::buffers::{Buffers, Slice};
use crate::queue::turn::{Served, take_turn};

/// The device's kind.
pub const KIND: DeviceKind = DeviceKind {
    name: "rng",
    id: VIRTIO_ID_RNG as u16,
    system_calls: &[libc::SYS_getrandom],
    requests: &[],
};

/// Linux asks for one buffer at a time.
const QUEUE_SIZE: u16 = 8;

/// The most that one request gets. Linux asks for at most a page; the driver may be given less
/// than it asked for, but not nothing (section 5.4.6.2).
const MAX_REQUEST: usize = 64 << 10;

/// The entropy device has nothing to configure.
#[derive(Debug, Default)]
pub struct Config {}

/// The device.
#[derive(Debug)]
pub struct Rng {
    config: Arc<ConfigSpace>,
}

impl Rng {
    /// A device.
    ///
    /// # Errors
    /// When no eventfd can be made.
    pub fn new(_config: Config) -> io::Result<Self> {
        Ok(Self {
            config: Arc::new(ConfigSpace::new(Vec::new())?),
        })
    }
}

impl VirtioDevice for Rng {
    fn traits(&self) -> Traits {
        Traits {
            kind: &KIND,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
            config: Arc::clone(&self.config),
            own_loop: false,
        }
    }

    fn kicked(
        &mut self,
        _index: usize,
        queues: &mut [VirtQueue],
        _watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(());
        };
        let (memory, size) = (Arc::clone(queue.memory()), queue.ring().size());
        take_turn(queue, |chain| {
            let buffers = Buffers::writable(chain, size)?;
            let mut written = 0;
            for slice in buffers.slices(&memory, MAX_REQUEST)? {
                written += fill(&slice).map_err(|source| DeviceError::Host {
                    what: "get random numbers for the guest".to_owned(),
                    source,
                })?;
            }
            Ok(Served::Used(written))
        })?;
        Ok(())
    }
}

/// Fills guest memory by getrandom(2), which does not block once the host has booted.
#[allow(unsafe_code)] // The kernel writes into guest memory itself.
fn fill(slice: &Slice<'_>) -> io::Result<u32> {
    let mut written = 0;
    while let Ok(rest) = slice.offset(written)
        && !rest.is_empty()
    {
        let guard = rest.ptr_guard_mut();
        // SAFETY: the guard's memory may be written, for `rest.len()` bytes.
        let count = unsafe { libc::getrandom(guard.as_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => written += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    // At most MAX_REQUEST.
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

    const MEMORY: usize = 1 << 20;

    fn kick(driver: &DriverQueue) -> Result<Vec<VirtQueue>, DeviceError> {
        let mut queues = vec![driver.device_end(true)];
        super::Rng::new(Config::default())
            .unwrap()
            .kicked(0, &mut queues, &mut FakeWatch::default())
            .map(|()| queues)
    }

    #[test]
    fn requests_are_filled_and_signalled() {
        let memory = memory(MEMORY);
        let mut driver = DriverQueue::new(&memory, 0, QUEUE_SIZE);
        driver.receive(64);
        driver.receive(100);
        let queues = kick(&driver).unwrap();
        assert!(queues[0].call().read().is_ok());
        let mut all = Vec::new();
        for expected in [64, 100] {
            let (head, length) = driver.used().unwrap();
            assert_eq!(length, expected);
            all.extend(driver.contents(head, length));
        }
        assert_eq!(driver.used(), None);
        // 164 random bytes have fewer than 20 different values once in the age of the universe.
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 20, "{all:?}");
    }

    #[test]
    fn one_request_is_bounded() {
        let memory = memory(MEMORY);
        let mut driver = DriverQueue::new(&memory, 0, QUEUE_SIZE);
        driver.receive(1 << 19);
        kick(&driver).unwrap();
        assert_eq!(driver.used(), Some((0, 1 << 16)));
    }

    proptest! {
        /// Whatever is in the ring, the call returns, and never says more than the chain had.
        #[test]
        fn any_driver_is_survived(
            descriptors in prop::collection::vec(
                (prop_oneof![0x8000..MEMORY as u64, 0x8000u64..],
                 prop_oneof![0..70_000u32, any::<u32>()], 0..8u16, 0..10u16), 8),
            heads in prop::collection::vec(0..10u16, 0..12),
        ) {
            let memory = memory(MEMORY);
            let mut driver = DriverQueue::new(&memory, 0x4000, QUEUE_SIZE);
            for (index, (address, length, flags, next)) in (0..).zip(descriptors) {
                let buffer = Buffer { address, length, writable: false };
                driver.set_descriptor(index, buffer, flags, next);
            }
            for head in heads {
                driver.make_available(head);
            }
            if kick(&driver).is_ok() {
                while let Some((_, length)) = driver.used() {
                    prop_assert!(length <= MAX_REQUEST as u32);
                }
            }
        }
    }
}
