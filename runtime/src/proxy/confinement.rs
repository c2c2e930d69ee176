//! What this process gives up before the guest runs.

use anyhow::{Context, Result};
use nix::unistd::{chdir, chroot};
use runtime::privileges;
use rustix::thread::CapabilitySet;
use vmm::vm::Vm;

/// An empty folder of the vm volume, which nobody can write.
const EMPTY: &str = "/empty";

/// Leaves all files but those that are open, all privileges, and all system calls that running `vm`
/// does not take. On the main thread, when the machine is built and before it runs: the vCPU threads
/// will be as confined as this one. The threads of the share, which are there already, have confined
/// themselves to it.
pub(crate) fn enter(vm: &Vm) -> Result<()> {
    chroot(EMPTY).context("change the root to /empty (it is part of the vm volume)")?;
    chdir("/").context("change the working directory")?;
    privileges::keep(CapabilitySet::empty()).context("give up all capabilities")?;
    vm.restrict_thread()
}
