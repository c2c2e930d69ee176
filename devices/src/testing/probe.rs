//! A device for tests, which notes what it is told.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

use crate::config_space::ConfigSpace;
use crate::dev::rng;
use crate::device::{Activation, DeviceError, Token, Traits, VirtioDevice, Watch};
use crate::queue::VirtQueue;

/// What a probe was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Started { features: u64 },
    Kicked(usize),
    Ready(Token),
    ConfigWritten(usize, Vec<u8>),
    Drained,
    Stopped,
}

/// Uses up all chains of a kicked queue, and watches one descriptor with token 7.
pub(crate) struct Probe {
    pub(crate) told: Arc<Mutex<Vec<Told>>>,
    /// Counts like a semaphore: one call of `ready` for each signal.
    pub(crate) host: EventFd,
    /// Ends with an error when it is started, or kicked.
    pub(crate) fail_start: bool,
    pub(crate) fail_kick: bool,
    /// How often `ready` must be called until it is drained.
    pub(crate) backlog: usize,
    pub(crate) config: Arc<ConfigSpace>,
    pub(crate) queue_sizes: Vec<u16>,
}

pub(crate) const HOST_TOKEN: Token = Token(7);

impl Probe {
    pub(crate) fn new() -> Self {
        Self {
            told: Arc::default(),
            host: EventFd::new(EFD_NONBLOCK | EFD_SEMAPHORE).unwrap(),
            fail_start: false,
            fail_kick: false,
            backlog: 0,
            config: Arc::new(ConfigSpace::new(vec![1, 2, 3, 4]).unwrap()),
            queue_sizes: vec![256, 8],
        }
    }

    fn tell(&self, what: Told) {
        self.told.lock().unwrap().push(what);
    }
}

impl VirtioDevice for Probe {
    fn traits(&self) -> Traits {
        Traits {
            kind: &rng::KIND,
            // Bit 34, RING_PACKED, is not the device's to offer.
            features: 1 | 1 << 34,
            queue_sizes: self.queue_sizes.clone(),
            config: Arc::clone(&self.config),
            own_loop: false,
        }
    }

    fn start(
        &mut self,
        activation: &mut Activation,
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        let features = activation.features;
        self.tell(Told::Started { features });
        watch
            .watch(self.host.as_raw_fd(), HOST_TOKEN, EventSet::IN)
            .unwrap();
        if self.fail_start {
            return Err(DeviceError::Host {
                what: "start a probe".to_owned(),
                source: io::Error::other("told so"),
            });
        }
        Ok(())
    }

    fn kicked(
        &mut self,
        index: usize,
        queues: &mut [VirtQueue],
        _: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.tell(Told::Kicked(index));
        if self.fail_kick {
            return Err(DeviceError::Driver("told so".to_owned()));
        }
        let queue = &mut queues[index];
        while let Some(chain) = queue.pop()? {
            let head = chain.head_index();
            let length = chain.map(|descriptor| descriptor.len()).sum();
            queue.push(head, length)?;
        }
        queue.signal()?;
        Ok(())
    }

    fn ready(
        &mut self,
        token: Token,
        _: EventSet,
        _: &mut [VirtQueue],
        watch: &mut dyn Watch,
    ) -> Result<(), DeviceError> {
        self.tell(Told::Ready(token));
        self.host.read().unwrap();
        self.backlog = self.backlog.saturating_sub(1);
        if self.backlog == 0 {
            watch.unwatch(self.host.as_raw_fd());
        }
        Ok(())
    }

    fn config_written(&mut self, offset: usize, data: &[u8]) {
        self.tell(Told::ConfigWritten(offset, data.to_vec()));
    }

    fn drained(&mut self, _: &mut [VirtQueue], _: &mut dyn Watch) -> bool {
        self.tell(Told::Drained);
        self.backlog == 0
    }

    fn stop(&mut self) {
        self.tell(Told::Stopped);
    }
}
