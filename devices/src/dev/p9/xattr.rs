//! Requests about extended attributes. One is read or written by a fid of its own, as if it were a file.

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use virtiofsd::descriptor_utils::Reader;
use virtiofsd::filesystem::{GetxattrReply, ListxattrReply, SetxattrFlags};

use super::fid::{Fid, Node, Tree, Use, as_root, lock};
use super::session::Session;
use super::wire::{Answer, Body, errno};

/// The longest value, and the longest list of names (linux/limits.h: `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_VALUE: usize = 64 << 10;
/// Room for all values that are being written.
const MAX_VALUES: usize = 64 * MAX_VALUE;

/// The room for values that has been given out.
#[derive(Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// A part of it, until it is dropped.
struct Room {
    all: Arc<AtomicUsize>,
    length: usize,
}

impl Budget {
    fn take(&self, length: usize) -> io::Result<Room> {
        let add = |taken: usize| {
            let taken = taken.checked_add(length)?;
            (taken <= MAX_VALUES).then_some(taken)
        };
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map_err(|_| errno(libc::ENOMEM))?;
        let all = Arc::clone(&self.0);
        Ok(Room { all, length })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.all.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// An attribute that is set when its fid is clunked.
pub(super) struct NewAttribute {
    name: CString,
    flags: u32,
    room: Room,
    value: Mutex<Vec<u8>>,
}

impl NewAttribute {
    /// Adds what the guest writes: one part after the other.
    pub(super) fn write(&self, offset: u64, data: &mut Reader<'_>) -> io::Result<usize> {
        let mut value = lock(&self.value);
        let (begin, count) = (value.len(), data.available_bytes());
        if offset != begin as u64 || count > self.room.length - begin {
            return Err(errno(libc::EINVAL));
        }
        value.resize(begin + count, 0);
        data.read_exact(&mut value[begin..])?;
        Ok(count)
    }
}

impl<F: Tree> Session<F> {
    /// `fid[4] newfid[4] name[s]`: `size[8]`. Without a name it is the list of names.
    pub(super) fn xattrwalk(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (from, number, name) = (body.u32()?, body.u32()?, body.attribute()?);
        body.end()?;
        let from = self.fids.get(from)?;
        let size = self.attribute(&from.node, &name)?.len();
        let fid = Fid {
            used: Use::Attribute(name),
            node: Arc::clone(&from.node),
            uid: from.uid,
        };
        self.fids.add(number, fid)?;
        Ok(Answer::default().u64(size as u64).done())
    }

    /// What an attribute is now, or the list of them.
    pub(super) fn attribute(&self, node: &Node<F>, name: &CStr) -> io::Result<Vec<u8>> {
        let most = MAX_VALUE as u32;
        if name.is_empty() {
            match self.tree.listxattr(as_root(), node.inode, most)? {
                ListxattrReply::Names(names) => Ok(names),
                ListxattrReply::Count(_) => Err(errno(libc::EIO)),
            }
        } else {
            match self.tree.getxattr(as_root(), node.inode, name, most)? {
                GetxattrReply::Value(value) => Ok(value),
                GetxattrReply::Count(_) => Err(errno(libc::EIO)),
            }
        }
    }

    /// `fid[4] name[s] attr_size[8] flags[4]`. The fid becomes that of the attribute.
    pub(super) fn xattrcreate(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name) = (body.u32()?, body.attribute()?);
        let (size, flags) = (body.u64()?, body.u32()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        if !matches!(fid.used, Use::Path) {
            return Err(errno(libc::EBADF));
        }
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_VALUE);
        let size = size.ok_or_else(|| errno(libc::E2BIG))?;
        let new = NewAttribute {
            name,
            flags,
            room: self.budget.take(size)?,
            value: Mutex::default(),
        };
        let fid = Fid {
            used: Use::NewAttribute(new),
            node: Arc::clone(&fid.node),
            uid: fid.uid,
        };
        self.fids.replace(number, fid);
        Ok(Answer::default())
    }

    /// What was written becomes the attribute. Linux removes one by an empty value that has to replace another.
    pub(super) fn set_attribute(&self, fid: &Fid<F>, new: &NewAttribute) -> io::Result<()> {
        let value = lock(&new.value);
        if value.len() != new.room.length {
            return Err(errno(libc::EINVAL));
        }
        let inode = fid.node.inode;
        if value.is_empty() && new.flags == libc::XATTR_REPLACE as u32 {
            return self.tree.removexattr(as_root(), inode, &new.name);
        }
        let flags = SetxattrFlags::empty();
        self.tree
            .setxattr(as_root(), inode, &new.name, &value, new.flags, flags)
    }
}
