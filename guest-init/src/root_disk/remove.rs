//! Removing what is in a directory, however deep it is.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, removexattr, unlinkat};
use rustix::io::Errno;

/// Removes all files of a directory but those with these names, and what it would hand down to new ones.
pub(super) fn all(directory: impl AsFd, kept: &[&CStr]) -> Result<()> {
    let mut open = vec![(Dir::read_from(&directory)?, c".".to_owned())];
    while let Some((at, _)) = open.last_mut() {
        match next(at)? {
            Some(name) if open.len() == 1 && kept.contains(&name.as_c_str()) => {}
            Some(name) => {
                if let Some(below) = unlink(open.last(), &name).with_context(|| text(&name))? {
                    open.push((below, name));
                }
            }
            None => leave(&mut open)?,
        }
    }
    let path = super::attributes::path(directory.as_fd(), c".");
    match removexattr(path, "system.posix_acl_default") {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        removed => removed.context("system.posix_acl_default"),
    }
}

/// The name of the next file in a directory.
pub(super) fn next(directory: &mut Dir) -> Result<Option<CString>> {
    for entry in directory {
        let entry = entry.context("list the files")?;
        if ![c".", c".."].contains(&entry.file_name()) {
            return Ok(Some(entry.file_name().to_owned()));
        }
    }
    Ok(None)
}

/// Removes a file; a directory is opened instead.
fn unlink(at: Option<&(Dir, CString)>, name: &CStr) -> Result<Option<Dir>> {
    let Some((at, _)) = at else {
        return Ok(None);
    };
    match unlinkat(at.fd()?, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(Some(Dir::new(openat(
                at.fd()?,
                name,
                flags,
                Mode::empty(),
            )?)?))
        }
        removed => Ok(removed.map(|()| None)?),
    }
}

/// Removes the directory that is empty now; if its list was not complete, it is gone through again.
fn leave(open: &mut Vec<(Dir, CString)>) -> Result<()> {
    let (mut left, name) = match open.pop() {
        Some(last) => last,
        None => return Ok(()),
    };
    let Some((parent, _)) = open.last() else {
        return Ok(());
    };
    match unlinkat(parent.fd()?, name.as_c_str(), AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => {
            left.rewind();
            open.push((left, name));
            Ok(())
        }
        removed => removed.with_context(|| text(&name)),
    }
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
