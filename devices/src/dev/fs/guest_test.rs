//! A guest with a share: a small FUSE client.

use std::path::Path;

use virtiofsd::fuse::Opcode;

use super::*;
pub(in crate::dev) use crate::dev::share::guest_test::{Guest, is_readable, wait};

pub(in crate::dev) const ROOT: u64 = 1;
pub(in crate::dev) const REQUESTS: usize = 1;

impl Guest {
    pub(in crate::dev) fn new(directory: &Path, read_only: bool, tag: &str) -> Self {
        Self::with(Config::new(tag, directory, read_only))
    }

    pub(in crate::dev) fn with(config: Config) -> Self {
        Self::of(new(config).unwrap(), REQUESTS)
    }

    /// Sends a request and returns the error or the answer.
    pub(in crate::dev) fn ask(
        &mut self,
        opcode: Opcode,
        node: u64,
        body: &[u8],
    ) -> Result<Vec<u8>, i32> {
        self.send(&request(opcode as u32, node, self.uid, body));
        let (_, length) = self.answer();
        let answer = self.room(length);
        let word = |at: usize| u32::from_ne_bytes(*answer[at..].first_chunk().unwrap());
        assert_eq!(word(0) as usize, answer.len());
        match word(4) as i32 {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    pub(in crate::dev) fn mount(&mut self) {
        self.mount_with(0);
    }

    /// With these flags of `struct fuse_init_in`.
    pub(in crate::dev) fn mount_with(&mut self, flags: u64) {
        let mut body = words(&[7, 38, 1 << 17, flags as u32, (flags >> 32) as u32]);
        body.resize(64, 0);
        let answer = self.ask(Opcode::Init, 0, &body).unwrap();
        assert_eq!(answer[..4], 7u32.to_ne_bytes());
    }

    pub(in crate::dev) fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        let entry = self.ask(Opcode::Lookup, ROOT, format!("{name}\0").as_bytes())?;
        Ok(u64::from_ne_bytes(*entry.first_chunk().unwrap()))
    }

    /// Creates a file and returns node and handle.
    pub(in crate::dev) fn create(&mut self, name: &str) -> Result<(u64, u64), i32> {
        let (node, handle, _) = self.create_with_flags(name)?;
        Ok((node, handle))
    }

    /// Creates a file and returns node, handle and the flags that the file is opened with.
    pub(in crate::dev) fn create_with_flags(&mut self, name: &str) -> Result<(u64, u64, u32), i32> {
        let mut body = words(&[libc::O_RDWR as u32, 0o100_666, 0, 0]);
        body.extend(format!("{name}\0").as_bytes());
        let answer = self.ask(Opcode::Create, ROOT, &body)?;
        let long = |at: usize| u64::from_ne_bytes(*answer[at..].first_chunk().unwrap());
        // `struct fuse_entry_out` has 128 bytes.
        let flags = u32::from_ne_bytes(*answer[136..].first_chunk().unwrap());
        Ok((long(0), long(128), flags))
    }

    pub(in crate::dev) fn read(&mut self, node: u64, handle: u64) -> Vec<u8> {
        let mut body = handle.to_ne_bytes().to_vec();
        body.extend(words(&[0, 0, 4096, 0, 0, 0, 0, 0]));
        self.ask(Opcode::Read, node, &body).unwrap()
    }

    pub(in crate::dev) fn write(&mut self, node: u64, handle: u64, data: &[u8]) {
        let mut body = handle.to_ne_bytes().to_vec();
        body.extend(words(&[0, 0, data.len() as u32, 0, 0, 0, 0, 0]));
        body.extend(data);
        self.ask(Opcode::Write, node, &body).unwrap();
    }

    pub(in crate::dev) fn open(&mut self, node: u64) -> u64 {
        let answer = self.ask(Opcode::Open, node, &words(&[0, 0])).unwrap();
        u64::from_ne_bytes(*answer.first_chunk().unwrap())
    }
}

pub(in crate::dev) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A request with its `struct fuse_in_header`.
pub(in crate::dev) fn request(opcode: u32, node: u64, uid: u32, body: &[u8]) -> Vec<u8> {
    let mut message = words(&[40 + body.len() as u32, opcode, 1, 0]);
    message.extend(node.to_ne_bytes());
    message.extend(words(&[uid, uid, 1, 0]));
    message.extend(body);
    message
}
