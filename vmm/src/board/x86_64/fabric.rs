//! KVM's way to bind a virtqueue's eventfds: ioeventfd for kicks, irqfd with MSI routes for calls.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arch::layout::{IOAPIC_PINS, MSI_GSI_START};
use devices::fabric::{Doorbell, Fabric, Gsi, Interrupt, MsiMessage};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::board::routes::Routes;

/// Binds eventfds in KVM. Shared by all transports of a VM.
pub struct KvmFabric {
    vm: Arc<VmFd>,
    routes: Mutex<Routes<MsiMessage>>,
}

impl KvmFabric {
    /// For a VM that has its in-kernel interrupt controllers already.
    pub fn new(vm: Arc<VmFd>) -> Self {
        let end = vm.check_extension_int(Cap::IrqRouting);
        Self {
            vm,
            routes: Mutex::new(Routes::new(MSI_GSI_START, end)),
        }
    }

    /// Has `call` raise pin `pin` of the I/O APIC, edge-triggered, from now on.
    ///
    /// # Errors
    /// When KVM refuses, for example as the eventfd is bound already.
    pub fn bind_pin(&self, pin: u32, call: &EventFd) -> io::Result<()> {
        Ok(self.vm.register_irqfd(call, pin)?)
    }

    fn routes(&self) -> MutexGuard<'_, Routes<MsiMessage>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fabric for KvmFabric {
    fn bind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        let address = io_event_address(doorbell)?;
        Ok(self.vm.register_ioevent(kick, &address, NoDatamatch)?)
    }

    fn unbind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        let address = io_event_address(doorbell)?;
        Ok(self.vm.unregister_ioevent(kick, &address, NoDatamatch)?)
    }

    fn allocate_route(&self) -> io::Result<Gsi> {
        self.routes().allocate()
    }

    fn free_route(&self, gsi: Gsi) {
        self.routes().free(gsi);
    }

    fn bind_call(&self, gsi: Gsi, interrupt: Interrupt, call: &EventFd) -> io::Result<()> {
        let Interrupt::Msi(message) = interrupt else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let set = |messages: &mut dyn Iterator<Item = (Gsi, MsiMessage)>| {
            Ok(self.vm.set_gsi_routing(&table(messages)?)?)
        };
        let mut routes = self.routes();
        routes.set(gsi, message, set)?;
        Ok(self.vm.register_irqfd(call, gsi.0)?)
    }

    fn unbind_call(&self, gsi: Gsi, call: &EventFd) -> io::Result<()> {
        Ok(self.vm.unregister_irqfd(call, gsi.0)?)
    }
}

/// A PC has no subchannels.
fn io_event_address(doorbell: Doorbell) -> io::Result<IoEventAddress> {
    match doorbell {
        Doorbell::Mmio(address) => Ok(IoEventAddress::Mmio(address)),
        Doorbell::Subchannel { .. } => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// KVM takes the whole table at once: the I/O APIC's pins, and the messages.
fn table(messages: &mut dyn Iterator<Item = (Gsi, MsiMessage)>) -> io::Result<KvmIrqRouting> {
    let pins = (0..IOAPIC_PINS).map(|pin| {
        let mut entry = kvm_irq_routing_entry {
            gsi: pin,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..Default::default()
        };
        entry.u.irqchip = kvm_irq_routing_irqchip {
            irqchip: KVM_IRQCHIP_IOAPIC,
            pin,
        };
        entry
    });
    let messages = messages.map(|(gsi, message)| {
        let mut entry = kvm_irq_routing_entry {
            gsi: gsi.0,
            type_: KVM_IRQ_ROUTING_MSI,
            ..Default::default()
        };
        entry.u.msi = kvm_irq_routing_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        entry
    });
    let entries: Vec<_> = pins.chain(messages).collect();
    KvmIrqRouting::from_entries(&entries).map_err(io::Error::other)
}
