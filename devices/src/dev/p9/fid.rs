//! What the guest has names for: files that it knows (fids), and what it has open by them.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtiofsd::filesystem::{Context, Entry, FileSystem, ROOT_ID};
use virtiofsd::fuse::{ATTR_SUBMOUNT, Attr};

use super::wire::{Qid, errno};
use super::xattr::NewAttribute;

/// A file system that the guest can reach.
pub(super) trait Tree: FileSystem<Inode = u64, Handle = u64> + Send + Sync {}
impl<F: FileSystem<Inode = u64, Handle = u64> + Send + Sync> Tree for F {}

/// As whom we ask where that does not matter.
pub(super) fn as_root() -> Context {
    as_user(0, 0)
}

/// As whom files are made.
pub(super) fn as_user(uid: u32, gid: u32) -> Context {
    Context {
        uid: uid.into(),
        gid: gid.into(),
        pid: 0,
    }
}

/// A file, which the library knows as long as this lives.
pub(super) struct Node<F: Tree> {
    tree: Arc<F>,
    pub(super) inode: u64,
    /// Its file system's number among those of the share.
    pub(super) file_system: u16,
    pub(super) qid: Qid,
    /// Its type: the bits of `S_IFMT`.
    pub(super) kind: u32,
}

impl<F: Tree> Node<F> {
    /// What the library has found, once: it counts.
    pub(super) fn new(tree: &Arc<F>, file_system: u16, entry: &Entry) -> Self {
        Self {
            tree: Arc::clone(tree),
            inode: entry.inode,
            file_system,
            qid: Qid::new(file_system, entry.attr.ino, entry.attr.mode),
            kind: entry.attr.mode & libc::S_IFMT,
        }
    }

    /// The share's root directory.
    pub(super) fn root(tree: &Arc<F>, attr: &Attr) -> Self {
        Self {
            tree: Arc::clone(tree),
            inode: ROOT_ID,
            file_system: 0,
            qid: Qid::new(0, attr.ino, attr.mode),
            kind: attr.mode & libc::S_IFMT,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// For an inode cache of the guest's: the library numbers the files that it knows one after the other.
    pub(super) fn generation(&self) -> u32 {
        self.inode as u32
    }
}

impl<F: Tree> Drop for Node<F> {
    fn drop(&mut self) {
        // The root is not looked up, so that it does not count.
        if self.inode != ROOT_ID {
            self.tree.forget(as_root(), self.inode, 1);
        }
    }
}

/// An open file or directory.
pub(super) struct Open<F: Tree> {
    tree: Arc<F>,
    pub(super) handle: u64,
    /// Opened with O_APPEND.
    pub(super) appends: bool,
    inode: u64,
}

impl<F: Tree> Open<F> {
    pub(super) fn new(tree: &Arc<F>, node: &Node<F>, handle: u64, appends: bool) -> Self {
        Self {
            tree: Arc::clone(tree),
            handle,
            appends,
            inode: node.inode,
        }
    }
}

impl<F: Tree> Drop for Open<F> {
    fn drop(&mut self) {
        let (inode, handle) = (self.inode, self.handle);
        // It fails if all was closed at once.
        let _ = self
            .tree
            .release(as_root(), inode, 0, handle, false, false, None);
    }
}

/// What a fid is used for. Dropped before the node that it belongs to.
pub(super) enum Use<F: Tree> {
    /// It names a file.
    Path,
    /// An open file.
    File(Open<F>),
    /// An open directory.
    Directory(Open<F>),
    /// The value of an extended attribute, or the list of them if it has no name.
    Attribute(CString),
    /// An extended attribute that is written.
    NewAttribute(NewAttribute),
}

/// A file that the guest has a number for.
pub(super) struct Fid<F: Tree> {
    pub(super) used: Use<F>,
    pub(super) node: Arc<Node<F>>,
    /// As whom the guest attached.
    pub(super) uid: u32,
}

impl<F: Tree> Fid<F> {
    /// A directory in which something is looked up or made.
    pub(super) fn directory(&self) -> io::Result<&Arc<Node<F>>> {
        if self.node.is_directory() {
            Ok(&self.node)
        } else {
            Err(errno(libc::ENOTDIR))
        }
    }
}

/// All that the guest has numbers for. Each is changed by being replaced.
pub(super) struct Fids<F: Tree> {
    table: Mutex<HashMap<u32, Arc<Fid<F>>>>,
    /// The file systems in the share by their root directories, and these.
    mounts: Mutex<HashMap<u64, Arc<Node<F>>>>,
    most: usize,
}

impl<F: Tree> Fids<F> {
    /// At most this many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            table: Mutex::default(),
            mounts: Mutex::default(),
            most,
        }
    }

    pub(super) fn get(&self, fid: u32) -> io::Result<Arc<Fid<F>>> {
        let table = lock(&self.table);
        table.get(&fid).cloned().ok_or_else(|| errno(libc::EBADF))
    }

    /// A new one.
    pub(super) fn add(&self, number: u32, fid: Fid<F>) -> io::Result<()> {
        let mut table = lock(&self.table);
        if table.contains_key(&number) {
            return Err(errno(libc::EBADF));
        }
        if table.len() >= self.most {
            return Err(errno(libc::EMFILE));
        }
        table.insert(number, Arc::new(fid));
        Ok(())
    }

    /// The same number for another use.
    pub(super) fn replace(&self, number: u32, fid: Fid<F>) {
        // The old one is dropped behind the lock.
        let _old = lock(&self.table).insert(number, Arc::new(fid));
    }

    pub(super) fn remove(&self, number: u32) -> io::Result<Arc<Fid<F>>> {
        let removed = lock(&self.table).remove(&number);
        removed.ok_or_else(|| errno(libc::EBADF))
    }

    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.table));
        drop(all);
        let mounts = std::mem::take(&mut *lock(&self.mounts));
        drop(mounts);
    }

    /// What was found in `parent`.
    pub(super) fn node(&self, tree: &Arc<F>, parent: &Node<F>, entry: &Entry) -> Arc<Node<F>> {
        if entry.attr.flags & ATTR_SUBMOUNT == 0 {
            return Arc::new(Node::new(tree, parent.file_system, entry));
        }
        let mut mounts = lock(&self.mounts);
        let next = u16::try_from(mounts.len() + 1).unwrap_or(u16::MAX);
        let known = mounts.get(&entry.inode);
        let file_system = known.map_or(next, |root| root.file_system);
        let node = Arc::new(Node::new(tree, file_system, entry));
        // It is kept, so that its inode remains the same one. There are as many as the host has mounts.
        mounts.entry(entry.inode).or_insert(Arc::clone(&node));
        node
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
