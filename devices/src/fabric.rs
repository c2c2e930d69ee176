//! What a transport asks of the hypervisor: to bind eventfds to addresses and interrupts.

use std::io;

use vmm_sys_util::eventfd::EventFd;

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

/// Binds a virtqueue's two eventfds to the outside: `kick` to a guest address, `call` to an
/// interrupt. With KVM these are ioeventfd and irqfd, so that neither passes through a thread of
/// ours, and devices in this process and in the kernel look the same to a transport.
///
/// Called by transports from vCPU threads and from the event loop's thread.
pub trait Fabric: Send + Sync {
    /// From now on a guest write of any width to `address` signals `kick` and does not leave the
    /// hypervisor.
    ///
    /// # Errors
    /// When the hypervisor refuses, for example as the address is bound already.
    fn bind_kick(&self, address: u64, kick: &EventFd) -> io::Result<()>;

    /// Undoes [`Self::bind_kick`] for the same address and eventfd.
    ///
    /// # Errors
    /// When there is no such binding.
    fn unbind_kick(&self, address: u64, kick: &EventFd) -> io::Result<()>;

    /// Reserves an interrupt route for a message-signalled interrupt, for as long as the VM lives.
    ///
    /// # Errors
    /// When the hypervisor has no more of them.
    fn allocate_msi(&self) -> io::Result<Gsi>;

    /// From now on `call` raises the interrupt `message`. A signal that `call` holds already is
    /// delivered at once: this is how an interrupt that became pending while its vector was masked
    /// is not lost. Several eventfds may be bound to one route.
    ///
    /// # Errors
    /// When the hypervisor refuses the route or the binding.
    fn bind_call(&self, gsi: Gsi, message: MsiMessage, call: &EventFd) -> io::Result<()>;

    /// Undoes [`Self::bind_call`]: signals stay in the eventfd from now on.
    ///
    /// # Errors
    /// When there is no such binding.
    fn unbind_call(&self, gsi: Gsi, call: &EventFd) -> io::Result<()>;
}
