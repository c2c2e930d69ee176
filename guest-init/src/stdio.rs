//! The command's standard streams: what it holds, and the threads that carry the bytes between
//! that and the virtio ports.
//!
//! The command never holds a port itself: a port can be opened only once, and its own /dev/stdout
//! is something that a program opens again. One thread for each direction does blocking reads and
//! writes, so that a stream that is stuck holds up nothing else.
//!
//! Bytes are copied by read and write: splice(2) into a port loses bytes without an error when the
//! port's queue has fewer free descriptors than the pipe has buffers.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, pipe2, setsid};
use proto::{Process, STDERR_PORT, STDIN_PORT, STDOUT_PORT, WindowSize};

use crate::ports::OutputPort;
use crate::{console, devices, ports, syscalls};

/// Most bytes that the kernel takes in one write to a port.
const BUFFER_SIZE: usize = 32 << 10;
/// A pump's stack holds no more than a few frames.
const STACK_SIZE: usize = 64 << 10;

/// The device /dev/null (Linux' admin-guide/devices.txt).
const NULL: libc::dev_t = libc::makedev(1, 3);

/// Our ends of the streams, and the ports.
pub(crate) struct Stdio {
    /// Port, then pipe or terminal; none if the command reads nothing of ours.
    input: Option<(File, File)>,
    /// Pipe or terminal, then port.
    outputs: Vec<(File, OutputPort)>,
    /// Whether pipes or a terminal are at the other end.
    is_terminal: bool,
}

/// What the command will hold.
pub(crate) enum CommandEnd {
    /// Ends of pipes, in the order of the descriptors 1 and 2, and before them 0, or /dev/null.
    Pipes(Option<OwnedFd>, [OwnedFd; 2]),
    /// Path of the terminal in /dev/pts.
    Terminal(String),
}

/// The threads that carry the command's output.
pub(crate) struct Output(Vec<JoinHandle<()>>);

impl Stdio {
    /// Opens the ports, and pipes or a terminal.
    pub(crate) fn open(process: &Process) -> Result<(Self, CommandEnd)> {
        match process.terminal {
            Some(size) => Self::with_terminal(size),
            None => Self::with_pipes(process.null_input),
        }
    }

    fn with_pipes(null_input: bool) -> Result<(Self, CommandEnd)> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
        let (stdin, input) = if null_input {
            (None, None)
        } else {
            let (stdin, to_stdin) = pipe()?;
            (Some(stdin), Some((input_port()?, to_stdin.into())))
        };
        let (from_stdout, stdout) = pipe()?;
        let (from_stderr, stderr) = pipe()?;
        let ours = Self {
            input,
            outputs: vec![
                (from_stdout.into(), OutputPort::open(STDOUT_PORT)?),
                (from_stderr.into(), OutputPort::open(STDERR_PORT)?),
            ],
            is_terminal: false,
        };
        Ok((ours, CommandEnd::Pipes(stdin, [stdout, stderr])))
    }

    fn with_terminal(size: WindowSize) -> Result<(Self, CommandEnd)> {
        let (master, path) = terminal(size).context("open a terminal in /dev/pts")?;
        let ours = Self {
            input: Some((input_port()?, master.try_clone()?)),
            outputs: vec![(master, OutputPort::open(STDOUT_PORT)?)],
            is_terminal: true,
        };
        Ok((ours, CommandEnd::Terminal(path)))
    }

    /// A descriptor of the terminal, to change its size.
    pub(crate) fn terminal(&self) -> Result<Option<OwnedFd>> {
        let master = self.input.as_ref().filter(|_| self.is_terminal);
        let master = master.map(|(_, master)| master.as_fd().try_clone_to_owned());
        Ok(master.transpose()?)
    }

    /// Starts the threads.
    pub(crate) fn pump(self) -> Result<Output> {
        // Nobody waits for this one. Once the command does not read any more, the port is closed,
        // and with it the host's reason to send. The end of the port closes the pipe.
        if let Some((port, command)) = self.input {
            spawn_thread("stdin", move || carry("stdin", port, command))?;
        }
        let names = ["stdout", "stderr"];
        let outputs = names.into_iter().zip(self.outputs);
        outputs
            .map(|(name, (command, port))| spawn_thread(name, move || carry(name, command, port)))
            .collect::<Result<_>>()
            .map(Output)
    }
}

impl Output {
    /// Waits until all output is in the ports, and these are closed.
    pub(crate) fn drain(self) {
        for thread in self.0 {
            // A panic has powered off the guest already.
            let _ = thread.join();
        }
    }
}

impl CommandEnd {
    /// Makes them the standard streams of this process, which becomes a session's leader, and
    /// gives them to the user that the command will run as: it may open /dev/stdout again.
    ///
    /// Call it in the command's root.
    pub(crate) fn attach(self, uid: Uid) -> Result<()> {
        setsid().context("start a session")?;
        let [stdin, stdout, stderr] = match self {
            Self::Pipes(stdin, [stdout, stderr]) => [stdin.map_or_else(null, Ok)?, stdout, stderr],
            Self::Terminal(path) => {
                devices::bind_console(&path)?;
                controlling_terminal(&path)?
            }
        };
        become_streams([stdin, stdout, stderr], uid)
    }
}

/// The container's own, so that it finds what it has as its standard input.
fn null() -> Result<OwnedFd> {
    let path = "/dev/null";
    let null = File::options().read(true).write(true).open(path);
    let null = null.with_context(|| format!("open {path}"));
    null.map(OwnedFd::from)
}

/// Makes these the standard streams of this process, and gives them to a user, except for /dev/null, which is everybody's.
pub(crate) fn become_streams(streams: [OwnedFd; 3], uid: Uid) -> Result<()> {
    let is_null = |descriptor: &OwnedFd| fstat(descriptor).is_ok_and(|file| file.st_rdev == NULL);
    for descriptor in streams.iter().filter(|descriptor| !is_null(descriptor)) {
        fchown(descriptor, Some(uid), None).context("change the owner of a stream")?;
    }
    let [stdin, stdout, stderr] = streams;
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

/// Opens a terminal three times over. The first that a session's leader opens is the session's.
fn controlling_terminal(path: &str) -> Result<[OwnedFd; 3]> {
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open the terminal {path}"))?;
    Ok([
        terminal.try_clone()?.into(),
        terminal.try_clone()?.into(),
        terminal.into(),
    ])
}

fn input_port() -> Result<File> {
    ports::open(STDIN_PORT, File::options().read(true))
}

/// A pseudo-terminal: our end, and the path of the command's.
fn terminal(size: WindowSize) -> Result<(File, String)> {
    let master = master(size)?;
    let path = ptsname_r(&master)?;
    Ok((OwnedFd::from(master).into(), path))
}

/// Our end of a new pseudo-terminal, among those that the command has.
pub(crate) fn master(size: WindowSize) -> Result<PtyMaster> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    unlockpt(&master)?;
    syscalls::set_window_size(&master, size)?;
    Ok(master)
}

/// A thread with a small stack.
pub(crate) fn spawn_thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_SIZE)
        .spawn(body)
        .with_context(|| format!("start the thread {name}"))
}

/// Carries bytes from one end to the other until either ends, then closes both.
fn carry(name: &str, mut from: File, mut to: impl Write) {
    match copy(&mut from, &mut to) {
        Ok(()) => console::debug(format_args!("{name}: end")),
        Err(error) => console::debug(format_args!("{name}: {error}")),
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // How a terminal says that no process has it open any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn all_bytes_arrive_and_the_end_does() {
        let (from, mut source) = io::pipe().unwrap();
        let (mut sink, to) = io::pipe().unwrap();
        let (from, to) = [OwnedFd::from(from), OwnedFd::from(to)]
            .map(File::from)
            .into();
        let pump = spawn_thread("test", move || carry("test", from, to)).unwrap();
        let bytes: Vec<u8> = (0..1_000_000u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let sent = bytes.clone();
        let writer = thread::spawn(move || source.write_all(&sent).unwrap());
        let mut received = Vec::new();
        sink.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        pump.join().unwrap();
        assert!(received == bytes);
    }

    #[test]
    fn a_reader_that_leaves_ends_the_stream() {
        let (from, mut source) = io::pipe().unwrap();
        let (sink, to) = io::pipe().unwrap();
        let (from, to) = [OwnedFd::from(from), OwnedFd::from(to)]
            .map(File::from)
            .into();
        drop(sink);
        let pump = spawn_thread("test", move || carry("test", from, to)).unwrap();
        source.write_all(b"nobody reads this").unwrap();
        pump.join().unwrap();
        assert_eq!(
            source.write_all(b"nor this").unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_terminal_ends_with_its_last_user() {
        let (mut master, path) = terminal(WindowSize { rows: 24, cols: 80 }).unwrap();
        let mut slave = File::options()
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .unwrap();
        slave.write_all(b"bye").unwrap();
        drop(slave);
        let mut text = Vec::new();
        copy(&mut master, &mut text).unwrap();
        assert_eq!(text, b"bye");
    }
}
