//! Kernel modules: those of the initrd, for kernels that do not have all drivers built in, and what few containers need.

mod index;
mod wanted;

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::console;
pub(crate) use wanted::{provide, provide_file_system};

/// Loads what `DIR/order` lists, if that file is there, and frees the initrd's memory of it.
///
/// A module that cannot be loaded is a line on the console: whether it is missed shows later.
pub(crate) fn load(dir: &Path) {
    let Ok(order) = fs::read_to_string(dir.join("order")) else {
        return;
    };
    for name in names(&order) {
        let path = dir.join(name);
        match load_one(&path).with_context(|| format!("load the kernel module {name}")) {
            Ok(()) => console::debug(format_args!("loaded {name}")),
            Err(error) => console::line(format_args!("{error:#}")),
        }
        // The initrd's files live in memory.
        let _ = fs::remove_file(path);
    }
}

/// The file names in an order file: one a line, dependencies first.
fn names(order: &str) -> impl Iterator<Item = &str> {
    order.lines().map(str::trim).filter(|name| !name.is_empty())
}

fn load_one(path: &Path) -> Result<()> {
    insert(&File::open(path)?, false)
}

/// Gives the kernel a module; one that is packed it unpacks itself (CONFIG_MODULE_DECOMPRESS).
fn insert(file: &File, packed: bool) -> Result<()> {
    // MODULE_INIT_COMPRESSED_FILE of linux/module.h.
    let flags = ModuleInitFlags::from_bits_retain(u32::from(packed) << 2);
    match finit_module(file, c"", flags) {
        // Built in, or loaded already, or for a feature of processors that this one lacks.
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_file_is_one_name_a_line() {
        let order = "virtio.ko\n\n virtio_ring.ko \r\nvirtio_console.ko";
        let names: Vec<_> = names(order).collect();
        assert_eq!(names, ["virtio.ko", "virtio_ring.ko", "virtio_console.ko"]);
        assert_eq!(super::names("").count(), 0);
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(load_one(Path::new("/nonexistent.ko")).is_err());
        assert!(load_one(Path::new("/proc/version")).is_err());
    }
}
