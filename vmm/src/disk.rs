//! The host's side of a guest's disks.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use devices::dev::DeviceSpec;
use devices::dev::blk::{Blocks, Config, MAX_QUEUES};
pub use devices::dev::blk::{Cache, MAX_SERIAL};
use rustix::fs::{AtFlags, StatxFlags};

use crate::disk_lock;

/// The first bytes of a qcow2 image (QEMU's docs/interop/qcow2.txt).
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// What every disk can be written in.
const SECTOR: u32 = 512;

/// A disk of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A raw image or a block device.
    pub path: PathBuf,
    /// What the guest finds in /sys/block/vdX/serial: at most [`MAX_SERIAL`] bytes.
    pub serial: String,
    /// What becomes of writes.
    pub cache: Cache,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl Disk {
    /// Opens the disk and locks it, for a guest that has `cpus` vCPUs.
    ///
    /// # Errors
    /// Names the path and what is wrong with it.
    pub fn open(&self, cpus: u32) -> Result<DeviceSpec> {
        let config = self.config(cpus);
        let config = config.with_context(|| format!("disk {}", self.path.display()))?;
        Ok(DeviceSpec::Blk(config))
    }

    fn config(&self, cpus: u32) -> Result<Config> {
        // Looked at before it is opened: a FIFO would wait, and a device node may be anything.
        let kind = std::fs::metadata(&self.path)?.file_type();
        let block = kind.is_block_device();
        ensure!(
            block || kind.is_file(),
            "neither an image file nor a block device"
        );
        let mut file = self.open_file(block)?;
        if !block {
            check_raw(&self.path)?;
            disk_lock::lock(&file, !self.read_only)?;
        }
        let size = file.seek(SeekFrom::End(0)).context("size")?;
        ensure!(
            size >= SECTOR.into(),
            "empty: `truncate -s 1G FILE` makes an image of 1 GiB"
        );
        let blocks = self.blocks(&file, block);
        Ok(Config {
            name: self.path.display().to_string(),
            serial: self.serial.clone(),
            file,
            size,
            blocks,
            cache: self.cache,
            read_only: self.read_only,
            queues: u16::try_from(cpus)
                .unwrap_or(MAX_QUEUES)
                .clamp(1, MAX_QUEUES),
        })
    }

    fn open_file(&self, block: bool) -> Result<File> {
        let mut flags = libc::O_CLOEXEC;
        if self.cache == Cache::None {
            flags |= libc::O_DIRECT;
        }
        // Nobody else mounts it meanwhile, nor gives it to another guest (open(2)).
        if block && !self.read_only {
            flags |= libc::O_EXCL;
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(!self.read_only);
        match options.custom_flags(flags).open(&self.path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                bail!("in use: it is mounted, or another machine has it")
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL) && self.cache == Cache::None =>
            {
                bail!("its file system has no O_DIRECT: use cache mode writeback")
            }
            opened => Ok(opened?),
        }
    }

    /// The sizes of its blocks: with O_DIRECT, what that asks for.
    fn blocks(&self, file: &File, block: bool) -> Blocks {
        let (mut logical, mut physical) = (SECTOR, SECTOR);
        if block {
            logical = rustix::fs::ioctl_blksszget(file).unwrap_or(SECTOR);
            physical = rustix::fs::ioctl_blkpbszget(file).unwrap_or(SECTOR);
        } else {
            if self.cache == Cache::None {
                logical = direct_alignment(file);
            }
            if let Ok(metadata) = file.metadata() {
                physical = metadata.blksize().try_into().unwrap_or(SECTOR);
            }
        }
        let sane = |size: u32| size.is_power_of_two() && (SECTOR..=1 << 16).contains(&size);
        let logical = if sane(logical) { logical } else { SECTOR };
        let physical = if sane(physical) { physical } else { SECTOR };
        Blocks {
            logical,
            physical: physical.max(logical),
        }
    }
}

/// Whether a file is an image of another kind than raw. A block device never is: what is on it is the
/// guest's, from the first byte on.
fn check_raw(path: &Path) -> Result<()> {
    // With O_DIRECT it could not be read that easily.
    let file = File::open(path)?;
    let mut magic = [0; QCOW2_MAGIC.len()];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == QCOW2_MAGIC {
        bail!("a qcow2 image: `qemu-img convert -O raw FILE NEW` makes a raw one of it");
    }
    Ok(())
}

/// What O_DIRECT wants offsets, lengths and memory to be multiples of (statx(2)); Linux knows from 6.1
/// on. Before that, file systems on disks with blocks of 512 bytes want no more than that.
fn direct_alignment(file: &File) -> u32 {
    let statx = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    statx.map_or(SECTOR, |found| {
        found.stx_dio_offset_align.max(found.stx_dio_mem_align)
    })
}

#[cfg(test)]
#[path = "disk_test.rs"]
mod tests;
