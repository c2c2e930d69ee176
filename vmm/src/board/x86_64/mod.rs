//! A PC without a past: local and I/O APICs in KVM, no PIT, hardware-reduced ACPI, PCI with its
//! configuration space in memory alone: by ports, each access would be two exits.

mod ecam;
pub(crate) mod exits;
mod fabric;
pub(crate) mod kvm;
mod processors;

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use arch::kernel::Entry;
use arch::{CpuFeatures, Machine, layout};
use devices::Memory;
use devices::dev::console::Streams;
use devices::event_loop::{DeviceHandle, EventLoop};
use devices::fabric::Fabric;
use devices::legacy::{
    Cmos, I8042, LineSubscriber, MachineEvent, Panic, PortBus, PortDevice, Power, Serial,
};
use devices::pci::PciRoot;
use devices::transport::pci::VirtioPci;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::GuestMemory;

use super::{Board, Boot, Bus};
use crate::exit::Exit;
use crate::memory;
use fabric::KvmFabric;
use processors::Processors;

// The machine as it is described to the guest, and as it is.
const _: () = {
    assert!(layout::SLEEP_STATUS_PORT == layout::SLEEP_CONTROL_PORT + Power::SLEEP_STATUS);
    assert!(layout::RESET_PORT == layout::SLEEP_CONTROL_PORT + Power::RESET);
    assert!(layout::RESET_VALUE == Power::RESET_VALUE);
    assert!(layout::SLEEP_TYPE_S5 == Power::S5);
    // A bus has 32 slots.
    assert!(32 * VirtioPci::BAR_SIZE <= layout::PCI_WINDOW_SIZE);
};

/// The x86_64 machine.
pub struct Pc {
    vm: Arc<VmFd>,
    memory: Arc<Memory>,
    fabric: Arc<KvmFabric>,
    pci: PciRoot,
    ports: PortBus,
    machine: Machine,
    processors: Processors,
    entry: Option<Entry>,
}

impl Board for Pc {
    fn new(kvm: &Kvm, cpus: u32, memory: u64, features: &CpuFeatures) -> Result<Self> {
        let vm = Arc::new(kvm.create_vm().context("KVM_CREATE_VM")?);
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .context("KVM's identity map")?;
        vm.set_tss_address(layout::KVM_TSS as usize)
            .context("KVM's TSS")?;
        vm.create_irq_chip()
            .context("KVM's interrupt controllers")?;
        let mib = memory >> 20;
        let memory = memory::allocate(&layout::ram_ranges(memory))
            .with_context(|| format!("{mib} MiB of guest memory"))?;
        memory::register(&vm, &memory).context("guest memory in KVM")?;
        Ok(Self {
            fabric: Arc::new(KvmFabric::new(Arc::clone(&vm))),
            vm,
            memory: Arc::new(memory),
            pci: PciRoot::new(),
            ports: legacy_ports(),
            machine: Machine {
                cpus,
                pci: false,
                serial: false,
                pvpanic: true,
            },
            processors: Processors::new(kvm, cpus, features)?,
            entry: None,
        })
    }

    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn attach_console(&mut self, streams: Streams, event_loop: &mut EventLoop) -> Result<()> {
        let serial = Serial::new().context("16550")?;
        self.fabric
            .bind_pin(layout::SERIAL_GSI, serial.interrupt())
            .context("interrupt of the 16550")?;
        let serial = Arc::new(Mutex::new(serial));
        self.ports
            .add(layout::SERIAL_PORT, Serial::PORTS, serial.clone());
        let Streams { input, output } = streams;
        event_loop.add_subscriber(LineSubscriber::new(serial, input, output));
        self.machine.serial = true;
        Ok(())
    }

    fn load(&mut self, boot: &Boot) -> Result<()> {
        self.machine.pci = self.pci.has_functions();
        if self.machine.pci {
            // The slots before it are RAM.
            let slot = u32::try_from(self.memory.num_regions())?;
            ecam::show(&self.pci, &self.vm, slot)?;
        }
        self.entry = Some(super::images::load(&self.memory, boot, &self.machine)?);
        Ok(())
    }

    fn vcpu(&self, index: u32) -> Result<VcpuFd> {
        let vcpu = self
            .vm
            .create_vcpu(index.into())
            .context("KVM_CREATE_VCPU")?;
        self.processors.set_up(&vcpu, index)?;
        if index == 0 {
            let entry = self.entry.context("no kernel is loaded")?;
            processors::enter(&vcpu, entry)?;
        }
        Ok(vcpu)
    }

    fn where_is(vcpu: &VcpuFd) -> String {
        match vcpu.get_regs() {
            Ok(regs) => format!("guest instruction {:#x}", regs.rip),
            Err(error) => format!("an unknown guest instruction (KVM_GET_REGS: {error})"),
        }
    }

    fn run(&self, exit: VcpuExit<'_>) -> Result<Option<Exit>> {
        match exit {
            VcpuExit::IoIn(port, data) => self.ports.read(port, data),
            VcpuExit::IoOut(port, data) => {
                return Ok(self.ports.write(port, data).map(exit_of));
            }
            VcpuExit::MmioRead(address, data) => match ecam_offset(address) {
                Some(offset) => self.pci.ecam_read(offset, data),
                None => self.pci.mmio_read(address, data),
            },
            VcpuExit::MmioWrite(address, data) => match ecam_offset(address) {
                Some(offset) => self.pci.ecam_write(offset, data),
                None => self.pci.mmio_write(address, data),
            },
            other => bail!("the guest's processor stopped for {other:?}, which no PC does"),
        }
        Ok(None)
    }
}

impl Bus for Pc {
    fn attach(&self, device: DeviceHandle) -> Result<u8> {
        let fabric: Arc<dyn Fabric> = self.fabric.clone();
        let slot = self.pci.free_slot()?;
        // The window is below 4 GiB.
        let bar = (layout::PCI_WINDOW_START + u64::from(slot) * VirtioPci::BAR_SIZE) as u32;
        let function = VirtioPci::new(device, Arc::clone(&self.memory), fabric, bar)?;
        Ok(self.pci.add(Box::new(function))?)
    }

    fn detach(&self, slot: u8) {
        self.pci.remove(slot);
    }
}

impl Pc {
    /// Where eventfds are bound to addresses and interrupts.
    pub fn fabric(&self) -> &Arc<KvmFabric> {
        &self.fabric
    }
}

/// What every PC has; a serial line comes with [`Board::attach_console`].
fn legacy_ports() -> PortBus {
    fn device(device: impl PortDevice + 'static) -> Arc<Mutex<dyn PortDevice>> {
        Arc::new(Mutex::new(device))
    }
    let mut ports = PortBus::new();
    ports.add(layout::SLEEP_CONTROL_PORT, Power::PORTS, device(Power));
    ports.add(layout::PVPANIC_PORT, 1, device(Panic));
    ports.add(Cmos::PORTS.0, Cmos::PORTS.1, device(Cmos::new()));
    ports.add(I8042::PORTS.0, I8042::PORTS.1, device(I8042));
    ports
}

fn ecam_offset(address: u64) -> Option<u64> {
    let offset = address.checked_sub(layout::ECAM_START)?;
    (offset < layout::ECAM_SIZE).then_some(offset)
}

fn exit_of(event: MachineEvent) -> Exit {
    match event {
        MachineEvent::PowerOff => Exit::PowerOff,
        MachineEvent::Reset => Exit::Reset,
        MachineEvent::GuestPanic => Exit::Panic,
    }
}
