//! How a virtual machine is built and run.
//!
//! ```text
//! Config ──▶ Vm::new ──▶ Board (memory, buses) + EventLoop (devices) + vCPUs ──▶ Vm::run ──▶ Ended ──▶ Verdict
//! ```
//!
//! One thread serves the event loop, each vCPU has a thread, and so has each share, each disk,
//! and each network interface or socket device that the kernel does not serve, or that may be unplugged.
//! [`command`] talks to the guest's init on the event loop's thread. A program that runs guests is a
//! [`program::Program`] and a [`config::Config`]; all else is here, for all of them.

pub mod ap;
pub mod board;
pub mod command;
pub mod config;
mod descriptors;
mod device_loop;
pub mod disk;
pub mod exit;
mod filters;
mod heap;
pub mod hypervisor;
pub mod immediate_exit;
pub mod kvm;
pub mod kvm_stats;
pub mod log;
pub mod memory;
pub mod network;
mod plug;
pub mod program;
pub mod share;
pub mod stats;
pub mod vcpu;
pub mod verdict;
pub mod vm;
pub mod vsock;

pub use arch::{CpuFeatures, cmdline::Console, layout::MIN_RAM, syscalls};
pub use devices::dev::DeviceSpec;
pub use devices::seccomp;
