//! A root on a disk of the container's, with the image's files, which the first boot copies there.
//!
//! Later boots copy nothing. What changes on the host from start to start, /etc/hosts, /etc/hostname and
//! /etc/resolv.conf, are files that Docker mounts in the root, whatever that is: they are current, and
//! only their mount points are on the disk.
//!
//! A file at the top of the disk says how far it is. It is there, on stable storage, before anything is
//! copied, and says so last, once all that was copied is: a copy that was interrupted starts over. Files
//! on a disk that has no such file are somebody's, and are never removed.

mod attributes;
mod copy;
mod exclusions;
mod progress;
mod remove;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::mount::MsFlags;
use proto::RootDisk;
use rustix::fs::{Dir, Mode, OFlags, fstatvfs, fsync, openat, syncfs};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::console;
use crate::disks;
use crate::tree::Tree;
use exclusions::Exclusions;
use progress::Progress;

/// The file that says how far a disk is.
const MARKER: &CStr = c".runq-rootdisk";
/// What it says; equally long, so that the one replaces the other within a sector.
const BEGUN: &[u8; 26] = b"runq root disk 1: copying\n";
const COMPLETE: &[u8; 26] = b"runq root disk 1: is done\n";
/// What is at the top of the disk beside the root's files.
const OWN: [&CStr; 2] = [MARKER, c"lost+found"];

/// The type that is mounted: its driver takes ext2 and ext3, too.
const FSTYPE: &str = "ext4";
/// Where an ext2, ext3 or ext4 file system has this number (kernel, filesystems/ext4, Super Block).
const MAGIC_OFFSET: u64 = 1024 + 0x38;
const MAGIC: [u8; 2] = 0xef53_u16.to_le_bytes();

/// How far a disk is.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// There is nothing on it.
    Empty,
    /// A copy was interrupted.
    Begun,
    /// It is a root.
    Complete,
}

/// Mounts the disk with this node, after copying the files of `image` to it if it has none yet.
///
/// Call it while init's /proc is there. `copied` hears once a second of the files and bytes that are on the disk.
pub(crate) fn open(
    wanted: &RootDisk,
    device: &str,
    image: &Tree,
    copied: &mut dyn FnMut(u64, u64),
) -> Result<Tree> {
    mount(device)
        .and_then(|tree| {
            image.restrict(MsFlags::MS_RDONLY)?;
            let progress = Progress::new(copied);
            fill(&tree.directory()?, &image.directory()?, wanted, progress)?;
            Ok(tree)
        })
        .with_context(|| format!("root disk {}", wanted.id))
}

fn mount(device: &str) -> Result<Tree> {
    let disk = File::open(device).with_context(|| format!("open {device}"))?;
    ensure!(
        is_ext(&disk).with_context(|| format!("read {device}"))?,
        "there is no ext2 or ext4 file system on it: make one on the host by `mkfs.{FSTYPE}`"
    );
    // As the image's files, with set-user-id programs and device nodes.
    Tree::of_device(FSTYPE, device, MountAttrFlags::empty()).map_err(|errno| {
        let hint = disks::hint(errno, FSTYPE);
        anyhow!(errno).context(format!("mount {FSTYPE}{hint}"))
    })
}

/// Whether one of ext2, ext3 and ext4 is there. The driver's answer to another would be EINVAL, which
/// has other reasons, too.
fn is_ext(disk: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    match disk.read_exact_at(&mut magic, MAGIC_OFFSET) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| magic == MAGIC),
    }
}

fn fill(disk: &OwnedFd, image: &OwnedFd, wanted: &RootDisk, mut progress: Progress) -> Result<()> {
    match state(disk)? {
        State::Complete => return Ok(()),
        State::Begun => {
            console::debug(format_args!("root disk {}: starts over", wanted.id));
            remove::all(disk, &OWN).context("remove what an interrupted copy has left")?;
        }
        State::Empty => mark(disk, BEGUN)?,
    }
    let exclusions = Exclusions::find(image, &wanted.exclude)?;
    let copied = copy::tree(image, disk, exclusions, &mut progress)
        .and_then(|()| syncfs(disk).context("write to the disk"));
    copied.map_err(|error| explain(error, disk, &progress))?;
    console::debug(format_args!("root disk {}: {progress} copied", wanted.id));
    mark(disk, COMPLETE)
}

/// Says what a full disk is about: which of the files did not fit is of no interest.
fn explain(error: anyhow::Error, disk: &OwnedFd, progress: &Progress) -> anyhow::Error {
    if error.downcast_ref() != Some(&Errno::NOSPC) {
        return error;
    }
    let Ok(all) = fstatvfs(disk) else {
        return error;
    };
    let (size, inodes) = ((all.f_blocks * all.f_frsize) >> 20, all.f_files);
    anyhow!(
        "too small for the image: its file system has {size} MiB and {inodes} inodes, and was full after \
         {progress}; make a larger one, or leave out directories by RUNQ_ROOTDISK_EXCLUDE"
    )
}

fn state(disk: &OwnedFd) -> Result<State> {
    // The container can have made anything of it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut text = Vec::new();
    match openat(disk, MARKER, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        marker => {
            let marker = File::from(marker.context("open its /.runq-rootdisk")?);
            let mut start = marker.take(BEGUN.len() as u64 + 1);
            start
                .read_to_end(&mut text)
                .context("read its /.runq-rootdisk")?;
        }
    }
    match text.as_slice() {
        text if text == COMPLETE => Ok(State::Complete),
        text if text == BEGUN => Ok(State::Begun),
        _ if is_empty(disk)? => Ok(State::Empty),
        _ => bail!(
            "there are files on it, which are not of an image that was copied: name an empty disk, or make a new \
             file system on it by `mkfs.{FSTYPE}`"
        ),
    }
}

fn is_empty(disk: impl AsFd) -> Result<bool> {
    for entry in Dir::read_from(disk).context("list its files")? {
        let entry = entry.context("list its files")?;
        let name = entry.file_name();
        if ![c".", c".."].contains(&name) && !OWN.contains(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says how far the disk is, and returns once that is on stable storage.
fn mark(disk: &OwnedFd, text: &[u8]) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = || -> io::Result<()> {
        let marker = File::from(openat(disk, MARKER, flags, Mode::RUSR)?);
        marker.write_all_at(text, 0)?;
        marker.sync_all()?;
        Ok(fsync(disk)?)
    };
    write().context("write its /.runq-rootdisk")
}

#[cfg(test)]
#[path = "test.rs"]
mod tests;
