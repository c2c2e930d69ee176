//! What an image stands on, as its header names it (QEMU's docs/interop/qcow2.txt, "Header").

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use devices::dev::blk::QCOW2_MAGIC;

/// The most images that one stands on.
pub const MAX_BACKING: usize = 16;

/// Where the header has `backing_file_offset` (8 bytes) and `backing_file_size` (4 bytes behind that).
const BACKING_FILE: u64 = 8;
/// The longest name, in bytes.
const MAX_NAME: u32 = 1023;

/// The name of the file that an image stands on. None, if it stands on nothing or is no qcow2 image.
///
/// What is a raw image to a guest may begin with anything, were it not that our devices refuse to write
/// the beginning of a qcow2 image to one whose format was found out.
///
/// # Errors
/// Says what is wrong with the name.
pub fn backing_file(file: &impl FileExt) -> Result<Option<String>> {
    if !has_magic(file)? {
        return Ok(None);
    }
    let (mut offset, mut size) = ([0; 8], [0; 4]);
    file.read_exact_at(&mut offset, BACKING_FILE)
        .and_then(|()| file.read_exact_at(&mut size, BACKING_FILE + 8))
        .context("its header is cut off")?;
    let (offset, size) = (u64::from_be_bytes(offset), u32::from_be_bytes(size));
    if offset == 0 {
        return Ok(None);
    }
    ensure!(
        (1..=MAX_NAME).contains(&size),
        "the name of its backing file has {size} bytes: 1 to {MAX_NAME} are allowed"
    );
    let outside = || format!("the name of its backing file is outside of it, at {offset:#x}");
    // pread(2) has no larger offsets.
    let end = offset.checked_add(size.into());
    ensure!(end.is_some_and(|end| i64::try_from(end).is_ok()), outside());
    let mut name = vec![0; size as usize];
    file.read_exact_at(&mut name, offset)
        .with_context(outside)?;
    let name = String::from_utf8(name).ok();
    let name = name.context("the name of its backing file is not UTF-8")?;
    Ok(Some(name))
}

/// Whether a file begins as a qcow2 image does.
pub(super) fn has_magic(file: &impl FileExt) -> io::Result<bool> {
    let mut magic = [0; QCOW2_MAGIC.len()];
    match file.read_exact_at(&mut magic, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| magic == QCOW2_MAGIC),
    }
}

#[cfg(test)]
#[path = "backing_test.rs"]
mod tests;
