//! What there is to know of the guest's nodes.

use std::ffi::CString;
use std::fs::File;
use std::io;

use nix::errno::Errno;
use virtiofsd::filesystem::{Context, FileSystem};
use virtiofsd::fuse::InHeader;

use super::locks::Handles;

/// Who knows the guest's nodes.
pub(in crate::dev) trait Nodes {
    /// The file or directory, opened anew.
    fn open_node(&self, node: u64) -> Result<File, Errno>;

    /// The node of a name, if there is any.
    fn child(&self, directory: u64, name: &[u8]) -> Option<u64>;

    /// How many names it has; `None` if it is no node of the guest's.
    fn names(&self, node: u64) -> Option<u32>;
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Nodes for F {
    fn open_node(&self, node: u64) -> Result<File, Errno> {
        let (attributes, _) = self
            .getattr(nobody(), node, None)
            .map_err(|error| errno(&error))?;
        let is_directory = attributes.mode & libc::S_IFMT == libc::S_IFDIR;
        // The library opens nothing but files and directories.
        let (handle, _) = if is_directory {
            self.opendir(nobody(), node, libc::O_RDONLY as u32)
        } else {
            self.open(nobody(), node, false, libc::O_RDONLY as u32)
        }
        .map_err(|error| errno(&error))?;
        let handle = handle.ok_or(Errno::EBADF)?;
        let file = self.file(node, handle);
        let _ = if is_directory {
            self.releasedir(nobody(), node, 0, handle)
        } else {
            self.release(nobody(), node, 0, handle, false, false, None)
        };
        file
    }

    fn child(&self, directory: u64, name: &[u8]) -> Option<u64> {
        let name = CString::new(name).ok()?;
        let entry = self.lookup(nobody(), directory, &name).ok()?;
        self.forget(nobody(), entry.inode, 1);
        Some(entry.inode)
    }

    fn names(&self, node: u64) -> Option<u32> {
        let (attributes, _) = self.getattr(nobody(), node, None).ok()?;
        Some(attributes.nlink)
    }
}

fn nobody() -> Context {
    Context::from(InHeader::default())
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
