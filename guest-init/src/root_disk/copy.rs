//! Copying a tree of files with all that they have.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, ftruncate, linkat, mkdirat,
    mknodat, openat, readlinkat, seek, statat, symlinkat,
};
use rustix::io::{Errno, pread, pwrite};

use super::OWN;
use super::attributes::Attributes;
use super::exclusions::{Exclusions, Identity, identity};
use super::progress::Progress;
use super::remove::next;

/// Bytes that are read at once: as many as the share takes in one request.
const CHUNK: usize = 1 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory that is being copied.
struct Level {
    from: Dir,
    to: OwnedFd,
    stat: Stat,
    /// It stays empty.
    is_excluded: bool,
}

struct Copy<'a, 'b> {
    root: BorrowedFd<'a>,
    exclusions: Exclusions,
    /// File system of the image: what is mounted in it is not part of it.
    device: u64,
    /// Where the files are that have further names.
    links: HashMap<Identity, PathBuf>,
    /// Path of the directory that is being copied.
    path: PathBuf,
    attributes: Attributes,
    buffer: Vec<u8>,
    progress: &'a mut Progress<'b>,
}

/// Copies what is in one directory, and its attributes, into another.
///
/// # Errors
/// Names the file.
pub(super) fn tree(
    from: impl AsFd,
    to: impl AsFd,
    exclusions: Exclusions,
    progress: &mut Progress,
) -> Result<()> {
    let stat = fstat(&from)?;
    let mut copy = Copy {
        root: to.as_fd(),
        exclusions,
        device: stat.st_dev,
        links: HashMap::new(),
        path: PathBuf::new(),
        attributes: Attributes::new(),
        buffer: vec![0; CHUNK],
        progress,
    };
    let mut levels = vec![Level {
        from: Dir::read_from(from)?,
        to: to.as_fd().try_clone_to_owned()?,
        stat,
        is_excluded: false,
    }];
    while let Some(level) = levels.last_mut() {
        match copy.next(level) {
            Ok(Some(name)) => {
                let done = copy.file(level, &name);
                if let Some(below) = done.with_context(|| copy.named(&name))? {
                    levels.push(below);
                    copy.path.push(os(&name));
                }
            }
            Ok(None) => {
                copy.leave(level).with_context(|| copy.named(c""))?;
                levels.pop();
                copy.path.pop();
            }
            Err(error) => return Err(error.context(copy.named(c""))),
        }
    }
    Ok(())
}

impl Copy<'_, '_> {
    /// The name of the next file to copy.
    fn next(&self, level: &mut Level) -> Result<Option<CString>> {
        if level.is_excluded {
            return Ok(None);
        }
        let is_root = self.path.as_os_str().is_empty();
        loop {
            match next(&mut level.from)? {
                Some(name) if is_root && OWN.contains(&name.as_c_str()) => {}
                name => return Ok(name),
            }
        }
    }

    /// Copies a file, which a directory is not before its contents are.
    fn file(&mut self, level: &Level, name: &CStr) -> Result<Option<Level>> {
        let from = level.from.fd()?;
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_excluded = self.exclusions.has(identity(&level.stat), name);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return self.enter(level, name, is_excluded).map(Some);
        }
        if is_excluded || self.link(level, name, &stat)? {
            return Ok(None);
        }
        match kind {
            FileType::RegularFile => self.contents(level, name)?,
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?, &level.to, name)?;
            }
            FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket => mknodat(&level.to, name, kind, Mode::RUSR, stat.st_rdev)?,
            other => bail!("a file of type {other:?}"),
        }
        let places = (from, level.to.as_fd());
        self.attributes.copy(places, name, &stat)?;
        self.progress.file();
        Ok(None)
    }

    fn enter(&self, level: &Level, name: &CStr, is_excluded: bool) -> Result<Level> {
        let from = openat(level.from.fd()?, name, DIRECTORY, Mode::empty())?;
        let stat = fstat(&from)?;
        mkdirat(&level.to, name, Mode::RWXU)?;
        Ok(Level {
            to: openat(&level.to, name, DIRECTORY, Mode::empty())?,
            from: Dir::new(from)?,
            stat,
            is_excluded: is_excluded || stat.st_dev != self.device,
        })
    }

    /// A directory gets its attributes last: its times change by what is made in it, which its default
    /// access control list would be handed down to.
    fn leave(&mut self, level: &Level) -> Result<()> {
        let places = (level.from.fd()?, level.to.as_fd());
        self.attributes.copy(places, c".", &level.stat)?;
        self.progress.file();
        Ok(())
    }

    /// Makes a further name of a file that has been copied.
    fn link(&mut self, level: &Level, name: &CStr, stat: &Stat) -> Result<bool> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        if let Some(first) = self.links.get(&identity(stat)) {
            linkat(self.root, first, &level.to, name, AtFlags::empty())
                .with_context(|| format!("link to /{}", first.display()))?;
            self.progress.file();
            return Ok(true);
        }
        let first = self.path.join(os(name));
        self.links.insert(identity(stat), first);
        Ok(false)
    }

    fn contents(&mut self, level: &Level, name: &CStr) -> Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = openat(
            level.from.fd()?,
            name,
            flags | OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let to = openat(&level.to, name, flags, Mode::RUSR | Mode::WUSR)?;
        let size = u64::try_from(fstat(&from)?.st_size)?;
        let mut at = 0;
        while let Some((begin, end)) = data(&from, at, size)? {
            self.bytes(&from, &to, begin, end)?;
            at = end;
        }
        Ok(ftruncate(&to, size)?)
    }

    fn bytes(&mut self, from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> Result<()> {
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let room = self.buffer.get_mut(..most).unwrap_or_default();
            let count = pread(from, room, at)?;
            let mut rest = self.buffer.get(..count).unwrap_or_default();
            if rest.is_empty() {
                // Somebody on the host has made it shorter.
                break;
            }
            while !rest.is_empty() {
                let written = pwrite(to, rest, at)?;
                at += written as u64;
                rest = rest.get(written..).unwrap_or_default();
            }
            self.progress.bytes(count);
        }
        Ok(())
    }

    fn named(&self, name: &CStr) -> String {
        format!("copy /{}", self.path.join(os(name)).display())
    }
}

/// Where the next bytes are that are no hole, and where these end.
fn data(file: &OwnedFd, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let begin = match seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        begin => begin.context("look for data")?,
    };
    let end = seek(file, SeekFrom::Hole(begin)).context("look for a hole")?;
    let end = if end > begin { end.min(size) } else { size };
    Ok((begin < end).then_some((begin, end)))
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}
