//! Contents of files, by the ways that the share is configured for: large requests, past the cache, and mapped.

use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{Context, Result};
use rustix::fs::{Advice, OFlags};
use tests::pattern::{Digest, Pattern};

use crate::expect::{equal, same_bytes};
use crate::mapping::Mapping;
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "direct-io",
        run: direct_io,
    },
    Check {
        name: "mmap-shared",
        run: mmap_shared,
    },
    Check {
        name: "copy",
        run: copy,
    },
];

const PAGE: usize = 4096;

/// Databases open their files so; the bytes need not pass by any cache, but they must be right.
fn direct_io(place: &Place) -> Result<()> {
    let flag = i32::try_from(OFlags::DIRECT.bits())?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(flag)
        .open(place.path("file"))
        .context("open with O_DIRECT")?;
    let bytes = Pattern::bytes(2, 16 * PAGE);
    let mut memory = vec![0; bytes.len() + PAGE];
    let head = memory.as_ptr().align_offset(PAGE);
    let aligned = &mut memory[head..head + bytes.len()];
    aligned.copy_from_slice(&bytes);
    file.write_all_at(aligned, 0)?;
    aligned.fill(0);
    file.read_exact_at(aligned, 0)?;
    same_bytes("what was written", aligned, &bytes)?;
    same_bytes("what others read", &fs::read(place.path("file"))?, &bytes)
}

fn mmap_shared(place: &Place) -> Result<()> {
    let path = place.path("file");
    let mut bytes = Pattern::bytes(4, 5 * PAGE);
    fs::write(&path, &bytes)?;
    let file = File::options().read(true).write(true).open(&path)?;
    let mut mapping = Mapping::shared(&file, bytes.len())?;
    let mut second = Mapping::shared(&file, bytes.len())?;
    mapping.write(PAGE - 2, b"mapped")?;
    bytes[PAGE - 2..PAGE + 4].copy_from_slice(b"mapped");
    same_bytes("the other mapping", &second.read(), &bytes)?;
    second.write(0, b"!")?;
    bytes[0] = b'!';
    mapping.sync().context("msync")?;
    same_bytes("the file", &fs::read(&path)?, &bytes)?;
    file.write_all_at(b"written", 2 * PAGE as u64)?;
    bytes[2 * PAGE..2 * PAGE + 7].copy_from_slice(b"written");
    same_bytes("the mapping after write(2)", &mapping.read(), &bytes)
}

fn copy(place: &Place) -> Result<()> {
    let (source, target) = (place.path("source"), place.path("target"));
    let mut pattern = Pattern::new(5).take(place.size);
    // Each write is a request, and has as much as a request may have.
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&source)?);
    equal(
        "bytes written",
        std::io::copy(&mut pattern, &mut file)?,
        place.size,
    )?;
    file.into_inner()?.sync_all()?;
    // By copy_file_range(2) where the file system has it.
    equal("bytes copied", fs::copy(&source, &target)?, place.size)?;
    let copied = File::open(&target)?;
    copied.sync_all()?;
    // From the file system again, as far as that is possible, and not from memory.
    rustix::fs::fadvise(&copied, 0, None, Advice::DontNeed)?;
    let expected = Digest::of(Pattern::new(5).take(place.size))?;
    equal("digest of the copy", Digest::of(copied)?, expected)?;
    rustix::fs::fadvise(&File::open(&source)?, 0, None, Advice::DontNeed)?;
    equal(
        "digest of the source",
        Digest::of(File::open(&source)?)?,
        expected,
    )
}
