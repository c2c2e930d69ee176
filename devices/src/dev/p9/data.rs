//! Requests about what is in a file or directory. Bytes of files go between the file and guest memory by one
//! system call.

use std::fs::File;
use std::io;

use virtiofsd::descriptor_utils::{Reader, Writer};
use virtiofsd::filesystem::{DirectoryIterator, ZeroCopyReader, ZeroCopyWriter};
use virtiofsd::oslib::{ReadvFlags, WritevFlags};

use super::fid::{Open, Tree, Use, as_root};
use super::session::{Session, loses_set_user_id};
use super::wire::{Answer, Body, HEADER, Qid, errno};

/// Numbers in front of the bytes that an answer carries: `size[4] type[1] tag[2] count[4]`.
pub(super) const DATA: usize = HEADER + 4;

/// `P9_LOCK_SUCCESS`.
const LOCKED: u8 = 0;
/// `P9_LOCK_TYPE_UNLCK`.
const UNLOCKED: u8 = 2;

/// What was read.
pub(super) enum Read {
    /// So many bytes are in guest memory already.
    There(usize),
    /// These.
    Here(Vec<u8>),
}

/// All of guest memory that is left.
struct To<'a, 'b>(&'a mut Writer<'b>);
struct From<'a, 'b>(&'a mut Reader<'b>);

impl ZeroCopyWriter for To<'_, '_> {
    fn read_from_file_at(
        &mut self,
        file: &File,
        count: usize,
        offset: u64,
        flags: Option<ReadvFlags>,
    ) -> io::Result<usize> {
        self.0.read_from_file_at(file, count, offset, flags)
    }
}

impl ZeroCopyReader for From<'_, '_> {
    fn write_to_file_at(
        &mut self,
        file: &File,
        count: usize,
        offset: u64,
        flags: Option<WritevFlags>,
    ) -> io::Result<usize> {
        self.0.write_to_file_at(file, count, offset, flags)
    }
}

impl<F: Tree> Session<F> {
    /// `fid[4] offset[8] count[4]`: `count[4] data[count]`. Fewer bytes are no error; none are the end.
    pub(super) fn read(&self, mut body: Body<'_>, room: &mut Writer<'_>) -> io::Result<Read> {
        let (number, offset, count) = (body.u32()?, body.u64()?, body.u32()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        let most = self.most_data(room.available_bytes() + DATA);
        let count = most.min(count as usize);
        match &fid.used {
            Use::File(open) => {
                // What is behind the bytes that were asked for is not to be written to.
                let rest = room.split_at(count);
                rest.map_err(io::Error::other)?;
                let (inode, handle) = (fid.node.inode, open.handle);
                let read = self.tree.read(
                    as_root(),
                    inode,
                    handle,
                    To(room),
                    count as u32,
                    offset,
                    None,
                    0,
                )?;
                Ok(Read::There(read))
            }
            Use::Attribute(name) => {
                let value = self.attribute(&fid.node, name)?;
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = value.get(from..).unwrap_or_default();
                Ok(Read::Here(rest.iter().copied().take(count).collect()))
            }
            Use::Directory(_) => Err(errno(libc::EISDIR)),
            Use::Path | Use::NewAttribute(_) => Err(errno(libc::EBADF)),
        }
    }

    /// `fid[4] offset[8] count[4]`, and the data follow: `count[4]`.
    pub(super) fn write(&self, mut body: Body<'_>, data: &mut Reader<'_>) -> io::Result<Answer> {
        let (number, offset, count) = (body.u32()?, body.u64()?, body.u32()?);
        body.end()?;
        if data.available_bytes() != count as usize {
            return Err(errno(libc::EINVAL));
        }
        let fid = self.fids.get(number)?;
        let written = match &fid.used {
            Use::File(open) => self.write_file(fid.node.inode, open, fid.uid, (data, offset))?,
            Use::NewAttribute(new) => new.write(offset, data)?,
            _ => return Err(errno(libc::EBADF)),
        };
        Ok(Answer::default().u32(written as u32).done())
    }

    fn write_file(
        &self,
        inode: u64,
        open: &Open<F>,
        uid: u32,
        (data, offset): (&mut Reader<'_>, u64),
    ) -> io::Result<usize> {
        let flags = if open.appends {
            libc::O_APPEND as u32
        } else {
            0
        };
        let count = data.available_bytes() as u32;
        let kill = loses_set_user_id(uid);
        self.tree.write(
            as_root(),
            inode,
            open.handle,
            From(data),
            count,
            offset,
            None,
            false,
            kill,
            flags,
        )
    }

    /// `fid[4] offset[8] count[4]`: `count[4] data[count]`, of `qid[13] offset[8] type[1] name[s]` each.
    pub(super) fn readdir(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, offset, count) = (body.u32()?, body.u64()?, body.u32()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        let Use::Directory(open) = &fid.used else {
            return Err(errno(libc::EBADF));
        };
        let most = self.most_data(self.limit() as usize).min(count as usize);
        let (node, size) = (&fid.node, most as u32);
        let mut found = self
            .tree
            .readdir(as_root(), node.inode, open.handle, size, offset)?;
        let mut entries = Answer::default();
        while let Some(entry) = found.next() {
            let name = entry.name.to_bytes();
            // qid, offset, type, and the length of the name.
            if entries.0.len() + 13 + 8 + 1 + 2 + name.len() > most {
                break;
            }
            // The types of directory entries are bits 12 to 15 of modes.
            let qid = Qid::new(node.file_system, entry.ino, entry.type_ << 12);
            entries.qid(qid).u64(entry.offset);
            entries.u8(entry.type_ as u8).string(name);
        }
        let mut answer = Answer::default();
        answer.u32(entries.0.len() as u32).0.extend(entries.0);
        Ok(answer)
    }

    /// `fid[4] datasync[4]`.
    pub(super) fn fsync(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, data_only) = (body.u32()?, body.u32()? != 0);
        body.end()?;
        let fid = self.fids.get(number)?;
        let (Use::File(open) | Use::Directory(open)) = &fid.used else {
            return Err(errno(libc::EBADF));
        };
        self.tree
            .fsync(as_root(), fid.node.inode, data_only, open.handle)?;
        Ok(Answer::default())
    }

    /// `fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s]`: `status[1]`. The guest's kernel has
    /// the lock already: as with virtio-fs, locks are between its processes.
    pub(super) fn lock(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, _kind, _flags) = (body.u32()?, body.u8()?, body.u32()?);
        let (_start, _length, _process) = (body.u64()?, body.u64()?, body.u32()?);
        let _client = body.string()?;
        body.end()?;
        self.locked(number)?;
        Ok(Answer::default().u8(LOCKED).done())
    }

    /// `fid[4] type[1] start[8] length[8] proc_id[4] client_id[s]`: the same without the fid. The guest's kernel
    /// asks where it knows of no lock itself.
    pub(super) fn getlock(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, _kind) = (body.u32()?, body.u8()?);
        let (start, length, process) = (body.u64()?, body.u64()?, body.u32()?);
        let client = body.string()?;
        body.end()?;
        self.locked(number)?;
        let mut answer = Answer::default();
        answer.u8(UNLOCKED).u64(start).u64(length).u32(process);
        Ok(answer.string(client).done())
    }

    /// A lock is on an open file or directory.
    fn locked(&self, number: u32) -> io::Result<()> {
        match self.fids.get(number)?.used {
            Use::File(_) | Use::Directory(_) => Ok(()),
            _ => Err(errno(libc::EBADF)),
        }
    }

    /// The most bytes that an answer of at most `length` can carry.
    fn most_data(&self, length: usize) -> usize {
        length.min(self.limit() as usize).saturating_sub(DATA)
    }
}
