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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use tracing::warn;
use virtiofsd::fuse::LkOut;

use crate::device::DeviceError;
use crate::log_limit::LogLimit;
use crate::queue::Chain;

use host::Access;
use owners::Owners;
use request::{Lock, Request, What, answer, found};
use waits::{MAX_WAITS, Waits};

pub(super) use handle::Handles;

/// What becomes of a request.
pub(super) enum Answer {
    /// It is answered: so long.
    Length(u32),
    /// It will be, by a thread that waits.
    Later(Wait),
}

/// The locks of a share's guest.
pub(super) struct Locks {
    owners: Mutex<Owners>,
    waits: Waits,
    /// /proc/self/fd
    descriptors: File,
    share: String,
    complaints: LogLimit,
}

/// A request that waits for a lock.
pub(super) struct Wait {
    locks: Arc<Locks>,
    lock: Lock,
    /// Another descriptor of the description that will have it.
    file: File,
    unique: u64,
    chain: Chain,
}

enum Done {
    Now(Option<LkOut>),
    Waits(Wait),
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

    /// Executes the request in `chain`, if it is about locks.
    ///
    /// # Errors
    /// When it is incomplete, or there is no room for its answer.
    pub(super) fn handle(
        self: &Arc<Self>,
        chain: &Chain,
        handles: &impl Handles,
    ) -> Result<Option<Answer>, DeviceError> {
        let Some(Request { unique, what }) = Request::read(chain)? else {
            return Ok(None);
        };
        let done = match what {
            What::Interrupt(other) => {
                self.waits.interrupt(other);
                return Ok(Some(Answer::Length(0)));
            }
            What::Test(lock) => lock.and_then(|lock| self.test(&lock, handles)),
            What::Set { lock, wait } => lock.and_then(|lock| match self.set(&lock, handles) {
                Err(Errno::EAGAIN) if wait => self.begin_wait(lock, handles, unique, chain),
                result => result.map(|()| Done::Now(None)),
            }),
        };
        let result = match done {
            Ok(Done::Waits(wait)) => return Ok(Some(Answer::Later(wait))),
            Ok(Done::Now(body)) => Ok(body),
            Err(errno) => Err(self.complain(errno)),
        };
        answer(chain.clone(), unique, result).map(|length| Some(Answer::Length(length)))
    }

    fn test(&self, lock: &Lock, handles: &impl Handles) -> Result<Done, Errno> {
        let file = handles.file(lock.node, lock.handle)?;
        let result = self.owners().test(lock, &file)?;
        Ok(Done::Now(Some(found(result))))
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

    fn begin_wait(
        self: &Arc<Self>,
        lock: Lock,
        handles: &impl Handles,
        unique: u64,
        chain: &Chain,
    ) -> Result<Done, Errno> {
        self.waits.announce(unique)?;
        let file = if lock.flock {
            handles.file(lock.node, lock.handle)
        } else {
            self.owners().begin_wait(&lock)
        };
        let file = file.inspect_err(|_| self.waits.forget(unique))?;
        Ok(Done::Waits(Wait {
            locks: Arc::clone(self),
            lock,
            file,
            unique,
            chain: chain.clone(),
        }))
    }

    fn end_wait(&self, lock: &Lock, unique: u64) {
        if !lock.flock {
            self.owners().end_wait(lock);
        }
        self.waits.forget(unique);
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
    pub(super) fn end(&self) {
        self.waits.end();
    }

    /// Lets go of all locks, for another guest. When nobody waits.
    pub(super) fn clear(&self) {
        self.owners().clear();
        self.waits.restart();
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Waits, on a thread that does nothing else, and answers the request.
    ///
    /// # Errors
    /// When there is no room for the answer.
    pub(super) fn run(self) -> Result<u32, DeviceError> {
        let Self {
            locks,
            lock,
            file,
            unique,
            chain,
        } = self;
        let result = locks.waits.wait(unique, file, |file| {
            if lock.flock {
                return host::wait_for_flock(file, lock.kind);
            }
            loop {
                host::wait(file, lock.range, lock.kind)?;
                // Another thread of its owner may have ended it since.
                let settled = locks.owners().settle(&lock);
                if settled != Err(Errno::EAGAIN) {
                    return settled;
                }
            }
        });
        locks.end_wait(&lock, unique);
        answer(chain, unique, result.map(|()| None))
    }

    /// Answers the request that nobody can wait.
    ///
    /// # Errors
    /// When there is no room for the answer.
    pub(super) fn refuse(self) -> Result<u32, DeviceError> {
        self.locks.end_wait(&self.lock, self.unique);
        let errno = self.locks.complain(Errno::ENOLCK);
        answer(self.chain, self.unique, Err(errno))
    }
}
