//! How a virtual machine is built and run.
//!
//! ```text
//! Config ──▶ Vm::new ──▶ Board (memory, buses) + EventLoop (devices) + vCPUs ──▶ Vm::run ──▶ Exit
//! ```
//!
//! One thread serves the event loop, each vCPU has a thread, and each virtio-fs share has its own.
//! [`control`] and [`session`] talk to the guest's init on the event loop's thread.

pub mod board;
pub mod control;
pub mod exit;
pub mod kick;
pub mod kvm;
pub mod kvm_stats;
pub mod memory;
pub mod session;
pub mod signals;
pub mod stats;
pub mod stdio;
pub mod terminal;
pub mod vcpu;
pub mod vm;

pub use arch::{CpuFeatures, layout::MIN_RAM, syscalls};
pub use devices::dev::fs::CAPABILITIES as SHARE_CAPABILITIES;
