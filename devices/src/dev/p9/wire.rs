//! Messages of 9P2000.L: little-endian numbers, and strings behind their lengths.

use std::ffi::CString;
use std::io;

use virtiofsd::fuse::Attr;

/// `size[4] type[1] tag[2]`, with which every message begins.
pub(super) const HEADER: usize = 7;
/// The longest message that we take: what Linux' virtio transport can send. A READ or WRITE carries that
/// many bytes, less its own numbers.
pub(super) const MAX_MESSAGE: u32 = 125 * 4096;
/// The shortest limit that a client may ask for, as Linux has it: all answers but those that carry data
/// are shorter.
pub(super) const MIN_MESSAGE: u32 = 4096;
/// The longest body of a request that carries no data: a symbolic link, or a walk of 16 names.
pub(super) const MAX_BODY: usize = 8192;
/// The longest name of a file or an attribute (limits.h).
const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, with its NUL (limits.h).
const PATH_MAX: usize = 4096;

/// Types of requests. That of the answer is one more.
pub(super) mod request {
    pub(in super::super) const STATFS: u8 = 8;
    pub(in super::super) const LOPEN: u8 = 12;
    pub(in super::super) const LCREATE: u8 = 14;
    pub(in super::super) const SYMLINK: u8 = 16;
    pub(in super::super) const MKNOD: u8 = 18;
    pub(in super::super) const READLINK: u8 = 22;
    pub(in super::super) const GETATTR: u8 = 24;
    pub(in super::super) const SETATTR: u8 = 26;
    pub(in super::super) const XATTRWALK: u8 = 30;
    pub(in super::super) const XATTRCREATE: u8 = 32;
    pub(in super::super) const READDIR: u8 = 40;
    pub(in super::super) const FSYNC: u8 = 50;
    pub(in super::super) const LOCK: u8 = 52;
    pub(in super::super) const GETLOCK: u8 = 54;
    pub(in super::super) const LINK: u8 = 70;
    pub(in super::super) const MKDIR: u8 = 72;
    pub(in super::super) const RENAMEAT: u8 = 74;
    pub(in super::super) const UNLINKAT: u8 = 76;
    pub(in super::super) const VERSION: u8 = 100;
    pub(in super::super) const ATTACH: u8 = 104;
    pub(in super::super) const FLUSH: u8 = 108;
    pub(in super::super) const WALK: u8 = 110;
    pub(in super::super) const READ: u8 = 116;
    pub(in super::super) const WRITE: u8 = 118;
    pub(in super::super) const CLUNK: u8 = 120;
    pub(in super::super) const REMOVE: u8 = 122;
}

/// The type of the answer that is an error: `ecode[4]`.
pub(super) const RLERROR: u8 = 7;

/// An error by its number.
pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn invalid() -> io::Error {
    errno(libc::EINVAL)
}

/// What is left of a request.
#[derive(Debug)]
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(invalid)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> io::Result<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u16()?;
        let (taken, rest) = self.0.split_at_checked(length.into()).ok_or_else(invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The name of an entry of a directory, which is never a path.
    pub(super) fn name(&mut self) -> io::Result<CString> {
        let name = self.string()?;
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(invalid());
        }
        limited(name, NAME_MAX)
    }

    /// The name of an extended attribute; may be empty.
    pub(super) fn attribute(&mut self) -> io::Result<CString> {
        limited(self.string()?, NAME_MAX)
    }

    /// Where a symbolic link leads: the guest's business.
    pub(super) fn target(&mut self) -> io::Result<CString> {
        limited(self.string()?, PATH_MAX - 1)
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> io::Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(invalid())
        }
    }
}

fn limited(text: &[u8], most: usize) -> io::Result<CString> {
    if text.len() > most {
        return Err(errno(libc::ENAMETOOLONG));
    }
    CString::new(text).map_err(|_| invalid())
}

/// An answer, or its part behind the header.
#[derive(Debug, Default)]
pub(super) struct Answer(pub(super) Vec<u8>);

impl Answer {
    pub(super) fn u8(&mut self, number: u8) -> &mut Self {
        self.0.push(number);
        self
    }

    pub(super) fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    /// Cut at what the length can say; no name and no target is that long.
    pub(super) fn string(&mut self, text: &[u8]) -> &mut Self {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.u16(length);
        self.0.extend(text.iter().take(length.into()));
        self
    }

    pub(super) fn qid(&mut self, qid: Qid) -> &mut Self {
        self.u8(qid.kind).u32(QID_VERSION).u64(qid.path)
    }

    /// For `?` and `Ok` at the end of a handler.
    pub(super) fn done(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// Linux' cache=loose takes two inodes with other versions for others, and newer ones cache nothing of version
/// 0. So all have one: what has changed, the attributes tell.
const QID_VERSION: u32 = 1;

/// What a client knows a file by: `type[1] version[4] path[8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Qid {
    pub(super) kind: u8,
    pub(super) path: u64,
}

impl Qid {
    /// Of a file with this inode number and mode, in the file system with this number among those of the
    /// share. The guest shows the path as the inode's number, and has one device number for all.
    pub(super) fn new(file_system: u16, number: u64, mode: u32) -> Self {
        /// `QTDIR` and `QTSYMLINK`.
        const DIRECTORY: u8 = 0x80;
        const SYMLINK: u8 = 0x02;
        let kind = match mode & libc::S_IFMT {
            libc::S_IFDIR => DIRECTORY,
            libc::S_IFLNK => SYMLINK,
            _ => 0,
        };
        let path = number ^ u64::from(file_system) << 48;
        Self { kind, path }
    }
}

/// Bits of `valid` in an answer to GETATTR: all of stat(2), and the generation.
const GETATTR_BASIC: u64 = 0x7ff;
const GETATTR_GEN: u64 = 0x1000;

/// `generation` is never that of another file as long as the guest knows this one.
pub(super) fn attributes(qid: Qid, attr: &Attr, generation: u32) -> Answer {
    let mut answer = Answer::default();
    answer
        .u64(GETATTR_BASIC | GETATTR_GEN)
        .qid(qid)
        .u32(attr.mode)
        .u32(virtiofsd::soft_idmap::Id::into_inner(attr.uid))
        .u32(virtiofsd::soft_idmap::Id::into_inner(attr.gid))
        .u64(attr.nlink.into())
        .u64(attr.rdev.into())
        .u64(attr.size)
        .u64(attr.blksize.into())
        .u64(attr.blocks);
    let birth = (0, 0);
    for (seconds, nanoseconds) in [
        (attr.atime, attr.atimensec),
        (attr.mtime, attr.mtimensec),
        (attr.ctime, attr.ctimensec),
        birth,
    ] {
        answer.u64(seconds).u64(nanoseconds.into());
    }
    let data_version = 0;
    answer.u64(generation.into()).u64(data_version);
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_one_entry_of_a_directory() {
        let name = |text: &[u8]| {
            let mut message = Answer::default();
            message.string(text);
            let name = Body(&message.0).name();
            name.map_err(|error| error.raw_os_error().unwrap())
        };
        assert_eq!(name(b"a").unwrap().to_bytes(), b"a");
        assert_eq!(name(b"...").unwrap().to_bytes(), b"...");
        assert_eq!(name(&[0xff; 255]).unwrap().to_bytes(), [0xff; 255]);
        assert_eq!(name(&[b'a'; 256]), Err(libc::ENAMETOOLONG));
        for wrong in [&b""[..], b".", b"..", b"/", b"a/b", b"../a", b"a\0"] {
            assert_eq!(name(wrong), Err(libc::EINVAL), "{wrong:?}");
        }
    }

    #[test]
    fn files_of_two_file_systems_differ() {
        let qid = |file_system, number| Qid::new(file_system, number, libc::S_IFREG);
        assert_eq!(qid(0, 7).path, 7);
        assert_ne!(qid(1, 7), qid(2, 7));
        assert_ne!(qid(1, 7), qid(1, 8));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u8, b: u16, c: u32, d: u64, text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut answer = Answer::default();
            answer.u8(a).u16(b).u32(c).u64(d).string(&text);
            let mut body = Body(&answer.0);
            prop_assert_eq!((body.u8().unwrap(), body.u16().unwrap()), (a, b));
            prop_assert_eq!((body.u32().unwrap(), body.u64().unwrap()), (c, d));
            prop_assert_eq!(body.string().unwrap(), text);
            prop_assert!(body.end().is_ok());
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let body = || Body(&bytes);
            if let Ok(name) = body().name() {
                prop_assert!(!name.to_bytes().contains(&b'/'));
                prop_assert!((1..=255).contains(&name.to_bytes().len()));
            }
            let _ = (body().attribute(), body().target(), body().u64(), body().end());
        }
    }
}
