//! Shadows: processes of the host that look like a guest's to ps(1).
//!
//! `docker top` asks the runtime for process numbers of the host, and shows what the host's own ps says
//! of these. So `runq ps` starts a process for each of the guest's, which has its arguments, its name,
//! its user and its group, and can do nothing. Its first argument begins with its number in the guest.
//! What else ps shows (the number, the parent, times, memory) is the shadow's.
//!
//! Nothing tells when ps has looked: a shadow ends [`life::TIME`] after the runtime has told its number.

mod life;
mod words;

use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto::exec::ProcessInfo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use life::main;
pub use words::words;

/// Most shadows that are cast at once: those of the lowest numbers.
const MAX: usize = 1000;
/// How long all may take until they look as they should.
const PATIENCE: Duration = Duration::from_secs(10);

/// Casts a shadow for each process; their numbers on the host.
///
/// # Errors
/// When there can be no more processes. Those that are there end.
pub fn cast(processes: &[ProcessInfo]) -> Result<Vec<u32>> {
    let (ready, tell_ready) = pipe().context("pipe")?;
    let (start, tell_start) = pipe().context("pipe")?;
    let shadows = processes.iter().take(MAX);
    let shadows = shadows.map(|process| spawn(process, &start, &tell_ready));
    let mut shadows = shadows.collect::<Result<Vec<_>>>()?;
    drop(tell_ready);
    wait(&ready)?;
    shadows.retain_mut(|shadow| matches!(shadow.try_wait(), Ok(None)));
    // Their time begins.
    drop(tell_start);
    Ok(shadows.iter().map(Child::id).collect())
}

fn spawn(process: &ProcessInfo, start: &PipeReader, ready: &PipeWriter) -> Result<Child> {
    let mut words = words(process).into_iter();
    let first = words.next().unwrap_or_default();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(format!("[{}] {first}", process.pid))
        .args(words)
        .env_clear()
        .env(life::VARIABLE, life::Looks::of(process).to_string())
        .current_dir("/")
        .stdin(start.try_clone().context("pipe")?)
        .stdout(ready.try_clone().context("pipe")?)
        .stderr(Stdio::null());
    command
        .spawn()
        .context("start a process that stands for one of the guest")
}

/// Waits until all look as they should, or have ended.
fn wait(ready: &PipeReader) -> Result<()> {
    let patience = Timespec::try_from(PATIENCE)?;
    // Nothing is written: the other end is closed.
    let mut polled = [PollFd::from_borrowed_fd(ready.as_fd(), PollFlags::empty())];
    let count = poll(&mut polled, Some(&patience)).context("poll")?;
    ensure!(
        count == 1,
        "the processes that stand for those of the guest do not start: try again"
    );
    Ok(())
}
