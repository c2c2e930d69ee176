//! The guest's side of things, for tests and benchmarks: a driver's end of a virtqueue, and stand-ins
//! for the hypervisor and the event loop.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

#[cfg(test)]
pub(crate) mod channel;
pub mod filter;
#[cfg(test)]
pub(crate) mod guest;
#[cfg(test)]
pub(crate) mod probe;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::Memory;
use crate::device::{Token, Watch};
use crate::fabric::{Doorbell, Fabric, Gsi, Interrupt, MsiMessage};
use crate::queue::VirtQueue;

/// Guest memory of `size` bytes from address 0 on.
pub fn memory(size: usize) -> Arc<Memory> {
    Arc::new(Memory::from_ranges(&[(GuestAddress(0), size)]).unwrap())
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
    /// Whether the device writes it, and does not read it.
    pub writable: bool,
}

/// The driver's end of a split virtqueue (virtio 1.3, section 2.7). It does what it is told: no rule
/// is enforced, so that a test can break all of them.
#[derive(Debug)]
pub struct DriverQueue {
    memory: Arc<Memory>,
    base: u64,
    size: u16,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
    next_buffer: u64,
}

impl DriverQueue {
    /// A queue whose rings start at `base` (a multiple of 16); `size` is its number of descriptors.
    pub fn new(memory: &Arc<Memory>, base: u64, size: u16) -> Self {
        let mut queue = Self {
            memory: Arc::clone(memory),
            base,
            size,
            next_descriptor: 0,
            next_available: 0,
            next_used: 0,
            next_buffer: 0,
        };
        queue.next_buffer = queue.end();
        let zeros = vec![0; (queue.end() - base) as usize];
        queue.write(base, &zeros);
        queue
    }

    /// Address of the descriptor table.
    pub fn descriptors(&self) -> u64 {
        self.base
    }

    /// Address of the available ring.
    pub fn driver_area(&self) -> u64 {
        self.base + 16 * u64::from(self.size)
    }

    /// Address of the used ring.
    pub fn device_area(&self) -> u64 {
        (self.driver_area() + 6 + 2 * u64::from(self.size)).next_multiple_of(4)
    }

    /// The first address after the rings; the buffers of [`Self::send`] and [`Self::receive`] are
    /// there, one after the other.
    pub fn end(&self) -> u64 {
        (self.device_area() + 6 + 8 * u64::from(self.size)).next_multiple_of(16)
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The device's end, for tests that need no transport.
    pub fn device_end(&self, event_idx: bool) -> VirtQueue {
        let mut ring = Queue::new(self.size).unwrap();
        ring.try_set_desc_table_address(GuestAddress(self.descriptors()))
            .unwrap();
        ring.try_set_avail_ring_address(GuestAddress(self.driver_area()))
            .unwrap();
        ring.try_set_used_ring_address(GuestAddress(self.device_area()))
            .unwrap();
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        VirtQueue::new(ring, Arc::clone(&self.memory), event(), event())
    }

    /// Copies `data` into a fresh buffer, and makes it available. Returns the chain's head.
    pub fn send(&mut self, data: &[u8]) -> u16 {
        let address = self.allocate(data.len());
        self.write(address, data);
        self.add(&[Buffer {
            address,
            length: data.len() as u32,
            writable: false,
        }])
    }

    /// Makes a fresh buffer of `length` bytes available to be filled. Returns the chain's head.
    pub fn receive(&mut self, length: u32) -> u16 {
        let address = self.allocate(length as usize);
        self.add(&[Buffer {
            address,
            length,
            writable: true,
        }])
    }

    /// Makes a chain of `buffers` available. Returns its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (i, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let mut flags = 0;
            if i + 1 < buffers.len() {
                flags |= VRING_DESC_F_NEXT as u16;
            }
            if buffer.writable {
                flags |= VRING_DESC_F_WRITE as u16;
            }
            self.set_descriptor(index, *buffer, flags, self.next_descriptor);
        }
        self.make_available(head);
        head
    }

    /// The same by an indirect table, which is written to `table` (section 2.7.5.3).
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (index, buffer) in (1..).zip(buffers) {
            let is_last = usize::from(index) == buffers.len();
            let next = if is_last { 0 } else { VRING_DESC_F_NEXT as u16 };
            let write = if buffer.writable {
                VRING_DESC_F_WRITE as u16
            } else {
                0
            };
            let at = table + 16 * u64::from(index - 1);
            self.write_descriptor(at, *buffer, next | write, index);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let indirect = Buffer {
            address: table,
            length: 16 * buffers.len() as u32,
            writable: false,
        };
        self.set_descriptor(head, indirect, VRING_DESC_F_INDIRECT as u16, 0);
        self.make_available(head);
        head
    }

    /// Writes a descriptor as it is given; `flags` decide, not `buffer.writable`.
    pub fn set_descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = self.descriptors() + 16 * u64::from(index);
        self.write_descriptor(at, buffer, flags, next);
    }

    fn write_descriptor(&self, at: u64, buffer: Buffer, flags: u16, next: u16) {
        self.write(at, &buffer.address.to_le_bytes());
        self.write(at + 8, &buffer.length.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    /// Puts `head` into the available ring, whatever it is, and moves the ring's index on.
    pub fn make_available(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        self.write(self.driver_area() + 4 + 2 * slot, &head.to_le_bytes());
        self.set_available_index(self.next_available.wrapping_add(1));
    }

    /// Sets the available ring's index.
    pub fn set_available_index(&mut self, index: u16) {
        self.next_available = index;
        let at = GuestAddress(self.driver_area() + 2);
        self.memory
            .store(index.to_le(), at, Ordering::Release)
            .unwrap();
    }

    /// The next chain that the device has used: its head, and how many bytes were written.
    pub fn used(&mut self) -> Option<(u32, u32)> {
        let index = GuestAddress(self.device_area() + 2);
        let index: u16 = self.memory.load(index, Ordering::Acquire).unwrap();
        if u16::from_le(index) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let at = self.device_area() + 4 + 8 * slot;
        Some((self.read_u32(at), self.read_u32(at + 4)))
    }

    /// Asks for an interrupt when the used ring's index passes `index` (with EVENT_IDX).
    pub fn set_used_event(&self, index: u16) {
        let at = self.driver_area() + 4 + 2 * u64::from(self.size);
        self.write(at, &index.to_le_bytes());
        fence(Ordering::SeqCst);
    }

    /// The available index at which the device wants a kick (with EVENT_IDX).
    pub fn available_event(&self) -> u16 {
        let at = GuestAddress(self.device_area() + 4 + 8 * u64::from(self.size));
        u16::from_le(self.memory.load(at, Ordering::Acquire).unwrap())
    }

    /// The bytes of the buffer of a chain of one, whose head is `head`.
    pub fn contents(&self, head: u32, length: u32) -> Vec<u8> {
        let mut address = [0; 8];
        let at = self.descriptors() + 16 * u64::from(head);
        self.memory
            .read_slice(&mut address, GuestAddress(at))
            .unwrap();
        let mut data = vec![0; length as usize];
        let address = GuestAddress(u64::from_le_bytes(address));
        self.memory.read_slice(&mut data, address).unwrap();
        data
    }

    fn allocate(&mut self, length: usize) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += length as u64;
        address
    }

    fn write(&self, at: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(at)).unwrap();
    }

    fn read_u32(&self, at: u64) -> u32 {
        u32::from_le(self.memory.read_obj(GuestAddress(at)).unwrap())
    }
}

/// A hypervisor that keeps account of its bindings, and panics if they do not balance or KVM would
/// not have them.
#[derive(Debug, Default)]
pub struct FakeFabric {
    state: Mutex<Bindings>,
    next_gsi: AtomicU32,
    routes: AtomicU32,
    refuse: AtomicBool,
}

#[derive(Debug, Default)]
struct Bindings {
    kicks: BTreeMap<Doorbell, Bound>,
    calls: Vec<(Gsi, Interrupt, Bound)>,
}

/// An eventfd as the hypervisor knows it: a duplicate, and the number that it was bound by.
#[derive(Debug)]
struct Bound {
    fd: RawFd,
    event: EventFd,
}

impl FakeFabric {
    /// Refuses all that is asked from now on, or no more.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// A write of the guest to `address`. Returns whether an eventfd is bound there.
    pub fn guest_writes(&self, address: u64) -> bool {
        self.guest_rings(Doorbell::Mmio(address))
    }

    /// The guest rings a doorbell. Returns whether an eventfd is bound there.
    pub fn guest_rings(&self, doorbell: Doorbell) -> bool {
        let state = self.state();
        let kick = state.kicks.get(&doorbell);
        kick.map(|kick| kick.event.write(1).unwrap()).is_some()
    }

    /// The messages that were raised since the last time.
    pub fn interrupts(&self) -> Vec<MsiMessage> {
        let raised = self.raised().into_iter();
        let messages = raised.filter_map(|interrupt| match interrupt {
            Interrupt::Msi(message) => Some(message),
            Interrupt::Adapter(_) => None,
        });
        messages.collect()
    }

    /// All interrupts that were raised since the last time.
    pub fn raised(&self) -> Vec<Interrupt> {
        let state = self.state();
        let raised = state
            .calls
            .iter()
            .filter(|(_, _, c)| c.event.read().is_ok());
        raised.map(|&(_, interrupt, _)| interrupt).collect()
    }

    /// How many kicks and calls are bound.
    pub fn bound(&self) -> (usize, usize) {
        let state = self.state();
        (state.kicks.len(), state.calls.len())
    }

    /// How many routes are reserved.
    pub fn routes(&self) -> u32 {
        self.routes.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, Bindings> {
        self.state.lock().unwrap()
    }

    fn check(&self) -> io::Result<()> {
        if self.refuse.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused"));
        }
        Ok(())
    }
}

impl Bound {
    fn new(event: &EventFd) -> Self {
        Self {
            fd: event.as_raw_fd(),
            event: event.try_clone().unwrap(),
        }
    }
}

impl Fabric for FakeFabric {
    fn bind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        self.check()?;
        let old = self.state().kicks.insert(doorbell, Bound::new(kick));
        assert!(old.is_none(), "kick at {doorbell:x?} bound twice");
        Ok(())
    }

    fn unbind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        let old = self.state().kicks.remove(&doorbell).map(|old| old.fd);
        assert_eq!(old, Some(kick.as_raw_fd()), "kick at {doorbell:x?}");
        Ok(())
    }

    fn allocate_route(&self) -> io::Result<Gsi> {
        self.check()?;
        self.routes.fetch_add(1, Ordering::Relaxed);
        Ok(Gsi(self.next_gsi.fetch_add(1, Ordering::Relaxed)))
    }

    fn free_route(&self, route: Gsi) {
        let state = self.state();
        assert!(state.calls.iter().all(|&(gsi, ..)| gsi != route));
        self.routes.fetch_sub(1, Ordering::Relaxed);
    }

    fn bind_call(&self, gsi: Gsi, interrupt: Interrupt, call: &EventFd) -> io::Result<()> {
        self.check()?;
        let mut state = self.state();
        // KVM has one message a route, and one binding an eventfd.
        for (other, other_interrupt, bound) in &state.calls {
            assert!(*other != gsi || *other_interrupt == interrupt, "{gsi:?}");
            assert_ne!(bound.fd, call.as_raw_fd(), "bound to {other:?} already");
        }
        state.calls.push((gsi, interrupt, Bound::new(call)));
        Ok(())
    }

    fn unbind_call(&self, gsi: Gsi, call: &EventFd) -> io::Result<()> {
        let mut state = self.state();
        let mut calls = state.calls.iter();
        let position = calls.position(|(g, _, c)| *g == gsi && c.fd == call.as_raw_fd());
        state.calls.remove(position.unwrap());
        Ok(())
    }
}

/// Keeps account of what a device watches.
#[derive(Debug, Default)]
pub struct FakeWatch {
    /// Tokens and events by descriptor.
    pub watched: BTreeMap<RawFd, (Token, EventSet)>,
}

impl Watch for FakeWatch {
    fn watch(&mut self, fd: RawFd, token: Token, events: EventSet) -> io::Result<()> {
        self.watched.insert(fd, (token, events));
        Ok(())
    }

    fn unwatch(&mut self, fd: RawFd) {
        self.watched.remove(&fd);
    }
}
