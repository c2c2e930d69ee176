//! Devices that the guest cannot find by itself (ACPI 6.5, 6), and power-off. Names only, no
//! methods: there is nothing to interpret.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

use super::layout;
use crate::Machine;

/// Integers have 64 bits from revision 2 on.
const REVISION: u8 = 2;
/// Interrupt trigger and polarity of an ISA device.
const EDGE: bool = true;
const ACTIVE_HIGH: bool = false;
const EXCLUSIVE: bool = false;

pub(super) fn table(machine: &Machine) -> Sdt {
    let mut devices: Vec<&dyn Aml> = Vec::new();
    if machine.pci {
        devices.extend([&PciRoot as &dyn Aml, &MotherboardResources]);
    }
    if machine.serial {
        devices.push(&Serial);
    }
    if machine.pvpanic {
        devices.push(&Pvpanic);
    }
    let mut body = Vec::new();
    if !devices.is_empty() {
        Scope::new("_SB_".into(), devices).to_aml_bytes(&mut body);
    }
    // SLP_TYP of S5 for the sleep control register; the second value is for a register that
    // this machine does not have (ACPI 6.5, 7.4.2).
    let sleep_type = Package::new(vec![&layout::SLEEP_TYPE_S5, &0u8]);
    Name::new("_S5_".into(), &sleep_type).to_aml_bytes(&mut body);
    super::table(*b"DSDT", REVISION, &body)
}

/// The PCI root: bus 0, a window for memory BARs. There are no I/O BARs, and all interrupts are
/// message-signalled, so it has no `_PRT`. Nor has it `_OSC`: the guest has nothing to negotiate.
struct PciRoot;

impl Aml for PciRoot {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let buses = AddressSpace::new_bus_number(0u16, 0u16);
        let window = AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            layout::PCI_WINDOW_START as u32,
            (layout::PCI_WINDOW_START + layout::PCI_WINDOW_SIZE - 1) as u32,
            None,
        );
        let express = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
        let conventional = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
        let resources = resources(vec![&buses, &window]);
        Device::new("PCI0".into(), vec![&express, &conventional, &resources]).to_aml_bytes(sink);
    }
}

/// Reserves ECAM, which PCI Firmware Specification 3.3 asks for in 4.1.2: without, Linux up to 6.4
/// does not use it.
struct MotherboardResources;

impl Aml for MotherboardResources {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let (start, size) = (layout::ECAM_START as u32, layout::ECAM_SIZE as u32);
        let ecam = Memory32Fixed::new(true, start, size);
        device("MBRD".into(), &EISAName::new("PNP0C02"), vec![&ecam], sink);
    }
}

/// The first serial port, a 16550.
struct Serial;

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let ports = IO::new(layout::SERIAL_PORT, layout::SERIAL_PORT, 1, 8);
        let interrupt = Interrupt::new(true, EDGE, ACTIVE_HIGH, EXCLUSIVE, layout::SERIAL_GSI);
        let hid = EISAName::new("PNP0501");
        device("COM1".into(), &hid, vec![&ports, &interrupt], sink);
    }
}

/// The device that a guest tells of its panic (QEMU `docs/specs/pvpanic.rst`).
struct Pvpanic;

impl Aml for Pvpanic {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let port = IO::new(layout::PVPANIC_PORT, layout::PVPANIC_PORT, 1, 1);
        device("PEVT".into(), &"QEMU0001", vec![&port], sink);
    }
}

/// A device with a hardware ID and resources.
fn device(name: Path, hid: &dyn Aml, settings: Vec<&dyn Aml>, sink: &mut dyn AmlSink) {
    let hid = Name::new("_HID".into(), hid);
    Device::new(name, vec![&hid, &resources(settings)]).to_aml_bytes(sink);
}

fn resources(settings: Vec<&dyn Aml>) -> Name {
    Name::new("_CRS".into(), &ResourceTemplate::new(settings))
}
