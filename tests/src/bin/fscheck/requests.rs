//! Each request that the guest's kernel makes for programs, once: which system calls and rights of root the threads of the
//! share have is our choice, and a request without those that it takes would fail.
//!
//! What a request does with files is the host kernel's business, and not looked at.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom, copy_file_range, fallocate,
    getxattr, listxattr, makedev, mknodat, renameat_with, seek, statvfs, syncfs,
};
use rustix::io::Errno;

use crate::expect::equal;
use crate::read_only::{CHANGES, prepare};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "requests",
        run: requests,
    },
    Check {
        name: "device-nodes",
        run: device_nodes,
    },
    Check {
        name: "unnamed-file",
        run: unnamed_file,
    },
];

/// Something that works in a directory that [`prepare`] has filled.
type Request = (&'static str, fn(&Path) -> io::Result<()>);

/// Beside [`CHANGES`].
const REQUESTS: &[Request] = &[
    ("read", |dir| fs::read(dir.join("file")).map(drop)),
    ("list", |dir| {
        fs::read_dir(dir)?.try_for_each(|entry| entry.map(drop))
    }),
    ("readlink", |dir| fs::read_link(dir.join("link")).map(drop)),
    ("getxattr", |dir| {
        Ok(getxattr(dir.join("file"), "user.a", &mut [0; 1][..]).map(drop)?)
    }),
    ("listxattr", |dir| {
        Ok(listxattr(dir.join("file"), &mut [0; 4096][..]).map(drop)?)
    }),
    ("statvfs", |dir| Ok(statvfs(dir).map(drop)?)),
    ("append", |dir| {
        let mut file = File::options().append(true).open(dir.join("file"))?;
        file.write_all(b"more")
    }),
    ("ftruncate", |dir| open(dir)?.set_len(3)),
    ("fsync", |dir| open(dir)?.sync_all()),
    ("fdatasync", |dir| open(dir)?.sync_data()),
    ("fsync-of-a-directory", |dir| File::open(dir)?.sync_all()),
    ("syncfs", |dir| Ok(syncfs(File::open(dir)?)?)),
    ("fallocate", |dir| {
        Ok(fallocate(open(dir)?, FallocateFlags::empty(), 0, 1 << 20)?)
    }),
    ("punch-hole", |dir| {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(open(dir)?, hole, 0, 4096)?)
    }),
    ("seek-data", |dir| {
        Ok(seek(open(dir)?, SeekFrom::Data(0)).map(drop)?)
    }),
    ("copy-file-range", |dir| {
        let copy = File::create(dir.join("copy"))?;
        Ok(copy_file_range(open(dir)?, None, copy, None, 4).map(drop)?)
    }),
    ("rename-exchange", |dir| {
        let (file, other) = (dir.join("file"), dir.join("directory"));
        Ok(renameat_with(CWD, file, CWD, other, RenameFlags::EXCHANGE)?)
    }),
];

fn open(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(dir.join("file"))
}

fn requests(place: &Place) -> Result<()> {
    for (name, request) in REQUESTS.iter().chain(CHANGES) {
        let dir = place.path(name);
        fs::create_dir(&dir)?;
        prepare(&dir)?;
        let result = request(&dir).context(*name);
        place.expected(name, result)?;
    }
    Ok(())
}

/// A container may make them, and they are the guest's devices.
fn device_nodes(place: &Place) -> Result<()> {
    let node = |name, kind, major, minor| -> Result<_> {
        let path = place.path(name);
        let device = makedev(major, minor);
        mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device)?;
        equal("device number", fs::metadata(&path)?.rdev(), device)?;
        Ok(path)
    };
    let block = node("block", FileType::BlockDevice, 259, 70_000)?;
    ensure!(
        fs::metadata(block)?.file_type().is_block_device(),
        "it is no block device"
    );
    // Linux, Documentation/admin-guide/devices.txt: 1:5 is /dev/zero.
    let mut zeros = [1; 16];
    File::open(node("zero", FileType::CharacterDevice, 1, 5)?)?.read_exact(&mut zeros)?;
    equal("zeros", zeros, [0; 16])
}

/// Programs that know O_TMPFILE do without it where a file system says that it has none.
fn unnamed_file(place: &Place) -> Result<()> {
    let opened = File::options()
        .write(true)
        .custom_flags(i32::try_from(OFlags::TMPFILE.bits())?)
        .mode(0o600)
        .open(&place.dir);
    match opened {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {}
        opened => opened.context("O_TMPFILE")?.write_all(b"unnamed")?,
    }
    let entries = fs::read_dir(&place.dir)?.count();
    equal("names of an unnamed file", entries, 0)
}
