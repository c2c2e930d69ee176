//! An s390x machine without firmware: memory in one piece from 0 on, a service call (SCLP) that tells of it and has a
//! console, and a channel subsystem. References are to the z/Architecture Principles of Operation (SA22-7832).

pub mod boot;
#[cfg(target_arch = "s390x")]
mod console;
mod features;
pub mod instruction;
pub mod kernel;
pub mod layout;
mod machine;
pub mod regs;
pub mod sclp;
pub mod syscalls;

pub use features::CpuFeatures;
pub use machine::Machine;
