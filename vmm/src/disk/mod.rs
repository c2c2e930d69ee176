//! The host's side of a guest's disks.

mod backing;
mod lock;
mod qcow2;
mod qcow2_check;

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
pub use backing::{MAX_BACKING, backing_file};
use devices::dev::DeviceSpec;
use devices::dev::blk::{Blocks, Config, Contents, MAX_QUEUES};
pub use devices::dev::blk::{Cache, MAX_SERIAL};
use rustix::fs::{AtFlags, StatxFlags};

/// What every disk can be written in.
const SECTOR: u32 = 512;

/// What a disk's contents are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// They are the file's own.
    Raw,
    /// An image of QEMU's.
    Qcow2,
}

/// A disk of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What messages call it.
    pub name: String,
    /// An image or a block device.
    pub path: PathBuf,
    /// What the guest finds in /sys/block/vdX/serial: at most [`MAX_SERIAL`] bytes.
    pub serial: String,
    /// What becomes of writes.
    pub cache: Cache,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Unset, an image is what it begins with, and a block device is raw.
    pub format: Option<Format>,
}

impl Disk {
    /// Opens the disk and locks it, for a guest that has `cpus` vCPUs.
    ///
    /// # Errors
    /// Names the disk and what is wrong with it.
    pub fn open(&self, cpus: u32) -> Result<DeviceSpec> {
        let config = self.config(cpus);
        let config = config.with_context(|| format!("disk {}", self.name))?;
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
        let file = self.open_file(block)?;
        if !block {
            lock::lock(&file, !self.read_only)?;
        }
        let queues = u16::try_from(cpus).unwrap_or(MAX_QUEUES);
        let mut config = Config {
            name: self.name.clone(),
            serial: self.serial.clone(),
            size: 0,
            blocks: self.blocks(&file, block),
            contents: Contents::Raw(file),
            found_raw: false,
            cache: self.cache,
            read_only: self.read_only,
            queues: queues.clamp(1, MAX_QUEUES),
        };
        self.open_contents(&mut config, block)?;
        ensure!(
            config.size >= SECTOR.into(),
            "empty: `truncate -s 1G FILE` makes an image of 1 GiB"
        );
        Ok(config)
    }

    /// Finds out what the disk's contents are in, and how many there are.
    fn open_contents(&self, config: &mut Config, block: bool) -> Result<()> {
        let Contents::Raw(file) = &mut config.contents else {
            return Ok(());
        };
        let found = match self.format {
            None if !block && is_qcow2(&self.path)? => Format::Qcow2,
            given => given.unwrap_or(Format::Raw),
        };
        match found {
            Format::Raw => {
                config.size = file.seek(SeekFrom::End(0)).context("size")?;
                config.found_raw = !block && self.format.is_none();
            }
            Format::Qcow2 => {
                let image = qcow2::open(file.try_clone()?, &self.path, self.cache, self.read_only)?;
                config.size = image.access.size();
                // The file is read and written a cluster at a time, whatever the guest does.
                config.blocks.logical = SECTOR;
                config.contents = Contents::Image(Box::new(image));
            }
        }
        Ok(())
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

/// Whether a file begins as a qcow2 image does. It is opened once more: with O_DIRECT it could not be
/// read that easily.
fn is_qcow2(path: &Path) -> Result<bool> {
    Ok(backing::has_magic(&File::open(path)?)?)
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
