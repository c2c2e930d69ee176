//! A client's socket: a stream that does not block.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{Shutdown, shutdown};

/// The socket, which knows whether there was anything left to read.
pub(super) struct Socket {
    file: File,
    is_dry: bool,
}

impl Socket {
    /// The last read found nothing: the kernel tells when there is more.
    pub(super) fn is_dry(&self) -> bool {
        self.is_dry
    }
}

impl From<OwnedFd> for Socket {
    fn from(socket: OwnedFd) -> Self {
        Self {
            file: socket.into(),
            is_dry: true,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer);
        self.is_dry = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        read
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// A message is several records of TLS, which go together.
    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        self.file.write_vectored(records)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A child that has not executed its command yet has a copy, which would keep it open.
        let _ = shutdown(self.as_fd().as_raw_fd(), Shutdown::Both);
    }
}
