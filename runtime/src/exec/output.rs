//! Standard output or error, on the way from the command.
//!
//! Whoever reads it may be slow, and the file may be shared with others, the user's shell for one: it
//! stays in the mode that it is in, and no write may block.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proto::exec::MAX_DATA;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::net::{SendFlags, send};
use rustix::termios::isatty;

use super::input::reopen;

/// So much can be written to a pipe that is ready for it (`PIPE_BUF`, pipe(7)).
const ATOMIC: usize = 4096;

/// How to write without blocking.
enum Kind {
    /// It does not block: a pipe or terminal opened anew, a regular file, a device as /dev/null.
    Free(File),
    /// A socket can be told for each write.
    Socket,
    /// A pipe or terminal of somebody else: little at a time, when it is ready.
    Shared,
}

/// Where output goes, and what is still to be written.
pub(super) struct Output {
    file: OwnedFd,
    kind: Kind,
    pending: Vec<u8>,
    written: usize,
    closed: bool,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// As much as could be.
    Some,
    /// Nobody reads any more: what comes from now on is dropped.
    Closed,
}

impl Kind {
    fn of(file: &OwnedFd) -> Self {
        let kind = fstat(file).map_or(FileType::Unknown, |stat| {
            FileType::from_raw_mode(stat.st_mode)
        });
        if kind == FileType::Socket {
            return Self::Socket;
        }
        let is_free = kind != FileType::Fifo && !isatty(file);
        let free = match reopen(file.as_fd(), OFlags::WRONLY) {
            None if is_free => file.try_clone().ok().map(File::from),
            anew => anew,
        };
        free.map_or(Self::Shared, Self::Free)
    }
}

impl Output {
    /// Output to a file of this process.
    pub(super) fn new(file: OwnedFd) -> Self {
        Self {
            kind: Kind::of(&file),
            file,
            pending: Vec::new(),
            written: 0,
            closed: false,
        }
    }

    /// Adds bytes; false if nobody will read them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        if !self.closed {
            self.pending.drain(..self.written);
            self.written = 0;
            self.pending.extend_from_slice(bytes);
        }
        !self.closed
    }

    /// Whether there is room for another message.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() - self.written < MAX_DATA
    }

    /// What to wait for until it can be written, if there is anything to write.
    pub(super) fn wanted(&self) -> Option<BorrowedFd<'_>> {
        (!self.pending.is_empty()).then(|| self.file.as_fd())
    }

    /// Writes what does not block, when it is ready for that.
    pub(super) fn write(&mut self) -> Written {
        let bytes = self.pending.get(self.written..).unwrap_or_default();
        let result = match &mut self.kind {
            Kind::Free(file) => file.write(bytes),
            Kind::Socket => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                send(&self.file, bytes, flags).map_err(io::Error::from)
            }
            Kind::Shared => {
                let bytes = bytes.get(..ATOMIC).unwrap_or(bytes);
                rustix::io::write(&self.file, bytes).map_err(io::Error::from)
            }
        };
        match result {
            Ok(count) => self.written += count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => {
                self.closed = true;
                self.written = self.pending.len();
            }
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        if self.closed {
            Written::Closed
        } else {
            Written::Some
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Pushes and writes `total` bytes while `read` takes them; all of it must come through.
    fn all_comes_through(writer: OwnedFd, mut reader: impl Read + AsFd) {
        use rustix::event::{PollFd, PollFlags, poll};

        let mut output = Output::new(writer);
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        assert!(output.push(&bytes) && !output.has_room());
        let mut received = Vec::new();
        while let Some(file) = output.wanted() {
            let mut polled = [PollFd::new(&file, PollFlags::OUT)];
            let now = rustix::event::Timespec::default();
            if poll(&mut polled, Some(&now)).unwrap() == 1 {
                // Would not return if it blocked: nobody else reads.
                assert_eq!(output.write(), Written::Some);
                continue;
            }
            let mut buffer = [0; 10_000];
            let count = reader.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..count]);
        }
        drop(output);
        reader.read_to_end(&mut received).unwrap();
        assert!(received == bytes);
    }

    #[test]
    fn pipes_and_sockets_do_not_block() {
        let (reader, writer) = io::pipe().unwrap();
        all_comes_through(writer.into(), reader);
        let (reader, writer) = UnixStream::pair().unwrap();
        all_comes_through(writer.into(), reader);
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_anew_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(writer.into());
        output.kind = Kind::Shared;
        output.push(&[7; 5000]);
        output.write();
        assert_eq!(output.written, ATOMIC);
        output.write();
        assert!(output.wanted().is_none());
        let mut buffer = [0; 5000];
        reader.read_exact(&mut buffer).unwrap();
        assert_eq!(buffer, [7; 5000]);
    }

    #[test]
    fn a_file_takes_all_at_once() {
        for file in [
            tempfile::tempfile().unwrap(),
            File::create("/dev/null").unwrap(),
        ] {
            let mut output = Output::new(file.into());
            output.push(&[7; 100_000]);
            output.write();
            assert!(output.wanted().is_none());
        }
    }

    #[test]
    fn what_nobody_reads_is_dropped() {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::new(writer.into());
        drop(reader);
        assert!(output.push(b"x"));
        assert_eq!(output.write(), Written::Closed);
        assert!(!output.push(b"y") && output.wanted().is_none() && output.has_room());
    }
}
