//! A guest with a share: a small FUSE client.

use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use virtiofsd::fuse::Opcode;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::Memory;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

pub(super) const ROOT: u64 = 1;
pub(super) const REQUESTS: usize = 1;
pub(super) const MEMORY: usize = 32 << 20;
pub(super) const PATIENCE: i32 = 20_000;

/// A guest with a share.
pub(super) struct Guest {
    pub(super) fs: Fs,
    pub(super) memory: Arc<Memory>,
    pub(super) drivers: Vec<DriverQueue>,
    pub(super) kicks: Vec<EventFd>,
    pub(super) calls: Vec<EventFd>,
    pub(super) failed: RawFd,
    pub(super) uid: u32,
}

/// The descriptor is readable, or becomes so.
pub(super) fn wait(fd: RawFd) {
    assert!(is_readable(fd, PATIENCE), "nothing happened");
}

pub(super) fn wait_for_either(one: RawFd, other: RawFd) {
    let epoll = Epoll::new().unwrap();
    for fd in [one, other] {
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    }
    let mut event = [EpollEvent::default()];
    assert_eq!(
        epoll.wait(PATIENCE, &mut event).unwrap(),
        1,
        "nothing happened"
    );
}

pub(super) fn is_readable(fd: RawFd, milliseconds: i32) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    epoll.wait(milliseconds, &mut [event]).unwrap() == 1
}

impl Guest {
    pub(super) fn new(directory: &Path, read_only: bool, tag: &str) -> Self {
        let fs = Fs::new(Config {
            tag: tag.to_owned(),
            directory: directory.to_owned(),
            read_only,
        });
        let mut guest = Self {
            fs: fs.unwrap(),
            memory: memory(MEMORY),
            drivers: Vec::new(),
            kicks: Vec::new(),
            calls: Vec::new(),
            failed: -1,
            uid: 0,
        };
        guest.start();
        guest
    }

    pub(super) fn start(&mut self) {
        let place =
            |(index, size): (u64, u16)| DriverQueue::new(&self.memory, index * 0x10_0000, size);
        self.drivers = (0..).zip(self.fs.traits().queue_sizes).map(place).collect();
        let queues: Vec<_> = self.drivers.iter().map(|d| d.device_end(false)).collect();
        let clone = |event: &EventFd| event.try_clone().unwrap();
        self.kicks = queues.iter().map(|queue| clone(queue.kick())).collect();
        self.calls = queues.iter().map(|queue| clone(queue.call())).collect();
        let mut activation = Activation {
            memory: Arc::clone(&self.memory),
            features: 0,
            queues,
        };
        let mut watch = FakeWatch::default();
        self.fs.start(&mut activation, &mut watch).unwrap();
        assert!(activation.queues.is_empty());
        self.failed = *watch.watched.keys().next().unwrap();
    }

    /// Sends a request and returns the error or the answer.
    pub(super) fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.send(&request(opcode as u32, node, self.uid, body));
        let (_, length) = self.answer();
        let answer = self.room(length);
        let word = |at: usize| u32::from_le_bytes(*answer[at..].first_chunk().unwrap());
        assert_eq!(word(0) as usize, answer.len());
        match word(4) as i32 {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    /// Sends bytes with room for 64 KiB of answer.
    pub(super) fn send(&mut self, message: &[u8]) {
        self.send_with_room(message, 1 << 16);
    }

    pub(super) fn send_with_room(&mut self, message: &[u8], room: u32) {
        let (request, answer) = (0x40_0000, 0x80_0000);
        vm_memory::Bytes::write_slice(&*self.memory, message, vm_memory::GuestAddress(request))
            .unwrap();
        let buffers = [
            Buffer {
                address: request,
                length: message.len() as u32,
                writable: false,
            },
            Buffer {
                address: answer,
                length: room,
                writable: true,
            },
        ];
        let given = if room == 0 { &buffers[..1] } else { &buffers };
        self.drivers[REQUESTS].add(given);
        self.kicks[REQUESTS].write(1).unwrap();
    }

    pub(super) fn room(&self, length: u32) -> Vec<u8> {
        let mut answer = vec![0; length as usize];
        let address = vm_memory::GuestAddress(0x80_0000);
        vm_memory::Bytes::read_slice(&*self.memory, &mut answer, address).unwrap();
        answer
    }

    pub(super) fn answer(&mut self) -> (u32, u32) {
        self.outcome().expect("the device is broken")
    }

    /// The next answer, or nothing if the device refuses to go on.
    pub(super) fn outcome(&mut self) -> Option<(u32, u32)> {
        let call = self.calls[REQUESTS].as_raw_fd();
        loop {
            if let Some(used) = self.drivers[REQUESTS].used() {
                return Some(used);
            }
            if is_readable(self.failed, 0) {
                return None;
            }
            wait_for_either(call, self.failed);
            let _ = self.calls[REQUESTS].read();
        }
    }

    pub(super) fn mount(&mut self) {
        let mut body = words(&[7, 38, 1 << 17, 0]);
        body.resize(64, 0);
        let answer = self.ask(Opcode::Init, 0, &body).unwrap();
        assert_eq!(answer[..4], 7u32.to_le_bytes());
    }

    pub(super) fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        let entry = self.ask(Opcode::Lookup, ROOT, format!("{name}\0").as_bytes())?;
        Ok(u64::from_le_bytes(*entry.first_chunk().unwrap()))
    }

    /// Creates a file and returns node and handle.
    pub(super) fn create(&mut self, name: &str) -> Result<(u64, u64), i32> {
        let mut body = words(&[libc::O_RDWR as u32, 0o100_666, 0, 0]);
        body.extend(format!("{name}\0").as_bytes());
        let answer = self.ask(Opcode::Create, ROOT, &body)?;
        let long = |at: usize| u64::from_le_bytes(*answer[at..].first_chunk().unwrap());
        // `struct fuse_entry_out` has 128 bytes.
        Ok((long(0), long(128)))
    }

    pub(super) fn read(&mut self, node: u64, handle: u64) -> Vec<u8> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(words(&[0, 0, 4096, 0, 0, 0, 0, 0]));
        self.ask(Opcode::Read, node, &body).unwrap()
    }

    pub(super) fn write(&mut self, node: u64, handle: u64, data: &[u8]) {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(words(&[0, 0, data.len() as u32, 0, 0, 0, 0, 0]));
        body.extend(data);
        self.ask(Opcode::Write, node, &body).unwrap();
    }

    pub(super) fn open(&mut self, node: u64) -> u64 {
        let answer = self.ask(Opcode::Open, node, &words(&[0, 0])).unwrap();
        u64::from_le_bytes(*answer.first_chunk().unwrap())
    }
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A request with its `struct fuse_in_header`.
pub(super) fn request(opcode: u32, node: u64, uid: u32, body: &[u8]) -> Vec<u8> {
    let mut message = words(&[40 + body.len() as u32, opcode, 1, 0]);
    message.extend(node.to_le_bytes());
    message.extend(words(&[uid, uid, 1, 0]));
    message.extend(body);
    message
}
