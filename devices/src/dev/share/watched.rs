//! The library's file system with watches, which it does not have: what the guest changes, it need not be told.

use std::ffi::CStr;
use std::io;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use super::watches::{Change, Watches};
use crate::device::DeviceError;
use crate::queue::Chain;

type Inode = u64;
type Handle = u64;

/// A file system whose guest may watch it.
pub(super) struct Watched<F> {
    files: F,
    watches: Watches,
}

impl<F> Watched<F> {
    pub(super) fn new(files: F, watches: Watches) -> Self {
        Self { files, watches }
    }

    /// No request comes any more: that for events returns.
    pub(super) fn end(&self) {
        self.watches.end();
    }

    /// There may be another guest, which watches nothing.
    pub(super) fn restart(&self) {
        self.watches.clear();
    }
}

impl<F: FileSystem<Inode = Inode, Handle = Handle>> Watched<F> {
    /// Executes the request in `chain`, if it is about watches, and returns the length of the answer.
    ///
    /// # Errors
    /// When it is incomplete, or there is no room for its answer.
    pub(super) fn handle(&self, chain: &Chain) -> Result<Option<u32>, DeviceError> {
        self.watches.handle(chain, &self.files)
    }
}

/// Passes methods on.
macro_rules! pass_on {
    ($($method:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        fn $method(&self, context: Context, $($arg: $type),*) -> io::Result<$result> {
            self.files.$method(context, $($arg),*)
        }
    )*};
}

/// The same with methods that change what the guest may watch.
macro_rules! pass_changes_on {
    ($($method:ident($($arg:ident: $type:ty),*) -> $result:ty = $change:expr;)*) => {$(
        fn $method(&self, context: Context, $($arg: $type),*) -> io::Result<$result> {
            self.watches.change(&self.files, $change, || self.files.$method(context, $($arg),*))
        }
    )*};
}

impl<F: FileSystem<Inode = Inode, Handle = Handle>> FileSystem for Watched<F> {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = F::DirIter;

    pass_on! {
        lookup(parent: Inode, name: &CStr) -> Entry;
        getattr(inode: Inode, handle: Option<Handle>) -> (Attr, Duration);
        readlink(inode: Inode) -> Vec<u8>;
        fsync(inode: Inode, datasync: bool, handle: Handle) -> ();
        statfs(inode: Inode) -> libc::statvfs64;
        getxattr(inode: Inode, name: &CStr, size: u32) -> GetxattrReply;
        listxattr(inode: Inode, size: u32) -> ListxattrReply;
        opendir(inode: Inode, flags: u32) -> (Option<Handle>, OpenOptions);
        readdir(inode: Inode, handle: Handle, size: u32, offset: u64) -> F::DirIter;
        fsyncdir(inode: Inode, datasync: bool, handle: Handle) -> ();
        releasedir(inode: Inode, flags: u32, handle: Handle) -> ();
        access(inode: Inode, mask: u32) -> ();
        lseek(inode: Inode, handle: Handle, offset: u64, whence: u32) -> u64;
        syncfs(inode: Inode) -> ();
    }

    pass_changes_on! {
        setattr(
            inode: Inode, attr: SetattrIn, handle: Option<Handle>, valid: SetattrValid
        ) -> (Attr, Duration) = |_| Change::of_data(inode);
        symlink(
            target: &CStr, parent: Inode, name: &CStr, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        mknod(
            parent: Inode, name: &CStr, mode: u32, device: u32, umask: u32, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        mkdir(
            parent: Inode, name: &CStr, mode: u32, umask: u32, extensions: Extensions
        ) -> Entry = |_| Change::of_new_name(parent, name);
        unlink(parent: Inode, name: &CStr) -> () =
            |files| Change::of_old_name(files, parent, name);
        rmdir(parent: Inode, name: &CStr) -> () =
            |files| Change::of_old_name(files, parent, name);
        rename(
            parent: Inode, old: &CStr, new_parent: Inode, new: &CStr, flags: u32
        ) -> () = |files| Change::of_move(files, (parent, old), (new_parent, new));
        link(inode: Inode, parent: Inode, name: &CStr) -> Entry =
            |_| Change::of_link(inode, parent, name);
        create(
            parent: Inode, name: &CStr, mode: u32, kill_priv: bool, flags: u32, umask: u32,
            extensions: Extensions
        ) -> (Entry, Option<Handle>, OpenOptions) = |_| Change::of_new_name(parent, name);
        fallocate(inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64) -> () =
            |_| Change::of_data(inode);
        setxattr(
            inode: Inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags
        ) -> () = |_| Change::of_data(inode);
        removexattr(inode: Inode, name: &CStr) -> () = |_| Change::of_data(inode);
        copyfilerange(
            from: Inode, from_handle: Handle, from_offset: u64,
            to: Inode, to_handle: Handle, to_offset: u64, length: u64, flags: u64
        ) -> usize = |_| Change::of_data(to);
    }

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.files.init(capable)
    }

    fn destroy(&self) {
        self.files.destroy();
    }

    fn forget(&self, context: Context, inode: Inode, count: u64) {
        self.files.forget(context, inode, count);
        self.watches.forgotten(inode, &self.files);
    }

    fn batch_forget(&self, context: Context, requests: Vec<(Inode, u64)>) {
        let nodes: Vec<Inode> = requests.iter().map(|(inode, _)| *inode).collect();
        self.files.batch_forget(context, requests);
        for inode in nodes {
            self.watches.forgotten(inode, &self.files);
        }
    }

    fn open(
        &self,
        context: Context,
        inode: Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        let open = || self.files.open(context, inode, kill_priv, flags);
        if flags & libc::O_TRUNC.cast_unsigned() == 0 {
            return open();
        }
        let change = |_: &F| Change::of_data(inode);
        self.watches.change(&self.files, change, open)
    }

    fn flush(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        lock_owner: u64,
    ) -> io::Result<()> {
        let flush = || self.files.flush(context, inode, handle, lock_owner);
        let change = |_: &F| Change::of_opened(inode);
        self.watches.change(&self.files, change, flush)
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
        self.watches.change(&self.files, change, release)
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
        self.watches.change(&self.files, change, write)
    }
}
