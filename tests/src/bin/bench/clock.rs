//! The unit of time.

use std::time::Duration;

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

    /// After which time a guest is given up. A clock that counts instructions runs ahead while the machine
    /// waits for a disk, so nothing follows from its time: there, who started the machine must watch it.
    pub(crate) fn patience(self) -> Option<Duration> {
        match self {
            Self::Wall => Some(Duration::from_secs(20)),
            Self::Instructions => None,
        }
    }

    /// A time in the unit: with either clock a million nanoseconds.
    pub(crate) fn value(time: Duration) -> f64 {
        time.as_secs_f64() * 1e3
    }
}
