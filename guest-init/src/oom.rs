//! Telling the host which processes the kernel has killed for want of memory.
//!
//! Only the kernel's log names them (`__oom_kill_process` of mm/oom_kill.c): most are nobody's children here.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proto::ToHost;

use crate::console;
use crate::stdio::spawn_thread;

/// The kernel's log, one record a read (Documentation/ABI/testing/dev-kmsg).
const LOG: &str = "/dev/kmsg";
/// Bytes of the longest record (`PRINTK_MESSAGE_MAX` of kernel/printk/internal.h, and what the kernel puts before it).
const MAX_RECORD: usize = 4096;
/// How long a process that was killed may be without its record: the kernel writes it just after the signal.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the kernel's log.
pub(crate) struct Watch(Arc<Mutex<Log>>);

struct Log {
    records: File,
    /// To the host.
    port: File,
    /// Processes that the host was told of.
    told: u64,
}

impl Watch {
    /// Tells the host, by the control port, from now on.
    pub(crate) fn start(port: File) -> Result<Self> {
        let mut records = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(LOG)
            .context(LOG)?;
        records.seek(SeekFrom::End(0)).context(LOG)?;
        let readable = records.try_clone()?;
        let log = Arc::new(Mutex::new(Log {
            records,
            port,
            told: 0,
        }));
        let watch = Self(Arc::clone(&log));
        spawn_thread("oom", move || {
            while wait(&readable, PollTimeout::NONE) {
                log.lock().unwrap_or_else(PoisonError::into_inner).tell();
            }
        })?;
        Ok(watch)
    }

    /// The command was killed, perhaps by the kernel: the host is told before it is told of the end.
    pub(crate) fn finish(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            log.tell();
            let left = deadline.saturating_duration_since(Instant::now());
            let killed = fs::read_to_string("/proc/vmstat").unwrap_or_default();
            if log.told >= kills(&killed) || left.is_zero() {
                return;
            }
            let left = left.try_into().unwrap_or(PollTimeout::ZERO);
            wait(&log.records, left);
        }
    }
}

/// Waits for a record; whether that can be waited for.
fn wait(records: &File, timeout: PollTimeout) -> bool {
    let mut files = [PollFd::new(records.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut files, timeout), Ok(_) | Err(Errno::EINTR))
}

impl Log {
    /// Tells the host what has come.
    fn tell(&mut self) {
        let mut record = [0; MAX_RECORD];
        loop {
            let count = match self.records.read(&mut record) {
                Ok(count) => count,
                // Records were lost, and the next one is another.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(_) => return,
            };
            let record = String::from_utf8_lossy(record.get(..count).unwrap_or_default());
            let Some(name) = victim(&record) else {
                continue;
            };
            self.told += 1;
            let name = name.to_owned();
            if let Err(error) = proto::send(&mut self.port, &ToHost::OutOfMemory { name }) {
                console::line(format_args!("control port: {error}"));
            }
        }
    }
}

/// The name of the process that was killed, if this is the record of that: `PRIORITY,NUMBER,TIME,FLAGS;TEXT`, where the
/// priority of the kernel's own records is below 8, and nobody else's (devkmsg_write of kernel/printk/printk.c).
fn victim(record: &str) -> Option<&str> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let text = text.lines().next()?;
    let (_, killed) = text
        .split_once("emory: Killed process ")
        .filter(|_| priority < 8)?;
    let (_, name) = killed.split_once(" (")?;
    let (name, _) = name.rsplit_once(") total-vm:")?;
    Some(name)
}

/// How many processes were killed for want of memory, by /proc/vmstat.
fn kills(vmstat: &str) -> u64 {
    let mut lines = vmstat.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux 6.1 writes it.
    fn record(priority: u32, begin: &str, name: &str) -> String {
        format!(
            "{priority},339,5140900,-;{begin}emory: Killed process 31 ({name}) total-vm:70112kB, \
             anon-rss:65000kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:176kB oom_score_adj:0\n"
        )
    }

    #[test]
    fn the_process_is_named_by_the_kernel_alone() {
        for begin in ["Out of m", "Memory cgroup out of m"] {
            assert_eq!(victim(&record(3, begin, "dd")), Some("dd"));
            // 12: a process has written it.
            assert_eq!(victim(&record(12, begin, "dd")), None);
        }
        assert_eq!(victim("6,1,2,-;Linux version 6.1\n SUBSYSTEM=x\n"), None);
        let elsewhere = "3,1,2,-;a\n Out of memory: Killed process 3 (x) total-vm:";
        assert_eq!(victim(elsewhere), None);
    }

    #[test]
    fn kills_are_counted() {
        assert_eq!(kills("pgfault 7\noom_kill 3\noom_kill_x 4\n"), 3);
        assert_eq!(kills("pgfault 7\n"), 0);
    }

    proptest! {
        #[test]
        fn any_name_is_told_as_it_is(name in "[^\n]{0,15}") {
            let record = record(3, "Out of m", &name);
            prop_assert_eq!(victim(&record), Some(name.as_str()));
        }

        #[test]
        fn any_record_is_read(text in ".*") {
            let _ = victim(&text);
            let _ = kills(&text);
        }
    }
}
