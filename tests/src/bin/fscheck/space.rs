//! The space that files take.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use anyhow::{Result, ensure};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek, statvfs};
use rustix::io::Errno;

use crate::expect::{equal, refused};
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "fallocate",
        run: fallocate_modes,
    },
    Check {
        name: "sparse",
        run: sparse,
    },
    Check {
        name: "free-space",
        run: free_space,
    },
];

const MIB: u64 = 1 << 20;

fn fallocate_modes(place: &Place) -> Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(place.path("file"))?;
    fallocate(&file, FallocateFlags::empty(), 0, MIB)?;
    equal("size", file.metadata()?.len(), MIB)?;
    ensure!(
        file.metadata()?.blocks() * 512 >= MIB,
        "fallocate took no space"
    );
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 2 * MIB)?;
    equal("kept size", file.metadata()?.len(), MIB)?;

    file.write_all(&vec![b'x'; MIB as usize])?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, hole, 4096, 8192)?;
    let mut found = vec![1; 16384];
    file.read_exact_at(&mut found, 0)?;
    let zeros = found[4096..12288].iter().all(|&byte| byte == 0);
    let around = found[..4096]
        .iter()
        .chain(&found[12288..])
        .all(|&byte| byte == b'x');
    ensure!(
        zeros && around,
        "punching a hole cleared other bytes than asked"
    );
    refused(
        "a negative length",
        fallocate(&file, hole, 0, 0),
        Errno::INVAL,
    )
}

fn sparse(place: &Place) -> Result<()> {
    let size = 64 * MIB;
    let data_at = 32 * MIB;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(place.path("file"))?;
    file.set_len(size)?;
    file.write_all_at(&[b'd'; 4096], data_at)?;
    file.sync_all()?;
    ensure!(
        file.metadata()?.blocks() * 512 < MIB,
        "a sparse file takes space"
    );
    equal("the data", seek(&file, SeekFrom::Data(0))?, data_at)?;
    equal("the hole before it", seek(&file, SeekFrom::Hole(0))?, 0)?;
    let behind = seek(&file, SeekFrom::Hole(data_at))?;
    ensure!(
        behind > data_at && behind < data_at + MIB,
        "the hole behind the data is at {behind}"
    );
    refused(
        "data behind the last",
        seek(&file, SeekFrom::Data(behind)),
        Errno::NXIO,
    )?;
    let mut byte = [1];
    file.read_exact_at(&mut byte, size - 1)?;
    equal("a byte of the hole", byte, [0])
}

fn free_space(place: &Place) -> Result<()> {
    let before = statvfs(&place.dir)?;
    ensure!(
        before.f_frsize >= 512,
        "fragments of {} bytes",
        before.f_frsize
    );
    ensure!(
        before.f_blocks >= before.f_bfree,
        "more is free than there is"
    );
    ensure!(
        before.f_bfree >= before.f_bavail,
        "more is available than is free"
    );
    ensure!(before.f_bavail > 0, "nothing is available");
    equal("longest name", before.f_namemax, 255)?;
    fs::write(place.path("file"), vec![b'x'; 4096])?;
    equal(
        "block size of a file",
        fs::metadata(place.path("file"))?.blksize() % 512,
        0,
    )
}
