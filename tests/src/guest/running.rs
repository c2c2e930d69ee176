//! A monitor that runs, and one that has ended.

use std::borrow::Cow;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Terminal;
use super::stream::{Stream, end_of};
use super::terminal::Mode;

/// A `runq-vmm` that runs. It is killed when this is dropped.
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    input: Option<Box<dyn Write + Send>>,
    terminal: Option<Terminal>,
    stdout: Stream,
    stderr: Stream,
    deadline: Instant,
}

/// How a `runq-vmm` ended, and what it wrote.
pub struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The modes of its terminal after its end, if it had one.
    pub mode: Option<Mode>,
}

impl Running {
    /// Starts `command`, whose streams are set up already.
    pub(super) fn start(
        mut command: Command,
        terminal: Option<Terminal>,
        bytes: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Self> {
        let mut child = command
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        // The command has copies of the streams: only the child may have them.
        drop(command);
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd")?;
        let stderr = child.stderr.take().context("standard error")?;
        let (input, stdout): (Option<Box<dyn Write + Send>>, _) = match &terminal {
            Some(terminal) => {
                let shown = Stream::collect("terminal", terminal.master()?);
                (Some(Box::new(terminal.master()?)), shown)
            }
            None => {
                let stdout = child.stdout.take().context("standard output")?;
                let input = child.stdin.take().map(|input| Box::new(input) as _);
                (input, Stream::collect("stdout", stdout))
            }
        };
        let stderr = Stream::collect("stderr", stderr);
        let deadline = Instant::now() + timeout;
        let mut running = Self {
            child,
            pidfd,
            input,
            terminal,
            stdout,
            stderr,
            deadline,
        };
        if let Some(bytes) = bytes {
            running.feed(bytes);
        }
        Ok(running)
    }

    /// Writes the bytes while we read what comes back, then closes the input.
    fn feed(&mut self, bytes: Vec<u8>) {
        if let Some(mut input) = self.input.take() {
            // Whether all was taken is seen by what comes back.
            thread::spawn(move || input.write_all(&bytes));
        }
    }

    /// Writes to the standard input, or types on the terminal.
    ///
    /// # Errors
    /// When the monitor does not read any more.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let input = self
            .input
            .as_mut()
            .context("the standard input is closed")?;
        input.write_all(text.as_bytes())?;
        Ok(input.flush()?)
    }

    /// Ends the standard input.
    pub fn close_stdin(&mut self) {
        self.input = None;
    }

    /// Leaves the standard output, while more comes, as `head` does.
    pub fn leave_stdout(&self) {
        self.stdout.leave();
    }

    /// Waits until the text appears in the standard output, behind all that was waited for before.
    ///
    /// # Errors
    /// When it does not come in time, or the output ends.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let result = self.stdout.wait_for(text, self.deadline);
        result.with_context(|| format!("standard error: {}", self.stderr.text()))
    }

    /// As [`Running::wait_for`], in the standard error.
    ///
    /// # Errors
    /// When it does not come in time, or the stream ends.
    pub fn wait_for_error(&mut self, text: &str) -> Result<()> {
        self.stderr.wait_for(text, self.deadline)
    }

    /// Sends the monitor a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Its terminal.
    ///
    /// # Errors
    /// When it has none.
    pub fn terminal(&self) -> Result<&Terminal> {
        self.terminal.as_ref().context("no terminal")
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it does not come in time; then the monitor is killed.
    pub fn wait(mut self) -> Result<Finished> {
        if !self.ends_in_time()? {
            bail!(
                "it did not end in time; stdout: {}\nstderr: {}",
                self.stdout.text(),
                self.stderr.text()
            );
        }
        let status = self.child.wait()?;
        let mode = self.terminal.as_ref().map(Terminal::mode).transpose()?;
        // Our copy of the terminal's other end kept the stream from ending.
        self.terminal = None;
        let stdout = self.stdout.finish(self.deadline)?;
        let stderr = self.stderr.finish(self.deadline)?;
        Ok(Finished {
            status,
            stdout,
            stderr,
            mode,
        })
    }

    fn ends_in_time(&self) -> Result<bool> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left)?;
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended: then there is nothing to kill, and the wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The exit code; none if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// What it wrote to the standard output, or what the terminal showed.
    #[must_use]
    pub fn stdout(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// The bytes of the standard output.
    #[must_use]
    pub fn stdout_bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// What it wrote to the standard error.
    #[must_use]
    pub fn stderr(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// The bytes of the standard error.
    #[must_use]
    pub fn stderr_bytes(&self) -> &[u8] {
        &self.stderr
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            end_of(&self.stdout),
            end_of(&self.stderr)
        )
    }
}
