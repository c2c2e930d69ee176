//! Contents of files.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;
use tests::pattern::{Digest, Pattern};

use crate::expect::{equal, refused, same_bytes};
use crate::mapping::Mapping;
use crate::{Check, Place};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "create-read-append-truncate",
        run: create_read_append_truncate,
    },
    Check {
        name: "positioned-io",
        run: positioned_io,
    },
    Check {
        name: "fsync",
        run: fsync,
    },
    Check {
        name: "direct-io",
        run: direct_io,
    },
    Check {
        name: "mmap-private",
        run: mmap_private,
    },
    Check {
        name: "mmap-shared",
        run: mmap_shared,
    },
    Check {
        name: "copy",
        run: copy,
    },
    Check {
        name: "unlinked-but-open",
        run: unlinked_but_open,
    },
    Check {
        name: "unnamed-file",
        run: unnamed_file,
    },
];

const PAGE: usize = 4096;

fn create_read_append_truncate(place: &Place) -> Result<()> {
    let path = place.path("file");
    refused("opening a missing file", File::open(&path), Errno::NOENT)?;
    let mut file = File::create_new(&path)?;
    refused("creating it twice", File::create_new(&path), Errno::EXIST)?;
    file.write_all(b"hello")?;
    equal("contents", fs::read(&path)?, b"hello".to_vec())?;

    let mut appending = File::options().append(true).open(&path)?;
    appending.seek(SeekFrom::Start(0))?;
    appending.write_all(b" world")?;
    // Appending goes to the end that another descriptor has moved.
    file.write_all(b"!")?;
    appending.write_all(b"s")?;
    equal(
        "appended contents",
        fs::read(&path)?,
        b"hello!worlds".to_vec(),
    )?;

    file.set_len(3)?;
    equal("shortened contents", fs::read(&path)?, b"hel".to_vec())?;
    file.set_len(5)?;
    equal("lengthened contents", fs::read(&path)?, b"hel\0\0".to_vec())?;
    equal("size", fs::metadata(&path)?.len(), 5)?;
    File::create(&path)?;
    equal("size after O_TRUNC", fs::metadata(&path)?.len(), 0)?;
    let reading = File::open(&path)?;
    refused(
        "writing to a file open for reading",
        (&reading).write(b"x"),
        Errno::BADF,
    )
}

fn positioned_io(place: &Place) -> Result<()> {
    let bytes = Pattern::bytes(1, 3 * PAGE + 7);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(place.path("file"))?;
    for (at, chunk) in bytes
        .chunks(1000)
        .enumerate()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
    {
        file.write_all_at(chunk, at as u64 * 1000)?;
    }
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, 0)?;
    same_bytes("pieces written from the end", &found, &bytes)?;
    let mut beyond = [0; 16];
    equal(
        "bytes behind the end",
        file.read_at(&mut beyond, bytes.len() as u64)?,
        0,
    )
}

fn fsync(place: &Place) -> Result<()> {
    let mut file = File::create_new(place.path("file"))?;
    file.write_all(b"durable")?;
    file.sync_data().context("fdatasync")?;
    file.sync_all().context("fsync")?;
    let directory = File::open(&place.dir)?;
    directory.sync_all().context("fsync of a directory")?;
    rustix::fs::syncfs(&directory).context("syncfs")?;
    equal(
        "contents",
        fs::read(place.path("file"))?,
        b"durable".to_vec(),
    )
}

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

fn mmap_private(place: &Place) -> Result<()> {
    let path = place.path("file");
    let bytes = Pattern::bytes(3, 5 * PAGE);
    fs::write(&path, &bytes)?;
    let mut mapping = Mapping::private(&File::open(&path)?, bytes.len())?;
    same_bytes("what is mapped", &mapping.read(), &bytes)?;
    mapping.write(PAGE, b"mine")?;
    equal("what I wrote", &mapping.read()[PAGE..PAGE + 4], b"mine")?;
    same_bytes("the file", &fs::read(&path)?, &bytes)
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

fn unlinked_but_open(place: &Place) -> Result<()> {
    let path = place.path("file");
    let bytes = Pattern::bytes(6, 2 * PAGE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.write_all(&bytes)?;
    fs::remove_file(&path)?;
    refused("opening it by name", File::open(&path), Errno::NOENT)?;
    equal("links of an unlinked file", file.metadata()?.nlink(), 0)?;
    file.write_all(b"more")?;
    let mut found = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut found)?;
    same_bytes("contents", &found, &[&bytes[..], b"more"].concat())
}

/// Programs that know O_TMPFILE do without it where a file system says that it has none.
fn unnamed_file(place: &Place) -> Result<()> {
    let flag = i32::try_from(OFlags::TMPFILE.bits())?;
    let opened = File::options()
        .read(true)
        .write(true)
        .custom_flags(flag)
        .mode(0o600)
        .open(&place.dir);
    let mut file = match opened {
        Ok(file) => file,
        failed => return refused("O_TMPFILE", failed, Errno::OPNOTSUPP),
    };
    file.write_all(b"unnamed")?;
    let mut found = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut found)?;
    equal("contents", found, b"unnamed".to_vec())?;
    ensure!(
        fs::read_dir(&place.dir)?.next().is_none(),
        "an unnamed file has a name"
    );
    Ok(())
}
