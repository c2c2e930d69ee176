//! The host's end of a connection: a program at a Unix socket, and what it has not taken yet.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::WriteVolatile;

use super::room::{Room, io_error};
use crate::queue::buffers::Slice;

/// A program of the host.
#[derive(Debug)]
pub(super) struct Program {
    stream: UnixStream,
    /// Bytes that it has not taken yet.
    outgoing: VecDeque<u8>,
    /// Nothing comes for it after these.
    closing: bool,
    /// It takes no more.
    deaf: bool,
}

impl Program {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outgoing: VecDeque::new(),
            closing: false,
            deaf: false,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether it takes no more bytes.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether nothing is kept for it.
    pub(super) fn has_all(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Tells it something before all else. Returns whether it took that at once.
    pub(super) fn greet(&mut self, line: &str) -> bool {
        matches!(self.stream.write(line.as_bytes()), Ok(written) if written == line.len())
    }

    /// Reads at most `limit` bytes, as [`Room::read`].
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn read(&mut self, room: &mut Room<'_>, limit: usize) -> io::Result<usize> {
        room.read(&mut self.stream, limit)
    }

    /// Writes a piece of guest memory, and keeps what the program does not take. Returns how many
    /// bytes are not kept.
    pub(super) fn put(&mut self, slice: &Slice<'_>) -> usize {
        let mut written = 0;
        while self.outgoing.is_empty() && !self.deaf && written < slice.len() {
            let Ok(rest) = slice.offset(written) else {
                return written;
            };
            let result = self.stream.write_volatile(&rest).map_err(io_error);
            match self.written(result) {
                0 => break,
                count => written += count,
            }
        }
        if self.deaf {
            return slice.len();
        }
        if let Ok(rest) = slice.offset(written)
            && !rest.is_empty()
        {
            let mut copy = vec![0; rest.len()];
            rest.copy_to(&mut copy);
            self.outgoing.extend(copy);
        }
        written
    }

    /// Writes what is kept, as far as the program takes it. Returns how many bytes are kept no more.
    pub(super) fn flush(&mut self) -> usize {
        let kept = self.outgoing.len();
        while !self.outgoing.is_empty() && !self.deaf {
            let result = self.stream.write(self.outgoing.as_slices().0);
            let count = self.written(result);
            if count == 0 {
                break;
            }
            self.outgoing.drain(..count);
        }
        if self.deaf {
            self.outgoing.clear();
        }
        let left = self.outgoing.len();
        if left == 0 {
            // Most connections need no memory most of the time.
            self.outgoing = VecDeque::new();
            if self.closing {
                let _ = self.stream.shutdown(Shutdown::Write);
            }
        }
        kept - left
    }

    /// How many bytes were written: none if the program takes no more, for now or for good.
    fn written(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => {
                self.deaf = true;
                0
            }
        }
    }

    /// Nothing more comes for it: it hears so from [`Self::flush`] when it has taken all.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Nobody reads what it sends any more.
    pub(super) fn ignore(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// It is gone.
    pub(super) fn lose(&mut self) {
        self.deaf = true;
    }

    /// Whether both directions are closed at its end.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let polled_one = poll(&mut polled, PollTimeout::ZERO);
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        polled_one.is_ok() && events.intersects(PollFlags::POLLHUP)
    }
}

impl AsRawFd for Program {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
