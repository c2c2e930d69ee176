//! Locks between the guest and all others who have the files: the host's programs, and other guests.
//!
//! The guest asks for flock(2) and fcntl(2) locks here (FUSE_FLOCK_LOCKS, FUSE_POSIX_LOCKS), and they
//! are taken on the host. The library has no part in it: requests about locks are answered before
//! they reach it, and all that is asked of it is the file of a handle.

mod handle;
mod host;
mod interrupt;
#[cfg(test)]
mod locks_test;
mod owners;
mod ranges;
mod request;
#[cfg(test)]
mod shared_test;
mod waits;

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use tracing::warn;
use virtiofsd::fuse::LkOut;
use vm_memory::ByteValued;

use super::answer::answer;
use crate::device::DeviceError;
use crate::log_limit::LogLimit;
use crate::queue::Chain;

use host::Access;
use owners::Owners;
use request::{Lock, Request, What, found};
use waits::{MAX_WAITS, Waits};

pub(in crate::dev::share) use handle::Handles;

/// The locks of a share's guest.
pub(in crate::dev) struct Locks {
    owners: Mutex<Owners>,
    waits: Waits,
    /// /proc/self/fd
    descriptors: File,
    share: String,
    complaints: LogLimit,
}

/// How many of `open_files` locks may take.
pub(super) fn descriptors(open_files: u64) -> u64 {
    (open_files / 8).min(4096)
}

impl Locks {
    /// For a process that may open `open_files`, on a thread of `share` that can reach nothing else.
    pub(super) fn new(share: &str, proc_self_fd: File, open_files: u64) -> io::Result<Self> {
        let owners = descriptors(open_files).saturating_sub(MAX_WAITS as u64);
        let owners = Owners::new(usize::try_from(owners).unwrap_or(0));
        Ok(Self {
            owners: Mutex::new(owners),
            waits: Waits::new("/")?,
            descriptors: proc_self_fd,
            share: share.to_owned(),
            complaints: LogLimit::default(),
        })
    }

    /// Executes the request in `chain`, if it is about locks, and returns the length of the answer. It may wait
    /// for a lock until others let go of it.
    ///
    /// # Errors
    /// When it is incomplete, or there is no room for its answer.
    pub(in crate::dev) fn handle(
        &self,
        chain: &Chain,
        handles: &impl Handles,
    ) -> Result<Option<u32>, DeviceError> {
        let Some(Request { unique, what }) = Request::read(chain)? else {
            return Ok(None);
        };
        let result = match what {
            What::Interrupt(other) => {
                self.waits.interrupt(other);
                return Ok(Some(0));
            }
            What::Test(lock) => lock.and_then(|lock| self.test(&lock, handles)).map(Some),
            What::Set { lock, wait } => lock
                .and_then(|lock| match self.set(&lock, handles) {
                    Err(Errno::EAGAIN) if wait => self.wait(&lock, handles, unique),
                    result => result,
                })
                .map(|()| None),
        };
        let result = result.map_err(|errno| self.complain(errno));
        let body = match &result {
            Ok(found) => Ok(found.as_ref().map_or(&[][..], ByteValued::as_slice)),
            Err(errno) => Err(*errno),
        };
        answer(chain.clone(), unique, body).map(Some)
    }

    fn test(&self, lock: &Lock, handles: &impl Handles) -> Result<LkOut, Errno> {
        let file = handles.file(lock.node, lock.handle)?;
        self.owners().test(lock, &file).map(found)
    }

    fn set(&self, lock: &Lock, handles: &impl Handles) -> Result<(), Errno> {
        let file = handles.file(lock.node, lock.handle)?;
        if lock.flock {
            return host::flock(&file, lock.kind);
        }
        let access = Access::of(&file)?;
        if lock.kind.is_some_and(|kind| !access.allows(kind)) {
            return Err(Errno::EBADF);
        }
        let open = || host::open_anew(&self.descriptors, &file);
        self.owners().set(lock, open)
    }

    /// Waits for a lock that another has. Others may set locks meanwhile.
    fn wait(&self, lock: &Lock, handles: &impl Handles, unique: u64) -> Result<(), Errno> {
        self.waits.announce(unique)?;
        let result = if lock.flock {
            handles.file(lock.node, lock.handle).and_then(|file| {
                let wait = |file: &File| host::wait_for_flock(file, lock.kind);
                self.waits.wait(unique, file, wait)
            })
        } else {
            self.wait_for_range(lock, unique)
        };
        self.waits.forget(unique);
        result
    }

    fn wait_for_range(&self, lock: &Lock, unique: u64) -> Result<(), Errno> {
        // Another descriptor of the description that will have it.
        let file = self.owners().begin_wait(lock)?;
        let result = self.waits.wait(unique, file, |file| {
            loop {
                host::wait(file, lock.range, lock.kind)?;
                // Another thread of its owner may have ended it since.
                let settled = self.owners().settle(lock);
                if settled != Err(Errno::EAGAIN) {
                    return settled;
                }
            }
        });
        self.owners().end_wait(lock);
        result
    }

    /// Tells the user of what the guest's programs may not understand.
    fn complain(&self, errno: Errno) -> Errno {
        if errno == Errno::ENOLCK && self.complaints.allows() {
            warn!(
                "share {}: too many locks, waits for locks or open files: a program got ENOLCK",
                self.share
            );
        }
        errno
    }

    /// A process has closed a file.
    pub(super) fn closed(&self, node: u64, owner: u64) {
        self.owners().let_go(node, owner);
    }

    /// Nobody has the handle any more.
    pub(super) fn released(&self, node: u64, handle: u64) {
        self.owners().released(node, handle);
    }

    /// Ends all waits: nobody takes the answers.
    pub(in crate::dev) fn end(&self) {
        self.waits.end();
    }

    /// Lets go of all locks, for another guest. When nobody waits.
    pub(in crate::dev) fn clear(&self) {
        self.owners().clear();
        self.waits.restart();
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
