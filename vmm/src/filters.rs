//! Which system calls the threads of a VM may make: each part is beside what needs it, and joined
//! here.

use anyhow::{Context, Result};
use devices::device::DeviceKind;
use devices::event_loop;
use devices::seccomp::{ANY_THREAD, Allowed};
use libc::c_long;

use crate::board::kvm::VCPU_CALLS;
use crate::command::{self, terminal};
use crate::kvm_stats;

/// A vCPU thread runs the guest, decodes registers, makes and binds the eventfds of queues and
/// interrupts, and wakes others.
const VCPU: [c_long; 1] = [libc::SYS_eventfd2];

/// To start the vCPU threads, which restrict themselves further.
const START_OF_THREADS: [c_long; 6] = [
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
];

/// For a thread that runs a vCPU.
pub(crate) fn restrict_vcpu_thread() -> Result<()> {
    Allowed::calls(ANY_THREAD.into_iter().chain(VCPU).chain(VCPU_CALLS))
        .with_kvm(&[terminal::RESTORE])
        .restrict_thread()
        .context("system call filter of a vCPU thread")
}

/// What devices ask of the kernel on the thread that serves them.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceCalls {
    /// System calls.
    pub(crate) calls: Vec<c_long>,
    /// Requests to ioctl(2).
    pub(crate) requests: Vec<u64>,
}

impl DeviceCalls {
    /// Those of one more device.
    pub(crate) fn add(&mut self, kind: &DeviceKind) {
        self.calls.extend(kind.system_calls);
        self.requests.extend(kind.requests.concat());
    }
}

/// For a thread that serves a busy device and nothing else.
pub(crate) fn restrict_device_thread(device: &DeviceCalls) -> Result<()> {
    let calls = [&ANY_THREAD[..], &event_loop::SYSTEM_CALLS, &device.calls];
    Allowed::calls(calls.concat())
        .with_requests(&device.requests)
        .restrict_thread()
        .context("system call filter of a device's thread")
}

/// For the thread that runs the VM, which asks what these devices do, too: those with threads of
/// their own inherit the filter.
pub(crate) fn restrict_main_thread(devices: &DeviceCalls) -> Result<()> {
    let calls = [
        &ANY_THREAD[..],
        &event_loop::SYSTEM_CALLS,
        &command::SYSTEM_CALLS,
        &START_OF_THREADS,
        // The vCPU threads inherit the filter.
        &VCPU,
        &VCPU_CALLS,
        &kvm_stats::SYSTEM_CALLS,
        &devices.calls,
    ];
    let requests = [&terminal::REQUESTS[..], &devices.requests];
    Allowed::calls(calls.concat())
        .with_kvm(&requests.concat())
        .restrict_thread()
        .context("system call filter")
}
