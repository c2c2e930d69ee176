//! The first process of a container: runs its virtual machine.
//!
//! `runc` starts it in the container's namespaces and cgroup, with the few files of the vm volume as
//! its root and the container's own files below /run/share. Its standard streams and signals are the
//! container's; its exit code is that of the container's process in the guest.

mod confinement;
mod dns;
mod machine;
mod network;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use runtime::vmspec::{self, VmSpec};
use vmm::log;
use vmm::program::CONTAINER;
use vmm::stats::milestone;
use vmm::verdict::Verdict;
use vmm::vm::Vm;

fn main() -> ExitCode {
    CONTAINER.main(run)
}

fn run() -> Result<Verdict> {
    // To stderr, which is the container's: nothing but errors, unless RUNQ_LOG asks for more.
    log::start(log::Level::ERROR);
    let mut spec = VmSpec::load(Path::new(vmspec::PATH))?;
    // What runc took, which this process was before.
    milestone("monitor started");
    let (relay, port) = dns::prepare(&mut spec)?.unzip();
    let network = network::take(spec.cpus)?;
    let plugs = watch::start(&network, spec.cpus).context("watch the network")?;
    let vsock = machine::vsock(&mut spec);
    let vm = Vm::new(machine::config(spec, network, vsock, port, plugs)?)?;
    relay
        .map_or(Ok(()), dns::Relay::start)
        .context("DNS relay")?;
    confinement::enter(&vm)?;
    Ok(Verdict::of(&vm.run()?))
}
