//! The library's file system behind checks that the library does not make.
//!
//! A name in a request is one entry of a directory: Linux sends nothing else. The library resolves
//! what it is given, and a hostile guest may ask to unlink `../../x`. The root directory of the
//! threads (confinement.rs) stops that only as long as all directories that the guest knows stay
//! below it, and the host, or another share, may move one of them away.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use super::locks::Locks;
use super::opens;
use super::watches::{Change, Watches};
use crate::device::DeviceError;
use crate::queue::Chain;

type Inode = u64;
type Handle = u64;

/// A file system of which nothing impossible is asked, with locks and watches, which the library does not have.
pub(in crate::dev) struct Checked<F> {
    files: Arc<F>,
    locks: Arc<Locks>,
    watches: Arc<Watches>,
}

impl<F> Checked<F> {
    pub(super) fn new(files: F, locks: Locks, watches: Watches) -> Self {
        Self {
            files: Arc::new(files),
            locks: Arc::new(locks),
            watches: Arc::new(watches),
        }
    }

    /// Ends all requests that wait for others.
    pub(in crate::dev) fn end(&self) {
        self.locks.end();
        self.watches.end();
    }

    /// Lets go of what the library does not know, for another guest.
    pub(in crate::dev) fn clear(&self) {
        self.locks.clear();
        self.watches.clear();
    }
}

impl<F: FileSystem<Inode = Inode, Handle = Handle>> Checked<F> {
    /// Executes the request in `chain`, if it is one that the library does not know, and returns the length of the answer.
    ///
    /// # Errors
    /// When it is incomplete, or there is no room for its answer.
    pub(in crate::dev) fn handle(&self, chain: &Chain) -> Result<Option<u32>, DeviceError> {
        if let Some(length) = opens::handle(chain, self)? {
            return Ok(Some(length));
        }
        match self.locks.handle(chain, &*self.files)? {
            None => self.watches.handle(chain, &*self.files),
            answered => Ok(answered),
        }
    }
}

/// The same file system, not a copy.
impl<F> Clone for Checked<F> {
    fn clone(&self) -> Self {
        Self {
            files: Arc::clone(&self.files),
            locks: Arc::clone(&self.locks),
            watches: Arc::clone(&self.watches),
        }
    }
}

/// Passes methods on, with the names in brackets checked.
macro_rules! pass_on {
    ($($method:ident[$($name:ident)*]($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        fn $method(&self, context: Context, $($arg: $type),*) -> io::Result<$result> {
            $(check_name($name)?;)*
            self.files.$method(context, $($arg),*)
        }
    )*};
}

/// As [`pass_on`], methods that change what the guest may watch.
macro_rules! pass_changes_on {
    ($($method:ident[$($name:ident)*]($($arg:ident: $type:ty),*) -> $result:ty = $change:expr;)*) => {$(
        fn $method(&self, context: Context, $($arg: $type),*) -> io::Result<$result> {
            $(check_name($name)?;)*
            self.watches.change(&*self.files, $change, || self.files.$method(context, $($arg),*))
        }
    )*};
}

impl<F: FileSystem<Inode = Inode, Handle = Handle>> FileSystem for Checked<F> {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = F::DirIter;

    pass_on! {
        lookup[name](parent: Inode, name: &CStr) -> Entry;
        getattr[](inode: Inode, handle: Option<Handle>) -> (Attr, Duration);
        readlink[](inode: Inode) -> Vec<u8>;
        fsync[](inode: Inode, datasync: bool, handle: Handle) -> ();
        statfs[](inode: Inode) -> libc::statvfs64;
        getxattr[](inode: Inode, name: &CStr, size: u32) -> GetxattrReply;
        listxattr[](inode: Inode, size: u32) -> ListxattrReply;
        opendir[](inode: Inode, flags: u32) -> (Option<Handle>, OpenOptions);
        readdir[](inode: Inode, handle: Handle, size: u32, offset: u64) -> F::DirIter;
        fsyncdir[](inode: Inode, datasync: bool, handle: Handle) -> ();
        releasedir[](inode: Inode, flags: u32, handle: Handle) -> ();
        access[](inode: Inode, mask: u32) -> ();
        lseek[](inode: Inode, handle: Handle, offset: u64, whence: u32) -> u64;
        syncfs[](inode: Inode) -> ();
    }

    pass_changes_on! {
        setattr[](
            inode: Inode, attr: SetattrIn, handle: Option<Handle>, valid: SetattrValid
        ) -> (Attr, Duration) = |_| Change::of_data(inode);
        // Where a link leads is the guest's business: here it is not followed.
        symlink[name](
            target: &CStr, parent: Inode, name: &CStr, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        mknod[name](
            parent: Inode, name: &CStr, mode: u32, device: u32, umask: u32, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        mkdir[name](
            parent: Inode, name: &CStr, mode: u32, umask: u32, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        unlink[name](parent: Inode, name: &CStr) -> () =
            |files| Change::of_old_name(files, parent, name);
        rmdir[name](parent: Inode, name: &CStr) -> () =
            |files| Change::of_old_name(files, parent, name);
        rename[old new](
            parent: Inode, old: &CStr, new_parent: Inode, new: &CStr, flags: u32
        ) -> () = |files| Change::of_move(files, (parent, old), (new_parent, new));
        link[name](inode: Inode, parent: Inode, name: &CStr) -> Entry =
            |_| Change::of_link(inode, parent, name);
        open[](inode: Inode, kill_priv: bool, flags: u32) -> (Option<Handle>, OpenOptions) =
            |_| Change::of_data(inode);
        create[name](
            parent: Inode, name: &CStr, mode: u32, kill_priv: bool, flags: u32, umask: u32,
            extensions: Extensions
        ) -> (Entry, Option<Handle>, OpenOptions) = |_| Change::of_new_name(parent, name);
        fallocate[](inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64) -> () =
            |_| Change::of_data(inode);
        setxattr[](
            inode: Inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags
        ) -> () = |_| Change::of_data(inode);
        removexattr[](inode: Inode, name: &CStr) -> () = |_| Change::of_data(inode);
        copyfilerange[](
            from: Inode, from_handle: Handle, from_offset: u64,
            to: Inode, to_handle: Handle, to_offset: u64, length: u64, flags: u64
        ) -> usize = |_| Change::of_data(to);
    }

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let wanted = self.files.init(capable)?;
        Ok(wanted | FsOptions::POSIX_LOCKS | FsOptions::FLOCK_LOCKS)
    }

    fn destroy(&self) {
        self.files.destroy();
    }

    fn forget(&self, context: Context, inode: Inode, count: u64) {
        self.files.forget(context, inode, count);
        self.watches.forgotten(inode, &*self.files);
    }

    fn batch_forget(&self, context: Context, requests: Vec<(Inode, u64)>) {
        let nodes: Vec<Inode> = requests.iter().map(|(inode, _)| *inode).collect();
        self.files.batch_forget(context, requests);
        for inode in nodes {
            self.watches.forgotten(inode, &*self.files);
        }
    }

    fn flush(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        lock_owner: u64,
    ) -> io::Result<()> {
        let flush = || {
            self.locks.closed(inode, lock_owner);
            self.files.flush(context, inode, handle, lock_owner)
        };
        let change = |_: &F| Change::of_opened(inode);
        self.watches.change(&*self.files, change, flush)
    }

    fn release(
        &self,
        context: Context,
        inode: Inode,
        flags: u32,
        handle: Handle,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        let release = || {
            self.locks.released(inode, handle);
            // A lock of flock(2) ends with the handle's description.
            self.files.release(
                context,
                inode,
                flags,
                handle,
                flush,
                flock_release,
                lock_owner,
            )
        };
        let change = |_: &F| Change::of_opened(inode);
        self.watches.change(&*self.files, change, release)
    }

    fn read<W: ZeroCopyWriter>(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        writer: W,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        check_offset(offset)?;
        self.files.read(
            context, inode, handle, writer, size, offset, lock_owner, flags,
        )
    }

    fn write<R: ZeroCopyReader>(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        reader: R,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<usize> {
        check_offset(offset)?;
        let write = || {
            self.files.write(
                context,
                inode,
                handle,
                reader,
                size,
                offset,
                lock_owner,
                delayed_write,
                kill_priv,
                flags,
            )
        };
        let change = |_: &F| Change::of_data(inode);
        self.watches.change(&*self.files, change, write)
    }
}

/// Refuses a name that is a path.
fn check_name(name: &CStr) -> io::Result<()> {
    let name = name.to_bytes();
    if name == b".." || name.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}

/// Refuses an offset that no file has, for which the library panics.
fn check_offset(offset: u64) -> io::Result<()> {
    if i64::try_from(offset).is_err() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(())
}
