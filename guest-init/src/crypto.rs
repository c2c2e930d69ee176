//! Crypto adapters of s390x (adjunct processors, AP), as the command finds them.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use proto::Device;

use crate::mounts::SYSFS;
use crate::tree::Tree;
use crate::{disks, modules};

/// In sysfs: what the kernel has if the machine has any.
const BUS: &str = "bus/ap";
/// The driver of all adapters since 2012, which needs the one that has the node.
const DRIVER: &str = "bus/ap/drivers/cex4queue";
const MODULE: &str = "zcrypt_cex4";
/// The node's name, and where its numbers are.
const NAME: &str = "z90crypt";
const NODE: &str = "class/misc/z90crypt";
/// They were given to the container, so that all of its users may have them.
const MODE: u32 = 0o666;

/// Has the kernel drive the adapters, by its modules if need be. Returns their node; none if they are not wanted.
///
/// Call it while init's /proc and /sys are there.
pub(crate) fn provide(wanted: bool, modules: Option<&Tree>) -> Result<Option<Device>> {
    let load = || modules::provide(MODULE, modules);
    let node = wanted.then(|| find(Path::new(SYSFS), load));
    node.transpose().context("crypto adapters")
}

fn find(sysfs: &Path, load: impl FnOnce() -> Result<()>) -> Result<Device> {
    let has = |path| sysfs.join(path).exists();
    let loaded = if has(DRIVER) { Ok(()) } else { load() };
    let loaded = loaded.with_context(|| format!("their driver {MODULE}"));
    if !has(BUS) {
        let why =
            "the kernel has found none: it needs CONFIG_AP, and a machine with AP instructions";
        let error = loaded.err().unwrap_or_else(|| anyhow!("no /sys/bus/ap"));
        return Err(error.context(why));
    }
    loaded?;
    let node = disks::node(&sysfs.join(NODE), NAME).context("their driver zcrypt has no node")?;
    Ok(Device {
        block: false,
        mode: MODE,
        gid: 0,
        ..node
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use anyhow::bail;

    use super::*;

    fn make(sysfs: &Path, numbers: Option<&str>) {
        fs::create_dir_all(sysfs.join(DRIVER)).unwrap();
        fs::create_dir_all(sysfs.join(NODE)).unwrap();
        if let Some(numbers) = numbers {
            fs::write(sysfs.join(NODE).join("dev"), numbers).unwrap();
        }
    }

    #[test]
    fn the_driver_is_loaded_if_it_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = folder.path();
        let loads = Cell::new(0);
        let load = || {
            loads.set(loads.get() + 1);
            make(sysfs, Some("10:62\n"));
            Ok(())
        };
        for _ in 0..2 {
            let device = find(sysfs, load).unwrap();
            assert_eq!(device.path, "/dev/z90crypt");
            assert_eq!((device.block, device.major, device.minor), (false, 10, 62));
            assert_eq!((device.mode, device.uid, device.gid), (0o666, 0, 0));
        }
        assert_eq!(loads.get(), 1);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let sysfs = folder.path();
        let error = |load: fn() -> Result<()>| format!("{:#}", find(sysfs, load).unwrap_err());
        let none =
            "the kernel has found none: it needs CONFIG_AP, and a machine with AP instructions";
        let no_module = "their driver zcrypt_cex4: it has no module zcrypt_cex4";
        let load = || bail!("it has no module zcrypt_cex4");
        assert_eq!(error(load), format!("{none}: {no_module}"));
        assert_eq!(error(|| Ok(())), format!("{none}: no /sys/bus/ap"));
        fs::create_dir_all(sysfs.join(BUS)).unwrap();
        assert_eq!(error(load), no_module);
        make(sysfs, None);
        let no_node = error(|| panic!("it is there"));
        assert!(
            no_node.starts_with("their driver zcrypt has no node: "),
            "{no_node}"
        );
    }
}
