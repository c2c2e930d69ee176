//! One boot: from the start of the monitor until the guest has printed its mark.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{Clock, stat_field};
use crate::kvm_counters::KvmCounters;
use crate::memory_map::MemoryMap;
use crate::monitor::{GUEST_MIB, Monitor};

/// The field of proc_pid_stat(5) that counts page faults which needed no reading of files.
const MINOR_FAULTS: usize = 10;

/// What was seen of one boot.
pub(crate) struct Run {
    /// From just before the monitor was started until the guest's mark had arrived.
    pub(crate) boot: Duration,
    pub(crate) kvm: KvmCounters,
    pub(crate) memory: MemoryMap,
    pub(crate) minor_faults: u64,
    /// What runq-vmm's --stats says of the time until its init was ready, in milliseconds.
    pub(crate) init_ready: Option<f64>,
}

/// A child that does not outlive us.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run {
    /// Boots the guest, looks at the monitor when the guest is up, and ends it.
    ///
    /// # Errors
    /// When the guest does not come up, or the monitor cannot be looked at.
    pub(crate) fn of(monitor: &Monitor, clock: Clock) -> Result<Self> {
        let mut command = Command::new(&monitor.program);
        command
            .args(&monitor.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.stderr(if monitor.ends {
            Stdio::piped()
        } else {
            Stdio::inherit()
        });
        let begun = Instant::now();
        let mut child = Guarded(command.spawn().context("start")?);
        let pid = child.0.id();
        await_mark(&mut child.0, monitor.mark, || clock.gives_up(begun, pid))?;
        let boot = begun.elapsed();
        let process = Pid::from_child(&child.0);
        // It shall not go on while it is looked at.
        kill_process(process, Signal::STOP).context("stop the monitor")?;
        let kvm = KvmCounters::of(pid)?;
        let memory = MemoryMap::of(pid, GUEST_MIB << 10)?;
        let minor_faults = stat_field(pid, MINOR_FAULTS)?;
        kill_process(process, Signal::CONT).context("continue the monitor")?;
        let init_ready = if monitor.ends {
            Some(init_ready(&mut child.0)?)
        } else {
            None
        };
        Ok(Self {
            boot,
            kvm,
            memory,
            minor_faults,
            init_ready,
        })
    }
}

/// Reads the guest's output until `mark` has come, or until it is given up.
fn await_mark(child: &mut Child, mark: &str, gives_up: impl Fn() -> Result<bool>) -> Result<()> {
    let output = child.stdout.as_mut().context("the monitor's output")?;
    let mut seen = Vec::new();
    loop {
        let mut fds = [PollFd::new(&*output, PollFlags::IN)];
        let look = Timespec::try_from(Duration::from_secs(1))?;
        let ready = poll(&mut fds, Some(&look)).context("poll")?;
        if ready == 0 && !gives_up()? {
            continue;
        }
        let mut buffer = [0; 4096];
        let count = if ready > 0 {
            output.read(&mut buffer).context("read")?
        } else {
            0
        };
        seen.extend(buffer.iter().take(count));
        if seen
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
        {
            return Ok(());
        }
        if count == 0 {
            let why = if ready > 0 {
                "it ended"
            } else {
                "it had not come up in time"
            };
            bail!(
                "no {mark}: {why}; it printed {:?}",
                String::from_utf8_lossy(&seen)
            );
        }
    }
}

/// Waits for runq-vmm's end, and finds "init ready after N ms" in what it prints.
fn init_ready(child: &mut Child) -> Result<f64> {
    let mut text = String::new();
    let stderr = child.stderr.as_mut().context("the monitor's errors")?;
    stderr
        .read_to_string(&mut text)
        .context("read runq-vmm's statistics")?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("init ready after ")?
                .strip_suffix(" ms")?
                .parse()
                .ok()
        })
        .with_context(|| format!("no time of init in runq-vmm's statistics: {text:?}"))
}
