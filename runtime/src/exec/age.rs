//! How long a process has been there.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Where a process's start is in what follows its name in /proc/PID/stat, from 0: field 22 of
/// proc_pid_stat(5), where the first behind the name is field 3.
const STARTTIME: usize = 22 - 3;

/// The age of a process; none if /proc does not tell.
pub(super) fn of(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    age(&stat, &uptime, u32::try_from(ticks).ok()?)
}

/// By the texts of both files; `ticks` are a second.
fn age(stat: &str, uptime: &str, ticks: u32) -> Option<Duration> {
    // A name may have spaces and brackets itself.
    let (_, fields) = stat.rsplit_once(") ")?;
    let start: f64 = fields.split(' ').nth(STARTTIME)?.parse().ok()?;
    let now: f64 = uptime.split(' ').next()?.parse().ok()?;
    // Both are rounded.
    Duration::try_from_secs_f64((now - start / f64::from(ticks)).max(0.0)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4250 2 3 4";

    #[test]
    fn a_process_is_as_old_as_its_start_is_ago() {
        let old = |uptime| age(STAT, uptime, 100).unwrap();
        assert_eq!(old("102.75 9.00\n"), Duration::from_millis(60_250));
        assert_eq!(old("42.00 9.00\n"), Duration::ZERO);
        assert_eq!(age(STAT, "", 100), None);
        assert_eq!(age("7 (x) S 1", "9.00 1.00\n", 100), None);
        assert_eq!(of(i32::MAX), None);
        assert!(of(std::process::id().cast_signed()).unwrap() < Duration::from_secs(3600));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(stat in ".{0,80}", tail in "[0-9 .eE+-]{0,80}", uptime in "[0-9.eE-]{0,12}") {
            let _ = age(&stat, &uptime, 100);
            let _ = age(&format!("1 (x) {tail}"), &uptime, 0);
        }
    }
}
