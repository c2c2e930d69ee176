//! Signals to the monitor.

use rustix::process::Signal;

use crate::{assert_code, assert_silent, busybox};

/// Waits for signals. `read` would miss one that comes just before it sleeps; `wait` does not.
const WAIT: &str = "echo ready; sleep 1000 & while :; do wait; done";

#[test]
#[ignore = "boots a guest: make test"]
fn a_signal_reaches_the_commands_handler() {
    let (_rootfs, guest) = busybox();
    let script = format!("trap 'echo usr1' USR1; trap 'exit 42' TERM; {WAIT}");
    let mut guest = guest.start(["/bin/sh", "-c", &script]).unwrap();
    guest.wait_for("ready\n").unwrap();
    guest.signal(Signal::USR1).unwrap();
    guest.wait_for("usr1\n").unwrap();
    guest.signal(Signal::TERM).unwrap();
    let done = guest.wait().unwrap();
    assert_code(&done, 42);
    assert_silent(&done);
}

/// The first process of a PID namespace gets only signals that it handles. SIGCONT comes behind
/// SIGTERM: when the former is handled, the latter has been ignored.
#[test]
#[ignore = "boots a guest: make test"]
fn a_first_process_without_a_handler_ignores_a_signal_as_in_a_container() {
    let (_rootfs, guest) = busybox();
    let script = format!("trap 'echo continued; exit 8' CONT; {WAIT}");
    let mut guest = guest.start(["/bin/sh", "-c", &script]).unwrap();
    guest.wait_for("ready\n").unwrap();
    guest.signal(Signal::TERM).unwrap();
    guest.signal(Signal::CONT).unwrap();
    guest.wait_for("continued\n").unwrap();
    assert_code(&guest.wait().unwrap(), 8);
}

#[test]
#[ignore = "boots a guest: make test"]
fn sigkill_ends_all_at_once() {
    let (rootfs, guest) = busybox();
    let mut guest = guest.start(["/bin/sh", "-c", WAIT]).unwrap();
    guest.wait_for("ready\n").unwrap();
    guest.signal(Signal::KILL).unwrap();
    // That its streams end shows that no process of it is left.
    let done = guest.wait().unwrap();
    assert_eq!((done.code(), done.signal()), (None, Some(9)));
    assert!(rootfs.join("bin/busybox").exists());
}
