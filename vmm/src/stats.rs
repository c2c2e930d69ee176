//! What a run cost: exits by reason, time to the guest's init, memory beside the guest's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuExit;
use nix::time::{ClockId, clock_gettime};
use tracing::info;

/// Exits that reached the monitor, by reason. Kept by each vCPU thread for itself, added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// IN instructions.
    pub port_reads: u64,
    /// OUT instructions.
    pub port_writes: u64,
    /// Reads of addresses that are not memory.
    pub mmio_reads: u64,
    /// Writes to addresses that are not memory, nor bound to an ioeventfd.
    pub mmio_writes: u64,
    /// Signals.
    pub interrupted: u64,
    /// All the rest.
    pub other: u64,
}

impl ExitCounts {
    /// Adds one exit.
    pub fn count(&mut self, exit: &VcpuExit<'_>) {
        let counter = match exit {
            VcpuExit::IoIn(..) => &mut self.port_reads,
            VcpuExit::IoOut(..) => &mut self.port_writes,
            VcpuExit::MmioRead(..) => &mut self.mmio_reads,
            VcpuExit::MmioWrite(..) => &mut self.mmio_writes,
            _ => &mut self.other,
        };
        *counter += 1;
    }

    /// Adds the exits of another vCPU.
    pub fn add(&mut self, more: &Self) {
        let Self {
            port_reads,
            port_writes,
            mmio_reads,
            mmio_writes,
            interrupted,
            other,
        } = more;
        self.port_reads += port_reads;
        self.port_writes += port_writes;
        self.mmio_reads += mmio_reads;
        self.mmio_writes += mmio_writes;
        self.interrupted += interrupted;
        self.other += other;
    }
}

/// What `--stats` prints.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// From the first instruction of the monitor's main to the first word of the guest's init.
    pub init_ready: Option<Duration>,
    /// Exits that reached the monitor, of all vCPUs.
    pub exits: ExitCounts,
    /// KVM's own counters, of all vCPUs: `exits` there counts those that KVM handled itself too.
    pub kvm: BTreeMap<String, u64>,
    /// Peak of resident memory that is not the guest's, in bytes.
    pub rss_beside_guest: Option<u64>,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.init_ready {
            Some(time) => writeln!(f, "init ready after {:.1} ms", time.as_secs_f64() * 1e3)?,
            None => writeln!(f, "init ready: never")?,
        }
        let e = &self.exits;
        writeln!(
            f,
            "exits to the monitor: {} port reads, {} port writes, {} mmio reads, {} mmio writes, \
             {} interrupted, {} other",
            e.port_reads, e.port_writes, e.mmio_reads, e.mmio_writes, e.interrupted, e.other
        )?;
        let kvm: Vec<String> = self
            .kvm
            .iter()
            .map(|(name, value)| format!("{value} {name}"))
            .collect();
        if !kvm.is_empty() {
            writeln!(f, "counted by KVM: {}", kvm.join(", "))?;
        }
        match self.rss_beside_guest {
            Some(bytes) => write!(f, "resident beside guest memory: {} KiB", bytes >> 10),
            None => write!(f, "resident beside guest memory: unknown"),
        }
    }
}

/// Time since this was called first, which is first of all in `main`.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Logs that something is reached, with what it has taken so far: processor time of this process,
/// that of its guest and of the program that it was before included, and time on the clock.
pub fn milestone(reached: impl fmt::Display) {
    // The clock fails on no Linux: then there is no time to tell.
    let cpu =
        clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    info!(?cpu, after = ?since_start(), "{reached}");
}

/// Resident memory of this process outside of `guest` (host address ranges of guest memory), in
/// bytes, right now.
///
/// # Errors
/// When /proc/self/smaps cannot be read.
pub fn rss_beside(guest: &[std::ops::Range<u64>]) -> io::Result<u64> {
    Ok(sum_rss(&fs::read_to_string("/proc/self/smaps")?, guest))
}

fn sum_rss(smaps: &str, guest: &[std::ops::Range<u64>]) -> u64 {
    let mut counts = false;
    let mut kib = 0u64;
    for line in smaps.lines() {
        if let Some(start) = mapping_start(line) {
            counts = !guest.iter().any(|range| range.contains(&start));
        } else if counts && let Some(rest) = line.strip_prefix("Rss:") {
            kib += rest
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap_or(0);
        }
    }
    kib << 10
}

/// The start address if `line` heads a mapping ("7f00-7f01 rw-p ...") and is none of its fields.
fn mapping_start(line: &str) -> Option<u64> {
    let (start, rest) = line.split_once('-')?;
    rest.split_once(' ')?;
    u64::from_str_radix(start, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 1   /bin/runq-vmm
Size:               1024 kB
Rss:                 100 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Rss:              262144 kB
AnonHugePages:    262144 kB
7fff00000000-7fff00021000 rw-p 00000000 00:00 0   [stack]
Rss:                  12 kB
";

    #[test]
    fn guest_memory_is_left_out_of_the_resident_size() {
        let guest = 0x7f00_0000_0000..0x7f00_1000_0000;
        assert_eq!(sum_rss(SMAPS, &[guest]), 112 << 10);
        assert_eq!(sum_rss(SMAPS, &[]), (112 + 262_144) << 10);
    }

    #[test]
    fn our_own_resident_size_is_something() {
        assert!(rss_beside(&[]).unwrap() > 100 << 10);
    }

    #[test]
    fn counts_add_up() {
        let mut sum = ExitCounts {
            port_reads: 1,
            other: 2,
            ..Default::default()
        };
        sum.add(&ExitCounts {
            port_reads: 2,
            mmio_writes: 5,
            ..Default::default()
        });
        let expected = ExitCounts {
            port_reads: 3,
            mmio_writes: 5,
            other: 2,
            ..Default::default()
        };
        assert_eq!(sum, expected);
    }
}
