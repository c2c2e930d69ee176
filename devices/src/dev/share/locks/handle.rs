//! The host's file of a handle that the guest has.
//!
//! The library keeps its files to itself, but lends them to who copies what is read.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use virtiofsd::filesystem::{Context, FileSystem, ZeroCopyWriter};
use virtiofsd::fuse::InHeader;
use virtiofsd::oslib::ReadvFlags;

use super::host;

/// Who knows the files of handles.
pub(in crate::dev) trait Handles {
    /// What `look` says of the file.
    fn look_at<T>(&self, node: u64, handle: u64, look: impl FnMut(&File) -> T) -> Result<T, Errno>;

    /// Another descriptor of the open file description.
    fn file(&self, node: u64, handle: u64) -> Result<File, Errno> {
        self.look_at(node, handle, File::try_clone)?
            .map_err(|error| host::errno(&error))
    }
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Handles for F {
    fn look_at<T>(
        &self,
        node: u64,
        handle: u64,
        mut look: impl FnMut(&File) -> T,
    ) -> Result<T, Errno> {
        let mut seen = None;
        let nobody = Context::from(InHeader::default());
        let borrow = Borrow(|file: &File| seen = Some(look(file)));
        self.read(nobody, node, handle, borrow, 0, 0, None, 0)
            .map_err(|error| host::errno(&error))?;
        seen.ok_or(Errno::EBADF)
    }
}

/// Reads nothing.
struct Borrow<L>(L);

impl<L: FnMut(&File)> ZeroCopyWriter for Borrow<L> {
    fn read_from_file_at(
        &mut self,
        file: &File,
        _count: usize,
        _offset: u64,
        _flags: Option<ReadvFlags>,
    ) -> io::Result<usize> {
        (self.0)(file);
        Ok(0)
    }
}
