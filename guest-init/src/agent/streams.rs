//! The agent's ends of a command's standard streams: three pipes, or a terminal.
//!
//! Nothing here waits. Input is held until the command takes it, output is left where it is until the
//! client can have it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Uid, pipe2, setsid};
use proto::WindowSize;
use proto::exec::{FULL_DATA, FromAgent, MAX_DATA, STDIN_WINDOW};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use crate::{stdio, syscalls};

/// More than a terminal holds (the kernel's tty_buffer_set_limit of pty.c, and N_TTY_BUF_SIZE).
const TERMINAL_SIZE: usize = 64 << 10;
/// What a pipe of output holds: several messages, so that a command that writes much need not take turns with us for each.
const OUTPUT_SIZE: libc::c_int = 256 << 10;

/// What a command will hold.
pub(super) enum CommandEnd {
    /// Ends of pipes, in the order of the descriptors 0, 1, 2.
    Pipes([OwnedFd; 3]),
    /// The other end of its terminal.
    Terminal(OwnedFd),
}

impl CommandEnd {
    /// In the child: makes them the standard streams of this process, which becomes a session's leader.
    pub(super) fn attach(self, uid: Uid) -> Result<()> {
        setsid().context("start a session")?;
        let streams = match self {
            Self::Pipes(pipes) => pipes,
            Self::Terminal(master) => {
                // By the descriptor: what is at its path is the container's choice. The first that
                // a session's leader opens is the session's.
                let flags = OpenptFlags::RDWR | OpenptFlags::CLOEXEC;
                let terminal =
                    ioctl_tiocgptpeer(&master, flags).context("open the command's terminal")?;
                [terminal.try_clone()?, terminal.try_clone()?, terminal]
            }
        };
        stdio::become_streams(streams, uid)
    }
}

/// Where output comes from.
struct Output {
    file: File,
    message: fn(Vec<u8>) -> FromAgent,
    /// Bytes that may still come, once the command has ended.
    left: Option<usize>,
    has_ended: bool,
}

/// The agent's ends.
pub(super) struct Streams {
    /// None once it is closed.
    input: Option<File>,
    held: VecDeque<u8>,
    /// No more input will come.
    input_ended: bool,
    /// Bytes taken of which the client was not told.
    taken: usize,
    outputs: Vec<Output>,
    /// The agent's end of the terminal.
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Opens three pipes, or a terminal of this size.
    pub(super) fn open(terminal: Option<WindowSize>) -> Result<(Self, CommandEnd)> {
        match terminal {
            Some(size) => Self::with_terminal(size).context("open a terminal"),
            None => Self::with_pipes(),
        }
    }

    fn with_pipes() -> Result<(Self, CommandEnd)> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
        let (stdin, to_stdin) = pipe()?;
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        for output in [&stdout, &stderr] {
            // A smaller one will do where the kernel sets a limit.
            let _ = fcntl(output, FcntlArg::F_SETPIPE_SZ(OUTPUT_SIZE));
        }
        let outputs = vec![
            Output::new(from_stdout, FromAgent::Stdout)?,
            Output::new(from_stderr, FromAgent::Stderr)?,
        ];
        let ours = Self::new(to_stdin, outputs, None)?;
        Ok((ours, CommandEnd::Pipes([stdin, stdout, stderr])))
    }

    fn with_terminal(size: WindowSize) -> Result<(Self, CommandEnd)> {
        let master = OwnedFd::from(stdio::master(size)?);
        let outputs = vec![Output::new(master.try_clone()?, FromAgent::Stdout)?];
        let ours = Self::new(master.try_clone()?, outputs, Some(master.try_clone()?))?;
        Ok((ours, CommandEnd::Terminal(master)))
    }

    fn new(input: OwnedFd, outputs: Vec<Output>, terminal: Option<OwnedFd>) -> Result<Self> {
        Ok(Self {
            input: Some(non_blocking(input)?),
            held: VecDeque::new(),
            input_ended: false,
            taken: 0,
            outputs,
            terminal,
        })
    }

    /// What to wait for.
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        let outputs = self.outputs.iter().map(|output| &output.file);
        // A terminal's two ways are one file.
        let input = self.input.as_ref().filter(|_| self.terminal.is_none());
        outputs.chain(input)
    }

    /// Holds bytes of input for the command.
    ///
    /// # Errors
    /// When the client has sent more than it may.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> Result<()> {
        if self.input_ended {
            bail!("input after its end");
        }
        if bytes.len() > MAX_DATA || self.held.len() + self.taken + bytes.len() > STDIN_WINDOW {
            bail!("more input than is allowed");
        }
        self.held.extend(bytes);
        Ok(())
    }

    /// No more input will come. A terminal has no end.
    pub(super) fn end_input(&mut self) {
        self.input_ended = self.terminal.is_none();
    }

    /// Writes what the command takes of its input.
    pub(super) fn feed(&mut self) {
        while let Some(input) = &mut self.input {
            if self.held.is_empty() {
                break;
            }
            match input.write(self.held.as_slices().0) {
                Ok(count) => {
                    self.held.drain(..count);
                    self.taken += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The command reads no more.
                Err(_) => self.input = None,
            }
        }
        self.taken += self.held.len();
        self.held = VecDeque::new();
        if self.input_ended {
            self.input = None;
        }
    }

    /// What the client is to be told of its input.
    pub(super) fn taken(&mut self) -> Option<FromAgent> {
        let taken = u32::try_from(std::mem::take(&mut self.taken)).ok()?;
        (taken > 0).then_some(FromAgent::Taken(taken))
    }

    /// Sets the terminal's size, if there is one.
    pub(super) fn resize(&self, size: WindowSize) -> io::Result<()> {
        let terminal = self.terminal.as_ref();
        terminal.map_or(Ok(()), |terminal| syscalls::set_window_size(terminal, size))
    }

    /// How many streams of output there are still.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Reads once from a stream of output.
    pub(super) fn read(&mut self, index: usize, buffer: &mut [u8]) -> Option<FromAgent> {
        let output = self.outputs.get_mut(index)?;
        let room = output
            .left
            .unwrap_or(FULL_DATA)
            .min(FULL_DATA)
            .min(buffer.len());
        match output.read(buffer.get_mut(..room).unwrap_or_default()) {
            Ok(0) => output.has_ended = true,
            Ok(count) => return Some((output.message)(buffer.get(..count)?.to_vec())),
            // Once the command has ended, what it wrote was there before this was read.
            Err(_) => output.has_ended = output.left.is_some(),
        }
        None
    }

    /// Closes the streams of output that have ended, and after the command's end those that have
    /// nothing more. Whether there is none left.
    pub(super) fn close_ended(&mut self) -> bool {
        self.outputs.retain(|output| !output.has_ended);
        self.outputs.is_empty()
    }

    /// The command has ended: what its streams hold now is all of its output.
    pub(super) fn finish(&mut self) {
        self.input = None;
        for output in &mut self.outputs {
            // What others write while it is read does not count.
            let size = fcntl(&output.file, FcntlArg::F_GETPIPE_SZ).unwrap_or_default();
            output.left = Some(usize::try_from(size).unwrap_or_default().max(TERMINAL_SIZE));
        }
    }
}

impl Output {
    fn new(file: OwnedFd, message: fn(Vec<u8>) -> FromAgent) -> Result<Self> {
        Ok(Self {
            file: non_blocking(file)?,
            message,
            left: None,
            has_ended: false,
        })
    }

    /// # Errors
    /// Also EIO, when no process has the terminal open: another may open it again.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    let count = read?;
                    self.left = self.left.map(|left| left.saturating_sub(count));
                    return Ok(count);
                }
            }
        }
    }
}

/// A descriptor that nobody else has the file of, so that only we do not wait.
pub(super) fn non_blocking(file: OwnedFd) -> Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(file.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
        .context("make a stream non-blocking")?;
    Ok(file.into())
}

#[cfg(test)]
#[path = "streams_test.rs"]
mod tests;
