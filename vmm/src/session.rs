//! The host's side of the conversation with the guest's init, over the control port.
//!
//! Runs on the event loop's thread and never blocks: messages to the guest wait here until the
//! console device takes them.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proto::{Decoder, Error, Start, ToGuest, ToHost, WindowSize};
use tracing::{debug, info};

use crate::stats::processor_time;

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
}

/// Most bytes that wait for the guest: its orders, and then some signals and sizes. A guest that
/// takes none of them for so long gets no more.
const MAX_WAITING: usize = proto::MAX_FRAME + 4096;

/// One conversation, from Hello to the end.
pub struct Session {
    socket: UnixStream,
    decoder: Decoder<ToHost>,
    waiting: Vec<u8>,
    begun: Instant,
    start: Option<Start>,
    init_ready: Option<Duration>,
    outcome: Option<Outcome>,
}

impl Session {
    /// A session that will order the guest to `start`. `begun` is when the monitor was started,
    /// for statistics. Returns the other end of the control port's connection, too, which belongs
    /// to the console device.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn new(start: Start, begun: Instant) -> io::Result<(Self, UnixStream)> {
        let (socket, port) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let session = Self {
            socket,
            decoder: Decoder::new(),
            waiting: Vec::new(),
            begun,
            start: Some(start),
            init_ready: None,
            outcome: None,
        };
        Ok((session, port))
    }

    /// How the command ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Time from the monitor's start to init's Hello, once it came.
    pub fn init_ready(&self) -> Option<Duration> {
        self.init_ready
    }

    /// Whether the guest has its orders, so that signals mean something to it.
    pub fn has_begun(&self) -> bool {
        self.start.is_none()
    }

    /// Whether bytes wait for the socket to become writable.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a signal to the guest's command.
    pub fn signal(&mut self, number: i32) {
        self.send(&ToGuest::Signal { number });
    }

    /// Tells the guest's terminal its new size, or lets it start with this one.
    pub fn resize(&mut self, rows: u16, cols: u16) {
        let size = WindowSize { rows, cols };
        match &mut self.start {
            Some(start) => {
                let terminal = &mut start.process.terminal;
                *terminal = terminal.map(|_| size);
            }
            None => self.send(&ToGuest::Resize(size)),
        }
    }

    /// The socket is readable: takes in what the guest says.
    pub fn readable(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.fail("the guest closed the control port".into()),
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return self.fail(format!("control port: {e}")),
            }
            while self.outcome.is_none() {
                match self.decoder.next() {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => break,
                    Err(Error::Malformed) => debug!("the guest sent a message without sense"),
                    Err(error) => self.fail(format!("the guest's init: {error}")),
                }
            }
            if self.outcome.is_some() {
                return;
            }
        }
    }

    /// The socket is writable: hands on what waits.
    pub fn writable(&mut self) {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return self.fail(format!("control port: {e}")),
            }
        }
    }

    fn take(&mut self, message: ToHost) {
        match message {
            ToHost::Hello { .. } => {
                self.init_ready.get_or_insert(self.begun.elapsed());
                info!(cpu = ?processor_time(), after = ?self.begun.elapsed(), "init is ready");
                if let Some(start) = self.start.take() {
                    self.send(&ToGuest::start(start));
                }
            }
            ToHost::Started { pid } => {
                info!(pid, cpu = ?processor_time(), after = ?self.begun.elapsed(), "command started")
            }
            ToHost::Exited { code } => {
                info!(code, cpu = ?processor_time(), after = ?self.begun.elapsed(), "command exited");
                self.outcome = Some(Outcome::Exited(code));
            }
            ToHost::Failed { code, message } => {
                self.outcome = Some(Outcome::Failed {
                    code,
                    message: one_line(&message),
                });
            }
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
            Err(error) => self.fail(format!("the guest's orders: {error}")),
        }
    }

    fn fail(&mut self, message: String) {
        self.outcome
            .get_or_insert(Outcome::Failed { code: 1, message });
    }
}

impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What the guest says ends up on a terminal: no control characters, no second line, no novel.
fn one_line(text: &str) -> String {
    text.chars()
        .take(1000)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
#[path = "session_test.rs"]
mod tests;
