//! What a run cost: exits by reason, time to the guest's init, memory beside the guest's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tracing::info;

use crate::board::exits::{REASONS, reason};
use crate::hypervisor::VcpuExit;

/// Exits that reached the monitor, by reason. Kept by each vCPU thread for itself, added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Those for the machine's own reasons.
    by_reason: [u64; REASONS.len()],
    /// Signals.
    pub interrupted: u64,
    /// All the rest.
    pub other: u64,
}

impl ExitCounts {
    /// Adds one exit.
    pub fn count(&mut self, exit: &VcpuExit<'_>) {
        let counter = self.by_reason.get_mut(reason(exit));
        *counter.unwrap_or(&mut self.other) += 1;
    }

    /// Adds the exits of another vCPU.
    pub fn add(&mut self, more: &Self) {
        let Self {
            by_reason,
            interrupted,
            other,
        } = more;
        for (counter, more) in self.by_reason.iter_mut().zip(by_reason) {
            *counter += more;
        }
        self.interrupted += interrupted;
        self.other += other;
    }

    /// How many there were of one of the machine's reasons, as it is called in [`Stats`].
    pub fn of(&self, name: &str) -> Option<u64> {
        let mut counters = REASONS.iter().zip(self.by_reason);
        counters.find_map(|(reason, count)| (*reason == name).then_some(count))
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
        write!(f, "exits to the monitor: ")?;
        for (reason, count) in REASONS.iter().zip(self.exits.by_reason) {
            write!(f, "{count} {reason}, ")?;
        }
        let ExitCounts {
            interrupted, other, ..
        } = self.exits;
        writeln!(f, "{interrupted} interrupted, {other} other")?;
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
        let mut sum = ExitCounts::default();
        sum.by_reason[0] = 1;
        sum.other = 2;
        let mut more = ExitCounts::default();
        more.by_reason[..2].copy_from_slice(&[2, 5]);
        sum.add(&more);
        let of = |reason: usize| sum.of(REASONS[reason]);
        assert_eq!((of(0), of(1), sum.other), (Some(3), Some(5), 2));
        let stats = Stats {
            exits: sum,
            ..Default::default()
        };
        assert!(stats.to_string().contains(": 3 ") && stats.to_string().contains("2 other"));
    }
}
