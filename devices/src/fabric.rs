//! What a transport asks of the hypervisor: to bind eventfds to doorbells and interrupts.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// Where a driver notifies a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doorbell {
    /// A write of any width to this guest address.
    Mmio(u64),
    /// The channel-I/O hypercall of virtio-ccw (virtio 1.3, section 4.3.3.2).
    Subchannel {
        /// The word that names the subchannel.
        id: u32,
        /// The queue's index.
        queue: u16,
    },
}

/// What a driver hears of a device by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Message-signalled.
    Msi(MsiMessage),
    /// Adapter interrupt with two-stage indicators (virtio 1.3, section 4.3.2.6).
    Adapter(AdapterInterrupt),
}

/// The number of an interrupt route of the hypervisor (KVM: GSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gsi(pub u32);

/// Where a message-signalled interrupt goes (PCI 3.0, section 6.8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// The address that the interrupt is written to.
    pub address: u64,
    /// The data that is written there.
    pub data: u32,
}

/// Which bits announce an adapter interrupt: guest address of a byte, and the bit in it, from the left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterInterrupt {
    /// The interruption class, 0 to 7; the hypervisor has an adapter for each.
    pub class: u8,
    /// The summary bit.
    pub summary: (u64, u8),
    /// The queue's own.
    pub indicator: (u64, u8),
}

/// Binds a virtqueue's two eventfds to the outside: `kick` to a doorbell, `call` to an interrupt.
/// With KVM these are ioeventfd and irqfd, so that neither passes through a thread of ours, and
/// devices in this process and in the kernel look the same to a transport.
///
/// Called by transports from vCPU threads. A hypervisor without a kind of doorbell or interrupt
/// refuses it as unsupported.
pub trait Fabric: Send + Sync {
    /// From now on a notification at `doorbell` signals `kick` and does not leave the hypervisor.
    ///
    /// # Errors
    /// When the hypervisor refuses, for example as the doorbell is bound already.
    fn bind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()>;

    /// Undoes [`Self::bind_kick`] for the same doorbell and eventfd.
    ///
    /// # Errors
    /// When there is no such binding.
    fn unbind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()>;

    /// Reserves an interrupt route, until [`Self::free_route`].
    ///
    /// # Errors
    /// When the hypervisor has no more of them.
    fn allocate_route(&self) -> io::Result<Gsi>;

    /// Gives a route back, to which nothing is bound.
    fn free_route(&self, route: Gsi);

    /// From now on `call` raises `interrupt`. A signal that `call` holds already is delivered at
    /// once: this is how an interrupt that became pending while it was masked is not lost. Several
    /// eventfds may be bound to one route.
    ///
    /// # Errors
    /// When the hypervisor refuses the route or the binding.
    fn bind_call(&self, route: Gsi, interrupt: Interrupt, call: &EventFd) -> io::Result<()>;

    /// Undoes [`Self::bind_call`]: signals stay in the eventfd from now on.
    ///
    /// # Errors
    /// When there is no such binding.
    fn unbind_call(&self, route: Gsi, call: &EventFd) -> io::Result<()>;
}
