//! What programs do with files, one operation after the other, for who counts the requests that each takes.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, chmodat, fcntl_lock, fstat, fstatvfs,
    ftruncate, mkdirat, openat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::{Errno, read, write};

/// In a directory, with a name.
type Act = fn(BorrowedFd<'_>, &str) -> Result<(), Errno>;

/// Name, what is there before, and what is done.
const OPERATIONS: &[(&str, Act, Act)] = &[
    ("create", nothing, |dir, name| {
        write_to(&open(
            dir,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
        )?)
    }),
    ("write", nothing, |dir, name| {
        write_to(&open(
            dir,
            name,
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY,
        )?)
    }),
    ("overwrite", file, |dir, name| {
        write_to(&open(
            dir,
            name,
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY,
        )?)
    }),
    ("append", file, |dir, name| {
        write_to(&open(dir, name, OFlags::APPEND | OFlags::WRONLY)?)
    }),
    ("read", file, |dir, name| {
        let file = open(dir, name, OFlags::RDONLY)?;
        read(file, &mut [0; 16][..]).map(drop)
    }),
    ("open", file, |dir, name| {
        open(dir, name, OFlags::RDONLY).map(drop)
    }),
    ("stat", file, |dir, name| stat(dir, name)),
    ("missing", nothing, |dir, name| match stat(dir, name) {
        Err(Errno::NOENT) => Ok(()),
        other => other.and(Err(Errno::EXIST)),
    }),
    ("unlink", file, |dir, name| {
        unlinkat(dir, name, AtFlags::empty())
    }),
    ("rename", file, |dir, name| {
        renameat(dir, name, dir, format!("{name}-renamed"))
    }),
    ("chmod", file, |dir, name| {
        chmodat(dir, name, Mode::RUSR, AtFlags::empty())
    }),
    ("truncate", file, |dir, name| {
        ftruncate(open(dir, name, OFlags::WRONLY)?, 1)
    }),
    ("mkdir", nothing, |dir, name| mkdirat(dir, name, Mode::RWXU)),
    ("mkdir-again", directory, |dir, name| {
        match mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(()),
            other => other.and(Err(Errno::NOENT)),
        }
    }),
    ("rmdir", directory, |dir, name| {
        unlinkat(dir, name, AtFlags::REMOVEDIR)
    }),
    ("list", directory, |dir, name| {
        let listed = open(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Dir::read_from(listed)?.try_for_each(|entry| entry.map(drop))
    }),
    ("symlink", nothing, |dir, name| {
        symlinkat("target", dir, name)
    }),
    ("lock", file, |dir, name| {
        fcntl_lock(
            open(dir, name, OFlags::RDWR)?,
            FlockOperation::NonBlockingLockExclusive,
        )
    }),
];

/// Enough for one of each to meet no attributes that have expired.
const ROUNDS: usize = 3;

/// Each is between two requests for what statfs(2) tells; its name is the line that it prints.
pub(crate) fn run(dir: &Path) -> Result<()> {
    let dir = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    for (number, (name, prepare, act)) in (0..ROUNDS).flat_map(|_| OPERATIONS).enumerate() {
        println!("{name}");
        let entry = format!("{number}-{name}");
        prepare(dir.as_fd(), &entry).context("prepare")?;
        // What the directory is may be believed for a second.
        fstat(&dir)?;
        fstatvfs(&dir)?;
        act(dir.as_fd(), &entry).context(*name)?;
        fstatvfs(&dir)?;
    }
    Ok(())
}

fn nothing(_: BorrowedFd<'_>, _: &str) -> Result<(), Errno> {
    Ok(())
}

/// One that is known with its attributes.
fn file(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    write_to(&open(
        dir,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY,
    )?)?;
    stat(dir, name)
}

fn directory(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    mkdirat(dir, name, Mode::RWXU)
}

fn open(dir: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

fn write_to(file: &OwnedFd) -> Result<(), Errno> {
    write(file, b"a line\n").map(drop)
}

fn stat(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)
}
