//! Single operations, tried by another process as another user.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::io::Errno;

/// User and group; no further groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    pub(crate) const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse()
                .map_err(|_| format!("{part:?} is not a number"))
        };
        let (uid, gid) = text.split_once(':').ok_or("expected UID:GID")?;
        Ok(Self {
            uid: number(uid)?,
            gid: number(gid)?,
        })
    }
}

/// What is tried.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Operation {
    /// Read a file
    Read,
    /// Write a byte into a file
    Write,
    /// Make a file that is not there
    Create,
    /// Remove a file
    Delete,
    /// Read a directory
    List,
    /// Allow everybody everything
    Chmod,
    /// Give it to root
    Chown,
}

impl Operation {
    fn perform(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Read => File::open(path)?.read_to_end(&mut Vec::new()).map(drop),
            Self::Write => File::options().write(true).open(path)?.write_all(b"w"),
            Self::Create => File::create_new(path).map(drop),
            Self::Delete => fs::remove_file(path),
            Self::List => fs::read_dir(path)?.try_for_each(|entry| entry.map(drop)),
            Self::Chmod => fs::set_permissions(path, PermissionsExt::from_mode(0o777)),
            Self::Chown => chown(path, Some(0), Some(fs::metadata(path)?.gid())),
        }
    }
}

/// Performs it in a process of that user; the number of its error, or 0.
pub(crate) fn in_this_process(user: User, operation: Operation, path: &Path) -> Result<u8> {
    if rustix::process::getuid().as_raw() != user.uid {
        return in_new_process(user, operation, path).map(|errno| errno.map_or(0, number));
    }
    match operation.perform(path) {
        Ok(()) => Ok(0),
        Err(error) => Ok(Errno::from_io_error(&error).map_or(u8::MAX, number)),
    }
}

/// Performs it as that user; its error, if it had one.
pub(crate) fn in_new_process(
    user: User,
    operation: Operation,
    path: &Path,
) -> Result<Option<Errno>> {
    let operation = operation
        .to_possible_value()
        .context("an operation has a name")?;
    let status = Command::new("/proc/self/exe")
        .args([
            "as",
            &format!("{}:{}", user.uid, user.gid),
            operation.get_name(),
        ])
        .arg(path)
        .uid(user.uid)
        .gid(user.gid)
        .status()
        .context("start fscheck as another user")?;
    match status.code() {
        Some(0) => Ok(None),
        Some(number) if number != i32::from(u8::MAX) => Ok(Some(Errno::from_raw_os_error(number))),
        _ => bail!("fscheck as user {} ended with {status}", user.uid),
    }
}

/// That `user` may do that.
pub(crate) fn allowed(user: User, operation: Operation, path: &Path) -> Result<()> {
    match in_new_process(user, operation, path)? {
        None => Ok(()),
        Some(errno) => bail!(
            "{operation:?} by user {} of {}: {errno}",
            user.uid,
            path.display()
        ),
    }
}

/// That `user` may not do that, for this reason.
pub(crate) fn denied(user: User, operation: Operation, path: &Path, errno: Errno) -> Result<()> {
    let what = format!("{operation:?} by user {} of {}", user.uid, path.display());
    let result = in_new_process(user, operation, path)?;
    crate::expect::refused(&what, result.map_or(Ok(()), Err), errno)
}

/// Error numbers are below 134 on Linux.
fn number(errno: Errno) -> u8 {
    u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX)
}
