//! Host ends of streams: pipes, terminals, sockets and files that never block their thread.
//!
//! O_NONBLOCK belongs to the open file description, which an inherited descriptor shares with
//! other processes (a shell, Docker's shim), so it must not be changed there. Each kind of file has
//! its own way around that, see [`Access`].

mod spool;
#[cfg(test)]
mod stream_test;
mod vectored;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use libc::c_long;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::{major, minor};
use tracing::warn;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

pub(crate) use spool::Backlog;
pub use spool::Spool;
pub(crate) use vectored::MAX_BUFFERS;
use vectored::Vector;

/// What reading and writing streams asks of the kernel, beside [`crate::seccomp::ANY_THREAD`].
pub const SYSTEM_CALLS: [c_long; 4] = [
    libc::SYS_poll,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
];

/// The host end that the guest reads from.
#[derive(Debug)]
pub struct Input(Stream);

/// The host end that the guest writes to. A process that uses it has to ignore SIGPIPE, as Rust
/// programs do.
#[derive(Debug)]
pub struct Output(Stream);

/// What became of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes were read, at least one.
    Data(usize),
    /// There is nothing now; the descriptor becomes readable later.
    WouldBlock,
    /// There will be nothing any more: end of file, hang-up, or an error, which is logged.
    End,
}

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// So many bytes were taken, at least one.
    Bytes(usize),
    /// Nothing can be taken now; the descriptor becomes writable later.
    WouldBlock,
    /// Nobody will ever read it: closed pipe, hang-up, or an error, which is logged.
    Gone,
}

#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    access: Access,
}

/// How not to block on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Just so: a regular file never blocks (and epoll refuses it), and its position and O_APPEND
    /// are in the description that we were given; a pipe or terminal was opened anew with
    /// O_NONBLOCK.
    Direct,
    /// A socket, where MSG_DONTWAIT says it for each call.
    Socket,
    /// A pipe or terminal that could not be opened anew: asks poll(2) first, then moves no more
    /// than this, which is what poll promised.
    Polled(usize),
}

impl Input {
    /// The reading end `fd`.
    ///
    /// # Errors
    /// When `fd` cannot be looked at.
    pub fn new(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        Stream::new(fd.into(), libc::O_RDONLY).map(Self)
    }

    /// Reads into `slices` as much as is there.
    pub fn read<B: BitmapSlice>(&self, slices: &[VolatileSlice<'_, B>]) -> Read {
        self.read_vector(&Vector::from_slices(slices))
    }

    /// Reads into `bytes` as much as is there.
    pub fn read_bytes(&self, bytes: &mut [u8]) -> Read {
        self.read_vector(&Vector::from_slices(&[VolatileSlice::from(bytes)]))
    }

    fn read_vector(&self, vector: &Vector<'_>) -> Read {
        match self.0.transfer(vector, PollFlags::POLLIN, Vector::read) {
            Ok(0) => Read::End,
            Ok(count) => Read::Data(count),
            Err(Errno::EAGAIN) => Read::WouldBlock,
            // A terminal whose other end is closed, a peer that died.
            Err(Errno::EIO | Errno::ECONNRESET) => Read::End,
            Err(error) => {
                warn!("input for the guest ends here: {error}");
                Read::End
            }
        }
    }
}

impl Output {
    /// The writing end `fd`.
    ///
    /// # Errors
    /// When `fd` cannot be looked at.
    pub fn new(fd: impl Into<OwnedFd>) -> io::Result<Self> {
        Stream::new(fd.into(), libc::O_WRONLY).map(Self)
    }

    /// Writes as much of `slices`, which are not empty, as is taken.
    pub fn write<B: BitmapSlice>(&self, slices: &[VolatileSlice<'_, B>]) -> Written {
        self.write_vector(&Vector::from_slices(slices))
    }

    /// Writes as much of `bytes`, which are not empty, as is taken.
    pub fn write_bytes(&self, bytes: &[u8]) -> Written {
        self.write_vector(&Vector::from_bytes(bytes))
    }

    /// Tells the reader that nothing more comes, also where others hold the same socket.
    pub fn close(self) {
        if self.0.access == Access::Socket {
            // It fails if the peer is gone already.
            let _ = shutdown(self.0.fd.as_raw_fd(), Shutdown::Write);
        }
    }

    fn write_vector(&self, vector: &Vector<'_>) -> Written {
        match self.0.transfer(vector, PollFlags::POLLOUT, Vector::write) {
            Ok(0) | Err(Errno::EAGAIN) => Written::WouldBlock,
            Ok(count) => Written::Bytes(count),
            Err(Errno::EPIPE | Errno::EIO | Errno::ECONNRESET) => Written::Gone,
            Err(error) => {
                warn!("output of the guest is lost from here on: {error}");
                Written::Gone
            }
        }
    }
}

impl Stream {
    fn new(fd: OwnedFd, mode: i32) -> io::Result<Self> {
        // The link leads to the file itself, wherever it is and whatever the root directory.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let metadata = fs::metadata(&path)?;
        let kind = metadata.file_type();
        if kind.is_file() || kind.is_dir() || kind.is_block_device() {
            return Ok(Self::with(fd, Access::Direct));
        }
        if kind.is_socket() {
            return Ok(Self::with(fd, Access::Socket));
        }
        // To open the master of a terminal anew is to make a new terminal (devpts: 5, 2).
        let device = metadata.rdev();
        let is_master = kind.is_char_device() && (major(device), minor(device)) == (5, 2);
        if !is_master {
            let reopened = fs::File::options()
                .read(mode == libc::O_RDONLY)
                .write(mode == libc::O_WRONLY)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&path);
            if let Ok(file) = reopened {
                return Ok(Self::with(file.into(), Access::Direct));
            }
        }
        // A writable pipe takes PIPE_BUF bytes at once (pipe(7)), a terminal at least one.
        let promised = if kind.is_fifo() { libc::PIPE_BUF } else { 1 };
        Ok(Self::with(fd, Access::Polled(promised)))
    }

    fn with(fd: OwnedFd, access: Access) -> Self {
        Self { fd, access }
    }

    fn transfer<'a>(
        &self,
        vector: &Vector<'a>,
        ready: PollFlags,
        call: impl Fn(&Vector<'a>, RawFd, bool) -> nix::Result<usize>,
    ) -> nix::Result<usize> {
        let fd = self.fd.as_raw_fd();
        let once = || match self.access {
            Access::Direct => call(vector, fd, false),
            Access::Socket => call(vector, fd, true),
            Access::Polled(most) => {
                let mut polled = [PollFd::new(self.fd.as_fd(), ready)];
                if nix::poll::poll(&mut polled, PollTimeout::ZERO)? == 0 {
                    return Err(Errno::EAGAIN);
                }
                call(&vector.first(most), fd, false)
            }
        };
        loop {
            match once() {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }
}

/// The descriptor to watch for being readable.
impl AsRawFd for Input {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}

/// The descriptor to watch for being writable.
impl AsRawFd for Output {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd.as_raw_fd()
    }
}
