//! KVM's way to bind a virtqueue's eventfds: ioeventfd at the hypercall of virtio-ccw for kicks, irqfd with adapter routes
//! for calls.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::fabric::{AdapterInterrupt, Doorbell, Fabric, Gsi, Interrupt};
use vmm_sys_util::eventfd::EventFd;

use crate::board::routes::Routes;
use crate::hypervisor::{AdapterRoute, Cap, VmFd, kvm_s390_io_adapter};

/// Binds eventfds in KVM. Shared by all transports of a VM.
pub(super) struct KvmFabric {
    vm: Arc<VmFd>,
    routes: Mutex<Routes<AdapterInterrupt>>,
}

impl KvmFabric {
    /// For a VM that has its floating interrupt controller already.
    pub(super) fn new(vm: Arc<VmFd>) -> Self {
        let end = vm.check_extension_int(Cap::IrqRouting);
        Self {
            vm,
            routes: Mutex::new(Routes::new(0, end)),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes<AdapterInterrupt>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An adapter for each interruption class, of the same number. Indicators of virtio count bits from the left, which KVM
/// calls swapped.
pub(super) fn adapters() -> impl Iterator<Item = kvm_s390_io_adapter> {
    (0..8).map(|class| kvm_s390_io_adapter {
        id: class.into(),
        isc: class,
        maskable: 1,
        swap: 1,
        flags: 0,
    })
}

impl Fabric for KvmFabric {
    fn bind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        let (subchannel, queue) = notification(doorbell)?;
        Ok(self.vm.register_ccw_notify(kick, subchannel, queue)?)
    }

    fn unbind_kick(&self, doorbell: Doorbell, kick: &EventFd) -> io::Result<()> {
        let (subchannel, queue) = notification(doorbell)?;
        Ok(self.vm.unregister_ccw_notify(kick, subchannel, queue)?)
    }

    fn allocate_route(&self) -> io::Result<Gsi> {
        self.routes().allocate()
    }

    fn free_route(&self, gsi: Gsi) {
        self.routes().free(gsi);
    }

    fn bind_call(&self, gsi: Gsi, interrupt: Interrupt, call: &EventFd) -> io::Result<()> {
        let Interrupt::Adapter(interrupt) = interrupt else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let set = |all: &mut dyn Iterator<Item = (Gsi, AdapterInterrupt)>| {
            let table: Vec<_> = all.map(route).collect();
            Ok(self.vm.set_gsi_routing(&table)?)
        };
        let mut routes = self.routes();
        routes.set(gsi, interrupt, set)?;
        Ok(self.vm.register_irqfd(call, gsi.0)?)
    }

    fn unbind_call(&self, gsi: Gsi, call: &EventFd) -> io::Result<()> {
        Ok(self.vm.unregister_irqfd(call, gsi.0)?)
    }
}

/// A mainframe has no devices in its memory.
fn notification(doorbell: Doorbell) -> io::Result<(u32, u16)> {
    match doorbell {
        Doorbell::Subchannel { id, queue } => Ok((id, queue)),
        Doorbell::Mmio(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn route((gsi, interrupt): (Gsi, AdapterInterrupt)) -> AdapterRoute {
    let AdapterInterrupt {
        class,
        summary,
        indicator,
    } = interrupt;
    AdapterRoute {
        gsi: gsi.0,
        ind_addr: indicator.0,
        summary_addr: summary.0,
        ind_offset: indicator.1.into(),
        summary_offset: summary.1.into(),
        adapter_id: class.into(),
    }
}
