//! The serial line, with the test as its driver, on a real event loop.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::event_loop::EventLoop;
use crate::legacy::{Line as _, LineSubscriber};
use crate::seccomp::{ANY_THREAD, Allowed};
use crate::stream::Output;

const DATA: u16 = 0;
const LINE_STATUS: u16 = 5;
const DATA_READY: u8 = 1;

struct Line {
    serial: Arc<Mutex<Serial>>,
    events: EventLoop,
    to_guest: PipeWriter,
    from_guest: PipeReader,
}

fn line(input: Option<Input>, output: Option<Output>) -> (Arc<Mutex<Serial>>, EventLoop) {
    let serial = Arc::new(Mutex::new(Serial::new().unwrap()));
    let mut events = EventLoop::new().unwrap();
    events.add_subscriber(LineSubscriber::new(serial.clone(), input, output));
    (serial, events)
}

fn serve(events: &mut EventLoop) {
    while events.turn(0).unwrap() > 0 {}
}

/// What the guest reads until nothing is ready, letting the loop fill the FIFO.
fn receive(serial: &Mutex<Serial>, events: &mut EventLoop) -> Vec<u8> {
    let mut received = Vec::new();
    loop {
        serve(events);
        let mut serial = serial.lock().unwrap();
        if serial.read(LINE_STATUS) & DATA_READY == 0 {
            return received;
        }
        while serial.read(LINE_STATUS) & DATA_READY != 0 {
            received.push(serial.read(DATA));
        }
    }
}

impl Line {
    fn new() -> Self {
        let (input, to_guest) = pipe().unwrap();
        let (from_guest, output) = pipe().unwrap();
        let input = Input::new(input).unwrap();
        let output = Output::new(output).unwrap();
        let (serial, events) = line(Some(input), Some(output));
        Self {
            serial,
            events,
            to_guest,
            from_guest,
        }
    }

    fn write(&self, register: u16, value: u8) {
        assert_eq!(self.serial.lock().unwrap().write(register, value), None);
    }

    fn receive(&mut self) -> Vec<u8> {
        receive(&self.serial, &mut self.events)
    }

    fn interrupted(&self) -> bool {
        self.serial.lock().unwrap().interrupt().read().is_ok()
    }
}

#[test]
fn input_waits_until_the_guest_listens_and_comes_in_fifos() {
    let mut line = Line::new();
    let sent: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
    line.to_guest.write_all(&sent).unwrap();
    assert_eq!(line.receive(), b"");
    assert!(!line.interrupted());
    line.write(IER, IER_RECEIVED);
    assert_eq!(line.receive(), sent);
    assert!(line.interrupted());
    line.to_guest.write_all(b"more").unwrap();
    assert_eq!(line.receive(), b"more");
}

#[test]
fn the_end_of_the_input_leaves_the_line_silent() {
    let (mut to_guest, input) = UnixStream::pair().unwrap();
    let (serial, mut events) = line(Some(Input::new(input).unwrap()), None);
    serial.lock().unwrap().write(IER, IER_RECEIVED);
    to_guest.write_all(b"end").unwrap();
    to_guest.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive(&serial, &mut events), b"end");
    assert_eq!(to_guest.read(&mut [0]).unwrap(), 0, "the input is let go");
    assert_eq!(events.turn(0).unwrap(), 0, "nothing is left to serve");
}

#[test]
fn output_goes_out_and_a_slow_reader_does_not_stop_the_guest() {
    let mut line = Line::new();
    for byte in b"hello" {
        line.write(DATA, *byte);
    }
    serve(&mut line.events);
    let mut hello = [0; 5];
    line.from_guest.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");

    for i in 0..70_000u32 {
        line.write(DATA, i as u8);
    }
    serve(&mut line.events);
    let mut got = vec![0; 70_000];
    let (first, rest) = got.split_at_mut(60_000);
    line.from_guest.read_exact(first).unwrap();
    serve(&mut line.events);
    line.from_guest.read_exact(rest).unwrap();
    assert!((0..70_000u32).all(|i| got[i as usize] == i as u8));
}

#[test]
fn the_thread_that_writes_the_port_leaves_the_host_to_the_loop() {
    let (mut reader, output) = UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    let (serial, mut events) = line(None, Some(Output::new(output).unwrap()));
    let registers = Arc::clone(&serial);
    let vcpu = thread::spawn(move || {
        // As a vCPU thread is restricted, which ends the process if it breaks the rule.
        Allowed::calls(ANY_THREAD).restrict_thread().unwrap();
        for byte in b"hello" {
            registers.lock().unwrap().write(DATA, *byte);
        }
    });
    vcpu.join().unwrap();
    let mut hello = [0; 6];
    let nothing = reader.read(&mut hello).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);

    let said = Arc::clone(serial.lock().unwrap().uart.writer().said());
    assert_eq!(said.read().unwrap(), 1, "signalled for the first byte only");
    said.write(1).unwrap();
    serve(&mut events);
    assert_eq!(reader.read(&mut hello).unwrap(), 5);
    assert_eq!(&hello[..5], b"hello");
}

#[test]
fn what_the_loop_does_not_fetch_is_bounded() {
    let (serial, _events) = line(None, None);
    let mut serial = serial.lock().unwrap();
    let mut fetched = VecDeque::new();
    for _ in 0..2 {
        for i in 0..300_000u32 {
            serial.write(DATA, i as u8);
        }
        serial.fetch(&mut fetched);
        assert_eq!(fetched.len(), 256 << 10, "the first bytes are kept");
        assert!((0u32..).zip(fetched.drain(..)).all(|(i, b)| b == i as u8));
    }
}

#[test]
fn a_line_to_files_and_to_nothing() {
    let null = || {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
    };
    let ends = [
        (None, None),
        (
            Some(Input::new(null()).unwrap()),
            Some(Output::new(null()).unwrap()),
        ),
    ];
    for (input, output) in ends {
        let (serial, mut events) = line(input, output);
        serial.lock().unwrap().write(DATA, b'x');
        serial.lock().unwrap().write(IER, IER_RECEIVED);
        serve(&mut events);
        assert_eq!(serial.lock().unwrap().read(LINE_STATUS) & DATA_READY, 0);
    }
}
