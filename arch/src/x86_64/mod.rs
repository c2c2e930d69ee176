//! A PC without firmware: local APICs, an I/O APIC, ACPI tables of the hardware-reduced kind and a
//! PCI root with memory-mapped configuration space.

mod acpi;
pub mod boot;
mod boot_params;
mod console;
pub mod cpuid;
mod descriptors;
pub mod kernel;
pub mod layout;
mod machine;
mod memory_map;
pub mod msrs;
mod parameters;
mod pvh;
pub mod regs;
pub mod syscalls;

pub use cpuid::CpuFeatures;
pub use machine::Machine;
