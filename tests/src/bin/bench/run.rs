//! One boot: from the start of the monitor until the guest has printed its mark.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::kvm_counters::KvmCounters;
use crate::memory_map::MemoryMap;
use crate::monitor::{GUEST_MIB, Monitor};

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
    /// Boots the guest, looks at the monitor when the guest is up, and ends it. Waits for the guest as long as
    /// `patience`, or for ever.
    ///
    /// # Errors
    /// When the guest does not come up, or the monitor cannot be looked at.
    pub(crate) fn of(monitor: &Monitor, patience: Option<Duration>) -> Result<Self> {
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
        let end = patience.map(|patience| begun + patience);
        await_mark(&mut child.0, monitor.mark, end)?;
        let boot = begun.elapsed();
        let pid = child.0.id();
        let process = Pid::from_child(&child.0);
        // It shall not go on while it is looked at.
        kill_process(process, Signal::STOP).context("stop the monitor")?;
        let kvm = KvmCounters::of(pid)?;
        let memory = MemoryMap::of(pid, GUEST_MIB << 10)?;
        let minor_faults = minor_faults(pid)?;
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

/// Reads the guest's output until `mark` has come, until `end` at most.
fn await_mark(child: &mut Child, mark: &str, end: Option<Instant>) -> Result<()> {
    let output = child.stdout.as_mut().context("the monitor's output")?;
    let mut seen = Vec::new();
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose()?;
        let mut fds = [PollFd::new(&*output, PollFlags::IN)];
        let ready = poll(&mut fds, left.as_ref()).context("poll")?;
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

/// Page faults of the monitor that needed no reading of files.
fn minor_faults(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program's name, in parentheses, may contain spaces; minflt is the 10th field, the 8th behind it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(7)
        .and_then(|field| field.parse().ok())
        .with_context(|| path)
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
