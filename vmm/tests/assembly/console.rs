//! The simple console of a guest that says much and is gone.

use std::io::{ErrorKind, Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread;

use devices::dev::console::Streams;
use devices::event_loop::{EventOps, Events, MutEventSubscriber, Subscriber};
use devices::stream::Output;
use vmm::exit::Exit;

use crate::guest;
use crate::guest::{PATIENCE, run_with};

/// How many bytes the guest says.
const COUNT: usize = 20_000;

guest!(
    talk,
    "talk_start",
    "talk_end",
    "mov dx, 0x3f8",
    "xor al, al",
    "mov ecx, 20000",
    "2:",
    "out dx, al",
    "inc al",
    "dec ecx",
    "jnz 2b",
    "mov dx, 0x600",
    "mov al, 0x34",
    "out dx, al",
    "hlt"
);

/// Tells when no vCPU runs any more.
struct GuestEnds(Sender<()>);

impl MutEventSubscriber for GuestEnds {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn init(&mut self, _: &mut EventOps<'_>) {}
}

impl Subscriber for GuestEnds {
    fn drained(&mut self, _: &mut EventOps<'_>) -> bool {
        // Asked again and again; the test waits for the first time.
        let _ = self.0.send(());
        true
    }
}

/// Runs the guest with a reader that begins when the guest has ended, behind the `full` bytes that
/// the output holds already.
fn check(output: impl Into<OwnedFd>, mut reader: impl Read, full: usize) {
    let output = Output::new(output).unwrap();
    let (ends, ended) = mpsc::channel();
    let machine = thread::spawn(move || {
        let end = run_with(&talk(), |config, event_loop| {
            config.console = Some(Streams {
                input: None,
                output: Some(output),
            });
            event_loop.add_subscriber(GuestEnds(ends));
        });
        end.exit
    });
    ended.recv_timeout(PATIENCE).unwrap();
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert_eq!(machine.join().unwrap(), Exit::PowerOff);
    assert_eq!(said.len() - full, COUNT);
    let expected = |i: usize| i as u8;
    assert!((0..COUNT).all(|i| said[full + i] == expected(i)));
}

#[test]
fn what_it_last_said_reaches_the_slow_reader_of_a_pipe() {
    let (reader, writer) = pipe().unwrap();
    // SAFETY: takes no memory.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!((1..COUNT as i32).contains(&size), "{size}");
    check(writer, reader, 0);
}

/// Docker gives a container sockets, whose system calls a vCPU thread may not make.
#[test]
fn what_it_last_said_reaches_the_slow_reader_of_a_socket() {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut full = 0;
    loop {
        match writer.write(&[0; 4096]) {
            Ok(count) => full += count,
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    writer.set_nonblocking(false).unwrap();
    check(writer, reader, full);
}
