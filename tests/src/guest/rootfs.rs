//! A small root file system for guests: busybox, and what tests add.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{payload, scratch};

/// Of Debian's busybox-static.
pub(super) const BUSYBOX: &str = "/bin/busybox";

/// A root directory of busybox, on disk, removed when this is dropped. Root and the user alice (1000) are in its passwd.
pub struct Rootfs {
    dir: TempDir,
}

impl Rootfs {
    /// A new one.
    ///
    /// # Errors
    /// When busybox-static is not installed, or the disk is full.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("runq-root-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(scratch())?;
        let rootfs = Self { dir };
        for name in ["bin", "etc", "root", "tmp"] {
            fs::create_dir(rootfs.join(name))?;
        }
        fs::set_permissions(rootfs.join("tmp"), Permissions::from_mode(0o1777))?;
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n",
        )?;
        fs::write(rootfs.join("etc/group"), "root:x:0:\nalice:x:1000:\n")?;
        rootfs.add_busybox()?;
        Ok(rootfs)
    }

    fn add_busybox(&self) -> Result<()> {
        let list = Command::new(BUSYBOX).arg("--list").output();
        let list = list.with_context(|| format!("{BUSYBOX} (package busybox-static)"))?;
        ensure!(list.status.success(), "{BUSYBOX} --list: {}", list.status);
        let bin = self.join("bin");
        fs::copy(BUSYBOX, bin.join("busybox"))?;
        for name in String::from_utf8(list.stdout)?
            .lines()
            .filter(|name| *name != "busybox")
        {
            symlink("busybox", bin.join(name))?;
        }
        Ok(())
    }

    /// Adds /bin/fscheck.
    ///
    /// # Errors
    /// When the payload has none.
    pub fn with_fscheck(self) -> Result<Self> {
        fs::copy(payload("fscheck")?, self.join("bin/fscheck"))?;
        Ok(self)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The host's path of a file in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
