//! What the command may use: resource limits, and its place in the order of the out-of-memory killer.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{self, setrlimit};
use proto::{Resource, Rlimit};

/// Sets how soon the kernel ends this process for want of memory.
pub(crate) fn set_oom_score_adj(value: i32) -> Result<()> {
    let path = "/proc/self/oom_score_adj";
    fs::write(path, value.to_string()).with_context(|| format!("write {value} to {path}"))
}

/// Sets the resource limits of this process.
pub(crate) fn set(limits: &[Rlimit]) -> Result<()> {
    limits.iter().try_for_each(|limit| {
        setrlimit(kernel_resource(limit.resource), limit.soft, limit.hard)
            .with_context(|| format!("set the resource limit {limit:?}"))
    })
}

fn kernel_resource(resource: Resource) -> resource::Resource {
    use resource::Resource as Kernel;
    match resource {
        Resource::As => Kernel::RLIMIT_AS,
        Resource::Core => Kernel::RLIMIT_CORE,
        Resource::Cpu => Kernel::RLIMIT_CPU,
        Resource::Data => Kernel::RLIMIT_DATA,
        Resource::Fsize => Kernel::RLIMIT_FSIZE,
        Resource::Locks => Kernel::RLIMIT_LOCKS,
        Resource::Memlock => Kernel::RLIMIT_MEMLOCK,
        Resource::Msgqueue => Kernel::RLIMIT_MSGQUEUE,
        Resource::Nice => Kernel::RLIMIT_NICE,
        Resource::Nofile => Kernel::RLIMIT_NOFILE,
        Resource::Nproc => Kernel::RLIMIT_NPROC,
        Resource::Rss => Kernel::RLIMIT_RSS,
        Resource::Rtprio => Kernel::RLIMIT_RTPRIO,
        Resource::Rttime => Kernel::RLIMIT_RTTIME,
        Resource::Sigpending => Kernel::RLIMIT_SIGPENDING,
        Resource::Stack => Kernel::RLIMIT_STACK,
    }
}
