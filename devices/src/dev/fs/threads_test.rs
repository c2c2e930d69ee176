//! Which thread serves which request.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use virtiofsd::fuse::Opcode;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest_test::{MEMORY, PATIENCE, ROOT, request, wait};
use super::requests::Requests;
use super::threads::{MAX_THREADS, serve_by};
use super::*;
use crate::testing::{DriverQueue, memory};

/// The one that takes as long as the test likes.
const SLOW: Opcode = Opcode::Read;

thread_local! {
    /// Tells that a thread has ended.
    static GUARD: RefCell<Option<Guard>> = const { RefCell::new(None) };
}

struct Guard(Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Threads that serve a queue by a function of the test, which waits in slow requests.
struct Team {
    driver: DriverQueue,
    kick: EventFd,
    call: EventFd,
    requests: Arc<Requests>,
    begun: Receiver<(u32, thread::ThreadId)>,
    /// Of threads that have served a request.
    ended: Receiver<()>,
    answers: u16,
}

fn with_team(test: impl FnOnce(&mut Team, &dyn Fn())) {
    let memory = memory(MEMORY);
    let driver = DriverQueue::new(&memory, 0, REQUEST_SIZE);
    let queue = driver.device_end(true);
    let (kick, call) = (queue.kick().try_clone(), queue.call().try_clone());
    let requests = Arc::new(Requests::new(vec![queue]).unwrap());
    let (begin, begun) = channel();
    let (release, released) = channel();
    let (end, ended) = channel();
    let released = Mutex::new(released);
    let handle = |chain: crate::queue::Chain| {
        let header = chain.clone().readable().next().unwrap();
        let opcode = vm_memory::GuestAddress(header.addr().0 + 4);
        let opcode: u32 = vm_memory::Bytes::read_obj(chain.memory(), opcode).unwrap();
        GUARD.set(Some(Guard(end.clone())));
        begin.send((opcode, thread::current().id())).unwrap();
        if opcode == SLOW as u32 {
            released.lock().unwrap().recv().unwrap();
        }
        Ok(0)
    };
    let failed = EventFd::new(EFD_NONBLOCK).unwrap();
    thread::scope(|scope| {
        let served = Arc::clone(&requests);
        scope.spawn(move || serve_by(&handle, &served, &failed, "team"));
        let mut team = Team {
            driver,
            kick: kick.unwrap(),
            call: call.unwrap(),
            requests,
            begun,
            ended,
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
fn a_request_that_takes_long_delays_no_other() {
    with_team(|team, release| {
        let slow = team.send(SLOW);
        for answer in 1..6 {
            assert_ne!(team.send(Opcode::Getattr), slow);
            assert_eq!(team.answered(), answer);
        }
        release();
        assert_eq!(team.answered(), 0);
    });
}

#[test]
fn one_request_at_a_time_needs_two_threads_at_most() {
    with_team(|team, _| {
        let mut threads = HashSet::new();
        for answer in 0..200 {
            threads.insert(team.send(Opcode::Getattr));
            assert_eq!(u32::from(team.answers), answer);
            team.answered();
        }
        assert!(threads.len() <= 2, "{} threads", threads.len());
    });
}

/// All at once, by one kick.
#[test]
fn more_requests_than_threads_are_all_served() {
    const MANY: u16 = 2 * MAX_THREADS as u16;
    with_team(|team, release| {
        for _ in 0..MANY {
            team.driver.send(&request(SLOW as u32, ROOT, 0, &[]));
        }
        team.kick.write(1).unwrap();
        let begun = |team: &Team| team.begun.recv_timeout(patience()).unwrap().1;
        let threads: HashSet<_> = (0..MAX_THREADS).map(|_| begun(team)).collect();
        assert_eq!(threads.len(), MAX_THREADS);
        for _ in 0..MANY {
            release();
        }
        let answered: HashSet<_> = (0..MANY).map(|_| team.answered()).collect();
        assert_eq!(answered.len(), usize::from(MANY));
        for _ in MAX_THREADS..MANY.into() {
            assert!(threads.contains(&begun(team)), "no more threads than that");
        }
    });
}

#[test]
fn threads_without_work_end() {
    const SOME: usize = 6;
    with_team(|team, release| {
        let threads: HashSet<_> = (0..SOME).map(|_| team.send(SLOW)).collect();
        assert_eq!(threads.len(), SOME);
        for _ in 0..SOME {
            release();
            team.answered();
        }
        // One more has waited all the time, and tells nothing. Two stay.
        for _ in 0..SOME - 2 {
            team.ended.recv_timeout(patience()).unwrap();
        }
        team.send(Opcode::Getattr);
        team.answered();
    });
}
