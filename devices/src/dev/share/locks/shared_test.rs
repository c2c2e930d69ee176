//! A guest with a share of one file, which asks for locks.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use tempfile::{TempDir, tempdir};
use virtiofsd::fuse::Opcode;
use vm_memory::{Bytes, GuestAddress};

use super::ranges::LAST;
use crate::dev::fs::guest_test::{Guest, REQUESTS, request, wait, words};
use crate::testing::Buffer;

pub(super) const READ: u32 = libc::F_RDLCK as u32;
pub(super) const WRITE: u32 = libc::F_WRLCK as u32;
pub(super) const UNLOCK: u32 = libc::F_UNLCK as u32;
pub(super) const FLOCK: u32 = 1;

const HIPRIO: usize = 0;

/// A guest with a file, its node, and the file on the host.
pub(super) struct Shared {
    pub(super) guest: Guest,
    pub(super) node: u64,
    path: PathBuf,
    pub(super) directory: TempDir,
}

/// `struct fuse_lk_in`.
pub(super) fn lock(
    handle: u64,
    owner: u64,
    (start, end): (u64, u64),
    kind: u32,
    flags: u32,
) -> Vec<u8> {
    let mut body: Vec<u8> = [handle, owner, start, end]
        .iter()
        .flat_map(|long| long.to_ne_bytes())
        .collect();
    body.extend(words(&[kind, 4321, flags, 0]));
    body
}

pub(super) const ALL: (u64, u64) = (0, LAST);

impl Shared {
    pub(super) fn new(tag: &str) -> Self {
        let directory = tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "hello").unwrap();
        let mut guest = Guest::new(directory.path(), false, tag);
        guest.mount();
        let node = guest.lookup("file").unwrap();
        Self {
            guest,
            node,
            path,
            directory,
        }
    }

    pub(super) fn open(&mut self, flags: i32) -> u64 {
        let body = words(&[flags.cast_unsigned(), 0]);
        let answer = self.guest.ask(Opcode::Open, self.node, &body).unwrap();
        u64::from_ne_bytes(*answer.first_chunk().unwrap())
    }

    pub(super) fn set(
        &mut self,
        handle: u64,
        owner: u64,
        range: (u64, u64),
        kind: u32,
    ) -> Result<(), i32> {
        let body = lock(handle, owner, range, kind, 0);
        self.guest.ask(Opcode::Setlk, self.node, &body).map(drop)
    }

    pub(super) fn flock(&mut self, handle: u64, kind: u32) -> Result<(), i32> {
        let body = lock(handle, handle, ALL, kind, FLOCK);
        self.guest.ask(Opcode::Setlk, self.node, &body).map(drop)
    }

    /// Who is in the way: range, kind and process.
    pub(super) fn test(
        &mut self,
        handle: u64,
        owner: u64,
        range: (u64, u64),
    ) -> ((u64, u64), u32, u32) {
        let body = lock(handle, owner, range, WRITE, 0);
        let answer = self.guest.ask(Opcode::Getlk, self.node, &body).unwrap();
        let long = |at: usize| u64::from_ne_bytes(*answer[at..].first_chunk().unwrap());
        let word = |at: usize| u32::from_ne_bytes(*answer[at..].first_chunk().unwrap());
        ((long(0), long(8)), word(16), word(20))
    }

    pub(super) fn flush(&mut self, handle: u64, owner: u64) {
        let mut body = handle.to_ne_bytes().to_vec();
        body.extend([0; 8]);
        body.extend(owner.to_ne_bytes());
        self.guest.ask(Opcode::Flush, self.node, &body).unwrap();
    }

    pub(super) fn release(&mut self, handle: u64) {
        let mut body = handle.to_ne_bytes().to_vec();
        body.extend([0; 16]);
        self.guest.ask(Opcode::Release, self.node, &body).unwrap();
    }

    /// Another program's description of the file.
    pub(super) fn other(&self) -> File {
        let mut options = File::options();
        options.read(true).write(true).open(&self.path).unwrap()
    }

    /// Sends a request that will wait, the `slot`th, and returns its head.
    pub(super) fn begin(&mut self, slot: u64, body: &[u8]) -> u32 {
        let mut message = request(Opcode::Setlkw as u32, self.node, 0, body);
        message[8..16].copy_from_slice(&unique(slot).to_ne_bytes());
        let memory = &self.guest.memory;
        memory
            .write_slice(&message, GuestAddress(place(slot)))
            .unwrap();
        let buffer = |address, length, writable| Buffer {
            address,
            length,
            writable,
        };
        let buffers = [
            buffer(place(slot), message.len() as u32, false),
            buffer(place(slot) + 0x100, 0x100, true),
        ];
        let head = self.guest.drivers[REQUESTS].add(&buffers);
        self.guest.kicks[REQUESTS].write(1).unwrap();
        head.into()
    }

    pub(super) fn interrupt(&mut self, slot: u64) {
        let body = unique(slot).to_ne_bytes();
        let message = request(Opcode::Interrupt as u32, 0, 0, &body);
        let address = 0x60_0000;
        let memory = &self.guest.memory;
        memory.write_slice(&message, GuestAddress(address)).unwrap();
        self.guest.drivers[HIPRIO].add(&[Buffer {
            address,
            length: message.len() as u32,
            writable: false,
        }]);
        self.guest.kicks[HIPRIO].write(1).unwrap();
        while self.guest.drivers[HIPRIO].used().is_none() {
            wait(self.guest.calls[HIPRIO].as_raw_fd());
            self.guest.calls[HIPRIO].read().unwrap();
        }
    }

    /// The error that a waiting request was answered with.
    pub(super) fn answered(&mut self, slot: u64, head: u32) -> i32 {
        assert_eq!(self.guest.answer(), (head, 16));
        self.error(slot)
    }

    pub(super) fn error(&self, slot: u64) -> i32 {
        let mut answer = [0; 16];
        let address = GuestAddress(place(slot) + 0x100);
        self.guest.memory.read_slice(&mut answer, address).unwrap();
        assert_eq!(answer[8..], unique(slot).to_ne_bytes());
        -i32::from_ne_bytes(*answer[4..].first_chunk().unwrap())
    }

    /// Other requests are served.
    pub(super) fn is_alive(&mut self) -> bool {
        self.guest.lookup("file").is_ok()
    }
}

fn unique(slot: u64) -> u64 {
    1000 + 2 * slot
}

fn place(slot: u64) -> u64 {
    0xa0_0000 + 0x200 * slot
}
