//! Shares, with the test as their guest: a small FUSE client.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use proptest::prelude::*;
use tempfile::tempdir;
use virtiofsd::fuse::Opcode;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::session::Session;
use super::threads::serve_by;
use super::*;
use crate::Memory;
use crate::testing::{Buffer, DriverQueue, FakeWatch, memory};

const ROOT: u64 = 1;
const REQUESTS: usize = 1;
const MEMORY: usize = 32 << 20;
const PATIENCE: i32 = 20_000;

/// A guest with a share.
struct Guest {
    fs: Fs,
    memory: Arc<Memory>,
    drivers: Vec<DriverQueue>,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
    failed: RawFd,
    uid: u32,
}

/// The descriptor is readable, or becomes so.
fn wait(fd: RawFd) {
    assert!(is_readable(fd, PATIENCE), "nothing happened");
}

fn is_readable(fd: RawFd, milliseconds: i32) -> bool {
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, fd, event).unwrap();
    epoll.wait(milliseconds, &mut [event]).unwrap() == 1
}

impl Guest {
    fn new(directory: &Path, read_only: bool, tag: &str) -> Self {
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

    fn start(&mut self) {
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
    fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
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
    fn send(&mut self, message: &[u8]) {
        let (request, answer) = (0x40_0000, 0x80_0000);
        vm_memory::Bytes::write_slice(&*self.memory, message, vm_memory::GuestAddress(request))
            .unwrap();
        self.drivers[REQUESTS].add(&[
            Buffer {
                address: request,
                length: message.len() as u32,
                writable: false,
            },
            Buffer {
                address: answer,
                length: 1 << 16,
                writable: true,
            },
        ]);
        self.kicks[REQUESTS].write(1).unwrap();
    }

    fn room(&self, length: u32) -> Vec<u8> {
        let mut answer = vec![0; length as usize];
        let address = vm_memory::GuestAddress(0x80_0000);
        vm_memory::Bytes::read_slice(&*self.memory, &mut answer, address).unwrap();
        answer
    }

    fn answer(&mut self) -> (u32, u32) {
        loop {
            if let Some(used) = self.drivers[REQUESTS].used() {
                return used;
            }
            wait(self.calls[REQUESTS].as_raw_fd());
            self.calls[REQUESTS].read().unwrap();
        }
    }

    fn mount(&mut self) {
        let mut body = words(&[7, 38, 1 << 17, 0]);
        body.resize(64, 0);
        let answer = self.ask(Opcode::Init, 0, &body).unwrap();
        assert_eq!(answer[..4], 7u32.to_le_bytes());
    }

    fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        let entry = self.ask(Opcode::Lookup, ROOT, format!("{name}\0").as_bytes())?;
        Ok(u64::from_le_bytes(*entry.first_chunk().unwrap()))
    }

    /// Creates a file and returns node and handle.
    fn create(&mut self, name: &str) -> Result<(u64, u64), i32> {
        let mut body = words(&[libc::O_RDWR as u32, 0o100_666, 0, 0]);
        body.extend(format!("{name}\0").as_bytes());
        let answer = self.ask(Opcode::Create, ROOT, &body)?;
        let long = |at: usize| u64::from_le_bytes(*answer[at..].first_chunk().unwrap());
        // `struct fuse_entry_out` has 128 bytes.
        Ok((long(0), long(128)))
    }

    fn read(&mut self, node: u64, handle: u64) -> Vec<u8> {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(words(&[0, 0, 4096, 0, 0, 0, 0, 0]));
        self.ask(Opcode::Read, node, &body).unwrap()
    }

    fn write(&mut self, node: u64, handle: u64, data: &[u8]) {
        let mut body = handle.to_le_bytes().to_vec();
        body.extend(words(&[0, 0, data.len() as u32, 0, 0, 0, 0, 0]));
        body.extend(data);
        self.ask(Opcode::Write, node, &body).unwrap();
    }

    fn open(&mut self, node: u64) -> u64 {
        let answer = self.ask(Opcode::Open, node, &words(&[0, 0])).unwrap();
        u64::from_le_bytes(*answer.first_chunk().unwrap())
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A request with its `struct fuse_in_header`.
fn request(opcode: u32, node: u64, uid: u32, body: &[u8]) -> Vec<u8> {
    let mut message = words(&[40 + body.len() as u32, opcode, 1, 0]);
    message.extend(node.to_le_bytes());
    message.extend(words(&[uid, uid, 1, 0]));
    message.extend(body);
    message
}

#[test]
fn files_are_read_and_written_in_both_directions() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("from-host"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), false, "files");
    guest.mount();
    let node = guest.lookup("from-host").unwrap();
    let handle = guest.open(node);
    assert_eq!(guest.read(node, handle), b"hello");
    assert_eq!(guest.lookup("nothing"), Err(libc::ENOENT));

    let (node, handle) = guest.create("from-guest").unwrap();
    guest.write(node, handle, b"hi");
    assert_eq!(fs::read(share.path().join("from-guest")).unwrap(), b"hi");
    fs::write(share.path().join("from-guest"), "changed").unwrap();
    assert_eq!(guest.read(node, handle), b"changed");
}

#[test]
fn the_guest_acts_as_its_users_without_a_umask_and_the_process_does_not_change() {
    let share = tempdir().unwrap();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let before = process_state();
    let mut guest = Guest::new(share.path(), false, "users");
    guest.mount();
    guest.uid = 1234;
    guest.create("mine").unwrap();
    let metadata = fs::metadata(share.path().join("mine")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 1234));
    assert_eq!(metadata.mode() & 0o777, 0o666);
    assert_eq!(process_state(), before);
}

/// Umask, capabilities and user of the thread that asks.
fn process_state() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let kept = |line: &&str| {
        ["Umask", "Cap", "Uid", "Gid"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    status.lines().filter(kept).map(str::to_owned).collect()
}

#[test]
fn threads_keep_no_more_privileges_than_they_need() {
    let share = tempdir().unwrap();
    let _guest = Guest::new(share.path(), false, "privileges");
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let statuses = tasks.map(|task| task.unwrap().path().join("status"));
    let mut found = 0;
    for status in statuses.filter_map(|path| fs::read_to_string(path).ok()) {
        if status.contains("Name:\tfs-privileges\n") {
            found += 1;
            let line = status.lines().find(|l| l.starts_with("CapPrm")).unwrap();
            let kept = u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap();
            // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID (0, 1, 3, 4, 6, 7), MKNOD (27),
            // SETFCAP (31): linux/capability.h.
            assert_eq!(kept & !0x8800_00db, 0, "{kept:#x}");
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn a_read_only_share_cannot_be_changed() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), true, "read-only");
    guest.mount();
    let node = guest.lookup("file").unwrap();
    let handle = guest.open(node);
    assert_eq!(guest.read(node, handle), b"hello");
    assert_eq!(guest.create("new"), Err(libc::EROFS));
    assert_eq!(fs::read_dir(share.path()).unwrap().count(), 1);
}

#[test]
fn no_name_leads_out_of_the_share() {
    let outside = tempdir().unwrap();
    let share = outside.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    let mut guest = Guest::new(&share, false, "escape");
    guest.mount();
    let below = outside.path().strip_prefix("/").unwrap().join("secret");
    for name in [
        "../secret".to_owned(),
        "/".to_owned() + below.to_str().unwrap(),
    ] {
        assert_eq!(guest.lookup(&name), Err(libc::ENOENT), "{name}");
        let terminated = format!("{name}\0");
        let gone = guest.ask(Opcode::Unlink, ROOT, terminated.as_bytes());
        assert_eq!(gone, Err(libc::ENOENT), "{name}");
    }
    let mut body = words(&[0o777, 0]);
    body.extend(b"../made\0");
    guest.ask(Opcode::Mkdir, ROOT, &body).unwrap();
    assert!(share.join("made").is_dir(), "above the root is the root");
    assert!(outside.path().join("secret").exists());
    assert!(!outside.path().join("made").exists());
    // The rest of the process is where it was.
    assert!(fs::metadata("/proc/self/exe").is_ok());
}

#[test]
fn a_reset_forgets_the_guest_and_the_next_one_is_served() {
    let share = tempdir().unwrap();
    fs::write(share.path().join("file"), "hello").unwrap();
    let mut guest = Guest::new(share.path(), false, "reset");
    for _ in 0..3 {
        guest.mount();
        let node = guest.lookup("file").unwrap();
        let handle = guest.open(node);
        assert_eq!(guest.read(node, handle), b"hello");
        guest.fs.stop();
        guest.start();
        let stale = guest.ask(Opcode::Open, node, &words(&[0, 0]));
        assert!(stale.is_err(), "{stale:?}");
    }
    guest.fs.stop();
    guest.fs.stop();
}

#[test]
fn a_request_that_makes_no_sense_breaks_the_device_until_a_reset() {
    let share = tempdir().unwrap();
    let mut guest = Guest::new(share.path(), false, "nonsense");
    guest.send(b"short");
    wait(guest.failed);
    let mut watch = FakeWatch::default();
    let broken = guest
        .fs
        .ready(FAILED_TOKEN, EventSet::IN, &mut [], &mut watch);
    assert!(broken.unwrap_err().to_string().contains("nonsense"));
    guest.fs.stop();
    guest.start();
    assert!(!is_readable(guest.failed, 0));
    guest.mount();
}

#[test]
fn what_cannot_be_shared_is_named() {
    let share = tempdir().unwrap();
    let file = share.path().join("file");
    fs::write(&file, "").unwrap();
    let error = |tag: &str, directory: &Path| {
        let config = Config {
            tag: tag.to_owned(),
            directory: directory.to_owned(),
            read_only: false,
        };
        Fs::new(config).unwrap_err().to_string()
    };
    let missing = share.path().join("missing");
    assert!(error("t", &missing).contains("/missing: No such file"));
    assert!(error("t", &file).contains("/file: not a directory"));
    assert!(error("", share.path()).contains("1 to 36 bytes"));
    assert!(error(&"x".repeat(37), share.path()).contains("1 to 36 bytes"));

    let tag = "x".repeat(36);
    let guest = Guest::new(share.path(), false, &tag);
    let mut config = [0; 40];
    guest.fs.traits().config.read(0, &mut config);
    assert_eq!(config[..36], *tag.as_bytes());
    assert_eq!(config[36..], [1, 0, 0, 0]);
}

/// Threads that serve a queue by a function of the test, which waits in slow requests.
struct Team {
    driver: DriverQueue,
    kick: EventFd,
    call: EventFd,
    session: Arc<Session>,
    begun: Receiver<(u32, thread::ThreadId)>,
    answers: u16,
}

fn with_team(test: impl FnOnce(&mut Team, &dyn Fn())) {
    let memory = memory(MEMORY);
    let driver = DriverQueue::new(&memory, 0, REQUEST_SIZE);
    let queue = driver.device_end(true);
    let (kick, call) = (queue.kick().try_clone(), queue.call().try_clone());
    let session = Arc::new(Session::new(vec![queue]).unwrap());
    let (begin, begun) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let handle = |chain: crate::queue::Chain| {
        let header = chain.clone().readable().next().unwrap();
        let opcode = vm_memory::GuestAddress(header.addr().0 + 4);
        let opcode: u32 = vm_memory::Bytes::read_obj(chain.memory(), opcode).unwrap();
        begin.send((opcode, thread::current().id())).unwrap();
        if opcode == Opcode::Fsync as u32 {
            released.lock().unwrap().recv().unwrap();
        }
        Ok(0)
    };
    let failed = EventFd::new(EFD_NONBLOCK).unwrap();
    thread::scope(|scope| {
        let served = Arc::clone(&session);
        scope.spawn(move || serve_by(&handle, &served, &failed, "team"));
        let mut team = Team {
            driver,
            kick: kick.unwrap(),
            call: call.unwrap(),
            session,
            begun,
            answers: 0,
        };
        test(&mut team, &|| release.send(()).unwrap());
        team.session.finish();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a request says, it is answered, or the device stops.
    #[test]
    fn any_request_is_survived(
        requests in prop::collection::vec(
            (0..54u32, 0..4u64, prop::collection::vec(any::<u8>(), 0..200)), 1..20),
    ) {
        let share = tempdir().unwrap();
        fs::write(share.path().join("a"), "hello").unwrap();
        let mut guest = Guest::new(share.path(), false, "fuzz");
        guest.mount();
        for (opcode, node, body) in requests {
            guest.send(&request(opcode, node, 0, &body));
            while guest.drivers[REQUESTS].used().is_none() {
                if is_readable(guest.failed, 0) {
                    return Ok(());
                }
                is_readable(guest.calls[REQUESTS].as_raw_fd(), 1);
                let _ = guest.calls[REQUESTS].read();
            }
        }
    }
}
