//! Requests about what a file is: its attributes and those of its file system.

use std::io;

use virtiofsd::filesystem::SetattrValid;
use virtiofsd::fuse::SetattrIn;

use super::fid::{Tree, as_root};
use super::session::{Session, loses_set_user_id};
use super::wire::{Answer, Body, attributes, errno};

/// The number of the file system's type: `V9FS_MAGIC` (linux/magic.h).
const V9FS_MAGIC: u32 = 0x0102_1997;

/// Bits of `valid` in SETATTR, and what they are to the library.
const SETATTR: [(u32, SetattrValid); 6] = [
    (1 << 0, SetattrValid::MODE),
    (1 << 1, SetattrValid::UID),
    (1 << 2, SetattrValid::GID),
    (1 << 3, SetattrValid::SIZE),
    (1 << 4, SetattrValid::ATIME),
    (1 << 5, SetattrValid::MTIME),
];
/// Bit 6, the time of the change, is set by each change. Times that are not sent are those of now.
const ATIME_SET: u32 = 1 << 7;
const MTIME_SET: u32 = 1 << 8;

impl<F: Tree> Session<F> {
    /// `fid[4] request_mask[8]`: `valid[8] qid[13]` and so on. All is answered always.
    pub(super) fn getattr(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, _mask) = (body.u32()?, body.u64()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        let (attr, _) = self.tree.getattr(as_root(), fid.node.inode, None)?;
        Ok(attributes(fid.node.qid, &attr, fid.node.generation()))
    }

    /// `fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8]`.
    pub(super) fn setattr(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, bits) = (body.u32()?, body.u32()?);
        let mut attr = SetattrIn {
            mode: body.u32()? & 0o7777,
            uid: body.u32()?.into(),
            gid: body.u32()?.into(),
            size: body.u64()?,
            atime: body.u64()?,
            ..Default::default()
        };
        attr.atimensec = nanoseconds(body.u64()?)?;
        attr.mtime = body.u64()?;
        attr.mtimensec = nanoseconds(body.u64()?)?;
        body.end()?;
        let fid = self.fids.get(number)?;
        let mut valid = valid(bits);
        if valid.contains(SetattrValid::SIZE) {
            if fid.node.kind != libc::S_IFREG {
                return Err(errno(libc::EINVAL));
            }
            valid.set(SetattrValid::KILL_SUIDGID, loses_set_user_id(fid.uid));
        }
        self.tree
            .setattr(as_root(), fid.node.inode, attr, None, valid)?;
        Ok(Answer::default())
    }

    /// `fid[4]`: `type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4]`.
    pub(super) fn statfs(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let number = body.u32()?;
        body.end()?;
        let fid = self.fids.get(number)?;
        let stat = self.tree.statfs(as_root(), fid.node.inode)?;
        // They fit: the library fills in what the kernel says.
        let (size, name) = (stat.f_bsize as u32, stat.f_namemax as u32);
        let mut answer = Answer::default();
        answer.u32(V9FS_MAGIC).u32(size);
        for number in [stat.f_blocks, stat.f_bfree, stat.f_bavail] {
            answer.u64(number);
        }
        let files = answer.u64(stat.f_files).u64(stat.f_ffree);
        Ok(files.u64(stat.f_fsid).u32(name).done())
    }
}

fn valid(bits: u32) -> SetattrValid {
    let named = SETATTR.into_iter().filter(|(bit, _)| bits & bit != 0);
    let mut valid: SetattrValid = named.map(|(_, flag)| flag).collect();
    let now = |set, time, now| {
        if bits & set == 0 && valid.contains(time) {
            now
        } else {
            SetattrValid::empty()
        }
    };
    let atime = now(ATIME_SET, SetattrValid::ATIME, SetattrValid::ATIME_NOW);
    let mtime = now(MTIME_SET, SetattrValid::MTIME, SetattrValid::MTIME_NOW);
    valid.insert(atime | mtime);
    valid
}

/// Some numbers that are not less than a second mean something else to utimensat(2).
fn nanoseconds(number: u64) -> io::Result<u32> {
    match u32::try_from(number) {
        Ok(number) if number < 1_000_000_000 => Ok(number),
        _ => Err(errno(libc::EINVAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_are_not_sent_are_those_of_now() {
        use SetattrValid as Valid;
        assert_eq!(
            valid(0x30),
            Valid::ATIME | Valid::MTIME | Valid::ATIME_NOW | Valid::MTIME_NOW
        );
        assert_eq!(valid(0x1b0), Valid::ATIME | Valid::MTIME);
        assert_eq!(valid(0x180), Valid::empty());
        assert_eq!(
            valid(0x4f),
            Valid::MODE | Valid::UID | Valid::GID | Valid::SIZE
        );
    }

    #[test]
    fn a_nanosecond_is_part_of_a_second() {
        assert_eq!(nanoseconds(999_999_999).unwrap(), 999_999_999);
        for wrong in [1_000_000_000, 0x3fff_ffff, 0x3fff_fffe, 1 << 32] {
            assert!(nanoseconds(wrong).is_err());
        }
    }
}
