//! Interrupt controllers (ACPI 6.5, 5.2.12): a local APIC for each vCPU and the I/O APIC. The flag
//! PCAT_COMPAT is not set, so that the guest leaves the two 8259 alone that KVM has.

use acpi_tables::sdt::Sdt;

use super::layout;

const REVISION: u8 = 6;
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;
const ENABLED: u32 = 1;
/// From this ID on a local APIC needs the longer structure (255 means all).
const FIRST_X2APIC_ID: u32 = 255;

pub(super) fn table(cpus: u32) -> Sdt {
    let mut body = Vec::new();
    body.extend((layout::LAPIC as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes()); // flags
    for id in 0..cpus {
        local_apic(&mut body, id);
    }
    let id = 0;
    body.extend([IO_APIC, 12, id, 0]);
    body.extend((layout::IOAPIC as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes()); // its first interrupt
    super::table(*b"APIC", REVISION, &body)
}

/// The local APIC of the vCPU with this number, which is the ACPI processor ID too.
fn local_apic(body: &mut Vec<u8>, id: u32) {
    match u8::try_from(id) {
        Ok(short) if id < FIRST_X2APIC_ID => {
            body.extend([LOCAL_APIC, 8, short, short]);
            body.extend(ENABLED.to_le_bytes());
        }
        _ => {
            body.extend([LOCAL_X2APIC, 16, 0, 0]);
            for word in [id, ENABLED, id] {
                body.extend(word.to_le_bytes());
            }
        }
    }
}
