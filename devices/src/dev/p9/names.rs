//! Requests about entries of directories.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use virtiofsd::filesystem::Entry;

use super::fid::{Node, Tree, as_root, as_user};
use super::session::Session;
use super::wire::{Answer, Body, Qid, errno};

/// `AT_REMOVEDIR` of unlinkat(2), by its number in the protocol.
const REMOVE_DIRECTORY: u32 = 0x200;

impl<F: Tree> Session<F> {
    /// Follows names from a file on, as far as there are such files: where that ends, and what was found.
    pub(super) fn find(
        &self,
        from: &Arc<Node<F>>,
        names: &[CString],
    ) -> io::Result<(Arc<Node<F>>, Vec<Qid>)> {
        let mut node = Arc::clone(from);
        let mut qids = Vec::with_capacity(names.len());
        for name in names {
            let found = if node.is_directory() {
                self.tree.lookup(as_root(), node.inode, name)
            } else {
                Err(errno(libc::ENOTDIR))
            };
            match found {
                Ok(entry) => node = self.fids.node(&self.tree, &node, &entry),
                Err(error) if qids.is_empty() => return Err(error),
                Err(_) => break,
            }
            qids.push(node.qid);
        }
        Ok((node, qids))
    }

    /// `dfid[4] name[s] mode[4] gid[4]`: `qid[13]`.
    pub(super) fn mkdir(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name) = (body.u32()?, body.name()?);
        let (mode, gid) = (body.u32()?, body.u32()?);
        body.end()?;
        self.make(number, gid, |user, directory| {
            let mode = mode & 0o7777;
            self.tree
                .mkdir(user, directory, &name, mode, 0, Default::default())
        })
    }

    /// `fid[4] name[s] symtgt[s] gid[4]`: `qid[13]`.
    pub(super) fn symlink(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name, target) = (body.u32()?, body.name()?, body.target()?);
        let gid = body.u32()?;
        body.end()?;
        self.make(number, gid, |user, directory| {
            self.tree
                .symlink(user, &target, directory, &name, Default::default())
        })
    }

    /// `dfid[4] name[s] mode[4] major[4] minor[4] gid[4]`: `qid[13]`.
    pub(super) fn mknod(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name, mode) = (body.u32()?, body.name()?, body.u32()?);
        let (major, minor, gid) = (body.u32()?, body.u32()?, body.u32()?);
        body.end()?;
        let device = device_number(major, minor)?;
        self.make(number, gid, |user, directory| {
            self.tree
                .mknod(user, directory, &name, mode, device, 0, Default::default())
        })
    }

    /// Makes an entry in a directory as the user of its fid, and answers what it is.
    fn make(
        &self,
        number: u32,
        gid: u32,
        make: impl FnOnce(virtiofsd::filesystem::Context, u64) -> io::Result<Entry>,
    ) -> io::Result<Answer> {
        let fid = self.fids.get(number)?;
        let directory = fid.directory()?;
        let entry = make(as_user(fid.uid, gid), directory.inode)?;
        let node = self.fids.node(&self.tree, directory, &entry);
        Ok(Answer::default().qid(node.qid).done())
    }

    /// `dfid[4] fid[4] name[s]`.
    pub(super) fn link(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (directory, number, name) = (body.u32()?, body.u32()?, body.name()?);
        body.end()?;
        let (directory, fid) = (self.fids.get(directory)?, self.fids.get(number)?);
        let parent = directory.directory()?;
        let entry = self
            .tree
            .link(as_root(), fid.node.inode, parent.inode, &name)?;
        // It counts.
        drop(self.fids.node(&self.tree, parent, &entry));
        Ok(Answer::default())
    }

    /// `olddirfid[4] oldname[s] newdirfid[4] newname[s]`.
    pub(super) fn renameat(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (from, old) = (body.u32()?, body.name()?);
        let (to, new) = (body.u32()?, body.name()?);
        body.end()?;
        let (from, to) = (self.fids.get(from)?, self.fids.get(to)?);
        let (from, to) = (from.directory()?, to.directory()?);
        self.tree
            .rename(as_root(), from.inode, &old, to.inode, &new, 0)?;
        Ok(Answer::default())
    }

    /// `dirfid[4] name[s] flags[4]`.
    pub(super) fn unlinkat(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name, flags) = (body.u32()?, body.name()?, body.u32()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        let directory = fid.directory()?.inode;
        if flags & REMOVE_DIRECTORY == 0 {
            self.tree.unlink(as_root(), directory, &name)?;
        } else {
            self.tree.rmdir(as_root(), directory, &name)?;
        }
        Ok(Answer::default())
    }

    /// `fid[4]`: `target[s]`.
    pub(super) fn readlink(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let number = body.u32()?;
        body.end()?;
        let fid = self.fids.get(number)?;
        let target = self.tree.readlink(as_root(), fid.node.inode)?;
        Ok(Answer::default().string(&target).done())
    }
}

/// A device's number in 32 bits, as FUSE has it: 12 for the major number, 20 for the minor one, of which 8
/// come first.
fn device_number(major: u32, minor: u32) -> io::Result<u32> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(errno(libc::EINVAL));
    }
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_its_numbers_as_linux_has_them() {
        assert_eq!(device_number(1, 3).unwrap(), 0x103);
        let (major, minor) = (0xabc, 0x1_2345);
        let number = device_number(major, minor).unwrap();
        assert_eq!(libc::makedev(major, minor), u64::from(number));
        assert!(device_number(1 << 12, 0).is_err());
        assert!(device_number(0, 1 << 20).is_err());
    }
}
