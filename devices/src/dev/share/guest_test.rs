//! A guest with a shared directory, whatever the protocol.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::SharedDirectory;
use crate::Memory;
use crate::device::{Activation, VirtioDevice};
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

pub(in crate::dev) const MEMORY: usize = 32 << 20;
pub(in crate::dev) const PATIENCE: i32 = 20_000;

/// A guest with a share.
pub(in crate::dev) struct Guest {
    pub(in crate::dev) fs: SharedDirectory,
    pub(in crate::dev) memory: Arc<Memory>,
    pub(in crate::dev) drivers: Vec<DriverQueue>,
    pub(in crate::dev) kicks: Vec<EventFd>,
    pub(in crate::dev) calls: Vec<EventFd>,
    pub(in crate::dev) failed: RawFd,
    /// The queue that requests go to.
    pub(in crate::dev) requests: usize,
    /// As whom it asks.
    pub(in crate::dev) uid: u32,
}

/// The descriptor is readable, or becomes so.
pub(in crate::dev) fn wait(fd: RawFd) {
    assert!(is_readable(fd, PATIENCE), "nothing happened");
}

pub(in crate::dev) fn wait_for_either(one: RawFd, other: RawFd) {
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

pub(in crate::dev) fn is_readable(fd: RawFd, milliseconds: i32) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    epoll.wait(milliseconds, &mut [event]).unwrap() == 1
}

impl Guest {
    pub(in crate::dev) fn of(fs: SharedDirectory, requests: usize) -> Self {
        let mut guest = Self {
            fs,
            memory: memory(MEMORY),
            drivers: Vec::new(),
            kicks: Vec::new(),
            calls: Vec::new(),
            failed: -1,
            requests,
            uid: 0,
        };
        guest.start();
        guest
    }

    pub(in crate::dev) fn start(&mut self) {
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

    /// Sends bytes with room for 64 KiB of answer.
    pub(in crate::dev) fn send(&mut self, message: &[u8]) {
        self.send_with_room(message, 1 << 16);
    }

    pub(in crate::dev) fn send_with_room(&mut self, message: &[u8], room: u32) {
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
        self.drivers[self.requests].add(given);
        self.kicks[self.requests].write(1).unwrap();
    }

    pub(in crate::dev) fn room(&self, length: u32) -> Vec<u8> {
        let mut answer = vec![0; length as usize];
        let address = vm_memory::GuestAddress(0x80_0000);
        vm_memory::Bytes::read_slice(&*self.memory, &mut answer, address).unwrap();
        answer
    }

    pub(in crate::dev) fn answer(&mut self) -> (u32, u32) {
        self.outcome().expect("the device is broken")
    }

    /// The next answer, or nothing if the device refuses to go on.
    pub(in crate::dev) fn outcome(&mut self) -> Option<(u32, u32)> {
        let call = self.calls[self.requests].as_raw_fd();
        loop {
            if let Some(used) = self.drivers[self.requests].used() {
                return Some(used);
            }
            if is_readable(self.failed, 0) {
                return None;
            }
            wait_for_either(call, self.failed);
            let _ = self.calls[self.requests].read();
        }
    }
}
