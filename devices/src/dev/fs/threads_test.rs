//! Which thread serves which request.

use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use virtiofsd::fuse::Opcode;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest_test::{MEMORY, PATIENCE, ROOT, request, wait};
use super::locks::Answer;
use super::requests::Requests;
use super::threads::{Serve, serve_by};
use super::*;
use crate::queue::Chain;
use crate::testing::{DriverQueue, memory};

/// Threads that serve a queue by a function of the test, which waits in slow requests.
struct Team {
    driver: DriverQueue,
    kick: EventFd,
    call: EventFd,
    requests: Arc<Requests>,
    begun: Receiver<(u32, thread::ThreadId)>,
    answers: u16,
}

/// What requests are for.
struct Played<F>(F);

impl<F: Fn(Chain) -> Result<Answer, DeviceError> + Sync> Serve for Played<F> {
    fn handle(&self, request: Chain) -> Result<Answer, DeviceError> {
        (self.0)(request)
    }

    fn end(&self) {}
}

fn with_team(test: impl FnOnce(&mut Team, &dyn Fn())) {
    let memory = memory(MEMORY);
    let driver = DriverQueue::new(&memory, 0, REQUEST_SIZE);
    let queue = driver.device_end(true);
    let (kick, call) = (queue.kick().try_clone(), queue.call().try_clone());
    let requests = Arc::new(Requests::new(vec![queue]).unwrap());
    let (begin, begun) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let handle = |chain: Chain| {
        let header = chain.clone().readable().next().unwrap();
        let opcode = vm_memory::GuestAddress(header.addr().0 + 4);
        let opcode: u32 = vm_memory::Bytes::read_obj(chain.memory(), opcode).unwrap();
        begin.send((opcode, thread::current().id())).unwrap();
        if opcode == Opcode::Fsync as u32 {
            released.lock().unwrap().recv().unwrap();
        }
        Ok(Answer::Length(0))
    };
    let failed = EventFd::new(EFD_NONBLOCK).unwrap();
    thread::scope(|scope| {
        let served = Arc::clone(&requests);
        scope.spawn(move || serve_by(&Played(handle), &served, &failed, "team"));
        let mut team = Team {
            driver,
            kick: kick.unwrap(),
            call: call.unwrap(),
            requests,
            begun,
            answers: 0,
        };
        test(&mut team, &|| release.send(()).unwrap());
        team.requests.finish();
    });
}

impl Team {
    fn send(&mut self, opcode: Opcode) -> thread::ThreadId {
        self.driver.send(&request(opcode as u32, ROOT, 0, &[]));
        self.kick.write(1).unwrap();
        let (begun, thread) = self.begun.recv_timeout(patience()).unwrap();
        assert_eq!(begun, opcode as u32);
        thread
    }

    fn answered(&mut self) -> u32 {
        loop {
            // Wants to hear of the next answer, then looks whether it has missed it.
            self.driver.set_used_event(self.answers);
            if let Some((head, _)) = self.driver.used() {
                self.answers += 1;
                return head;
            }
            wait(self.call.as_raw_fd());
            let _ = self.call.read();
        }
    }
}

fn patience() -> std::time::Duration {
    std::time::Duration::from_millis(PATIENCE.unsigned_abs().into())
}

#[test]
fn a_slow_request_delays_no_other() {
    with_team(|team, release| {
        let slow = team.send(Opcode::Fsync);
        let quick: HashSet<_> = (0..5).map(|_| team.send(Opcode::Getattr)).collect();
        assert!(!quick.contains(&slow));
        assert_eq!(quick.len(), 1, "one thread serves all that are quick");
        assert_eq!(
            (0..5).map(|_| team.answered()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        release();
        assert_eq!(team.answered(), 0);
    });
}

#[test]
fn quick_requests_need_one_thread() {
    with_team(|team, _| {
        let threads: HashSet<_> = (0..100).map(|_| team.send(Opcode::Getattr)).collect();
        assert_eq!(threads.len(), 1);
    });
}

#[test]
fn more_slow_requests_than_threads_are_all_served() {
    with_team(|team, release| {
        let threads: HashSet<_> = (0..4).map(|_| team.send(Opcode::Fsync)).collect();
        assert_eq!(threads.len(), 4);
        for _ in 0..3 {
            team.driver
                .send(&request(Opcode::Fsync as u32, ROOT, 0, &[]));
        }
        team.kick.write(1).unwrap();
        for _ in 0..7 {
            release();
        }
        let mut answered: Vec<_> = (0..7).map(|_| team.answered()).collect();
        answered.sort_unstable();
        assert_eq!(answered, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(team.begun.iter().take(3).count(), 3);
        let again = team.send(Opcode::Getattr);
        assert!(threads.contains(&again), "no more threads than four");
    });
}
