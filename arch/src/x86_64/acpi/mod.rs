//! ACPI tables of a hardware-reduced machine (ACPI 6.5, 4.1): no PM timer, no SCI, no fixed power
//! button; power-off and reset are two registers.

mod dsdt;
mod fadt;
mod madt;

use acpi_tables::Aml;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use super::layout;
use crate::Machine;

const OEM_ID: [u8; 6] = *b"RUNQ  ";
const OEM_TABLE_ID: [u8; 8] = *b"RUNQVMM ";
const OEM_REVISION: u32 = 1;
/// Length of the header that all tables begin with.
const HEADER_SIZE: u32 = 36;

/// All tables as they are from [`layout::ACPI_START`] on, the RSDP first.
pub(super) fn tables(machine: &Machine) -> Vec<u8> {
    // Kept free for the RSDP, which needs to know where the others are.
    let mut area = vec![0; Rsdp::len()];
    let dsdt = append(&mut area, &dsdt::table(machine));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(append(&mut area, &fadt::table(dsdt)));
    xsdt.add_entry(append(&mut area, &madt::table(machine.cpus)));
    if machine.pci {
        let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        mcfg.add_ecam(layout::ECAM_START, 0, 0, 0);
        xsdt.add_entry(append(&mut area, &mcfg));
    }
    let rsdp = bytes(&Rsdp::new(OEM_ID, append(&mut area, &xsdt)));
    for (place, byte) in area.iter_mut().zip(rsdp) {
        *place = byte;
    }
    area
}

/// Appends a table at the next multiple of 16, and returns its guest address.
fn append(area: &mut Vec<u8>, table: &dyn Aml) -> u64 {
    area.resize(area.len().next_multiple_of(16), 0);
    let address = layout::ACPI_START.0 + area.len() as u64;
    area.extend(bytes(table));
    address
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// A table with `body` behind the header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut table = Sdt::new(
        signature,
        HEADER_SIZE,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(body);
    table
}

#[cfg(test)]
mod tests;
