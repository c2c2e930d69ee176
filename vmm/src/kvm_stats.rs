//! KVM's binary statistics (KVM API, 4.133 KVM_GET_STATS_FD): exits that never left the kernel are
//! counted only there.
#![allow(unsafe_code)] // one ioctl that kvm-ioctls does not have

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use libc::c_long;
use vmm_sys_util::ioctl::ioctl;

#[allow(missing_docs)] // what the macro makes is a function without a place for them
mod request {
    vmm_sys_util::ioctl_io_nr!(KVM_GET_STATS_FD, 0xae, 0xce);
}

/// What reading the counters asks of the kernel, beside [`devices::seccomp::ANY_THREAD`].
pub(crate) const SYSTEM_CALLS: [c_long; 1] = [libc::SYS_pread64];

/// The counters worth telling.
const NAMES: [&str; 6] = [
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_injections",
    "signal_exits",
];

/// A vCPU's counters, readable as long as this lives, from any thread.
pub struct KvmStats {
    file: File,
    counters: Vec<(&'static str, u64)>,
}

impl KvmStats {
    /// The counters of `vcpu`.
    ///
    /// # Errors
    /// When the host's KVM is older than Linux 5.14.
    pub fn of(vcpu: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: the request takes no argument and returns a new file descriptor or an error.
        let fd = unsafe { ioctl(vcpu, request::KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        let counters = descriptors(&file)?;
        Ok(Self { file, counters })
    }

    /// Adds the counters' present values to `sum`.
    ///
    /// # Errors
    /// As read(2).
    pub fn add_to(&self, sum: &mut BTreeMap<String, u64>) -> io::Result<()> {
        for (name, offset) in &self.counters {
            let mut value = [0; 8];
            self.file.read_exact_at(&mut value, *offset)?;
            *sum.entry((*name).to_owned()).or_default() += u64::from_ne_bytes(value);
        }
        Ok(())
    }
}

/// The file starts with a header of six u32: flags, name_size, num_desc, id_offset, desc_offset,
/// data_offset. A descriptor is 16 bytes (flags u32, exponent i16, size u16, offset u32,
/// bucket_size u32) and a name of name_size bytes.
fn descriptors(file: &File) -> io::Result<Vec<(&'static str, u64)>> {
    let word = |bytes: &[u8], index: usize| -> u64 {
        let field = bytes
            .get(index * 4..index * 4 + 4)
            .and_then(|b| b.try_into().ok());
        u64::from(field.map_or(0, u32::from_ne_bytes))
    };
    let mut header = [0; 24];
    file.read_exact_at(&mut header, 0)?;
    let (name_size, count) = (word(&header, 1), word(&header, 2));
    let (first, data) = (word(&header, 4), word(&header, 5));
    let mut found = Vec::new();
    let mut descriptor = vec![0; 16 + name_size as usize];
    for index in 0..count {
        file.read_exact_at(&mut descriptor, first + index * (16 + name_size))?;
        let name = descriptor
            .get(16..)
            .unwrap_or_default()
            .split(|b| *b == 0)
            .next();
        let known = NAMES.iter().find(|n| Some(n.as_bytes()) == name);
        found.extend(known.map(|name| (*name, data + word(&descriptor, 2))));
    }
    Ok(found)
}
