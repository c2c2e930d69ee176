//! The library's file system behind checks that the library does not make.
//!
//! A name in a request is one entry of a directory: Linux sends nothing else. The library resolves
//! what it is given, and a hostile guest may ask to unlink `../../x`. The root directory of the
//! threads (confinement.rs) stops that only as long as all directories that the guest knows stay
//! below it, and the host, or another share, may move one of them away.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use virtiofsd::filesystem::{
    Context, Entry, Extensions, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
    SetattrValid, SetxattrFlags, ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};

use super::flush::Flushes;
use super::locks::{Handles, Locks};
use super::opens;
use super::room::Room;
use super::virtual_files::VirtualFiles;
use super::watched::Watched;
use crate::device::DeviceError;
use crate::queue::Chain;

type Inode = u64;
type Handle = u64;

/// A file system of which nothing impossible is asked, nor more than there is room for, with locks and watches, which the
/// library does not have.
pub(in crate::dev) struct Checked<F> {
    files: Arc<Watched<F>>,
    locks: Arc<Locks>,
    room: Arc<Room>,
    flushes: Arc<Flushes>,
    virtual_files: Arc<VirtualFiles>,
}

impl<F> Checked<F> {
    pub(super) fn new(files: Watched<F>, locks: Locks, room: Room, flushes: Flushes) -> Self {
        Self {
            files: Arc::new(files),
            locks: Arc::new(locks),
            room: Arc::new(room),
            flushes: Arc::new(flushes),
            virtual_files: Arc::default(),
        }
    }

    /// Whether the guest flushes files that it has locked, even if it need not flush others.
    pub(in crate::dev) fn flushes_locked(&self, flushes: bool) {
        self.flushes.of_locked(flushes);
    }

    /// Whether there will soon be room for no more files.
    pub(in crate::dev) fn is_narrow(&self) -> bool {
        self.room.is_narrow()
    }

    /// No request comes any more: those that wait for others return.
    pub(in crate::dev) fn end(&self) {
        self.locks.end();
        self.files.end();
        self.room.end();
    }

    /// There may be another guest. When nobody waits.
    pub(in crate::dev) fn restart(&self) {
        self.locks.clear();
        self.files.restart();
        self.room.restart();
    }

    /// The guest knows the file that was made for it.
    fn made(&self, made: io::Result<Entry>) -> io::Result<Entry> {
        if let Ok(entry) = &made {
            self.room.made(entry.inode);
        }
        made
    }

    fn is_virtual(&self, inode: Inode, handle: Handle) -> bool
    where
        F: FileSystem<Inode = Inode, Handle = Handle>,
    {
        let is_virtual = |file: &File| self.virtual_files.has(file);
        Handles::look_at(&*self.files, inode, handle, is_virtual) == Ok(true)
    }

    /// The guest has opened a file, if it gets a handle.
    fn opened(&self, handle: Option<Handle>) {
        if handle.is_some() {
            self.room.opened();
        }
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
            None => self.files.handle(chain),
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
            room: Arc::clone(&self.room),
            flushes: Arc::clone(&self.flushes),
            virtual_files: Arc::clone(&self.virtual_files),
        }
    }
}

/// Makes methods that make a file, by a name that is checked, if there is room for it.
macro_rules! make {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {$(
        fn $method(
            &self, context: Context, parent: Inode, name: &CStr, $($arg: $type),*
        ) -> io::Result<Entry> {
            check_name(name)?;
            self.room.wait()?;
            self.made(self.files.$method(context, parent, name, $($arg),*))
        }
    )*};
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

impl<F: FileSystem<Inode = Inode, Handle = Handle>> FileSystem for Checked<F> {
    type Inode = Inode;
    type Handle = Handle;
    type DirIter = F::DirIter;

    pass_on! {
        getattr[](inode: Inode, handle: Option<Handle>) -> (Attr, Duration);
        setattr[](
            inode: Inode, attr: SetattrIn, handle: Option<Handle>, valid: SetattrValid
        ) -> (Attr, Duration);
        readlink[](inode: Inode) -> Vec<u8>;
        unlink[name](parent: Inode, name: &CStr) -> ();
        rmdir[name](parent: Inode, name: &CStr) -> ();
        rename[old new](parent: Inode, old: &CStr, new_parent: Inode, new: &CStr, flags: u32) -> ();
        fsync[](inode: Inode, datasync: bool, handle: Handle) -> ();
        fallocate[](inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64) -> ();
        statfs[](inode: Inode) -> libc::statvfs64;
        setxattr[](
            inode: Inode, name: &CStr, value: &[u8], flags: u32, extra_flags: SetxattrFlags
        ) -> ();
        getxattr[](inode: Inode, name: &CStr, size: u32) -> GetxattrReply;
        listxattr[](inode: Inode, size: u32) -> ListxattrReply;
        removexattr[](inode: Inode, name: &CStr) -> ();
        readdir[](inode: Inode, handle: Handle, size: u32, offset: u64) -> F::DirIter;
        fsyncdir[](inode: Inode, datasync: bool, handle: Handle) -> ();
        access[](inode: Inode, mask: u32) -> ();
        lseek[](inode: Inode, handle: Handle, offset: u64, whence: u32) -> u64;
        copyfilerange[](
            from: Inode, from_handle: Handle, from_offset: u64,
            to: Inode, to_handle: Handle, to_offset: u64, length: u64, flags: u64
        ) -> usize;
        syncfs[](inode: Inode) -> ();
    }

    make! {
        mknod(mode: u32, device: u32, umask: u32, extensions: Extensions);
        mkdir(mode: u32, umask: u32, extensions: Extensions);
    }

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let wanted = self.files.init(capable);
        self.room.clear();
        let wanted = wanted?;
        Ok(wanted | FsOptions::POSIX_LOCKS | FsOptions::FLOCK_LOCKS)
    }

    fn destroy(&self) {
        self.files.destroy();
        self.room.clear();
    }

    fn lookup(&self, context: Context, parent: Inode, name: &CStr) -> io::Result<Entry> {
        check_name(name)?;
        loop {
            let entry = self.files.lookup(context, parent, name)?;
            if self.room.look_up(entry.inode) {
                return Ok(entry);
            }
            self.files.forget(context, entry.inode, 1);
            self.room.wait()?;
        }
    }

    fn forget(&self, context: Context, inode: Inode, count: u64) {
        self.files.forget(context, inode, count);
        self.room.forget(&[(inode, count)]);
    }

    fn batch_forget(&self, context: Context, requests: Vec<(Inode, u64)>) {
        self.files.batch_forget(context, requests.clone());
        self.room.forget(&requests);
    }

    fn symlink(
        &self,
        context: Context,
        target: &CStr,
        parent: Inode,
        name: &CStr,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        // Where a link leads is the guest's business: here it is not followed.
        check_name(name)?;
        self.room.wait()?;
        self.made(
            self.files
                .symlink(context, target, parent, name, extensions),
        )
    }

    fn link(
        &self,
        context: Context,
        inode: Inode,
        parent: Inode,
        name: &CStr,
    ) -> io::Result<Entry> {
        check_name(name)?;
        self.made(self.files.link(context, inode, parent, name))
    }

    fn create(
        &self,
        context: Context,
        parent: Inode,
        name: &CStr,
        mode: u32,
        kill_priv: bool,
        flags: u32,
        umask: u32,
        extensions: Extensions,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions)> {
        check_name(name)?;
        self.room.wait()?;
        let made = self.files.create(
            context, parent, name, mode, kill_priv, flags, umask, extensions,
        );
        let (entry, handle, options) = made?;
        self.room.made(entry.inode);
        self.opened(handle);
        Ok((entry, handle, options | self.flushes.options()))
    }

    fn open(
        &self,
        context: Context,
        inode: Inode,
        kill_priv: bool,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.room.wait()?;
        let (handle, options) = self.files.open(context, inode, kill_priv, flags)?;
        self.opened(handle);
        let mut options = options | self.flushes.options();
        if let Some(handle) = handle
            && self.is_virtual(inode, handle)
        {
            options |= OpenOptions::DIRECT_IO;
        }
        Ok((handle, options))
    }

    fn opendir(
        &self,
        context: Context,
        inode: Inode,
        flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.room.wait()?;
        let (handle, options) = self.files.opendir(context, inode, flags)?;
        self.opened(handle);
        Ok((handle, options))
    }

    fn releasedir(
        &self,
        context: Context,
        inode: Inode,
        flags: u32,
        handle: Handle,
    ) -> io::Result<()> {
        self.files.releasedir(context, inode, flags, handle)?;
        self.room.closed();
        Ok(())
    }

    fn flush(
        &self,
        context: Context,
        inode: Inode,
        handle: Handle,
        lock_owner: u64,
    ) -> io::Result<()> {
        self.locks.closed(inode, lock_owner);
        self.files.flush(context, inode, handle, lock_owner)
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
        )?;
        self.room.closed();
        Ok(())
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
