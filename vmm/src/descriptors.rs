//! This process's table of open files.

use std::io;

/// How many files it has room for from the start: what most machines have open. Beyond that it grows as ever.
const AT_ONCE: i32 = 1024;

/// Makes room for open files. To be called before there are threads: a table that threads share grows only after an RCU grace
/// period (expand_fdtable of Linux' fs/file.c), which is several ticks, and whoever opens a file waits for it: a processor of the
/// guest that sets up a device, or a thread of a share.
pub(crate) fn make_room() {
    // The table never shrinks. Where no more files are allowed there is nothing to wait for either.
    let _ = rustix::io::fcntl_dupfd_cloexec(io::stderr(), AT_ONCE - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room() {
        make_room();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("FDSize:"))
            .unwrap();
        assert!(size.trim().parse::<i32>().unwrap() >= AT_ONCE, "{size}");
    }
}
