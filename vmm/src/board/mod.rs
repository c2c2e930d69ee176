//! Everything that differs between machines, behind one trait.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use arch::CpuFeatures;
use arch::cmdline::CommandLine;
use devices::Memory;
use devices::dev::console::Streams;
use devices::event_loop::{DeviceHandle, EventLoop};

use crate::ap::Matrix;
use crate::exit::Exit;
use crate::hypervisor::{Kvm, VcpuExit, VcpuFd};

mod images;
mod routes;
#[cfg(target_arch = "s390x")]
mod s390x;
#[cfg(target_arch = "s390x")]
pub use s390x::Mainframe as HostBoard;
#[cfg(target_arch = "s390x")]
pub(crate) use s390x::{exits, kvm};
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::Pc as HostBoard;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{exits, kvm};

/// What the guest boots.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: CommandLine,
}

/// Where virtio devices are plugged in and out; at run time, too. All calls come from one thread.
pub trait Bus: Send + Sync {
    /// Plugs a virtio device in; its transport is the board's. Returns the slot that it has.
    ///
    /// # Errors
    /// When the bus is full.
    fn attach(&self, device: DeviceHandle) -> Result<u8>;

    /// Takes a device out: it is told to stop, and the guest does not find it any more.
    fn detach(&self, slot: u8);
}

/// A machine without its vCPU threads: VM, memory, interrupt controllers, buses.
///
/// Called in this order: `new`, `attach` and those of its kind as often as needed, `serve`, `load`, then
/// `vcpu` once for each index, all on the thread that builds the VM; then `run` on vCPU threads.
pub trait Board: Bus + Sized + 'static {
    /// A machine with room for `cpus` vCPUs, and `memory` bytes of RAM.
    ///
    /// # Errors
    /// When KVM or the host refuses.
    fn new(kvm: &Kvm, cpus: u32, memory: u64, features: &CpuFeatures) -> Result<Self>;

    /// Guest memory.
    fn memory(&self) -> &Arc<Memory>;

    /// Plugs in the machine's simple console, which works from the kernel's first message on.
    ///
    /// # Errors
    /// When KVM refuses its interrupt.
    fn attach_console(&mut self, streams: Streams, event_loop: &mut EventLoop) -> Result<()>;

    /// Gives the guest the crypto adapters of a mediated device.
    ///
    /// # Errors
    /// When the machine has none, or the host refuses.
    fn attach_crypto(&mut self, matrix: &Matrix) -> Result<()> {
        bail!("{matrix:?}: crypto adapters are of s390x: leave them out")
    }

    /// Puts on the event loop what the machine itself has to be served there.
    fn serve(&self, event_loop: &mut EventLoop) {
        let _ = event_loop;
    }

    /// Loads what the guest boots, and describes the machine to it.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    fn load(&mut self, boot: &Boot) -> Result<()>;

    /// Makes a vCPU in its initial state.
    ///
    /// # Errors
    /// When KVM refuses.
    fn vcpu(&self, index: u32) -> Result<VcpuFd>;

    /// Whether a vCPU goes on, which its thread asks before each entry into the guest; not if `stop` is set. Returns
    /// when that is known: on some machines the guest stops and starts vCPUs.
    fn may_run(&self, index: u32, stop: &AtomicBool) -> bool {
        let _ = index;
        !stop.load(Ordering::SeqCst)
    }

    /// Where the guest is on this vCPU, in words; for messages.
    fn where_is(vcpu: &VcpuFd) -> String;

    /// Handles an exit that is the machine's business. Returns how the guest ended, if it did.
    ///
    /// # Errors
    /// When the guest does what the machine does not know.
    fn run(&self, exit: VcpuExit<'_>) -> Result<Option<Exit>>;
}
