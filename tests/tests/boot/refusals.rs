//! What cannot be run is refused in one line that names the thing, without a panic.
//!
//! What the options alone show is tested beside the monitor's command line; this is what only shows on a host with KVM.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tests::guest::{Finished, Guest, Kernel};

/// Asserts one line that has all these words, and the exit code.
#[track_caller]
fn assert_refused(done: &Finished, code: i32, words: &[&str]) {
    let text = done.stderr();
    assert_eq!(done.code(), Some(code), "{text}");
    assert_eq!(done.stdout(), "");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.starts_with("runq-vmm: ") && text.ends_with('\n'),
        "{text}"
    );
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    for word in ["panicked", "backtrace", "RUST_"] {
        assert!(!text.contains(word), "{text}");
    }
}

/// A kernel with an initrd, and no command.
fn kernel(path: impl Into<PathBuf>) -> Guest {
    Guest::bare().unwrap().option("--kernel", path.into())
}

fn lean() -> Guest {
    kernel(Kernel::Lean.files().unwrap().0)
}

fn end(guest: Guest) -> Finished {
    guest.launch().unwrap().wait().unwrap()
}

/// A scratch file with these contents.
fn file(contents: &[u8]) -> (TempDir, PathBuf) {
    let directory = TempDir::new_in("/var/tmp").unwrap();
    let path = directory.path().join("the-file");
    fs::write(&path, contents).unwrap();
    (directory, path)
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_kernel_that_is_missing() {
    assert_refused(&end(kernel("/no/such/kernel")), 1, &["/no/such/kernel"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_kernel_that_is_a_directory() {
    assert_refused(&end(kernel("/var/tmp")), 1, &["/var/tmp"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_kernel_that_is_empty_or_no_kernel() {
    for contents in [&b""[..], b"x", b"#!/bin/sh\nexit 0\n", &[0; 65536]] {
        let (_directory, path) = file(contents);
        assert_refused(&end(kernel(&path)), 1, &["the-file"]);
    }
}

/// As a copy that was broken off leaves it: at every stage of the format.
#[test]
#[ignore = "needs KVM: make test"]
fn a_kernel_that_is_truncated() {
    for (kernel_file, _) in [Kernel::Lean, Kernel::StockCloud].map(|k| k.files().unwrap()) {
        let whole = fs::read(kernel_file).unwrap();
        for length in [20, 64, 600, 5000, whole.len() / 2] {
            let (_directory, path) = file(&whole[..length]);
            assert_refused(&end(kernel(&path)), 1, &["the-file"]);
        }
    }
}

/// What a bzImage needs to unpack itself is in its header.
#[test]
#[ignore = "needs KVM: make test"]
fn a_kernel_that_needs_more_memory() {
    let guest = kernel(Kernel::StockCloud.files().unwrap().0).args(["--mem", "64"]);
    assert_refused(&end(guest), 1, &["stock-cloud/vmlinuz", "memory", "64 MiB"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn an_initrd_that_is_missing() {
    assert_refused(
        &end(lean().args(["--initrd", "/no/such/initrd"])),
        1,
        &["/no/such/initrd"],
    );
}

#[test]
#[ignore = "needs KVM: make test"]
fn an_initrd_larger_than_memory() {
    let (_directory, path) = file(b"");
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(200 << 20)
        .unwrap();
    let guest = lean().args(["--mem", "64"]).option("--initrd", &path);
    assert_refused(&end(guest), 1, &["the-file"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn memory_that_the_host_does_not_have() {
    assert_refused(
        &end(lean().args(["--mem", "4T"])),
        1,
        &["memory", "4194304"],
    );
}

#[test]
#[ignore = "needs KVM: make test"]
fn more_processors_than_kvm_has() {
    assert_refused(&end(lean().args(["--cpus", "100000"])), 1, &["100000"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_share_that_is_missing_or_no_directory() {
    assert_refused(
        &end(lean().args(["--share", "data=/no/such/dir"])),
        1,
        &["/no/such/dir"],
    );
    assert_refused(
        &end(lean().args(["--share", "data=/bin/busybox"])),
        1,
        &["/bin/busybox"],
    );
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_root_that_is_missing() {
    let (kernel_file, initrd) = Kernel::Lean.files().unwrap();
    let guest = kernel(kernel_file)
        .option("--initrd", initrd)
        .args(["--rootfs", "/no/such/root"]);
    let done = guest.run(["/bin/true"]).unwrap();
    assert_refused(&done, 1, &["/no/such/root"]);
}

/// A tag has 36 bytes in the device's configuration (virtio 1.3, section 5.11.4).
#[test]
#[ignore = "needs KVM: make test"]
fn a_tag_that_is_too_long() {
    let share = format!("{}=/var/tmp", "t".repeat(37));
    let done = end(lean().option("--share", share));
    assert!([Some(1), Some(2)].contains(&done.code()), "{done:?}");
    assert_refused(&done, done.code().unwrap(), &["tttt"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn no_dev_kvm() {
    assert_refused(
        &end(lean().after("mount -t tmpfs none /dev")),
        1,
        &["/dev/kvm", "not found"],
    );
}

#[test]
#[ignore = "needs KVM: make test"]
fn no_permission_for_dev_kvm() {
    // The numbers of KVM's device: Documentation/admin-guide/devices.txt of Linux.
    let node = "mount -t tmpfs none /dev; mknod -m 600 /dev/kvm c 10 232";
    let change = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let guest = lean().after(&format!("{node}; exec {change} \"$0\" \"$@\""));
    assert_refused(&end(guest), 1, &["/dev/kvm", "permission denied"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_dev_kvm_that_is_something_else() {
    let guest = lean().after("mount --bind /dev/null /dev/kvm");
    assert_refused(&end(guest), 1, &["/dev/kvm"]);
}

#[test]
#[ignore = "needs KVM: make test"]
fn a_kvm_that_cannot_run_linux() {
    let (_directory, path) = file(b"");
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    fs::write(&path, cpuinfo.replace(" svm", "").replace(" vmx", "")).unwrap();
    let guest = lean().after(&format!("mount --bind {} /proc/cpuinfo", path.display()));
    assert_refused(&end(guest), 1, &["/dev/kvm", "vmx", "svm"]);
}
