//! Requests about locks, as the guest sends them (`struct fuse_lk_in` and `fuse_interrupt_in` of
//! linux/fuse.h), and their answers.
//!
//! The library has neither. What it takes for one of them, because the guest has changed the opcode
//! since we looked, it refuses.

use nix::errno::Errno;
use virtiofsd::descriptor_utils::Reader;
use virtiofsd::fuse::{FileLock, InHeader, InterruptIn, LK_FLOCK, LkIn, LkOut, Opcode};

use super::ranges::{Kind, LAST, Range};
use crate::dev::share::answer::driver;
use crate::device::DeviceError;
use crate::queue::Chain;

/// A request, read once.
#[derive(Debug)]
pub(super) struct Request {
    /// By which the guest knows it.
    pub(super) unique: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Who is in the way of a lock?
    Test(Result<Lock, Errno>),
    Set {
        lock: Result<Lock, Errno>,
        /// Whether to wait for those in the way.
        wait: bool,
    },
    /// A process has no time to wait for the answer to that request.
    Interrupt(u64),
}

/// A lock, or the end of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lock {
    pub(super) node: u64,
    pub(super) handle: u64,
    /// Whose it is: the guest's number for a process, or for an open file description.
    pub(super) owner: u64,
    /// The guest's process.
    pub(super) pid: u32,
    pub(super) range: Range,
    /// `None` ends it.
    pub(super) kind: Option<Kind>,
    /// Whether it is flock(2)'s, which the open file description has, on the whole file.
    pub(super) flock: bool,
}

impl Request {
    /// The request in `chain`; `None` if it is another one, for the library.
    ///
    /// # Errors
    /// When there is less of it than it should have.
    pub(super) fn read(chain: &Chain) -> Result<Option<Self>, DeviceError> {
        let mut reader = Reader::new(chain.memory(), chain.clone()).map_err(|e| driver(&e))?;
        let Ok(header) = reader.read_obj::<InHeader>() else {
            return Ok(None);
        };
        let mut lock = || -> Result<_, DeviceError> {
            let asked = reader.read_obj::<LkIn>().map_err(|e| driver(&e))?;
            Ok(Lock::new(header.nodeid, &asked))
        };
        let set = |lock, wait| What::Set { lock, wait };
        let what = match Opcode::try_from(header.opcode) {
            Ok(Opcode::Getlk) => What::Test(lock()?),
            Ok(Opcode::Setlk) => set(lock()?, false),
            Ok(Opcode::Setlkw) => set(lock()?, true),
            Ok(Opcode::Interrupt) => {
                let asked = reader.read_obj::<InterruptIn>().map_err(|e| driver(&e))?;
                What::Interrupt(asked.unique)
            }
            _ => return Ok(None),
        };
        let unique = header.unique;
        Ok(Some(Self { unique, what }))
    }
}

impl Lock {
    fn new(node: u64, asked: &LkIn) -> Result<Self, Errno> {
        let FileLock {
            start,
            end,
            type_,
            pid,
        } = asked.lk;
        if start > end || end > LAST {
            return Err(Errno::EINVAL);
        }
        let kind = match i32::try_from(type_).map_err(|_| Errno::EINVAL)? {
            libc::F_RDLCK => Some(Kind::Read),
            libc::F_WRLCK => Some(Kind::Write),
            libc::F_UNLCK => None,
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self {
            node,
            handle: asked.fh,
            owner: asked.owner,
            pid,
            range: Range { start, end },
            kind,
            flock: asked.lk_flags & LK_FLOCK != 0,
        })
    }
}

/// Who is in the way: nobody, or a lock and the guest's process that has it, 0 if none of its.
pub(super) type Found = Option<(Range, Kind, u32)>;

/// What the answer to [`What::Test`] says.
pub(super) fn found(found: Found) -> LkOut {
    let (range, type_, pid) = match found {
        None => (Range::ALL, libc::F_UNLCK, 0),
        Some((range, Kind::Read, pid)) => (range, libc::F_RDLCK, pid),
        Some((range, Kind::Write, pid)) => (range, libc::F_WRLCK, pid),
    };
    LkOut {
        lk: FileLock {
            start: range.start,
            end: range.end,
            type_: type_.cast_unsigned(),
            pid,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(start: u64, end: u64, type_: u32, flags: u32) -> LkIn {
        LkIn {
            fh: 1,
            owner: 2,
            lk: FileLock {
                start,
                end,
                type_,
                pid: 3,
            },
            lk_flags: flags,
            padding: 0,
        }
    }

    proptest! {
        /// A lock that is let through is one that the kernel can have.
        #[test]
        fn what_no_lock_can_be_is_refused(
            start in prop_oneof![0..4_u64, LAST - 1..LAST + 2, any::<u64>()],
            end in prop_oneof![0..4_u64, LAST - 1..LAST + 2, any::<u64>()],
            type_ in prop_oneof![0..5_u32, any::<u32>()],
            flags in any::<u32>(),
        ) {
            let lock = Lock::new(9, &asked(start, end, type_, flags));
            let possible = start <= end && i64::try_from(end).is_ok() && type_ <= 2;
            prop_assert_eq!(lock.is_ok(), possible);
            if let Ok(lock) = lock {
                prop_assert_eq!((lock.node, lock.handle, lock.owner, lock.pid), (9, 1, 2, 3));
                prop_assert_eq!(lock.range, Range { start, end });
                prop_assert_eq!(lock.kind.is_none(), type_ == libc::F_UNLCK.cast_unsigned());
                prop_assert_eq!(lock.flock, flags & 1 == 1);
            }
        }
    }
}
