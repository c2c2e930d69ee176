//! KVM's way to bind a virtqueue's eventfds: ioeventfd for kicks, irqfd with MSI routes for calls.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arch::layout::{IOAPIC_PINS, MSI_GSI_START};
use devices::fabric::{Doorbell, Fabric, Gsi, Interrupt, MsiMessage};
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// Binds eventfds in KVM. Shared by all transports of a VM.
pub struct KvmFabric {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
}

struct Routes {
    messages: BTreeMap<Gsi, MsiMessage>,
    next: u32,
    free: Vec<Gsi>,
    end: u32,
}

impl KvmFabric {
    /// For a VM that has its in-kernel interrupt controllers already.
    pub fn new(vm: Arc<VmFd>) -> Self {
        let end = vm
            .check_extension_int(Cap::IrqRouting)
            .try_into()
            .unwrap_or(0);
        let routes = Routes {
            messages: BTreeMap::new(),
            next: MSI_GSI_START,
            free: Vec::new(),
            end,
        };
        Self {
            vm,
            routes: Mutex::new(routes),
        }
    }

    /// Has `call` raise pin `pin` of the I/O APIC, edge-triggered, from now on.
    ///
    /// # Errors
    /// When KVM refuses, for example as the eventfd is bound already.
    pub fn bind_pin(&self, pin: u32, call: &EventFd) -> io::Result<()> {
        Ok(self.vm.register_irqfd(call, pin)?)
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
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gsi) = routes.free.pop() {
            return Ok(gsi);
        }
        if routes.next >= routes.end {
            return Err(io::Error::other("KVM has no interrupt routes left"));
        }
        let gsi = Gsi(routes.next);
        routes.next += 1;
        Ok(gsi)
    }

    fn free_route(&self, gsi: Gsi) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // Its message stays in KVM's table until the next one replaces it.
        routes.free.push(gsi);
    }

    fn bind_call(&self, gsi: Gsi, interrupt: Interrupt, call: &EventFd) -> io::Result<()> {
        let Interrupt::Msi(message) = interrupt else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        // Setting the table waits for all vCPUs to leave the old one: only when it has changed.
        if routes.messages.get(&gsi) != Some(&message) {
            self.vm.set_gsi_routing(&routes.table_with(gsi, message)?)?;
            routes.messages.insert(gsi, message);
        }
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

impl Routes {
    /// KVM takes the whole table at once: the I/O APIC's pins, and the messages, of which `message`
    /// is the one for `gsi`.
    fn table_with(&self, gsi: Gsi, message: MsiMessage) -> io::Result<KvmIrqRouting> {
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
        let others = self.messages.iter().filter(|(other, _)| **other != gsi);
        let messages = others.chain([(&gsi, &message)]).map(|(gsi, message)| {
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
}
