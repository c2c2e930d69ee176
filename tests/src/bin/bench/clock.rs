//! The unit of time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What a nanosecond of the host's clock stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Clock {
    /// A nanosecond: times are in milliseconds, and depend on the machine and its load.
    Wall,
    /// An executed instruction of host, monitor or guest (QEMU's `-icount shift=0,sleep=off`, one CPU): times
    /// are in millions of instructions, the same everywhere.
    Instructions,
}

impl Clock {
    /// The unit that [`Clock::value`] is in.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Wall => "ms",
            Self::Instructions => "M instructions",
        }
    }

    /// What the reader must know about the unit.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Wall => "times are of the wall clock, and depend on the machine and its load",
            Self::Instructions => "times are instructions of host, monitor and guest together",
        }
    }

    /// Whether a guest that has not come up is given up. A clock that counts instructions runs ahead while
    /// the machine waits for a disk: there, what the monitor has executed counts. One that waits for ever is
    /// for who started the machine to notice.
    ///
    /// # Errors
    /// When the process is not there.
    pub(crate) fn gives_up(self, begun: Instant, monitor: u32) -> Result<bool> {
        Ok(match self {
            Self::Wall => begun.elapsed() > Duration::from_secs(20),
            // 30 times what QEMU takes for a boot.
            Self::Instructions => processor_time(monitor)? > Duration::from_secs(4),
        })
    }

    /// A time in the unit: with either clock a million nanoseconds.
    pub(crate) fn value(time: Duration) -> f64 {
        time.as_secs_f64() * 1e3
    }
}

/// What a process has used of the processor, with a precision of 10 ms.
fn processor_time(process: u32) -> Result<Duration> {
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms: USER_HZ is 100 on all of Linux's machines.
    let ticks = [14, 15].map(|field| stat_field(process, field));
    let [user, system] = ticks;
    Ok(Duration::from_millis(10 * (user? + system?)))
}

/// A numeric field of /proc/PID/stat, counted from 1 as proc_pid_stat(5) does.
///
/// # Errors
/// When the process is not there.
pub(crate) fn stat_field(process: u32, field: usize) -> Result<u64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program's name, the second field, is in parentheses and may contain spaces.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(field - 3)
        .and_then(|field| field.parse().ok())
        .with_context(|| path)
}
