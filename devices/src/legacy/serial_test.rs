//! The serial line, with the test as its driver, on a real event loop.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};

use super::*;
use crate::event_loop::EventLoop;

const DATA: u16 = 0;
const LINE_STATUS: u16 = 5;
const DATA_READY: u8 = 1;

struct Line {
    serial: Arc<Mutex<Serial>>,
    events: EventLoop,
    to_guest: PipeWriter,
    from_guest: PipeReader,
}

impl Line {
    fn new() -> Self {
        let (input, to_guest) = pipe().unwrap();
        let (from_guest, output) = pipe().unwrap();
        let input = Input::new(input).unwrap();
        let output = Output::new(output).unwrap();
        let serial = Serial::new(Some(input), Some(output)).unwrap();
        let serial = Arc::new(Mutex::new(serial));
        let mut events = EventLoop::new().unwrap();
        events.add_subscriber(SerialSubscriber::new(Arc::clone(&serial)));
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

    /// What the guest reads until nothing is ready, letting the loop fill the FIFO.
    fn receive(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            while self.events.turn(0).unwrap() > 0 {}
            let mut serial = self.serial.lock().unwrap();
            if serial.read(LINE_STATUS) & DATA_READY == 0 {
                return received;
            }
            while serial.read(LINE_STATUS) & DATA_READY != 0 {
                received.push(serial.read(DATA));
            }
        }
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
    let mut line = Line::new();
    line.write(IER, IER_RECEIVED);
    line.to_guest.write_all(b"end").unwrap();
    let (_reader, writer) = pipe().unwrap();
    line.to_guest = writer;
    assert_eq!(line.receive(), b"end");
    assert!(line.serial.lock().unwrap().input.is_none());
    assert_eq!(line.events.turn(0).unwrap(), 0, "nothing is left to serve");
}

#[test]
fn output_goes_out_and_a_slow_reader_does_not_stop_the_guest() {
    let mut line = Line::new();
    for byte in b"hello" {
        line.write(DATA, *byte);
    }
    let mut hello = [0; 5];
    line.from_guest.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");

    for i in 0..70_000u32 {
        line.write(DATA, i as u8);
    }
    assert!(line.serial.lock().unwrap().flush().is_some());
    let mut got = vec![0; 70_000];
    let (first, rest) = got.split_at_mut(60_000);
    line.from_guest.read_exact(first).unwrap();
    while line.events.turn(0).unwrap() > 0 {}
    assert_eq!(line.serial.lock().unwrap().flush(), None);
    line.from_guest.read_exact(rest).unwrap();
    assert!((0..70_000u32).all(|i| got[i as usize] == i as u8));
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
        let serial = Arc::new(Mutex::new(Serial::new(input, output).unwrap()));
        let mut events = EventLoop::new().unwrap();
        events.add_subscriber(SerialSubscriber::new(Arc::clone(&serial)));
        serial.lock().unwrap().write(DATA, b'x');
        serial.lock().unwrap().write(IER, IER_RECEIVED);
        while events.turn(0).unwrap() > 0 {}
        assert_eq!(serial.lock().unwrap().read(LINE_STATUS) & DATA_READY, 0);
    }
}
