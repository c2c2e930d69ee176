//! The kernel's console, beside a command and without one.

use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::guest::{Finished, Guest, Kernel, Rootfs, Running, shell_initrd};

use crate::{assert_code, assert_silent, busybox};

/// The kernel's log is no device of a container; the numbers are those of the kernel's
/// admin-guide/devices.txt.
const SCRIPT: &str = "mknod /dev/kmsg c 1 11; echo to stdout; echo to the console >/dev/kmsg";

fn with_command(kernel: Kernel, console: &str) -> Finished {
    let rootfs = Rootfs::new().unwrap();
    let guest = Guest::with(kernel, &rootfs)
        .unwrap()
        .option("--console", console);
    guest.shell(SCRIPT).unwrap()
}

/// Asserts that the standard error has the kernel's messages, this one among them, and the standard
/// output only the command's.
#[track_caller]
fn assert_apart(done: &Finished, word: &str) {
    assert_code(done, 0);
    assert_eq!(done.stdout(), "to stdout\n");
    for word in [word, "to the console"] {
        assert!(done.stderr().contains(word), "{word}: {}", done.stderr());
    }
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_serial_console_is_on_stderr_beside_a_command() {
    assert_apart(&with_command(Kernel::Lean, "serial"), "Linux version");
}

/// Linux drops what it had to say before the driver was there.
#[test]
#[ignore = "boots a guest: make test"]
fn the_virtio_console_is_on_stderr_beside_a_command() {
    assert_apart(
        &with_command(Kernel::Lean, "virtio"),
        "Freeing unused kernel",
    );
}

#[test]
#[ignore = "boots a guest: make test"]
fn the_stock_kernels_serial_console_is_on_stderr_beside_a_command() {
    assert_apart(&with_command(Kernel::StockCloud, "serial"), "Linux version");
}

#[test]
#[ignore = "boots a guest: make test"]
fn without_a_console_the_kernel_is_silent() {
    let (_rootfs, guest) = busybox();
    let done = guest.shell(SCRIPT).unwrap();
    assert_code(&done, 0);
    assert_eq!(done.stdout(), "to stdout\n");
    assert_silent(&done);
}

/// A guest without a command: a shell on its console.
fn shell_on(console: &str, directory: &Path) -> Running {
    let initrd = directory.join("initrd");
    shell_initrd(&initrd).unwrap();
    let (kernel, _) = Kernel::Lean.files().unwrap();
    let mut guest = Guest::bare()
        .unwrap()
        .option("--kernel", kernel)
        .option("--initrd", initrd)
        .option("--console", console)
        .args(["--cmdline", "rdinit=/bin/sh"])
        .open_stdin()
        .launch()
        .unwrap();
    guest.wait_for("# ").unwrap();
    guest.write("echo $((6 * 7)) answers\n").unwrap();
    guest.wait_for("42 answers").unwrap();
    guest
}

fn types(console: &str, line: &str) -> Finished {
    let directory = TempDir::new().unwrap();
    let mut guest = shell_on(console, directory.path());
    guest.write(line).unwrap();
    guest.wait().unwrap()
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_shell_on_the_serial_console_powers_off() {
    let done = types("serial", "poweroff -f\n");
    assert_code(&done, 0);
    assert_silent(&done);
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_shell_on_the_virtio_console_resets() {
    let done = types("virtio", "reboot -f\n");
    assert_code(&done, 3);
}

/// Without a command there is nobody in the guest to take a signal.
#[test]
#[ignore = "boots a guest: make test"]
fn a_signal_ends_a_guest_without_a_command() {
    let directory = TempDir::new().unwrap();
    let guest = shell_on("serial", directory.path());
    guest.signal(Signal::TERM).unwrap();
    assert_code(&guest.wait().unwrap(), 128 + 15);
}
