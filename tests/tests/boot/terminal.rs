//! A terminal from end to end.

use rustix::process::Signal;
use tests::guest::terminal::{self, Terminal};
use tests::guest::{Guest, Kernel, Rootfs};

use crate::{assert_code, busybox};

#[test]
#[ignore = "boots a guest: make test"]
fn keys_sizes_and_interrupts_reach_the_command_and_the_mode_is_restored() {
    let terminal = Terminal::open(33, 101).unwrap();
    let before = terminal.mode().unwrap();
    assert!(!before.is_raw());
    let (_rootfs, guest) = busybox();
    let mut guest = guest
        .terminal(terminal)
        .env("TERM", "vt220")
        .start(["/bin/sh", "-c", terminal::SCRIPT])
        .unwrap();

    guest.wait_for("size 33 101\r\n").unwrap();
    guest.wait_for("/dev/pts/0\r\n").unwrap();
    guest.wait_for("term vt220\r\n").unwrap();
    guest.wait_for("warning\r\n").unwrap();
    guest.wait_for("ready\r\n").unwrap();
    assert!(guest.terminal().unwrap().mode().unwrap().is_raw());

    // The guest's terminal echoes what is typed, then the shell answers.
    guest.write("hello\r").unwrap();
    guest.wait_for("hello\r\n<hello>\r\n").unwrap();
    guest.terminal().unwrap().resize(50, 132).unwrap();
    guest.signal(Signal::WINCH).unwrap();
    guest.wait_for("now 50 132\r\n").unwrap();
    guest.write("\x03").unwrap();
    guest.wait_for("interrupted\r\n").unwrap();
    guest.write("quit\r").unwrap();

    let done = guest.wait().unwrap();
    assert_code(&done, 5);
    assert_eq!(done.mode, Some(before));
    assert_eq!(done.stderr(), "");
}

/// Ctrl-C ends a command that does not catch it, unless it is the first process, as in a container.
#[test]
#[ignore = "boots a guest: make test"]
fn ctrl_c_ends_a_child_of_the_command() {
    let (_rootfs, guest) = busybox();
    let mut guest = guest
        .terminal(Terminal::open(24, 80).unwrap())
        .start([
            "/bin/sh",
            "-c",
            "trap : INT; echo ready; cat; echo \"cat: $?\"; exit 6",
        ])
        .unwrap();
    guest.wait_for("ready\r\n").unwrap();
    guest.write("line\r").unwrap();
    guest.wait_for("line\r\nline\r\n").unwrap();
    guest.write("\x03").unwrap();
    guest.wait_for("cat: 130\r\n").unwrap();
    assert_code(&guest.wait().unwrap(), 6);
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_mode_is_restored_when_the_guest_resets() {
    let terminal = Terminal::open(24, 80).unwrap();
    let before = terminal.mode().unwrap();
    let rootfs = Rootfs::new().unwrap();
    let done = Guest::with(Kernel::StockCloud, &rootfs)
        .unwrap()
        .terminal(terminal)
        .shell("echo b >/proc/sysrq-trigger; read never")
        .unwrap();
    assert_code(&done, 3);
    assert_eq!(done.mode, Some(before));
}
