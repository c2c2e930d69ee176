//! What a process keeps in memory (`/proc/PID/smaps`), the guest's memory apart from the rest.

use std::fs;

use anyhow::{Context, Result, ensure};

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryMap {
    /// The monitor's own.
    pub(crate) beside_guest: u64,
    /// The guest's.
    pub(crate) guest: u64,
    /// Of the guest's: how much is in huge pages.
    pub(crate) guest_huge: u64,
}

/// Guest memory may begin at a huge page boundary in a mapping that is larger by less than that.
const ALIGNMENT_KIB: u64 = 2 << 10;

impl MemoryMap {
    /// Of the process `pid`, whose guest has `guest_kib` of memory in one mapping.
    ///
    /// # Errors
    /// When the process is gone, or has no such mapping.
    pub(crate) fn of(pid: u32, guest_kib: u64) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        sum(&text, guest_kib).context(path)
    }
}

fn sum(smaps: &str, guest_kib: u64) -> Result<MemoryMap> {
    let mut map = MemoryMap::default();
    let mut guests = 0;
    let mut in_guest = false;
    for line in smaps.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue; // the head of a mapping without a device
        };
        let kib = value
            .trim()
            .strip_suffix(" kB")
            .and_then(|number| number.parse::<u64>().ok());
        match (key, kib) {
            // The first line of each mapping's fields.
            ("Size", Some(size)) => {
                in_guest = (guest_kib..guest_kib + ALIGNMENT_KIB).contains(&size);
                guests += u32::from(in_guest);
            }
            ("Rss", Some(size)) if in_guest => map.guest += size,
            ("Rss", Some(size)) => map.beside_guest += size,
            ("AnonHugePages", Some(size)) if in_guest => map.guest_huge += size,
            _ => {}
        }
    }
    ensure!(
        guests == 1,
        "{guests} mappings have the size of guest memory"
    );
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 1   /bin/runq-vmm
Size:               1024 kB
Rss:                 100 kB
AnonHugePages:         0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:               20480 kB
AnonHugePages:     18432 kB
7fff00000000-7fff00021000 rw-p 00000000 00:00 0   [stack]
Size:                132 kB
Rss:                  12 kB
";

    #[test]
    fn the_guests_memory_is_told_apart_by_its_size() {
        let map = sum(SMAPS, 256 << 10).unwrap();
        assert_eq!(
            map,
            MemoryMap {
                beside_guest: 112,
                guest: 20480,
                guest_huge: 18432
            }
        );
        assert!(sum(SMAPS, 128 << 10).is_err());
    }
}
