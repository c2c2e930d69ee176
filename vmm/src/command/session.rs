//! The host's side of the conversation with the guest's init, over the control port.
//!
//! Runs on the event loop's thread and never blocks: messages to the guest wait here until the
//! console device takes them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::c_long;
use proto::{Decoder, Error, MacAddress, Plug, Start, ToGuest, ToHost, WindowSize};
use tracing::{debug, error, info};

use super::starter::Starter;
use super::systemd;
use crate::log::{PROGRESS, one_line};
use crate::stats::{milestone, since_start};

/// How the guest's command ended, or why it did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran; its exit status, or 128 + N if signal N ended it.
    Exited(u8),
    /// It could not be run.
    Failed {
        /// The exit status to end with.
        code: u8,
        /// One line that says why.
        message: String,
    },
    /// The conversation with init broke down, as one line says: there is no exit status.
    Broken(String),
}

/// What a session asks of the kernel, beside [`devices::seccomp::ANY_THREAD`].
pub(crate) const SYSTEM_CALLS: [c_long; 2] = [libc::SYS_recvfrom, libc::SYS_sendto];

/// Most bytes that wait for the guest: its orders, and then some signals and sizes. A guest that
/// takes none of them for so long gets no more.
const MAX_WAITING: usize = proto::MAX_FRAME + 4096;

/// Most characters of the guest's own words that are shown.
const MAX_MESSAGE: usize = 1000;

/// Most processes that are named which the guest's kernel has killed: more would fill the user's log.
const MAX_KILLS: u32 = 100;

/// Most characters of such a name. Linux has 15 bytes, which its log may show as `\xNN` each.
const MAX_NAME: usize = 60;

/// One conversation, from Hello to the end.
pub(crate) struct Session {
    socket: UnixStream,
    decoder: Decoder<ToHost>,
    waiting: Vec<u8>,
    systemd: bool,
    start: Option<Start>,
    init_ready: Option<Duration>,
    /// What the guest said last.
    unplugged: Option<MacAddress>,
    dropped: bool,
    /// Processes that were killed for want of memory.
    kills: u32,
    /// Becomes longer with the first of them.
    record: Option<File>,
    /// Is told when the command is started.
    starter: Starter,
    outcome: Option<Outcome>,
}

impl Session {
    /// A session that will order the guest to `start`, which is `systemd` or another command.
    /// Returns the other end of the control port's connection, too, which belongs to the console
    /// device.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn new(start: Start, systemd: bool) -> io::Result<(Self, UnixStream)> {
        let (socket, port) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let session = Self {
            socket,
            decoder: Decoder::new(),
            waiting: Vec::new(),
            systemd,
            start: Some(start),
            init_ready: None,
            unplugged: None,
            dropped: false,
            kills: 0,
            record: None,
            starter: Starter::default(),
            outcome: None,
        };
        Ok((session, port))
    }

    /// Has a file become longer when the guest has killed a process for want of memory.
    pub(crate) fn record_kills(&mut self, file: Option<File>) {
        self.record = file;
    }

    /// Has somebody be told when the command is started.
    pub(crate) fn tell_start(&mut self, starter: Starter) {
        self.starter = starter;
    }

    /// How the command ended, once it has.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Time from the monitor's start to init's Hello, once it came.
    pub(crate) fn init_ready(&self) -> Option<Duration> {
        self.init_ready
    }

    /// Whether the guest has its orders, so that signals mean something to it.
    pub(crate) fn has_begun(&self) -> bool {
        self.start.is_none()
    }

    /// Whether bytes wait for the socket to become writable.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a signal to the guest's command.
    pub(crate) fn signal(&mut self, number: i32) {
        self.send(&ToGuest::Signal { number });
    }

    /// Tells the guest's terminal its new size, or lets it start with this one.
    pub(crate) fn resize(&mut self, size: WindowSize) {
        match &mut self.start {
            Some(start) => {
                let terminal = &mut start.process.terminal;
                *terminal = terminal.map(|_| size);
            }
            None => self.send(&ToGuest::Resize(size)),
        }
    }

    /// Tells the guest of a change of its network.
    pub(crate) fn plug(&mut self, plug: Plug) {
        self.send(&ToGuest::Plug(plug));
    }

    /// The interface that the guest has let go of since the last time. It is told of one after the
    /// other.
    pub(crate) fn take_unplugged(&mut self) -> Option<MacAddress> {
        self.unplugged.take()
    }

    /// Has the guest let go of files that it knows but does not use.
    pub(crate) fn drop_caches(&mut self) {
        self.send(&ToGuest::DropCaches);
    }

    /// Whether it has since the last time.
    pub(crate) fn take_dropped(&mut self) -> bool {
        std::mem::take(&mut self.dropped)
    }

    /// The socket is readable: takes in what the guest says.
    pub(crate) fn readable(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.break_down("the guest closed the control port".into()),
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return self.break_down(format!("control port: {e}")),
            }
            while self.outcome.is_none() {
                match self.decoder.next() {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => break,
                    Err(Error::Malformed) => debug!("the guest sent a message without sense"),
                    Err(error) => self.break_down(format!("the guest's init: {error}")),
                }
            }
            if self.outcome.is_some() {
                return;
            }
        }
    }

    /// The socket is writable: hands on what waits.
    pub(crate) fn writable(&mut self) {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return self.break_down(format!("control port: {e}")),
            }
        }
    }

    fn take(&mut self, message: ToHost) {
        match message {
            ToHost::Hello { .. } => {
                self.init_ready.get_or_insert_with(since_start);
                milestone("init is ready");
                if let Some(start) = self.start.take() {
                    self.send(&ToGuest::start(start));
                }
            }
            ToHost::Copied { files, bytes } => {
                let mebibytes = bytes >> 20;
                info!(target: PROGRESS, "root disk: {files} files and {mebibytes} MiB copied so far");
            }
            ToHost::Started { pid } => {
                milestone(format_args!("command started pid={pid}"));
                self.starter.started();
            }
            ToHost::Unplugged(mac) => self.unplugged = Some(mac),
            ToHost::CachesDropped => self.dropped = true,
            ToHost::OutOfMemory { name } => self.out_of_memory(&name),
            ToHost::Exited { code } => {
                milestone(format_args!("command exited code={code}"));
                let code = if self.systemd {
                    systemd::exit_code(code)
                } else {
                    code
                };
                self.outcome = Some(Outcome::Exited(code));
            }
            ToHost::Failed { code, message } => {
                let message = one_line(&message).chars().take(MAX_MESSAGE).collect();
                self.outcome = Some(Outcome::Failed { code, message });
            }
        }
    }

    /// Tells the user, who sees only that a process was killed.
    fn out_of_memory(&mut self, name: &str) {
        self.kills = self.kills.saturating_add(1);
        if let Some(mut record) = self.record.take()
            && let Err(error) = record.write_all(b"1")
        {
            debug!("record of a kill: {error}");
        }
        if self.kills <= MAX_KILLS {
            let name: String = one_line(name).chars().take(MAX_NAME).collect();
            error!(
                "out of memory: the guest's kernel has killed {name:?}: give it more (--memory, RUNQ_MEM)"
            );
        }
    }

    fn send(&mut self, message: &ToGuest) {
        if self.outcome.is_some() {
            return;
        }
        match proto::encode(message) {
            Ok(frame) if self.waiting.len() + frame.len() <= MAX_WAITING => {
                self.waiting.extend(frame);
                self.writable();
            }
            Ok(_) => debug!("the guest takes no messages: one dropped"),
            Err(error) => self.break_down(format!("the guest's orders: {error}")),
        }
    }

    fn break_down(&mut self, message: String) {
        self.outcome.get_or_insert(Outcome::Broken(message));
    }
}

impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
