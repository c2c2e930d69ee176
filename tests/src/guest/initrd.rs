//! An initrd with a shell, for guests without a command.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::rootfs::BUSYBOX;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// Writes an initrd with busybox as /bin/sh and some others; the kernel starts it with `rdinit=/bin/sh`.
///
/// # Errors
/// When busybox-static is not installed, or the file cannot be written.
pub fn shell_initrd(path: &Path) -> Result<()> {
    let busybox =
        fs::read(BUSYBOX).with_context(|| format!("{BUSYBOX} (package busybox-static)"))?;
    let mut archive = Archive {
        out: BufWriter::new(File::create(path)?),
        entries: 0,
    };
    archive.entry("bin", DIRECTORY, b"")?;
    archive.entry("bin/busybox", PROGRAM, &busybox)?;
    for name in ["sh", "poweroff", "reboot", "cat", "mount"] {
        archive.entry(&format!("bin/{name}"), SYMLINK, b"busybox")?;
    }
    archive.entry("TRAILER!!!", 0, b"")?;
    Ok(archive.out.flush()?)
}

/// A cpio archive in the format "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(contents.len())?;
        let name_size = u32::try_from(name.len() + 1)?;
        // inode, mode, owner, group, links, time, size, device (4), length of the name, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        write!(self.out, "{name}\0")?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Headers with their names, and contents, end at multiples of four.
    fn pad(&mut self, length: usize) -> Result<()> {
        let zeros = length.next_multiple_of(4) - length;
        Ok(self.out.write_all(&[0; 3][..zeros])?)
    }
}
