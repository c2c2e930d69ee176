//! Ending a host that is stuck, so that who waits for it hears of that soon.
//!
//! It happens that a processor of the emulated machine sleeps for ever, as if an interrupt were lost in QEMU. One that is
//! only idle still has its timers.

use std::fs::{self, DirEntry};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PERIOD: Duration = Duration::from_secs(60);
/// Hundredths of a second (`USER_HZ`) of processor time that the thread of the machine's working processor has soon used.
const BUSY: u64 = 500;
/// What that thread uses many times over in a period, even if the machine is idle.
const LEAST: u64 = 2;
/// Of what it printed on its console.
const LINES: usize = 10;

/// Watches QEMU from a thread of its own, which ends with it. `console` is the log of the host's console.
pub(crate) fn end_when_stuck(qemu: Pid, console: &Path) {
    let console = console.to_owned();
    thread::spawn(move || {
        let mut before = 0;
        while let Some(now) = busiest_thread(qemu) {
            if before >= BUSY && now.saturating_sub(before) < LEAST {
                eprintln!("testhost: the host is stuck, and ended; the last lines of its console:");
                let text = fs::read(&console).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
                    eprintln!("testhost: {line}");
                }
                // It fails if it has ended by itself.
                let _ = kill(qemu, Signal::SIGKILL);
                return;
            }
            before = now;
            thread::sleep(PERIOD);
        }
    });
}

/// The most processor time that a thread has used, if the process is there.
fn busiest_thread(process: Pid) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let time = |task: DirEntry| parse(&fs::read_to_string(task.path().join("stat")).ok()?);
    tasks.flatten().filter_map(time).max()
}

/// Fields 14 and 15 of proc_pid_stat(5), which are those behind the name's parenthesis from the twelfth on.
fn parse(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 21 34 0 0 20";
        assert_eq!(parse(stat), Some(55));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn times_are_found_as_long_as_the_process_is_there() {
        assert_eq!(busiest_thread(Pid::from_raw(i32::MAX)), None);
        assert!(busiest_thread(Pid::this()).is_some());
    }
}
