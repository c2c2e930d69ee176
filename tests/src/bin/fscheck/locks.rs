//! Locks of one machine: whose they are, and when they end.

use std::fs::{File, TryLockError};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use nix::fcntl::{FcntlArg, fcntl};

use crate::expect::equal;
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "flock",
        run: flock,
    },
    Check {
        name: "locks-of-processes",
        run: of_processes,
    },
    Check {
        name: "locks-of-descriptions",
        run: of_descriptions,
    },
];

/// Never returns but by an error.
pub(crate) fn hold(path: &Path) -> Result<ExitCode> {
    let file = File::open(path)?;
    println!("waiting");
    file.lock()?;
    println!("has it");
    loop {
        std::thread::park();
    }
}

fn open(place: &Place) -> Result<File> {
    let mut options = File::options();
    let options = options.read(true).write(true).create(true);
    Ok(options.truncate(false).open(place.path("file"))?)
}

fn flock(place: &Place) -> Result<()> {
    let (one, other) = (open(place)?, open(place)?);
    one.lock_shared()?;
    other.try_lock_shared()?;
    match one.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        result => bail!("with another reader: {result:?}"),
    }
    other.unlock()?;
    one.try_lock()?;
    // The lock is the description's, and ends with its last descriptor.
    let again = one.try_clone()?;
    drop(one);
    ensure!(other.try_lock().is_err(), "it has ended with a descriptor");
    drop(again);
    Ok(other.try_lock()?)
}

/// Bytes 10 to 14.
fn record(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 10,
        l_len: 5,
        l_pid: 0,
    }
}

fn of_processes(place: &Place) -> Result<()> {
    let (one, other) = (open(place)?, open(place)?);
    fcntl(one.as_fd(), FcntlArg::F_SETLK(&record(libc::F_WRLCK)))?;
    // The same process by another descriptor: part of the lock is for reading now.
    fcntl(other.as_fd(), FcntlArg::F_SETLK(&record(libc::F_RDLCK)))?;
    let mut found = record(libc::F_WRLCK);
    fcntl(other.as_fd(), FcntlArg::F_OFD_GETLK(&mut found))?;
    equal("type", i32::from(found.l_type), libc::F_RDLCK)?;
    equal("range", (found.l_start, found.l_len), (10, 5))?;
    // Whoever closes any descriptor of the file ends them all.
    drop(open(place)?);
    let lock = record(libc::F_WRLCK);
    Ok(fcntl(other.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).map(drop)?)
}

fn of_descriptions(place: &Place) -> Result<()> {
    let (one, other) = (open(place)?, open(place)?);
    let lock = record(libc::F_WRLCK);
    fcntl(one.as_fd(), FcntlArg::F_OFD_SETLK(&lock))?;
    drop(open(place)?);
    let tried = fcntl(other.as_fd(), FcntlArg::F_OFD_SETLK(&lock));
    equal("a second lock", tried, Err(nix::errno::Errno::EAGAIN))?;
    drop(one);
    Ok(fcntl(other.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).map(drop)?)
}
