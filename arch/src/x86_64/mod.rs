//! A PC without firmware: local APICs, an I/O APIC, ACPI tables of the hardware-reduced kind and a
//! PCI root with memory-mapped configuration space.

pub mod boot;
pub mod cmdline;
pub mod cpuid;
pub mod initrd;
pub mod kernel;
pub mod layout;
pub mod msrs;
pub mod regs;

pub use boot::Machine;
