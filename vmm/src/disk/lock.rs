//! Who may use an image at the same time: locks on the bytes that QEMU locks (its docs/system/images.rst
//! and block/file-posix.c), so that each of us is told of the other.
//!
//! A user of an image holds a read lock on one byte for each thing that it does, and on another for each
//! that it does not want others to do. The locks are those of the open file description: they end with
//! the process.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};

/// What is done to an image, as distances from [`DOES`] and [`REFUSES`].
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// The first byte for what a user does (RAW_LOCK_PERM_BASE).
const DOES: i64 = 100;
/// The first byte for what it does not want others to do (RAW_LOCK_SHARED_BASE).
const REFUSES: i64 = 200;

/// Locks an image, which is open for reading at least. Nobody wants others to write to it, so that one
/// who does has it alone.
///
/// # Errors
/// When another user of the image is in the way.
pub(crate) fn lock(file: &File, writable: bool) -> Result<()> {
    let does = if writable {
        &[READ, WRITE, RESIZE][..]
    } else {
        &[READ]
    };
    let refuses = [WRITE, RESIZE];
    // Locked before it is looked at: of two at once, one at least finds the other.
    for &what in does {
        hold(file, DOES + what)?;
    }
    for what in refuses {
        hold(file, REFUSES + what)?;
    }
    for &what in does {
        look(file, REFUSES + what)?;
    }
    for what in refuses {
        look(file, DOES + what)?;
    }
    Ok(())
}

/// Takes a read lock, which others may have as well.
fn hold(file: &File, byte: i64) -> Result<()> {
    let lock = record(libc::F_RDLCK, byte);
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).context("lock")?;
    Ok(())
}

/// Whether another one has the lock.
fn look(file: &File, byte: i64) -> Result<()> {
    let mut lock = record(libc::F_WRLCK, byte);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).context("locks")?;
    if i32::from(lock.l_type) != libc::F_UNLCK {
        bail!("in use by another machine: only readers share an image (read-only volumes, `ro`)");
    }
    Ok(())
}

fn record(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(first: bool, second: bool) -> Result<()> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || {
            File::options()
                .read(true)
                .write(true)
                .open(file.path())
                .unwrap()
        };
        let (one, other) = (open(), open());
        lock(&one, first)?;
        lock(&other, second)
    }

    #[test]
    fn only_readers_share_an_image() {
        twice(false, false).unwrap();
        for (first, second) in [(true, true), (true, false), (false, true)] {
            let error = twice(first, second).unwrap_err().to_string();
            assert!(error.starts_with("in use by another machine"), "{error}");
        }
    }

    #[test]
    fn a_lock_ends_with_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        lock(&file.reopen().unwrap(), true).unwrap();
        lock(&file.reopen().unwrap(), true).unwrap();
    }

    /// QEMU, without `share-rw=on`, reads and writes (bytes 100, 101), and refuses writers (201).
    #[test]
    fn qemus_locks_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let qemu = file.reopen().unwrap();
        for byte in [100, 101, 201, 203] {
            hold(&qemu, byte).unwrap();
        }
        for writable in [true, false] {
            assert!(lock(&file.reopen().unwrap(), writable).is_err());
        }
        // And ours are found by it: it looks for writers at 101 and at who refuses its own writing.
        drop(qemu);
        let ours = file.reopen().unwrap();
        lock(&ours, true).unwrap();
        let qemu = file.reopen().unwrap();
        assert!(look(&qemu, 101).is_err());
        assert!(look(&qemu, 201).is_err());
    }
}
