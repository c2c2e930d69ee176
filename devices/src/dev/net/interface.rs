//! What the guest's network interface is, however its packets are moved: configuration, features,
//! queue pairs, commands.

use std::io;
use std::sync::Arc;

use tracing::debug;
use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use super::Tap;
use super::control::{self, Command};
use super::features::{self, CTRL_GUEST_OFFLOADS, CTRL_VQ, GUEST_ANNOUNCE, GUEST_OFFLOADS, MQ};
use crate::config_space::ConfigSpace;
use crate::device::{DeviceError, Traits};
use crate::queue::VirtQueue;

/// Linux refills a queue before half of it is used up; that is 128 packets.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Linux sends one command at a time.
const CONTROL_SIZE: u16 = 64;

pub(super) struct Interface {
    name: String,
    taps: Vec<Tap>,
    config: Arc<ConfigSpace>,
    offered: u64,
    /// What the driver has accepted and may use; none while there is no driver.
    features: u64,
    /// How many queue pairs packets go through.
    pairs: usize,
}

impl Interface {
    pub(super) fn new(name: String, mac: [u8; 6], mtu: u16, taps: Vec<Tap>) -> io::Result<Self> {
        let tap = taps.first().ok_or(io::ErrorKind::InvalidInput)?;
        let offered = features::offered(tap.probe_offloads()?, taps.len());
        // Section 5.1.4: mac, status, max_virtqueue_pairs, mtu.
        let numbers = [VIRTIO_NET_S_LINK_UP as u16, taps.len() as u16, mtu];
        let mut bytes = mac.to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        Ok(Self {
            name,
            taps,
            config: Arc::new(ConfigSpace::new(bytes)?),
            offered,
            features: 0,
            pairs: 1,
        })
    }

    pub(super) fn traits(&self, own_loop: bool) -> Traits {
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * self.taps.len()];
        queue_sizes.push(CONTROL_SIZE);
        Traits {
            kind: &super::KIND,
            features: self.offered,
            queue_sizes,
            config: Arc::clone(&self.config),
            own_loop,
        }
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the driver has accepted and may use.
    pub(super) fn features(&self) -> u64 {
        self.features
    }

    /// How many queue pairs the driver may use.
    pub(super) fn max_pairs(&self) -> usize {
        if self.features & MQ != 0 {
            self.taps.len()
        } else {
            1
        }
    }

    /// How many of them packets go through; these taps are attached.
    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    pub(super) fn tap(&self, pair: usize) -> Option<&Tap> {
        self.taps.get(pair)
    }

    /// Whether `queue` is the control queue: the one after the pairs (section 5.1.2).
    pub(super) fn is_control(&self, queue: usize) -> bool {
        self.features & CTRL_VQ != 0 && queue == 2 * self.max_pairs()
    }

    /// A driver has accepted `features`.
    pub(super) fn start(&mut self, features: u64) -> Result<(), DeviceError> {
        self.features = features::usable(features);
        self.set_offloads(self.features)
            .map_err(|source| self.host("set the offloads", source))
    }

    /// The driver is gone. Packets that come find the first queue.
    pub(super) fn stop(&mut self) {
        self.features = 0;
        let reset = self.set_pairs(1).and_then(|()| self.set_offloads(0));
        if let Err(error) = reset {
            debug!("virtio net {}: reset the tap: {error}", self.name);
        }
    }

    /// Executes the commands in the control queue.
    pub(super) fn serve_control(&mut self, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        control::serve(queue, |command| self.execute(command))
    }

    pub(super) fn host(&self, attempt: &str, source: io::Error) -> DeviceError {
        DeviceError::Host {
            what: format!("{attempt} of {}", self.name),
            source,
        }
    }

    /// Returns whether it is done.
    fn execute(&mut self, command: Command) -> bool {
        let done = match command {
            // It was never asked to, so that there is nothing to take back.
            Command::Announced if self.features & GUEST_ANNOUNCE != 0 => Ok(()),
            Command::SetPairs(pairs) if self.may_set_pairs(pairs) => self.set_pairs(pairs.into()),
            Command::SetOffloads(offloads) if self.may_set_offloads(offloads) => {
                self.set_offloads(offloads)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        if let Err(error) = &done {
            debug!("virtio net {}: {command:?} refused: {error}", self.name);
        }
        done.is_ok()
    }

    fn may_set_pairs(&self, pairs: u16) -> bool {
        self.features & MQ != 0 && (1..=self.max_pairs()).contains(&usize::from(pairs))
    }

    fn may_set_offloads(&self, offloads: u64) -> bool {
        let accepted = self.features & GUEST_OFFLOADS;
        self.features & CTRL_GUEST_OFFLOADS != 0 && offloads & !accepted == 0
    }

    /// Section 5.1.6.5.5.2: no packets come in the queues beyond these.
    fn set_pairs(&mut self, pairs: usize) -> io::Result<()> {
        let mut taps = self.taps.iter_mut().enumerate();
        let attached = taps.try_for_each(|(index, tap)| tap.attach(index < pairs));
        if attached.is_ok() {
            self.pairs = pairs;
        } else {
            // Those that were attached before the one that failed are not served.
            for tap in self.taps.iter_mut().skip(self.pairs) {
                let _ = tap.attach(false);
            }
        }
        attached
    }

    fn set_offloads(&self, features: u64) -> io::Result<()> {
        let tap = self.taps.first().ok_or(io::ErrorKind::NotFound)?;
        tap.set_offloads(features::tap_offloads(features))
    }
}
