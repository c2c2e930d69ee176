//! Guests that end in other ways than by the end of the command.

use tests::guest::{Finished, Guest, Kernel, Rootfs};

use crate::{assert_code, busybox};

/// Presses a key of the kernel's emergency keyboard (Documentation/admin-guide/sysrq.rst), which
/// only the stock kernels have, and then waits for what comes.
fn sysrq(key: char, cmdline: &str) -> Finished {
    let rootfs = Rootfs::new().unwrap();
    Guest::with(Kernel::StockCloud, &rootfs)
        .unwrap()
        .option("--cmdline", cmdline)
        .open_stdin()
        .shell(&format!("echo {key} >/proc/sysrq-trigger; read never"))
        .unwrap()
}

#[track_caller]
fn assert_ends_so(done: &Finished, code: i32, word: &str) {
    assert_code(done, code);
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    assert!(done.stderr().starts_with("runq-vmm: "), "{}", done.stderr());
    assert!(done.stderr().contains(word), "{}", done.stderr());
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_reset_is_3() {
    assert_ends_so(&sysrq('b', ""), 3, "reset");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_reset_by_the_keyboard_controller_is_3() {
    assert_ends_so(&sysrq('b', "reboot=k"), 3, "reset");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_triple_fault_is_4() {
    assert_ends_so(&sysrq('b', "reboot=t"), 4, "triple fault");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_panic_is_5() {
    assert_ends_so(&sysrq('c', ""), 5, "panic");
}

#[test]
#[ignore = "boots a guest: make test"]
fn a_power_off_before_the_command_ended_is_1() {
    assert_ends_so(&sysrq('o', ""), 1, "powered off");
}

/// The lean kernel has no driver for the emergency keyboard, but it panics without any root.
#[test]
#[ignore = "boots a guest: make test"]
fn a_panic_of_the_lean_kernel_is_5_and_can_be_read() {
    let (kernel, _) = Kernel::Lean.files().unwrap();
    let done = Guest::bare()
        .unwrap()
        .option("--kernel", kernel)
        .launch()
        .unwrap()
        .wait()
        .unwrap();
    assert_ends_so(&done, 5, "panic");
    assert!(done.stdout().contains("Kernel panic"), "{}", done.stdout());
}

/// In a PID namespace, reboot(2) ends the first process by SIGHUP, as Docker's users know it.
#[test]
#[ignore = "boots a guest: make test"]
fn a_reboot_by_the_command_ends_it() {
    let (_rootfs, guest) = busybox();
    assert_code(&guest.shell("reboot -f; read never").unwrap(), 129);
}
