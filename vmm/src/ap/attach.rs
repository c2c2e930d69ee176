//! A mediated device for a VM, by its VFIO group (Linux' Documentation/driver-api/vfio.rst): every kernel with vfio_ap has
//! that, but the way by character devices and iommufd only since 6.6.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, anyhow};
use devices::Memory;
use vm_memory::{Address, GuestMemory, GuestMemoryRegion};

use super::Matrix;
use super::kernel::{Host, Kernel, MACHINE, PROCESSOR, Request};

/// What a guest asks which adapters there are by (PQAP(QCI)), what they can do (PQAP(TAPQ) with the T bit), and to be
/// interrupted by them (PQAP(AQIC)): facilities of the z/Architecture.
const FACILITIES: [usize; 3] = [12, 15, 65];
/// Where the lists of facilities begin in the structures about processors: what there is, or for what can be, what KVM knows.
const LIST: usize = 16;
const MACHINES_LIST: usize = LIST + 2048;

/// KVM_DEV_TYPE_VFIO.
const KVM_DEVICE: u32 = 4;
/// VFIO_DMA_MAP_FLAG_READ and VFIO_DMA_MAP_FLAG_WRITE.
const READ_WRITE: u32 = 1 | 2;

/// What to do about what should not be.
const SEE: &str = "see the log of the host's kernel";
const LOAD: &str = "load the modules vfio and vfio_iommu_type1 on the host";
const NEEDED: &str = "the host itself needs crypto adapters, and a kernel with the driver vfio_ap";
const GROUP: &str = "another machine may have the device: end that one, or name another device";
const GONE: &str = "see whether it is still in /sys/bus/mdev/devices";
const STATE: &str = "see the state of the adapters by `lszcrypt -V` on the host";

/// A device that a VM has. As soon as the first of these is closed, vfio_ap takes the queues from the guest and resets them
/// (vfio_ap_mdev_unset_kvm), so that the next one finds nothing of this one there.
#[derive(Debug)]
pub struct Attached(#[expect(dead_code, reason = "they are closed with it")] [File; 4]);

/// Gives a VM, which has no vCPUs yet, the queues of a device.
///
/// # Errors
/// One line that names the device, what was attempted, and what to do.
pub fn attach(vm: &File, memory: &Memory, matrix: &Matrix) -> Result<Attached> {
    attach_by(&Host, vm, memory, matrix)
        .with_context(|| format!("crypto adapters of the mediated device {}", matrix.uuid))
}

/// The order is the kernel's: a group without a container, and that without an IOMMU, has no devices, and vfio_ap opens none
/// that KVM has not heard of.
fn attach_by(
    kernel: &impl Kernel,
    vm: &File,
    memory: &Memory,
    matrix: &Matrix,
) -> Result<Attached> {
    add_facilities(kernel, vm).map_err(failed("AP facilities for the guest", SEE))?;
    let enabled = kernel.ask(vm, Request::EnableApie, &mut []);
    enabled.map_err(failed("AP instructions for the guest", NEEDED))?;
    let [own, node] = matrix.nodes();
    let container = kernel.open(&own).map_err(failed(own, LOAD))?;
    let group = kernel.open(&node).map_err(failed(&node, GROUP))?;
    let mut fd = container.as_raw_fd().to_ne_bytes();
    let set = kernel.ask(&group, Request::SetContainer, &mut fd);
    set.map_err(failed(format_args!("container for {node}"), SEE))?;
    let set = kernel.ask(&container, Request::SetIommu, &mut []);
    set.map_err(failed("VFIO's IOMMU of type 1", LOAD))?;
    map(kernel, &container, memory).map_err(failed("guest memory for VFIO", SEE))?;
    let mut device = [KVM_DEVICE, 0, 0].map(u32::to_ne_bytes).concat();
    let assignment = kernel.make(vm, Request::CreateDevice, &mut device);
    let assignment = assignment.map_err(failed("KVM's device for VFIO", LOAD))?;
    let mut fd = group.as_raw_fd().to_ne_bytes();
    let added = kernel.ask(&assignment, Request::AddGroup, &mut fd);
    added.map_err(failed(format_args!("{node} for KVM"), SEE))?;
    let mut name = [matrix.uuid.as_bytes(), &[0]].concat();
    let device = kernel.make(&group, Request::GetDeviceFd, &mut name);
    let device = device.map_err(failed("open the device", GONE))?;
    let reset = kernel.ask(&device, Request::Reset, &mut []);
    reset.map_err(failed("reset of its queues", STATE))?;
    Ok(Attached([device, assignment, group, container]))
}

/// The error of a step, with what to do about it.
fn failed(what: impl Display, hint: &str) -> impl FnOnce(io::Error) -> anyhow::Error {
    move |error| anyhow!("{what}: {error}: {hint}")
}

/// Those that the host has and KVM knows; guests have them only if that is asked for (`FACILITIES_KVM_CPUMODEL` of Linux'
/// arch/s390/tools/gen_facilities.c, and kvm_arch_init_vm).
fn add_facilities(kernel: &impl Kernel, vm: &File) -> io::Result<()> {
    let mut machine = [0; MACHINE];
    kernel.ask(vm, Request::GetMachine, &mut machine)?;
    let mut processor = [0; PROCESSOR];
    kernel.ask(vm, Request::GetProcessor, &mut processor)?;
    for facility in FACILITIES {
        let (byte, bit) = (facility / 8, 0x80 >> (facility % 8));
        processor[LIST + byte] |= machine[LIST + byte] & machine[MACHINES_LIST + byte] & bit;
    }
    kernel.ask(vm, Request::SetProcessor, &mut processor)
}

/// Says where guest memory is. That pins nothing: vfio_ap's groups have no IOMMU of their own, for which all would be
/// (vfio_dma_do_map in Linux' drivers/vfio/vfio_iommu_type1.c). vfio_ap pins the page that a guest names for interrupts by
/// PQAP(AQIC), for Linux one for all queues; such pages count for RLIMIT_MEMLOCK, and beyond that a guest gets none.
fn map(kernel: &impl Kernel, container: &File, memory: &Memory) -> io::Result<()> {
    for region in memory.iter() {
        let places = [
            region.as_ptr() as u64,
            region.start_addr().raw_value(),
            region.len(),
        ];
        // Its length is the first field.
        let flags = [32, READ_WRITE].map(u32::to_ne_bytes).concat();
        let mut map = [flags, places.map(u64::to_ne_bytes).concat()].concat();
        kernel.ask(container, Request::MapDma, &mut map)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "attach_test.rs"]
mod tests;
