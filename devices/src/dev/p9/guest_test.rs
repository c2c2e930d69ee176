//! A guest with a share: a small 9P client.

use std::path::Path;

use super::wire::{Answer, Body, HEADER, RLERROR, request};
use super::*;
use crate::dev::share::guest_test::Guest;

pub(super) const ROOT: u32 = 0;
pub(super) const NO_FID: u32 = u32::MAX;
const TAG: u16 = 7;

/// A guest with a share.
pub(super) struct Client {
    pub(super) guest: Guest,
    next_fid: u32,
}

/// The numbers and strings of a request.
pub(super) fn message(fill: impl FnOnce(&mut Answer)) -> Vec<u8> {
    let mut message = Answer::default();
    fill(&mut message);
    message.0
}

/// A request with its header.
pub(super) fn request(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut request = Answer::default();
    request.u32((HEADER + body.len()) as u32).u8(kind).u16(TAG);
    [request.0, body.to_vec()].concat()
}

impl Client {
    pub(super) fn new(directory: &Path, tag: &str) -> Self {
        Self::with(directory, tag, |_| ())
    }

    pub(super) fn with(directory: &Path, tag: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            share: share::Config::new(tag, directory, false),
            append_at_end: true,
        };
        change(&mut config);
        Self {
            guest: Guest::of(new(config).unwrap(), 0),
            next_fid: 1,
        }
    }

    /// Sends a request, and returns the error or the body of the answer.
    pub(super) fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.guest.send(&request(kind, body));
        self.result(kind)
    }

    pub(super) fn result(&mut self, kind: u8) -> Result<Vec<u8>, i32> {
        let (_, length) = self.guest.answer();
        let answer = self.guest.room(length);
        let mut body = Body(&answer);
        assert_eq!(body.u32().unwrap(), length);
        let answered = body.u8().unwrap();
        assert_eq!(body.u16().unwrap(), TAG);
        if answered == RLERROR {
            assert_eq!(length, 11);
            return Err(body.u32().unwrap() as i32);
        }
        assert_eq!(answered, kind + 1);
        Ok(body.0.to_vec())
    }

    /// As [`Self::ask`], of numbers and strings.
    pub(super) fn call(
        &mut self,
        kind: u8,
        fill: impl FnOnce(&mut Answer),
    ) -> Result<Vec<u8>, i32> {
        self.ask(kind, &message(fill))
    }

    pub(super) fn version(&mut self, size: u32) -> u32 {
        let answer = self.call(request::VERSION, |m| {
            m.u32(size).string(b"9P2000.L");
        });
        let answer = answer.unwrap();
        let mut body = Body(&answer);
        let limit = body.u32().unwrap();
        assert_eq!(body.string().unwrap(), b"9P2000.L");
        limit
    }

    pub(super) fn attach(&mut self, fid: u32, uid: u32) -> Result<Vec<u8>, i32> {
        self.call(request::ATTACH, |m| {
            m.u32(fid).u32(NO_FID).string(b"").string(b"").u32(uid);
        })
    }

    /// Mounts the share as root.
    pub(super) fn mount(&mut self) {
        self.version(1 << 16);
        self.attach(ROOT, 0).unwrap();
    }

    pub(super) fn new_fid(&mut self) -> u32 {
        self.next_fid += 1;
        self.next_fid
    }

    /// A new fid for what is there.
    pub(super) fn walk(&mut self, from: u32, names: &[&str]) -> Result<u32, i32> {
        let fid = self.new_fid();
        let answer = self.walk_to(from, fid, names)?;
        let found = Body(&answer).u16().unwrap();
        if usize::from(found) < names.len() {
            return Err(libc::ENOENT);
        }
        Ok(fid)
    }

    pub(super) fn walk_to(&mut self, from: u32, fid: u32, names: &[&str]) -> Result<Vec<u8>, i32> {
        self.call(request::WALK, |m| {
            m.u32(from).u32(fid).u16(names.len() as u16);
            for name in names {
                m.string(name.as_bytes());
            }
        })
    }

    /// A new fid for the open file that is there.
    pub(super) fn open(&mut self, names: &[&str], flags: i32) -> Result<u32, i32> {
        let fid = self.walk(ROOT, names)?;
        self.call(request::LOPEN, |m| {
            m.u32(fid).u32(flags as u32);
        })?;
        Ok(fid)
    }

    /// A new fid for the file that is made in the root directory, or in what else `root` is.
    pub(super) fn create(&mut self, root: u32, name: &str, mode: u32) -> Result<u32, i32> {
        let fid = self.walk(root, &[])?;
        self.call(request::LCREATE, |m| {
            m.u32(fid).string(name.as_bytes());
            m.u32(libc::O_RDWR as u32).u32(mode).u32(0);
        })?;
        Ok(fid)
    }

    pub(super) fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, i32> {
        let answer = self.call(request::READ, |m| {
            m.u32(fid).u64(offset).u32(count);
        })?;
        let mut body = Body(&answer);
        let read = body.u32().unwrap();
        assert_eq!(body.0.len(), read as usize);
        Ok(body.0.to_vec())
    }

    pub(super) fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, i32> {
        let mut body = message(|m| {
            m.u32(fid).u64(offset).u32(data.len() as u32);
        });
        body.extend(data);
        let answer = self.ask(request::WRITE, &body)?;
        Ok(Body(&answer).u32().unwrap())
    }

    pub(super) fn clunk(&mut self, fid: u32) -> Result<Vec<u8>, i32> {
        self.call(request::CLUNK, |m| {
            m.u32(fid);
        })
    }

    /// Names, and types of the protocol, in an open directory, by as many requests as it takes.
    pub(super) fn list(&mut self, fid: u32, count: u32) -> Vec<(String, u8)> {
        let (mut entries, mut offset) = (Vec::new(), 0);
        loop {
            let answer = self.call(request::READDIR, |m| {
                m.u32(fid).u64(offset).u32(count);
            });
            let answer = answer.unwrap();
            let mut body = Body(&answer);
            let length = body.u32().unwrap();
            assert_eq!(length as usize, body.0.len());
            assert!(length <= count);
            if length == 0 {
                return entries;
            }
            while !body.0.is_empty() {
                let kind = body.u8().unwrap();
                body.u32().unwrap();
                body.u64().unwrap();
                offset = body.u64().unwrap();
                body.u8().unwrap();
                let name = body.string().unwrap().to_vec();
                entries.push((String::from_utf8(name).unwrap(), kind));
            }
        }
    }

    pub(super) fn get_attribute(&mut self, fid: u32, name: &str) -> Result<Vec<u8>, i32> {
        let new = self.new_fid();
        let answer = self.call(request::XATTRWALK, |m| {
            m.u32(fid).u32(new).string(name.as_bytes());
        })?;
        let size = Body(&answer).u64().unwrap();
        let value = self.read(new, 0, 1 << 15)?;
        assert_eq!(value.len() as u64, size);
        self.clunk(new).unwrap();
        Ok(value)
    }

    pub(super) fn set_attribute(
        &mut self,
        fid: u32,
        name: &str,
        value: &[u8],
        flags: i32,
    ) -> Result<(), i32> {
        let new = self.walk(fid, &[])?;
        self.call(request::XATTRCREATE, |m| {
            m.u32(new).string(name.as_bytes());
            m.u64(value.len() as u64).u32(flags as u32);
        })?;
        if !value.is_empty() {
            assert_eq!(self.write(new, 0, value)?, value.len() as u32);
        }
        self.clunk(new).map(drop)
    }
}
