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
    /// Another descriptor of the open file description.
    fn file(&self, node: u64, handle: u64) -> Result<File, Errno>;
}

impl<F: FileSystem<Inode = u64, Handle = u64>> Handles for F {
    fn file(&self, node: u64, handle: u64) -> Result<File, Errno> {
        let mut borrowed = None;
        let nobody = Context::from(InHeader::default());
        let borrow = Borrow(&mut borrowed);
        self.read(nobody, node, handle, borrow, 0, 0, None, 0)
            .map_err(|error| host::errno(&error))?;
        borrowed.ok_or(Errno::EBADF)
    }
}

/// Reads nothing.
struct Borrow<'a>(&'a mut Option<File>);

impl ZeroCopyWriter for Borrow<'_> {
    fn read_from_file_at(
        &mut self,
        file: &File,
        _count: usize,
        _offset: u64,
        _flags: Option<ReadvFlags>,
    ) -> io::Result<usize> {
        *self.0 = Some(file.try_clone()?);
        Ok(0)
    }
}
