//! The host's locks: OFD locks for those of fcntl(2), and flock(2)'s.
//!
//! Both belong to an open file description, and end with it. To the host's other programs, an OFD
//! lock is like any other of fcntl(2).

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;

use super::ranges::{Kind, LAST, Range};

/// What a description may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) read: bool,
    pub(super) write: bool,
}

impl Access {
    pub(super) fn of(file: &File) -> Result<Self, Errno> {
        let flags = OFlag::from_bits_retain(fcntl(file.as_fd(), FcntlArg::F_GETFL)?);
        let mode = flags & OFlag::O_ACCMODE;
        Ok(Self {
            read: mode != OFlag::O_WRONLY,
            write: mode != OFlag::O_RDONLY,
        })
    }

    /// Whether it is enough for a lock (fcntl(2), EBADF).
    pub(super) fn allows(self, kind: Kind) -> bool {
        match kind {
            Kind::Read => self.read,
            Kind::Write => self.write,
        }
    }
}

/// A description of the same file that shares nothing with `file`, for writing if that may be written
/// to. `descriptors` is /proc/self/fd.
pub(super) fn open_anew(descriptors: &File, file: &File) -> Result<File, Errno> {
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(Errno::EINVAL);
    }
    let access = Access::of(file)?;
    let open = |mode| {
        let name = file.as_raw_fd().to_string();
        openat(descriptors, &*name, mode | OFlag::O_CLOEXEC, Mode::empty())
    };
    let opened = match access {
        Access { write: false, .. } => open(OFlag::O_RDONLY),
        // A later lock of its owner may be for reading.
        Access { read: false, .. } => open(OFlag::O_RDWR).or_else(|_| open(OFlag::O_WRONLY)),
        Access { .. } => open(OFlag::O_RDWR),
    };
    opened.map(File::from).map_err(|_| Errno::ENOLCK)
}

/// Locks a range, or unlocks it, if nobody is in the way.
pub(super) fn set(file: &File, range: Range, kind: Option<Kind>) -> Result<(), Errno> {
    let record = record(range, kind);
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&record)).map(drop)
}

/// Locks a range as soon as nobody is in the way.
pub(super) fn wait(file: &File, range: Range, kind: Option<Kind>) -> Result<(), Errno> {
    let record = record(range, kind);
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&record)).map(drop)
}

/// A lock of another description that is in the way.
pub(super) fn test(file: &File, range: Range, kind: Kind) -> Result<Option<(Range, Kind)>, Errno> {
    let mut record = record(range, Some(kind));
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut record))?;
    let kind = match i32::from(record.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => Kind::Read,
        _ => Kind::Write,
    };
    let start = record.l_start.max(0).cast_unsigned();
    let end = match record.l_len {
        0 => LAST,
        length => start.saturating_add_signed(length - 1).min(LAST),
    };
    Ok(Some((Range { start, end }, kind)))
}

fn record(Range { start, end }: Range, kind: Option<Kind>) -> libc::flock {
    let kind = match kind {
        Some(Kind::Read) => libc::F_RDLCK,
        Some(Kind::Write) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    // No number is above `LAST`. A length of 0 reaches to the end of the file.
    let length = if end == LAST { 0 } else { end - start + 1 };
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start.cast_signed(),
        l_len: length.cast_signed(),
        l_pid: 0,
    }
}

/// flock(2), if nobody is in the way.
pub(super) fn flock(file: &File, kind: Option<Kind>) -> Result<(), Errno> {
    let locked = match kind {
        Some(Kind::Read) => file.try_lock_shared(),
        Some(Kind::Write) => file.try_lock(),
        None => file.unlock().map_err(TryLockError::Error),
    };
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => Errno::EAGAIN,
        TryLockError::Error(error) => errno(&error),
    })
}

/// flock(2), as soon as nobody is in the way.
pub(super) fn wait_for_flock(file: &File, kind: Option<Kind>) -> Result<(), Errno> {
    let locked = match kind {
        Some(Kind::Read) => file.lock_shared(),
        Some(Kind::Write) => file.lock(),
        None => file.unlock(),
    };
    locked.map_err(|error| errno(&error))
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
