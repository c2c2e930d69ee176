//! The requests of a guest, from one VERSION to the next: what they ask for, and what is answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtiofsd::filesystem::{FsOptions, ROOT_ID};

use super::fid::{Fid, Fids, Node, Open, Tree, Use, as_root, as_user};
use super::wire::{Answer, Body, MAX_MESSAGE, MIN_MESSAGE, errno, request};
use super::xattr::Budget;

/// What Linux' 9P client does as its FUSE client would; by that name the library knows it.
///
/// The client says with which mode a file is made, and checks who may do what, access control lists
/// included, if it mounts with `access=client,posixacl`. Set-user-id bits go when another user than root writes.
const CLIENT: FsOptions = FsOptions::SUBMOUNTS
    .union(FsOptions::HANDLE_KILLPRIV_V2)
    .union(FsOptions::POSIX_ACL)
    .union(FsOptions::DONT_MASK)
    .union(FsOptions::SETXATTR_EXT);

/// The protocol that we speak.
const PROTOCOL: &[u8] = b"9P2000.L";
/// The answer to a client that speaks another one.
const UNKNOWN: &[u8] = b"unknown";

/// No fid, and no user.
const NONE: u32 = u32::MAX;
/// Who attaches without a user: nobody.
const NOBODY: u32 = 65534;

/// Names in one WALK (`P9_MAXWELEM`).
const MAX_WALK: u16 = 16;

/// Flags of open(2) that mean something to us. Their numbers are those of Linux on x86. Without O_DIRECT: a message's
/// bytes lie anywhere in memory.
const OPEN_FLAGS: u32 = (libc::O_ACCMODE
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_DSYNC
    | libc::O_SYNC
    | libc::O_NOATIME) as u32;

/// The state of a guest that has mounted the share.
pub(super) struct Session<F: Tree> {
    pub(super) tree: Arc<F>,
    pub(super) fids: Fids<F>,
    pub(super) budget: Budget,
    /// The longest message that was agreed on; 0 before that.
    limit: AtomicU32,
    append_at_end: bool,
}

impl<F: Tree> Session<F> {
    /// For a guest that may know of this many files at once.
    pub(super) fn new(tree: F, most_files: usize, append_at_end: bool) -> Self {
        Self {
            tree: Arc::new(tree),
            fids: Fids::new(most_files),
            budget: Budget::default(),
            limit: AtomicU32::new(0),
            append_at_end,
        }
    }

    /// The longest message.
    pub(super) fn limit(&self) -> u32 {
        match self.limit.load(Ordering::Relaxed) {
            0 => MAX_MESSAGE,
            limit => limit,
        }
    }

    /// Closes all.
    pub(super) fn forget(&self) {
        self.limit.store(0, Ordering::Relaxed);
        self.fids.clear();
        self.tree.destroy();
    }

    /// Executes a request with this body, unless its answer carries data of a file, or it does.
    ///
    /// # Errors
    /// What the guest's process gets.
    pub(super) fn execute(&self, kind: u8, body: Body<'_>) -> io::Result<Answer> {
        match kind {
            request::VERSION => self.version(body),
            request::ATTACH => self.attach(body),
            request::WALK => self.walk(body),
            request::CLUNK => self.clunk(body),
            request::REMOVE => self.remove(body),
            // All that came before it are answered (`server.rs`).
            request::FLUSH => Ok(Answer::default()),
            request::LOPEN => self.lopen(body),
            request::LCREATE => self.lcreate(body),
            request::SYMLINK => self.symlink(body),
            request::MKNOD => self.mknod(body),
            request::MKDIR => self.mkdir(body),
            request::LINK => self.link(body),
            request::RENAMEAT => self.renameat(body),
            request::UNLINKAT => self.unlinkat(body),
            request::READLINK => self.readlink(body),
            request::GETATTR => self.getattr(body),
            request::SETATTR => self.setattr(body),
            request::STATFS => self.statfs(body),
            request::XATTRWALK => self.xattrwalk(body),
            request::XATTRCREATE => self.xattrcreate(body),
            request::READDIR => self.readdir(body),
            request::FSYNC => self.fsync(body),
            request::LOCK => self.lock(body),
            request::GETLOCK => self.getlock(body),
            _ => Err(errno(libc::EOPNOTSUPP)),
        }
    }

    /// `msize[4] version[s]`, with the same as an answer.
    fn version(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (size, version) = (body.u32()?, body.string()?);
        body.end()?;
        if size < MIN_MESSAGE {
            return Err(errno(libc::EINVAL));
        }
        self.forget();
        let mut answer = Answer::default();
        if version != PROTOCOL {
            return Ok(answer.u32(size.min(MAX_MESSAGE)).string(UNKNOWN).done());
        }
        self.tree.init(CLIENT)?;
        let limit = size.min(MAX_MESSAGE);
        self.limit.store(limit, Ordering::Relaxed);
        Ok(answer.u32(limit).string(PROTOCOL).done())
    }

    /// `fid[4] afid[4] uname[s] aname[s] n_uname[4]`: `qid[13]`. Who the user is, the guest knows.
    fn attach(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, authentication) = (body.u32()?, body.u32()?);
        let (_name, tree) = (body.string()?, body.string()?);
        let uid = body.u32()?;
        body.end()?;
        if authentication != NONE {
            return Err(errno(libc::EINVAL));
        }
        if !matches!(tree, b"" | b"/") {
            return Err(errno(libc::ENOENT));
        }
        // It is known from the VERSION on.
        let (attr, _) = self.tree.getattr(as_root(), ROOT_ID, None)?;
        let node = Node::root(&self.tree, &attr);
        let qid = node.qid;
        let fid = Fid {
            used: Use::Path,
            node: Arc::new(node),
            uid: if uid == NONE { NOBODY } else { uid },
        };
        self.fids.add(number, fid)?;
        Ok(Answer::default().qid(qid).done())
    }

    /// `fid[4] newfid[4] nwname[2] nwname*(wname[s])`: `nwqid[2] nwqid*(qid[13])`. A walk that does not
    /// get to its end is no error, unless it does not begin, and makes no new fid.
    fn walk(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (from, number, count) = (body.u32()?, body.u32()?, body.u16()?);
        if count > MAX_WALK {
            return Err(errno(libc::EINVAL));
        }
        let names = (0..count).map(|_| body.name());
        let names = names.collect::<io::Result<Vec<_>>>()?;
        body.end()?;
        let from_fid = self.fids.get(from)?;
        let is_path = matches!(from_fid.used, Use::Path);
        let is_attribute = matches!(from_fid.used, Use::Attribute(_) | Use::NewAttribute(_));
        if is_attribute || (from == number && !is_path) {
            return Err(errno(libc::EINVAL));
        }
        let (node, qids) = self.find(&from_fid.node, &names)?;
        if qids.len() == names.len() {
            let fid = Fid {
                used: Use::Path,
                node,
                uid: from_fid.uid,
            };
            if from == number {
                self.fids.replace(number, fid);
            } else {
                self.fids.add(number, fid)?;
            }
        }
        let mut answer = Answer::default();
        answer.u16(qids.len() as u16);
        for qid in qids {
            answer.qid(qid);
        }
        Ok(answer)
    }

    /// `fid[4]`. What is written to an attribute is set by that.
    fn clunk(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let number = body.u32()?;
        body.end()?;
        let fid = self.fids.remove(number)?;
        if let Use::NewAttribute(new) = &fid.used {
            self.set_attribute(&fid, new)?;
        }
        Ok(Answer::default())
    }

    /// `fid[4]`. Linux removes by UNLINKAT, but relies on this one to clunk in any case.
    fn remove(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let number = body.u32()?;
        body.end()?;
        self.fids.remove(number)?;
        Err(errno(libc::EOPNOTSUPP))
    }

    /// `fid[4] flags[4]`: `qid[13] iounit[4]`.
    fn lopen(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, flags) = (body.u32()?, body.u32()? & OPEN_FLAGS);
        body.end()?;
        let fid = self.fids.get(number)?;
        if !matches!(fid.used, Use::Path) {
            return Err(errno(libc::EBADF));
        }
        let node = &fid.node;
        let used = match node.kind {
            libc::S_IFDIR => {
                let (handle, _) = self.tree.opendir(as_root(), node.inode, flags)?;
                Use::Directory(self.opened(node, handle, flags)?)
            }
            libc::S_IFREG => {
                let kill = loses_set_user_id(fid.uid);
                let (handle, _) = self.tree.open(as_root(), node.inode, kill, flags)?;
                Use::File(self.opened(node, handle, flags)?)
            }
            // Named pipes, sockets and devices are the guest's own.
            _ => return Err(errno(libc::ENXIO)),
        };
        let opened = Fid {
            used,
            node: Arc::clone(node),
            uid: fid.uid,
        };
        self.fids.replace(number, opened);
        Ok(Answer::default().qid(node.qid).u32(0).done())
    }

    /// `fid[4] name[s] flags[4] mode[4] gid[4]`: `qid[13] iounit[4]`. The fid of the directory becomes that of
    /// the open file.
    fn lcreate(&self, mut body: Body<'_>) -> io::Result<Answer> {
        let (number, name) = (body.u32()?, body.name()?);
        let (flags, mode, gid) = (body.u32()?, body.u32()?, body.u32()?);
        body.end()?;
        let fid = self.fids.get(number)?;
        if !matches!(fid.used, Use::Path) {
            return Err(errno(libc::EBADF));
        }
        let directory = fid.directory()?;
        let (entry, handle, _) = self.tree.create(
            as_user(fid.uid, gid),
            directory.inode,
            &name,
            libc::S_IFREG | mode & 0o7777,
            loses_set_user_id(fid.uid),
            flags & (OPEN_FLAGS | libc::O_EXCL as u32),
            0,
            Default::default(),
        )?;
        let node = self.fids.node(&self.tree, directory, &entry);
        let qid = node.qid;
        let used = Use::File(self.opened(&node, handle, flags)?);
        let created = Fid {
            used,
            node,
            uid: fid.uid,
        };
        self.fids.replace(number, created);
        Ok(Answer::default().qid(qid).u32(0).done())
    }

    fn opened(&self, node: &Node<F>, handle: Option<u64>, flags: u32) -> io::Result<Open<F>> {
        let handle = handle.ok_or_else(|| errno(libc::EIO))?;
        let appends = self.append_at_end && flags & libc::O_APPEND as u32 != 0;
        Ok(Open::new(&self.tree, node, handle, appends))
    }
}

/// Whether a file that this user writes to loses its set-user-id bit: unless the user has CAP_FSETID, which the
/// guest does not say.
pub(super) fn loses_set_user_id(uid: u32) -> bool {
    uid != 0
}
