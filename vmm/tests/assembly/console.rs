//! The simple console of a guest that says much and is gone.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{self, Command, Stdio};

use nix::unistd::{dup2_stdin, dup2_stdout};
use vmm::exit::Exit;
use vmm::vm::Vm;
use vmm::{Console, log};

use crate::guest;
use crate::guest::{config, elf, kvm};

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

/// Set for the copy of this test program that runs the guest.
const MONITOR: &str = "RUNQ_TEST_CONSOLE";

/// Runs the guest, confined, with the file that is the standard input as its console.
fn monitor() -> ! {
    dup2_stdout(io::stdin()).unwrap();
    dup2_stdin(File::open("/dev/null").unwrap()).unwrap();
    log::start(log::Level::INFO);
    let kernel = elf(&talk());
    let mut config = config(&kernel, 1);
    config.console = Console::Serial;
    let vm: Vm = Vm::on(&kvm(), config).unwrap();
    vm.restrict_thread().unwrap();
    process::exit(i32::from(vm.run().unwrap().exit != Exit::PowerOff));
}

/// Runs the guest with a reader that begins when the guest has ended, behind the `full` bytes that
/// the output holds already.
fn check(test: &str, output: impl Into<OwnedFd>, mut reader: impl Read, full: usize) {
    if env::var_os(MONITOR).is_some() {
        monitor();
    }
    let mut monitor = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MONITOR, "")
        .stdin(output.into())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(monitor.stderr.take().unwrap());
    let end = Exit::PowerOff.to_string();
    let mut lines = log.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(&end)), "it ended otherwise");
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert!(monitor.wait().unwrap().success());
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
    let test = "console::what_it_last_said_reaches_the_slow_reader_of_a_pipe";
    check(test, writer, reader, 0);
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
    let test = "console::what_it_last_said_reaches_the_slow_reader_of_a_socket";
    check(test, writer, reader, full);
}
