//! PCI configuration space in memory: the guest reads it without an exit, and only writes exit.

use std::sync::Arc;

use anyhow::{Context, Result};
use arch::layout;
use devices::Memory;
use devices::pci::{ConfigMemory, PciRoot};
use kvm_ioctls::VmFd;
use tracing::warn;
use vm_memory::{Bytes, GuestAddress};

use crate::memory;

/// The part of the ECAM window with what is plugged in when the guest starts.
struct ReadOnly {
    vm: Arc<VmFd>,
    slot: u32,
    memory: Memory,
}

/// Shows the functions of today in memory, in this slot of KVM's.
pub(super) fn show(pci: &PciRoot, vm: &Arc<VmFd>, slot: u32) -> Result<()> {
    let range = (GuestAddress(layout::ECAM_START), pci.used_size());
    let memory = memory::allocate(&[range]).context("memory for PCI configuration")?;
    memory::register_read_only(vm, slot, &memory).context("PCI configuration in KVM")?;
    pci.show_in(Box::new(ReadOnly {
        vm: Arc::clone(vm),
        slot,
        memory,
    }));
    Ok(())
}

impl ConfigMemory for ReadOnly {
    fn show(&self, offset: u64, bytes: &[u8]) {
        // It fails for a function past the end, of which the guest asks by exits.
        let _ = self
            .memory
            .write_slice(bytes, GuestAddress(layout::ECAM_START + offset));
    }

    fn give_up(&self) {
        if let Err(error) = memory::unregister(&self.vm, self.slot) {
            warn!("the guest reads PCI configuration that may not be current: {error}");
        }
    }
}
