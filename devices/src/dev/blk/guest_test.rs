//! A driver of a disk, for tests.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

/// Where the driver has its header, its status and its data; the queues are below.
const HEADER: u64 = 0x10_0000;
const STATUS: u64 = 0x10_1000;
pub(super) const DATA: u64 = 0x11_0000;
/// Guest memory in bytes.
pub(super) const MEMORY: usize = 4 << 20;

/// Size of the disk in bytes.
pub(super) const SIZE: u64 = 1 << 20;

/// A status that no device writes.
pub(super) const NONE: u8 = 0xaa;

pub(super) struct Driver {
    pub(super) memory: Arc<Memory>,
    pub(super) disk: Blk,
    pub(super) queues: Vec<VirtQueue>,
    pub(super) rings: Vec<DriverQueue>,
    /// The same file as the disk's.
    pub(super) file: File,
    /// How many requests there were.
    posted: u64,
}

/// How a disk is made.
pub(super) struct Made {
    pub(super) cache: Cache,
    pub(super) read_only: bool,
    pub(super) features: u64,
    pub(super) ring: bool,
    /// Instead of the file itself.
    pub(super) image: Option<Image>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            cache: Cache::Writeback,
            read_only: false,
            features: !0,
            ring: true,
            image: None,
        }
    }
}

impl Made {
    pub(super) fn driver(self) -> Driver {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE + 100).unwrap();
        self.driver_of(file)
    }

    pub(super) fn driver_of(self, file: File) -> Driver {
        let config = config(file.try_clone().unwrap(), &self);
        let mut disk = Blk::new(config).unwrap();
        // Of files in memory and others.
        let engine = Engine::with_ring(file.try_clone().unwrap(), MAX_UNDER_WAY);
        disk.engine = engine.expect("this host has no io_uring");
        if let Some(image) = self.image {
            disk.engine = Engine::new(Contents::Image(Box::new(image)), false, MAX_UNDER_WAY);
        } else if !self.ring {
            disk.engine = Engine::without_ring(file.try_clone().unwrap());
        }
        let memory = memory(MEMORY);
        let rings: Vec<_> = [0, 0x4000]
            .map(|base| DriverQueue::new(&memory, base, QUEUE_SIZE))
            .into();
        let mut activation = Activation {
            memory: Arc::clone(&memory),
            features: self.features,
            queues: Vec::new(),
        };
        disk.start(&mut activation, &mut FakeWatch::default())
            .unwrap();
        Driver {
            memory,
            disk,
            queues: rings.iter().map(|ring| ring.device_end(false)).collect(),
            rings,
            file,
            posted: 0,
        }
    }
}

pub(super) fn config(file: File, made: &Made) -> Config {
    Config {
        name: "test".into(),
        serial: "runq-0".into(),
        contents: Contents::Raw(file),
        found_raw: true,
        size: SIZE + 100,
        blocks: Blocks {
            logical: 512,
            physical: 4096,
        },
        cache: made.cache,
        read_only: made.read_only,
        queues: 2,
    }
}

impl Driver {
    /// Makes a request available in a queue. Returns where its status will be.
    pub(super) fn post(&mut self, queue: usize, kind: u32, sector: u64, data: &[Buffer]) -> u64 {
        let slot = self.posted;
        self.posted += 1;
        let (header, status) = (HEADER + 16 * slot, STATUS + slot);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.write(header, &bytes);
        self.write(status, &[NONE]);
        let mut chain = vec![piece(header, 16, false)];
        chain.extend(data);
        chain.push(piece(status, 1, true));
        self.rings[queue].add(&chain);
        status
    }

    /// Has the device see to a queue, until nothing is under way.
    pub(super) fn run(&mut self, queue: usize) {
        let mut watch = FakeWatch::default();
        self.disk
            .kicked(queue, &mut self.queues, &mut watch)
            .unwrap();
        assert!(self.disk.drained(&mut self.queues, &mut watch));
    }

    /// One request. Returns its status, and how many bytes the device says it has written.
    pub(super) fn ask(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
        let status = self.post(0, kind, sector, data);
        self.run(0);
        let (_, written) = self.rings[0].used().expect("an answer");
        assert!(self.queues[0].call().read().is_ok(), "a signal");
        (self.read(status, 1)[0], written)
    }

    pub(super) fn write(&self, at: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(at)).unwrap();
    }

    pub(super) fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(at)).unwrap();
        data
    }

    /// What is in the file.
    pub(super) fn contents(&mut self) -> Vec<u8> {
        let mut contents = Vec::new();
        self.file.seek(SeekFrom::Start(0)).unwrap();
        self.file.read_to_end(&mut contents).unwrap();
        contents
    }

    pub(super) fn fill(&mut self, contents: &[u8]) {
        self.file.seek(SeekFrom::Start(0)).unwrap();
        self.file.write_all(contents).unwrap();
    }
}

pub(super) fn piece(address: u64, length: u32, writable: bool) -> Buffer {
    Buffer {
        address,
        length,
        writable,
    }
}

/// Bytes in which a loss or an exchange shows.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 512 * 7) as u8).collect()
}
